"""Tables as CSV, numbers in full precision."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from samt.bench.experiments.export import no_formula
from samt.bench.experiments.frames import PENDING
from samt.bench.experiments.store import STATUSES
from samt.bench.report.findings import Findings
from samt.bench.report.grids import Entry
from samt.bench.report.latex import latex_table
from samt.bench.report.wording import scale, slug

_HEAD = (
    *("data", "model", "width", "method", "metric", "seeds"),
    *("final_mean", "final_deviation", "best_mean", "best_deviation"),
    *(status.replace("-", "_") for status in (*STATUSES, *PENDING)),
    *("published", "difference", "pooled_deviation", "verdict", "note"),
)


def table_files(findings: Findings) -> Iterator[tuple[str, str]]:
    """Write the tables of an experiment.

    Args:
        findings: of the experiment.

    Yields:
        Name of a file, and its content: `NAME.csv` with every place, accuracies in per cent;
        `NAME-ranks.csv`; `NAME-differences.csv`; a LaTeX table for each data set and network.
    """
    name = findings.name
    yield f"{name}.csv", csv_text(_HEAD, _numbers(findings))
    ranks = ([one.label, one.mean, one.n] for one in findings.ranks)
    yield f"{name}-ranks.csv", csv_text(("method", "mean_rank", "combinations"), ranks)
    yield f"{name}-differences.csv", csv_text(_DIFFERENCES, _differences(findings))
    for grid in findings.grids:
        for pick in ("final", "best"):
            yield f"{slug(name, grid.data, grid.model, pick)}.tex", latex_table(grid, pick)


def _numbers(findings: Findings) -> Iterator[list[Any]]:
    for grid in findings.grids:
        for (label, width), entry in grid.entries.items():
            yield [grid.data, grid.model, width, label, *_entry(entry)]


def _entry(entry: Entry) -> list[Any]:
    final, best = entry.spread("final"), entry.spread("best")
    published, comparison = entry.published, entry.comparison("final")
    return [
        *(entry.metric, sum(entry.statuses.values())),
        *(final.mean, final.deviation, best.mean, best.deviation),
        *(entry.statuses.get(status, 0) for status in (*STATUSES, *PENDING)),
        published.value if published else math.nan,
        comparison.difference if comparison else math.nan,
        entry.deviations.get("final", math.nan),
        comparison.verdict if comparison else "",
        published.note if published else "",
    ]


_DIFFERENCES = (
    *("data", "model", "width", "metric", "method", "against", "seeds", "unfinished"),
    *("mean", "low", "high"),
)


def _differences(findings: Findings) -> Iterator[list[Any]]:
    for one in findings.differences:
        unit = scale(one.metric)
        yield [
            *(one.data, one.model, one.width, one.metric, one.label, one.against),
            *(one.n, one.unfinished, one.mean * unit, one.low * unit, one.high * unit),
        ]


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV: numbers in full precision, nothing where there is none, and no formulas.

    Args:
        head: names of the columns.
        rows: what stands below them.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    for row in rows:
        table.writerow([_value(value) for value in row])
    return text.getvalue()


def _value(value: Any) -> Any:
    """Nothing where there is no number."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    return no_formula(value) if isinstance(value, str) else value
