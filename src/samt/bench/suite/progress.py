"""What the curves of the runs say: how soon a method comes to where another one ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

Curve: TypeAlias = Sequence[tuple[int, float]]
CAP = 2.0  # what a target that is not reached costs, as a multiple of what it costs the other


def mean_curve(runs: pd.DataFrame) -> Curve:
    """The curve averaged over seeds; it ends where the first seed diverged.

    Args:
        runs: the runs of one method on one problem at one horizon.
    """
    curves = [dict(curve) for curve in runs["curve"]]
    found = []
    for step in sorted(set().union(*curves)):
        values = [curve.get(step) for curve in curves]
        if any(value is None for value in values):
            if step == 0:
                continue
            break
        found.append((step, float(np.mean([value for value in values if value is not None]))))
    return found


def reached(curve: Curve, target: float) -> float:
    """The number of steps after which a curve comes down to a target; infinite if it never does.

    Args:
        curve: pairs of steps and values; between two of them the way is straight.
        target: the target.

    Examples:
        >>> reached([(0, 4.0), (10, 2.0), (20, 1.0)], 3.0)
        5.0
    """
    before: tuple[int, float] | None = None
    for step, value in curve:
        if value <= target:
            if before is None:
                return float(step)
            share = (before[1] - target) / (before[1] - value)
            return before[0] + share * (step - before[0])
        before = step, value
    return math.inf


@dataclass(frozen=True)
class Target:
    """How soon a method comes to where tuned AdamW ends on a problem.

    Args:
        steps: its steps as a multiple of AdamW's own.
        seconds: its seconds as a multiple of AdamW's own.
        reached: whether the method came to the target within the horizon; if not, its steps and
            seconds count as twice AdamW's own.
    """

    steps: float
    seconds: float
    reached: bool


def targets(runs: pd.DataFrame, against: str) -> dict[tuple[str, str], Target]:
    """How soon each method comes to where another one ends.

    The target is the mean of the other's final metric. Only runs of the horizon itself count, so
    that all methods have the same time to come to it. At least one step counts.

    Args:
        runs: rows with the columns of `store.frame` and `label`.
        against: the label of the other method; a problem on which it diverged is left out.

    Returns:
        One for each problem and label.
    """
    found = {}
    for problem, rows in runs[runs["horizon"] == 1].groupby("problem", sort=False):
        groups = dict(list(rows.groupby("label", sort=False)))
        base = groups.get(against)
        if base is None or base["diverged"].any():
            continue
        target = base["final"].mean()
        own_steps = max(1.0, reached(mean_curve(base), target))
        own_seconds = own_steps * _seconds_of_a_step(base)
        for label, own in groups.items():
            taken = max(1.0, reached(mean_curve(own), target))
            is_reached = math.isfinite(taken)
            seconds = taken * _seconds_of_a_step(own) / own_seconds if is_reached else CAP
            found[str(problem), str(label)] = Target(
                taken / own_steps if is_reached else CAP, seconds, is_reached
            )
    return found


def _seconds_of_a_step(runs: pd.DataFrame) -> float:
    return float(runs["seconds"].sum() / max(1, runs["steps"].sum()))


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean; no number without values.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    every = list(values)
    return math.exp(math.fsum(map(math.log, every)) / len(every)) if every else math.nan
