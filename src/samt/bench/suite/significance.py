"""Whether a difference between two methods is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from samt.bench.suite.scores import beside

LEVEL = 0.05


@dataclass(frozen=True)
class Test:
    """A method beside another one, over all problems and over the seeds of each.

    Args:
        wins: the number of problems on which its mean error is smaller.
        losses: the number of those on which it is larger.
        sign: the p-value of the sign test over problems, both sides.
        wilcoxon: the p-value of Wilcoxon's signed-rank test of the ratios of errors.
        better: the problems on which Welch's test over seeds, corrected by Holm's method, finds
            it better at 5 %.
        worse: those on which it finds it worse.
    """

    wins: int
    losses: int
    sign: float
    wilcoxon: float
    better: Sequence[str]
    worse: Sequence[str]


def test_of(runs: pd.DataFrame, table: pd.DataFrame, label: str, against: str) -> Test:
    """Compare two methods.

    Args:
        runs: rows with the columns `problem`, `label`, `horizon` and `final`.
        table: as `cells` returns it.
        label: the method.
        against: the other one.
    """
    logs = np.array([_log_ratio(*both) for both in beside(table, label, against).values()])
    wins, losses = int((logs < 0).sum()), int((logs > 0).sum())
    decided = wins + losses
    sign = float(stats.binomtest(wins, decided).pvalue) if decided else 1.0
    signed = float(stats.wilcoxon(logs, zero_method="zsplit").pvalue) if decided else 1.0
    better, worse = _welch(runs, label, against)
    return Test(wins, losses, sign, signed, better, worse)


def _log_ratio(own: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The logarithm of the ratio of two mean errors, of which one may be zero or infinite."""
    if own["mean"] == other["mean"]:
        return 0.0
    logs = [math.log(max(one["mean"], 1e-30)) for one in (own, other)]
    return max(-100.0, min(100.0, logs[0] - logs[1]))


def _welch(runs: pd.DataFrame, label: str, against: str) -> tuple[list[str], list[str]]:
    """The problems on which two methods differ significantly: better ones, worse ones."""
    one_horizon = runs[runs["horizon"] == 1.0]
    found: list[tuple[str, float, float]] = []
    for problem, rows in one_horizon.groupby("problem", sort=False):
        own, other = (
            rows.loc[rows["label"] == one, "final"].to_numpy() for one in (label, against)
        )
        if min(len(own), len(other)) < 2 or not np.isfinite([*own, *other]).all():
            continue
        difference = float(own.mean() - other.mean())
        if own.std() == other.std() == 0:
            value = 1.0 if difference == 0 else 0.0
        else:
            value = float(stats.ttest_ind(own, other, equal_var=False).pvalue)
        found.append((str(problem), value, difference))
    better: list[str] = []
    worse: list[str] = []
    ordered = sorted(found, key=lambda one: one[1])
    for rank, (problem, value, difference) in enumerate(ordered):
        if value * (len(found) - rank) > LEVEL:
            break
        (better if difference < 0 else worse).append(problem)
    return better, worse
