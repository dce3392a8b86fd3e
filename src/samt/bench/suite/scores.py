"""What the ends of the runs say: means, ranks, profiles, leads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


def cells(runs: pd.DataFrame, horizon: float = 1.0) -> pd.DataFrame:
    """The mean over seeds of each method on each problem.

    Args:
        runs: rows with the columns `problem`, `label`, `horizon`, `final` and `diverged`.
        horizon: the horizon that counts.

    Returns:
        A row for each problem and label, with `n`, `diverged`, `mean`, `sd` and `se`, the
        standard error of the mean. The mean has six digits, so that equal errors are ties, and
        is infinite where a seed diverged.
    """
    groups = runs[runs["horizon"] == horizon].groupby(["problem", "label"], sort=False)
    table = groups.agg(
        n=("final", "size"),
        diverged=("diverged", "sum"),
        mean=("final", "mean"),
        sd=("final", "std"),
    )
    table["mean"] = [float(f"{mean:.6g}") for mean in table["mean"]]
    table.loc[table["diverged"] > 0, "mean"] = math.inf
    table.loc[table["diverged"] > 0, "sd"] = math.nan
    table["se"] = table["sd"] / np.sqrt(table["n"])
    return table


def on_common_seeds(runs: pd.DataFrame, label: str, against: str) -> pd.DataFrame:
    """The runs of two methods with the seeds that both have, on each problem at each horizon.

    Args:
        runs: rows with the columns `problem`, `label`, `horizon` and `seed`.
        label: the name of a method in the report, such as `auto-samt/no brake`.
        against: the name of the method that stands beside it.
    """
    both = runs[runs["label"].isin([label, against])]
    counts = both.groupby(["problem", "horizon", "seed"])["label"].transform("nunique")
    return both[counts == 2]


def means(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The means as a table of problems and methods.

    Args:
        table: as `cells` returns it.
        labels: the methods; a problem that one of them lacks is left out.
    """
    wide = table["mean"].unstack("label").reindex(columns=list(labels))
    order = list(dict.fromkeys(table.index.get_level_values("problem")))
    return wide.reindex(order).dropna()


def mean_ranks(wide: pd.DataFrame) -> pd.Series:
    """The mean rank of each method: 1 is best, ties share their ranks, diverged ones are last.

    Args:
        wide: as `means` returns it.
    """
    return wide.rank(axis=1, method="average").mean()


def ratios(wide: pd.DataFrame) -> pd.DataFrame:
    """The error of each method as a multiple of the best one's on the problem.

    Args:
        wide: as `means` returns it.
    """
    best = wide.min(axis=1)
    found = wide.div(best.where(best > 0), axis=0)
    # Beside an error of zero any other is infinitely larger.
    none = wide.loc[best <= 0]
    found.loc[best <= 0] = np.where(none.le(best[best <= 0], axis=0), 1.0, math.inf)
    return found.fillna(math.inf)


def profile(wide: pd.DataFrame, factors: Iterable[float]) -> pd.DataFrame:
    """The share of problems on which a method's error is within a factor of the best.

    Args:
        wide: as `means` returns it.
        factors: the factors.

    Returns:
        A row for each factor, a column for each method.
    """
    found = ratios(wide)
    return pd.DataFrame({factor: (found <= factor * (1 + 1e-12)).mean() for factor in factors}).T


@dataclass(frozen=True)
class Lead:
    """How a method stands beside tuned AdamW on a problem.

    Args:
        difference: its mean error minus AdamW's; negative is better.
        share: the difference in % of AdamW's error.
        error: the standard error of the difference over seeds.
    """

    difference: float
    share: float
    error: float

    @property
    def holds(self) -> bool:
        """Whether it is at or above AdamW within the standard error."""
        return self.difference <= self.error


def leads(table: pd.DataFrame, label: str, against: str) -> dict[str, Lead]:
    """How a method stands beside another one on each problem that both have.

    Args:
        table: as `cells` returns it.
        label: the method.
        against: the other one.
    """
    found = {}
    both = beside(table, label, against)
    for problem, (own, other) in both.items():
        if math.isinf(own["mean"]) and math.isinf(other["mean"]):
            found[problem] = Lead(0.0, 0.0, 0.0)
            continue
        difference = float(own["mean"] - other["mean"])
        share = 100 * _relative(difference, float(other["mean"]))
        errors = [0.0 if math.isnan(one["se"]) else float(one["se"]) for one in (own, other)]
        found[problem] = Lead(difference, share, math.hypot(*errors))
    return found


def _relative(difference: float, of: float) -> float:
    """A difference as a share of a number that may be zero or infinite."""
    if math.isinf(of):
        return -1.0
    if of == 0:
        return math.inf if difference else 0.0
    return difference / of


def beside(
    table: pd.DataFrame, label: str, against: str
) -> dict[str, tuple[Mapping[str, float], Mapping[str, float]]]:
    """The rows of two methods on each problem that both have.

    Args:
        table: as `cells` returns it.
        label: the method.
        against: the other one.
    """
    problems = dict.fromkeys(table.index.get_level_values("problem"))
    return {
        str(one): (table.loc[one, label], table.loc[one, against])
        for one in problems
        if (one, label) in table.index and (one, against) in table.index
    }
