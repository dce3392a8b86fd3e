"""Experiment files: where they are, and how they are read. YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from samt.bench.errors import ExperimentError
from samt.bench.experiments.mistakes import explained
from samt.bench.experiments.spec import Budget, Experiment, Method, Strict, Tuning
from samt.bench.experiments.yaml_lines import Lines, read_yaml
from samt.errors import suggestion

FOLDER = "paper"  # of published tables and figures
SUITE = "suite"  # is no file: `samt.bench.suite` has its problems
# It becomes a part of the name of the results.
_PROFILE = re.compile(r"[A-Za-z0-9.-]{1,30}")


def load_experiment(path: Path, profile: str | None = None) -> Experiment:
    """Read an experiment file.

    Args:
        path: of it.
        profile: the key of its `profiles` whose values replace those of the file; by default
            `paper` if there is one.

    Raises:
        ExperimentError: file, line and field of the first mistake.
    """
    content, lines = read_yaml(path)
    profiles = _profiles(content, lines)
    if profile is None and "paper" in profiles:
        profile = "paper"
    if profile is not None and profile not in profiles:
        known = suggestion(profile, profiles) if profiles else "the file has none"
        raise ExperimentError(f"{path} has no profile '{profile}': {known}")
    experiment = _checked(content, (), lines, {})
    for name, changes in profiles.items():  # all of them, so that none rots
        changed = _checked({**content, **changes}, ("profiles", name), lines, changes)
        experiment = changed if name == profile else experiment
    # Results of two profiles must not be taken for one experiment.
    return experiment if profile in (None, "paper") else _renamed(experiment, profile)


def _profiles(content: dict[str, Any], lines: Lines) -> dict[str, dict[str, Any]]:
    """Take the profiles out of the content."""
    found = content.pop("profiles", {})
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise lines.error(("profiles",), "profiles map a name to the fields that it replaces")
    for one in found:
        if not _PROFILE.fullmatch(one):
            raise lines.error(("profiles", one), "write up to 30 letters, digits, dots, hyphens")
    return found


def _checked(
    content: dict[str, Any], prefix: tuple[str, ...], lines: Lines, own: Mapping[str, Any]
) -> Experiment:
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        below: dict[str, type[Strict]] = {"methods": Method, "budget": Budget, "tuning": Tuning}
        known = {name: list(model.model_fields) for name, model in below.items()}
        known[""] = [*Experiment.model_fields, *([] if prefix else ["profiles"])]
        raise explained(error, lines, known, prefix, own) from error


def _renamed(experiment: Experiment, profile: str) -> Experiment:
    if profile == experiment.name:
        return experiment
    name, title = f"{experiment.name}-{profile}", f"{experiment.title} ({profile})".strip()
    return experiment.model_copy(update={"name": name, "title": title})


def folders() -> tuple[Path, Path]:
    """Where experiments lie: in the package or its checkout; and in the folder here, which wins."""
    here = Path(__file__)
    packaged, checkout = here.parents[1] / FOLDER, here.parents[4] / FOLDER
    return packaged if packaged.is_dir() else checkout, Path(FOLDER)


def locate(name: str) -> list[Path]:
    """The files of an experiment.

    Args:
        name: a path; the name of a file in the folder `paper`; or `paper`, for all in it. The
            folder is looked for here and in the package.

    Returns:
        One path, or all of the folder.

    Raises:
        ExperimentError: there is none.
    """
    try:
        path = Path(name).expanduser()
        is_file = path.is_file()
    except (OSError, RuntimeError) as error:
        raise ExperimentError(f"cannot read {name} ({error}): check the path") from error
    if path.suffix in (".yaml", ".yml") or is_file:
        if not is_file:
            raise ExperimentError(f"there is no {path}: check the path of the experiment file")
        return [path]
    known = {file.stem: file for folder in folders() for file in sorted(folder.glob("*.yaml"))}
    if name == FOLDER and known:
        return list(known.values())
    if name not in known:
        meant = f"give the path of a .yaml file, or {suggestion(name, [*known, FOLDER, SUITE])}"
        raise ExperimentError(f"there is no experiment '{name}': {meant}")
    return [known[name]]
