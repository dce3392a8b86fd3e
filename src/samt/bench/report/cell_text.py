"""What stands in one place of a table, as text: the same on the page and in LaTeX."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from samt.bench.report.grids import Entry, Grid, Verdict
from samt.bench.report.wording import decimals, number, signed, spread, unfinished
from samt.bench.statistics import Metric

Kind = Literal["measured", "unfinished", "not run", "elsewhere", "none"]
_FEW = 5  # values that are written one by one


@dataclass(frozen=True)
class CellText:
    """One place of a table.

    Args:
        kind: "measured", "unfinished" where a seed did not finish, "not run", "elsewhere" for a
            published number without a cell, "none" for a place that neither has.
        main: the mean with its deviation, or what happened.
        seeds: number of seeds that the mean is over; 0 without one.
        is_best: the best mean of its column.
        remarks: what else is to be said: seeds that did finish, seeds that were not run, reasons.
        published: the published number, or the note that stands in its place, saying so.
        difference: measured minus published; "" if one of them is missing.
        verdict: on the difference.
    """

    kind: Kind
    main: str
    seeds: int = 0
    is_best: bool = False
    remarks: tuple[str, ...] = ()
    published: str = ""
    difference: str = ""
    verdict: Verdict | Literal[""] = ""


def cell_text(grid: Grid, label: str, width: str, pick: Metric) -> CellText:
    """Put a place into words.

    Args:
        grid: the table.
        label: row.
        width: column.
        pick: the final metric or the best one.
    """
    entry = grid.entry(label, width)
    published = _published(entry)
    if not entry.statuses:
        if entry.published is None:
            return CellText("none", "\N{EN DASH}")
        return CellText(
            *("elsewhere", "not run here"),
            remarks=("its data are not here",) if grid.absent else (),
            published=published,
        )
    if set(entry.statuses) == {"missing"}:
        return CellText("not run", "not run", published=published)
    statistic = entry.spread(pick)
    if not math.isfinite(statistic.mean):
        return _unfinished(entry, pick, published)
    comparison = entry.comparison(pick)
    return CellText(
        "measured",
        spread(grid.metric, statistic),
        seeds=statistic.n,
        is_best=label in grid.best(width, pick),
        remarks=tuple(unfinished(entry.statuses)),
        published=published,
        difference=_difference(entry, pick),
        verdict=comparison.verdict if comparison else "",
    )


def _unfinished(entry: Entry, pick: Metric, published: str) -> CellText:
    """Seeds that finished are listed, never averaged without the others."""
    main = ", ".join(unfinished(entry.statuses))
    values = sorted(entry.values.get(pick, ()))
    remarks: tuple[str, ...] = ()
    if values:
        texts = [number(value, decimals(entry.metric, value)) for value in values]
        shown = ", ".join(texts) if len(texts) <= _FEW else f"{texts[0]} to {texts[-1]}"
        remarks = (f"{len(values)} finished: {shown}",)
    return CellText("unfinished", main, remarks=remarks, published=published)


def _published(entry: Entry) -> str:
    one = entry.published
    if one is None:
        return ""
    if not one.is_number:
        return f"published: {one.note or 'no value'}"
    return "published " + number(one.value, decimals(one.metric, one.value))


def _difference(entry: Entry, pick: Metric) -> str:
    comparison = entry.comparison(pick)
    if comparison is None:
        return ""
    digits = decimals(entry.metric, entry.spread(pick).mean)
    return signed(comparison.difference, digits)
