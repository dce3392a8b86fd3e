"""How much of an experiment's file was run: what is left, and the commands for what is there."""

from __future__ import annotations

import glob
import itertools
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from samt.bench.errors import ExperimentError
from samt.bench.experiments.files import load_experiment
from samt.bench.experiments.grid import WIDTHLESS
from samt.bench.report import wording
from samt.bench.terminal import writable

if TYPE_CHECKING:
    import pandas as pd

_AXES = ("data", "model", "width", "label")
_ONLY = {"label": "method"}  # where `samt run --only` has another word
_MOST_PLACES = 100_000


class Place(NamedTuple):
    """A combination of an experiment's file."""

    data: str
    model: str
    width: str
    label: str


@dataclass(frozen=True)
class Coverage:
    """What of a file was run.

    Args:
        places: number of combinations of data, network, width and method in the file.
        run: number of them that have a cell that counts.
        left: the others, in words.
        commands: that run what was run, and nothing else of the file.
    """

    places: int
    run: int
    left: Sequence[str]
    commands: Sequence[str]


def coverage(record: Mapping[str, Any], cells: pd.DataFrame) -> Coverage | None:
    """Compare an experiment's cells with its file.

    Args:
        record: of the experiment.
        cells: of `frames.cells_frame`.

    Returns:
        None if the record does not say what stands in the file.
    """
    axes = _axes(record.get("order"))
    if axes is None or math.prod(map(len, axes.values())) > _MOST_PLACES:
        return None
    there = set(_places(axes))
    final = cells[cells["role"] == "final"].fillna({"width": ""})
    run = {Place(*map(str, row)) for row in final[list(_AXES)].to_numpy()} & there
    # What is said of them stands where the reason does.
    absent = record.get("absent")
    left = {place for place in there - run if place.data not in (absent or ())}
    return Coverage(len(there), len(run), _left(axes, run, left), _commands(record, axes, run))


def run_words(record: Mapping[str, Any]) -> list[str]:
    """The command that runs the whole file of an experiment; nothing if it is not known.

    Args:
        record: of the experiment.
    """
    file, profile = (writable(str(record.get(name) or "")) for name in ("file", "profile"))
    return ["samt", "run", file, *(["--profile", profile] if profile else [])] if file else []


def beside(file: str, profile: str, known: Collection[str]) -> list[str]:
    """Titles of the experiments in the folder of a file that have no result at all.

    Args:
        file: of an experiment that has some.
        profile: of the file.
        known: names of the experiments that have some.
    """
    found = _folder(str(Path(file).expanduser().parent), profile or None) if file else {}
    return [title or name for name, title in found.items() if name not in known]


@cache
def _folder(folder: str, profile: str | None) -> dict[str, str]:
    """Names and titles; of files that cannot be read there is nothing to say."""
    found: dict[str, str] = {}
    for path in sorted(Path(folder).glob("*.yaml")):
        with suppress(ExperimentError):
            one = load_experiment(path, profile)
            found[one.name] = one.title
    return found


def _axes(order: object) -> dict[str, list[str]] | None:
    if not isinstance(order, Mapping) or not all(isinstance(order.get(a), list) for a in _AXES):
        return None
    return {axis: [writable(str(value)) for value in order[axis]] for axis in _AXES}


def _places(axes: Mapping[str, Sequence[str]]) -> list[Place]:
    return [
        Place(data, model, width, label)
        for data, model in itertools.product(axes["data"], axes["model"])
        for width in _widths(axes, model)
        for label in axes["label"]
    ]


def _widths(axes: Mapping[str, Sequence[str]], model: str) -> Sequence[str]:
    return [""] if model.partition(":")[0] in WIDTHLESS else axes["width"]


def _left(axes: Mapping[str, Sequence[str]], run: set[Place], left: set[Place]) -> list[str]:
    """First the values that have no cell at all, then what is left of the others."""
    lines = []
    for index, axis in enumerate(_AXES):
        wanted = {place[index] for place in left} - {place[index] for place in run}
        values = [one for one in axes[axis] if one in wanted]
        if values:
            name = {1: "width "}.get(len(values), "widths ") if axis == "width" else ""
            lines.append(name + wording.joined(values))
        left = {place for place in left if place[index] not in wanted}
    begun = {place[:3] for place in run}
    for data, model in itertools.product(axes["data"], axes["model"]):
        for width in _widths(axes, model):
            labels = [one for one in axes["label"] if Place(data, model, width, one) in left]
            if labels:
                what = f": {wording.joined(labels)}" if (data, model, width) in begun else ""
                lines.append(wording.place(data, model, width) + what)
    return lines


def _commands(
    record: Mapping[str, Any], axes: Mapping[str, Sequence[str]], run: set[Place]
) -> list[str]:
    """Data sets that have the same cells share a command."""
    start = run_words(record)
    if not start:
        return []
    alike: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for data, model in itertools.product(axes["data"], axes["model"]):
        by_labels: dict[tuple[str, ...], list[str]] = {}
        for width in _widths(axes, model):
            labels = tuple(one for one in axes["label"] if Place(data, model, width, one) in run)
            if labels:
                by_labels.setdefault(labels, []).append(width)
        for labels, several in by_labels.items():
            alike.setdefault((model, tuple(several), labels), []).append(data)
    found = []
    for (model, widths, labels), sets in alike.items():
        chosen = {"data": tuple(sets), "model": (model,), "width": widths, "label": labels}
        only = [
            word
            for axis, values in chosen.items()
            if values != ("",) and set(values) != set(axes[axis])
            for value in values
            for word in ("--only", f"{_ONLY.get(axis, axis)}={glob.escape(value)}")
        ]
        found.append(shlex.join([*start, *only]))
    return found
