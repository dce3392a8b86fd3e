"""Whether a difference between two methods is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from samt.bench.suite.scores import beside

LEVEL = 0.05


@dataclass(frozen=True)
class Pair:
    """A method beside another one over all problems.

    Args:
        wins: the number of problems on which its mean error is smaller.
        losses: the number of those on which it is larger.
        sign: the p-value of the sign test over problems, both sides.
        wilcoxon: the p-value of Wilcoxon's signed-rank test of the ratios of errors.
    """

    wins: int
    losses: int
    sign: float
    wilcoxon: float


def pair(table: pd.DataFrame, label: str, against: str) -> Pair:
    """Compare two methods over problems.

    Args:
        table: as `scores.cells` returns it.
        label: the method.
        against: the other one.
    """
    logs = np.array([_log_ratio(*both) for both in beside(table, label, against).values()])
    wins, losses = int((logs < 0).sum()), int((logs > 0).sum())
    if not wins + losses:
        return Pair(0, 0, 1.0, 1.0)
    sign = float(stats.binomtest(wins, wins + losses).pvalue)
    return Pair(wins, losses, sign, float(stats.wilcoxon(logs, zero_method="zsplit").pvalue))


def _log_ratio(own: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The logarithm of the ratio of two mean errors, of which one may be zero or infinite."""
    if own["mean"] == other["mean"]:
        return 0.0
    logs = [math.log(max(one["mean"], 1e-30)) for one in (own, other)]
    return max(-100.0, min(100.0, logs[0] - logs[1]))


def welch(runs: pd.DataFrame, label: str, against: str) -> tuple[list[str], list[str]]:
    """Compare two methods over the seeds of each problem, by Welch's test and Holm's correction.

    Args:
        runs: rows with the columns `problem`, `label`, `horizon` and `final`; a problem on which
            one of the two diverged or has one seed is left out.
        label: the method.
        against: the other one.

    Returns:
        The problems on which it is better, and those on which it is worse, at `LEVEL`.
    """
    one_horizon = runs[runs["horizon"] == 1.0]
    found: list[tuple[str, float, float]] = []
    for problem, rows in one_horizon.groupby("problem", sort=False):
        own, other = (
            rows.loc[rows["label"] == one, "final"].to_numpy() for one in (label, against)
        )
        if min(len(own), len(other)) < 2 or not np.isfinite([*own, *other]).all():
            continue
        difference = float(own.mean() - other.mean())
        spreads = [float(one.std(ddof=1)) for one in (own, other)]
        if not any(spreads):  # no chance at all
            value = 1.0 if difference == 0 else 0.0
        else:  # from moments: `ttest_ind` warns of seeds that agree
            moments = [
                number
                for one, spread in zip((own, other), spreads, strict=True)
                for number in (float(one.mean()), spread, len(one))
            ]
            value = float(stats.ttest_ind_from_stats(*moments, equal_var=False).pvalue)
        found.append((str(problem), value, difference))
    better: list[str] = []
    worse: list[str] = []
    ordered = sorted(found, key=lambda one: one[1])
    for rank, (problem, value, difference) in enumerate(ordered):
        if value * (len(found) - rank) > LEVEL:
            break
        (better if difference < 0 else worse).append(problem)
    return better, worse
