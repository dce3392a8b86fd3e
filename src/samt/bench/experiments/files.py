"""Experiment files: where they are, and how they are read. YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from samt.bench.errors import ExperimentError
from samt.bench.experiments.mistakes import explained
from samt.bench.experiments.spec import Budget, Experiment, Method, Strict, Tuning
from samt.bench.experiments.yaml_lines import Lines, read_yaml
from samt.errors import suggestion

# Published tables and figures; and problems to judge a default by.
FOLDERS = ("paper", "suite")
# Both become a part of the name of the results.
_PROFILE = re.compile(r"[A-Za-z0-9.-]{1,30}")


def load_experiments(path: Path, profile: str | None = None) -> list[Experiment]:
    """Read an experiment file.

    Args:
        path: of it.
        profile: the key of its `profiles` whose values replace those of the file; by default
            `paper` if there is one.

    Returns:
        One experiment; or one for each of the file's `problems`, whose values replace those of the
        file in turn.

    Raises:
        ExperimentError: file, line and field of the first mistake.
    """
    content, lines = read_yaml(path)
    profiles = _named(content, "profiles", lines)
    if profile is None and "paper" in profiles:
        profile = "paper"
    if profile is not None and profile not in profiles:
        known = suggestion(profile, profiles) if profiles else "the file has none"
        raise ExperimentError(f"{path} has no profile '{profile}': {known}")
    experiments = list(_problems(content, (), lines))
    for name, changes in profiles.items():  # all of them, so that none rots
        changed = list(_problems({**content, **changes}, ("profiles", name), lines, changes))
        experiments = changed if name == profile else experiments
    if profile in (None, "paper"):
        return experiments
    # Results of two profiles must not be taken for one experiment.
    return [_renamed(one, profile) for one in experiments]


def _named(content: dict[str, Any], field: str, lines: Lines) -> dict[str, dict[str, Any]]:
    """Take a mapping from names to fields out of the content."""
    found = content.pop(field, {})
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise lines.error((field,), f"{field} map a name to the fields that it replaces")
    for one in found:
        if not _PROFILE.fullmatch(one):
            raise lines.error((field, one), "write up to 30 letters, digits, dots, hyphens")
    return found


def _problems(
    content: dict[str, Any], prefix: tuple[str, ...], lines: Lines, own: Mapping[str, Any] = {}
) -> Iterator[Experiment]:
    """The experiment; or one for each problem, named and titled after it."""
    content = dict(content)
    above = prefix if "problems" in own else ()
    problems = _named(content, "problems", lines)
    if not problems:
        yield _checked(content, prefix, lines, own)
    for name, changes in problems.items():
        titles = [str(one["title"]) for one in (content, changes) if one.get("title")]
        yield _checked(
            {**content, **changes, "name": f"{content.get('name')}-{name}"}
            | ({"title": ": ".join(titles)} if titles else {}),
            (*above, "problems", name),
            lines,
            changes,
        )


def _checked(
    content: dict[str, Any], prefix: tuple[str, ...], lines: Lines, own: Mapping[str, Any]
) -> Experiment:
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        below: dict[str, type[Strict]] = {"methods": Method, "budget": Budget, "tuning": Tuning}
        known = {name: list(model.model_fields) for name, model in below.items()}
        more = [] if "problems" in prefix else ["problems", *([] if prefix else ["profiles"])]
        known[""] = [*Experiment.model_fields, *more]
        raise explained(error, lines, known, prefix, own) from error


def _renamed(experiment: Experiment, profile: str) -> Experiment:
    if profile == experiment.name:
        return experiment
    name, title = f"{experiment.name}-{profile}", f"{experiment.title} ({profile})".strip()
    return experiment.model_copy(update={"name": name, "title": title})


def folders(name: str) -> tuple[Path, Path]:
    """Where a folder of experiments lies: in the package or its checkout; and here, which wins.

    Args:
        name: one of `FOLDERS`.
    """
    here = Path(__file__)
    packaged, checkout = here.parents[1] / name, here.parents[4] / name
    return packaged if packaged.is_dir() else checkout, Path(name)


def locate(name: str) -> list[Path]:
    """The files of an experiment.

    Args:
        name: a path; the name of a file in one of `FOLDERS`; or such a folder, for all in it.
            Folders are looked for here and in the package.

    Returns:
        One path, or all of a folder.

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
    known: dict[str, Path] = {}
    for one in reversed(FOLDERS):  # of two files of one name the published one is meant
        inside = {
            file.stem: file for folder in folders(one) for file in sorted(folder.glob("*.yaml"))
        }
        if name == one and inside:
            return list(inside.values())
        known |= inside
    if name not in known:
        meant = f"give the path of a .yaml file, or {suggestion(name, [*known, *FOLDERS])}"
        raise ExperimentError(f"there is no experiment '{name}': {meant}")
    return [known[name]]
