"""The tables of a publication as data: methods by widths, measured beside published."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from samt.bench.report.reported import Published
from samt.bench.report.wording import by_size, decimals, scale
from samt.bench.statistics import GROUP, GroupSummary, Metric, Spread, summarise

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["agrees", "better", "worse"]
Key: TypeAlias = tuple[str, str, str, str]  # data, model, width, label
_COLUMN: dict[Metric, str] = {"final": "test_metric", "best": "best_test_metric"}
PICKS: tuple[Metric, ...] = ("final", "best")
# A difference counts if it is larger than all of these.
DEVIATIONS, POINTS, SHARE = 2.0, 0.3, 0.05


@dataclass(frozen=True)
class Comparison:
    """A measured mean minus the published number.

    Args:
        difference: in points of accuracy, or units of the RMSE.
        deviation: standard deviation over seeds, pooled over the widths of the method; NaN if
            every width has a single seed.
        verdict: "agrees" unless the difference is larger than 2 deviations and than 0.3 points or
            5 % of an RMSE.
    """

    difference: float
    deviation: float
    verdict: Verdict

    @classmethod
    def of(cls, metric: str, measured: float, published: float, deviation: float) -> Comparison:
        """Compare.

        Args:
            metric: "accuracy" or "rmse".
            measured: mean, in per cent if an accuracy.
            published: number, likewise.
            deviation: pooled.
        """
        difference = measured - published
        least = POINTS if metric == "accuracy" else SHARE * abs(published)
        # Rounded, so that 98.7 - 98.4 is not larger than 0.3.
        size = round(abs(difference), 9)
        counts = size > least and not size <= DEVIATIONS * deviation
        is_better = (difference > 0) == (metric == "accuracy")
        verdict: Verdict = "agrees" if not counts else "better" if is_better else "worse"
        return cls(difference, deviation, verdict)


@dataclass(frozen=True)
class Entry:
    """One place in a table.

    Args:
        metric: "accuracy", "rmse" or "".
        statuses: number of seeds by status, those that were not run as "missing"; empty where the
            experiment has no such cell.
        spreads: over all seeds, final and best, in per cent if an accuracy; NaN unless every seed
            that was run has finished.
        values: of the seeds that finished, final and best.
        deviations: pooled over the widths of the method, final and best.
        published: what stands in the publication, if it has such a place.
    """

    metric: str
    statuses: Mapping[str, int] = field(default_factory=dict)
    spreads: Mapping[Metric, Spread] = field(default_factory=dict)
    values: Mapping[Metric, Sequence[float]] = field(default_factory=dict)
    deviations: Mapping[Metric, float] = field(default_factory=dict)
    published: Published | None = None

    def spread(self, pick: Metric = "final") -> Spread:
        """Mean and deviation over the seeds; NaN if there is nothing to average."""
        return self.spreads.get(pick, Spread(math.nan, math.nan))

    def comparison(self, pick: Metric = "final") -> Comparison | None:
        """Measured against published; None where one of them is no number."""
        mean = self.spread(pick).mean
        if self.published is None or self.published.metric != self.metric:
            return None
        if not self.published.is_number or not math.isfinite(mean):
            return None
        deviation = self.deviations.get(pick, math.nan)
        return Comparison.of(self.metric, mean, self.published.value, deviation)


@dataclass(frozen=True)
class Grid:
    """All methods and widths on one data set and network.

    Args:
        data: name of the data set.
        model: name of the network.
        metric: "accuracy", "rmse" or "".
        widths: the columns.
        labels: the rows.
        entries: by label and width.
        absent: why its data are not here; "" if they are, or nobody said so.
    """

    data: str
    model: str
    metric: str
    widths: Sequence[str]
    labels: Sequence[str]
    entries: Mapping[tuple[str, str], Entry]
    absent: str = ""

    def entry(self, label: str, width: str) -> Entry:
        """The place of a method and a width."""
        return self.entries.get((label, width), Entry(self.metric))

    @property
    def remarks(self) -> list[tuple[str, str, str]]:
        """Method, width and note of the published numbers that have a note."""
        found = ((label, width, one.published) for (label, width), one in self.entries.items())
        return [(label, width, p.note) for label, width, p in found if p and p.is_number and p.note]

    def best(self, width: str, pick: Metric) -> set[str]:
        """Methods with the best mean of a column, as far as its digits are shown."""
        means = {label: self.entry(label, width).spread(pick).mean for label in self.labels}
        finite = {
            label: round(mean, decimals(self.metric, mean))
            for label, mean in means.items()
            if math.isfinite(mean)
        }
        if len(finite) < 2:
            return set()
        best = (max if self.metric == "accuracy" else min)(finite.values())
        return {label for label, mean in finite.items() if mean == best}


def grids(
    cells: pd.DataFrame,
    published: Sequence[Published],
    absent: Mapping[str, str],
) -> list[Grid]:
    """The tables of an experiment.

    Args:
        cells: of `frames.cells_frame`, of one experiment.
        published: its published numbers.
        absent: data sets that were not there when it was run, with the reason.

    Returns:
        One for each data set and network, in the order of the cells; then those of which there
        are published numbers only.
    """
    counting = cells[cells["role"] == "final"]
    statuses = _statuses(counting)
    summaries = {(one.data, one.model, one.width, one.label): one for one in summarise(counting)}
    finished = _finished(counting)
    order = list(dict.fromkeys(counting["label"]))
    places = dict.fromkeys([key[:2] for key in statuses] + [(p.data, p.model) for p in published])
    found = []
    for data, model in places:
        own = {key[2:]: count for key, count in statuses.items() if key[:2] == (data, model)}
        printed = {
            (one.width, one.method): one
            for one in published
            if (one.data, one.model) == (data, model)
        }
        measured = {key: summaries.get((data, model, *key)) for key in own}
        entries = {
            (label, width): replace(entry, values=finished.get((data, model, width, label), {}))
            for (label, width), entry in _entries(own, measured, printed).items()
        }
        metric = _metric(measured.values(), printed.values())
        widths = by_size(width for _, width in entries)
        labels = [one for one in order if any(one == label for _, label in own)]
        labels += dict.fromkeys(label for _, label in printed if label not in labels)
        found.append(Grid(data, model, metric, widths, labels, entries, absent.get(data, "")))
    return found


def _statuses(cells: pd.DataFrame) -> dict[Key, Counter[str]]:
    """Number of cells of each status, by data, model, width and label."""
    found: dict[Key, Counter[str]] = {}
    # A record of an older version names no place.
    for row in cells.dropna(subset=list(GROUP)).to_dict("records"):
        key = (row["data"], row["model"], row["width"], row["label"])
        found.setdefault(key, Counter())[row["status"]] += 1
    return found


def _entries(
    statuses: Mapping[tuple[str, str], Counter[str]],
    measured: Mapping[tuple[str, str], GroupSummary | None],
    printed: Mapping[tuple[str, str], Published],
) -> dict[tuple[str, str], Entry]:
    """By label and width."""
    found = {}
    for width, label in dict.fromkeys((*statuses, *printed)):
        summary, published = measured.get((width, label)), printed.get((width, label))
        beside = [one for (_, other), one in measured.items() if one and other == label]
        metric = _metric([summary], [published])
        entry = Entry(metric, dict(statuses.get((width, label), {})), published=published)
        if summary is not None:
            entry = replace(
                entry,
                spreads={pick: getattr(summary, pick).scaled(scale(metric)) for pick in PICKS},
                deviations={
                    pick: pooled([getattr(one, pick).scaled(scale(metric)) for one in beside])
                    for pick in PICKS
                },
            )
        found[label, width] = entry
    return found


def _finished(cells: pd.DataFrame) -> dict[Key, dict[Metric, list[float]]]:
    """What the seeds that finished reached."""
    found: dict[Key, dict[Metric, list[float]]] = {}
    for row in cells[cells["status"] == "finished"].to_dict("records"):
        key = (row["data"], row["model"], row["width"], row["label"])
        values = found.setdefault(key, {pick: [] for pick in PICKS})
        for pick in PICKS:
            values[pick].append(row[_COLUMN[pick]] * scale(str(row["metric"])))
    return found


def pooled(spreads: Iterable[Spread]) -> float:
    """Standard deviation of several groups together; NaN if none has more than one value."""
    known = [one for one in spreads if one.n > 1 and math.isfinite(one.deviation)]
    freedom = sum(one.n - 1 for one in known)
    squares = math.fsum((one.n - 1) * one.deviation**2 for one in known)
    return math.sqrt(squares / freedom) if freedom else math.nan


def _metric(measured: Iterable[GroupSummary | None], printed: Iterable[Published | None]) -> str:
    names = [*(one.metric for one in measured if one), *(one.metric for one in printed if one)]
    return next((name for name in names if name), "")
