"""Statistics over seeds and over data sets.

A cell that did not finish is never averaged away: the mean of its group is NaN, and the number of
such cells stands beside it.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Metric = Literal["final", "best"]
# Cells that share these have seeds that can be compared.
GROUP = ("data", "model", "width")
_COLUMN: dict[Metric, str] = {"final": "test_metric", "best": "best_test_metric"}
_RESULTS = ("finished", "diverged", "failed", "timed-out", "killed")
_RESAMPLES = 9999


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds. NaN stays NaN: a diverged run is never left out.

    Args:
        mean: of the values.
        deviation: sample standard deviation; NaN for a single value.
        n: number of values.
    """

    mean: float
    deviation: float
    n: int = 0

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Mean and sample standard deviation (NaN for a single value)."""
        n = len(values)
        if not n or not all(map(math.isfinite, values)):
            return cls(math.nan, math.nan, n)
        try:
            deviation = statistics.stdev(values) if n > 1 else math.nan
            # Exact: equal values have that mean, so that ties in ranks stay ties.
            return cls(statistics.mean(values), deviation, n)
        except OverflowError:
            return cls(math.nan, math.nan, n)

    def scaled(self, factor: float) -> Spread:
        """In other units."""
        return Spread(self.mean * factor, self.deviation * factor, self.n)


@dataclass(frozen=True)
class GroupSummary:
    """All seeds of a method on one data set and network.

    Args:
        data: name of the data set.
        model: name of the network.
        width: widths of its fully connected hidden layers, such as "300-100".
        label: name of the method.
        metric: "accuracy", "rmse", or "" if no cell came as far as that.
        final: test metric at the end.
        best: test metric at the best evaluation.
        train_loss: at the end.
        seconds: of training.
        passes: forward and backward passes together.
        statuses: number of seeds by status, without zeros.
    """

    data: str
    model: str
    width: str
    label: str
    metric: str
    final: Spread
    best: Spread
    train_loss: Spread
    seconds: Spread
    passes: Spread
    statuses: Mapping[str, int]

    @property
    def status(self) -> str:
        """What became of the seeds: "finished", or how many did not."""
        n = sum(self.statuses.values())
        bad = {one: count for one, count in self.statuses.items() if one != "finished"}
        if not bad:
            return "finished"
        if n == 1:
            return next(iter(bad))
        return ", ".join(f"{one} {count}/{n}" for one, count in bad.items())


@dataclass(frozen=True)
class Difference:
    """A method minus another one, over the seeds that both have on one data set and network.

    Args:
        data: name of the data set.
        model: name of the network.
        width: widths of its fully connected hidden layers.
        metric: "accuracy", "rmse" or "".
        label: the method.
        against: the other one.
        n: number of seeds that both have.
        unfinished: those of them of which a cell did not finish; if there are any, the rest is NaN.
        mean: of the paired differences.
        low: lower end of the confidence interval of the mean; NaN for a single seed.
        high: upper end.
    """

    data: str
    model: str
    width: str
    metric: str
    label: str
    against: str
    n: int
    unfinished: int
    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class MeanRank:
    """Rank of a method, averaged over data sets and networks.

    Args:
        label: the method.
        mean: 1 is best.
        n: number of combinations of data, model and width in which all methods stand.
    """

    label: str
    mean: float
    n: int


def summarise(cells: pd.DataFrame) -> list[GroupSummary]:
    """Mean and deviation over the seeds of each method, data set and network.

    Args:
        cells: of `frames.cells_frame`. Only cells that count and have a result are used.

    Returns:
        In the order of the frame. All means of a group of which a cell did not finish are NaN.
    """
    found = []
    for keys, metric, methods in _groups(cells):
        for label, rows in methods.items():
            counts = rows["status"].value_counts()
            found.append(
                GroupSummary(
                    *keys,
                    label=label,
                    metric=metric,
                    final=_spread(rows, "test_metric"),
                    best=_spread(rows, "best_test_metric"),
                    train_loss=_spread(rows, "train_loss"),
                    seconds=_spread(rows, "seconds"),
                    passes=_spread(rows, "passes"),
                    statuses={one: int(counts[one]) for one in _RESULTS if one in counts},
                )
            )
    return found


def paired_differences(
    cells: pd.DataFrame,
    metric: Metric = "final",
    against: str | None = None,
    confidence: float = 0.95,
) -> list[Difference]:
    """Differences between methods over the same seeds, with bootstrap confidence intervals.

    Args:
        cells: of `frames.cells_frame`. Only cells that count and have a result are used.
        metric: the test metric at the end, or at the best evaluation.
        against: the method that is subtracted; by default the one with the best mean on each data
            set and network.
        confidence: of the intervals.

    Returns:
        In the order of the frame; nothing where `against` is absent, or no method finished.
    """
    found = []
    for keys, name, methods in _groups(cells):
        values = {label: _by_seed(rows, _COLUMN[metric]) for label, rows in methods.items()}
        means = {label: Spread.of(list(own.values())).mean for label, own in values.items()}
        other = against or best(means, name)
        if other not in values:
            continue
        for label, own in values.items():
            seeds = [seed for seed in own if seed in values[other]]
            if label == other or not seeds:
                continue
            paired = [own[seed] - values[other][seed] for seed in seeds]
            unfinished = sum(not math.isfinite(value) for value in paired)
            mean = Spread.of(paired).mean
            low, high = bootstrap_interval(paired, confidence)
            found.append(
                Difference(*keys, name, label, other, len(seeds), unfinished, mean, low, high)
            )
    return found


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Confidence interval of the mean: bootstrap, bias-corrected and accelerated.

    Args:
        values: independent of each other.
        confidence: such as 0.95.
        seed: of the resampling.

    Returns:
        Both ends; NaN for fewer than two values, or if one is not finite. The common value, twice,
        if all are equal.
    """
    import numpy as np
    from scipy.stats import bootstrap

    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan, math.nan
    if len(set(values)) == 1:
        return values[0], values[0]
    # Values that differ in their last digits only make the acceleration 0/0.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in ("BCa", "percentile"):
            interval = bootstrap(
                (np.asarray(values, dtype=float),),
                np.mean,
                n_resamples=_RESAMPLES,
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
            low, high = float(interval.low), float(interval.high)
            if math.isfinite(low) and math.isfinite(high):
                return low, high
    return math.nan, math.nan


def ranks(cells: pd.DataFrame, metric: Metric = "final") -> pd.DataFrame:
    """Rank of each method's mean metric on each data set and network.

    Args:
        cells: of `frames.cells_frame`. Only cells that count and have a result are used.
        metric: the test metric at the end, or at the best evaluation.

    Returns:
        A row for each data, model and width, a column for each method. 1 is best; equal means
        share the average of their ranks, and so do, behind all others, the methods of which a
        cell did not finish. NaN where a method is absent.
    """
    import pandas as pd

    rows: dict[tuple[str, str, str], pd.Series] = {}
    for keys, name, methods in _groups(cells):
        means = {label: _spread(seeds, _COLUMN[metric]).mean for label, seeds in methods.items()}
        rows[keys] = rank(means, name)
    labels = dict.fromkeys(label for row in rows.values() for label in row.index)
    index = pd.MultiIndex.from_tuples(list(rows), names=list(GROUP)) if rows else None
    table = [[row.get(label, math.nan) for label in labels] for row in rows.values()]
    return pd.DataFrame(table, index=index, columns=list(labels), dtype=float)


def mean_ranks(cells: pd.DataFrame, metric: Metric = "final") -> list[MeanRank]:
    """The ranks of each method, averaged.

    Args:
        cells: of `frames.cells_frame`.
        metric: the test metric at the end, or at the best evaluation.

    Returns:
        The best method first. A combination that one of them lacks is left out, since means over
        different data sets compare nothing; nobody has a rank where none is left.
    """
    return averaged(ranks(cells, metric))


def rank(means: Mapping[str, float], metric: str) -> pd.Series:
    """Rank of each mean: 1 is best, equal ones share the average of theirs, NaN comes last.

    Args:
        means: by method.
        metric: "accuracy", of which more is better, or "rmse".
    """
    import pandas as pd

    return pd.Series(means, dtype=float).rank(ascending=metric != "accuracy", na_option="bottom")


def averaged(table: pd.DataFrame) -> list[MeanRank]:
    """The mean of each column over the rows that have them all; the best one first.

    Args:
        table: of ranks, a column for each method.
    """
    common = table.dropna()
    if common.empty:
        return []
    found = [MeanRank(label, float(common[label].mean()), len(common)) for label in common]
    return sorted(found, key=lambda one: one.mean)


def repeated_seeds(cells: pd.DataFrame) -> int:
    """How many cells that count are not the first one of their seed.

    They differ in what is no column of a table: code, versions, device. A seed counts once, with
    the mean of its cells.

    Args:
        cells: of `frames.cells_frame`.
    """
    return int(_counting(cells).duplicated([*GROUP, "label", "seed"]).sum())


def _counting(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[(cells["role"] == "final") & cells["status"].isin(_RESULTS)]


def _groups(
    cells: pd.DataFrame,
) -> Iterator[tuple[tuple[str, str, str], str, dict[str, pd.DataFrame]]]:
    """Data, model and width; metric; the rows of each method."""
    for keys, group in _counting(cells).groupby(list(GROUP), sort=False):
        names = group["metric"].dropna()
        methods = {str(label): rows for label, rows in group.groupby("label", sort=False)}
        yield keys, str(names.iloc[0]) if len(names) else "", methods


def _by_seed(rows: pd.DataFrame, column: str) -> dict[Any, float]:
    """The value of each seed; NaN if one of its cells did not finish."""
    import numpy as np

    numbers = rows[column].to_numpy(dtype=float, na_value=math.nan)
    values = np.where(rows["status"] == "finished", numbers, math.nan)
    seeds: dict[Any, list[float]] = {}
    for seed, value in zip(rows["seed"], values, strict=True):
        seeds.setdefault(seed, []).append(float(value))
    return {seed: Spread.of(several).mean for seed, several in seeds.items()}


def _spread(rows: pd.DataFrame, column: str) -> Spread:
    return Spread.of(list(_by_seed(rows, column).values()))


def best(means: Mapping[str, float], metric: str) -> str | None:
    """The method with the best mean; the first of equals. None if no mean is a number.

    Args:
        means: by method.
        metric: "accuracy", of which more is better, or "rmse".
    """
    finite = {label: mean for label, mean in means.items() if math.isfinite(mean)}
    choose = max if metric == "accuracy" else min
    return choose(finite, key=finite.__getitem__) if finite else None
