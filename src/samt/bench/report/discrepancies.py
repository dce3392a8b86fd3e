"""What could not be reproduced, found in the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from samt.bench.report.grids import Comparison, Grid
from samt.bench.report.reported import Published
from samt.bench.statistics import Spread

if TYPE_CHECKING:
    import pandas as pd

_LONGEST = 300  # characters of an error


@dataclass(frozen=True)
class Gap:
    """A published number that the measured mean does not agree with."""

    published: Published
    measured: Spread
    comparison: Comparison

    @property
    def deviations(self) -> float:
        """Size of the difference in standard deviations; NaN if none is known."""
        deviation = self.comparison.deviation
        size = abs(self.comparison.difference)
        return size / deviation if deviation > 0 else math.nan


@dataclass(frozen=True)
class Unfinished:
    """Seeds of one place that did not finish.

    Args:
        data: name of the data set.
        model: name of the network.
        width: widths of its hidden layers.
        label: name of the method.
        statuses: number of seeds by status, all seeds of the place.
        published: what should have come out, or NaN.
        errors: what those that failed said, without repetition.
    """

    data: str
    model: str
    width: str
    label: str
    statuses: Mapping[str, int]
    published: float = math.nan
    errors: Sequence[str] = ()


@dataclass(frozen=True)
class Unavailable:
    """A published place that has no cell here, or data that are not here."""

    data: str
    model: str
    width: str
    label: str
    value: float
    reason: str


@dataclass(frozen=True)
class Discrepancies:
    """Everything that could not be reproduced.

    Args:
        compared: published numbers that stand beside a measured mean.
        gaps: those that the mean does not agree with.
        unfinished: seeds that did not finish, or were not run.
        unavailable: what has no cell.
    """

    compared: int
    gaps: Sequence[Gap]
    unfinished: Sequence[Unfinished]
    unavailable: Sequence[Unavailable]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.gaps or self.unfinished or self.unavailable)


def discrepancies(
    grids: Sequence[Grid],
    cells: pd.DataFrame,
    absent: Mapping[str, str],
) -> Discrepancies:
    """Compare an experiment with what was published, by the final metric.

    Args:
        grids: its tables.
        cells: its cells, for their errors.
        absent: data sets that were not there, with the reason.
    """
    compared, gaps, unfinished, unavailable = 0, [], [], []
    errors = _errors(cells)
    for grid in grids:
        for (label, width), entry in grid.entries.items():
            where = (grid.data, grid.model, width, label)
            comparison = entry.comparison("final")
            if comparison is not None and entry.published is not None:
                compared += 1
                if comparison.verdict != "agrees":
                    gaps.append(Gap(entry.published, entry.spread("final"), comparison))
            if not entry.statuses and entry.published is not None:
                reason = grid.absent or entry.published.note or "no cell of the experiment"
                unavailable.append(Unavailable(*where, entry.published.value, reason))
            if any(status != "finished" for status in entry.statuses):
                value = entry.published.value if entry.published else math.nan
                unfinished.append(Unfinished(*where, entry.statuses, value, errors.get(where, ())))
    named = {grid.data for grid in grids}
    unavailable += [
        Unavailable(data, "", "", "", math.nan, reason)
        for data, reason in absent.items()
        if data not in named
    ]
    return Discrepancies(compared, gaps, unfinished, unavailable)


def _errors(cells: pd.DataFrame) -> dict[tuple[str, str, str, str], list[str]]:
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for row in cells[cells["error"].notna()].to_dict("records"):
        if row["role"] == "final" and isinstance(row["width"], str):
            key = (row["data"], row["model"], row["width"], row["label"])
            found.setdefault(key, []).append(_short(row["error"]))
    return {key: list(dict.fromkeys(errors)) for key, errors in found.items()}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
