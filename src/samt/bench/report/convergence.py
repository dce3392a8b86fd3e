"""Measured squared distance to the solution beside the bound, where the solution is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samt.bench.convergence import bound, constants, rate
from samt.bench.data import least_squares as problem
from samt.bench.experiments.frames import PENDING, curves_frame
from samt.bench.experiments.store import Store
from samt.bench.schedules import SCHEDULES

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
DATA = "least-squares"


@dataclass(frozen=True)
class Rate:
    """One method on the block problem.

    Args:
        label: name of the method.
        seeds: number of finished ones.
        steps: number of sweeps at each evaluation after the first.
        errors: mean of ‖w − w*‖² over the seeds.
        deviations: its standard deviation; NaN for a single seed.
        limit: bound on the mean that falls with the error.
        ball_limit: bound on the mean by the supremum over the balls; None without a radius.
        low: smallest step size over η⁰ on its schedule, of all blocks, seeds and evaluations.
        high: largest of them.
    """

    label: str
    seeds: int
    steps: Array
    errors: Array
    deviations: Array
    limit: Array
    ball_limit: Array | None
    low: float
    high: float

    @property
    def slope(self) -> float:
        """Of log error over log step, at the end; −1 is a rate of 1/k."""
        return rate(self.steps, self.errors)

    @property
    def is_below(self) -> bool:
        """Whether the mean stays under the bound at every evaluation."""
        return bool((self.errors <= self.limit).all())


def rates(store: Store, cells: pd.DataFrame) -> list[Rate]:
    """Rates of the methods of an experiment.

    Args:
        store: where the curves lie.
        cells: of `frames.cells_frame`.

    Returns:
        Of those on the block problem, in the order of the cells; a method with a seed that did not
        finish is left out, as its mean is not known.
    """
    counting = cells[
        (cells["role"] == "final") & (cells["data"] == DATA) & ~cells["status"].isin(PENDING)
    ]
    curves = dict(iter(curves_frame(store, counting["identity"].unique()).groupby("cell")))
    found = []
    for label, rows in counting.groupby("label", sort=False):
        seeds = [curves[one] for one in rows["identity"] if one in curves]
        if len(seeds) == len(rows) and (rows["status"] == "finished").all():
            summary = store.summary(str(rows["identity"].iloc[0]))
            if summary is not None:
                found.append(_rate(str(label), seeds, summary["cell"]["options"]))
    return found


def _rate(label: str, seeds: Sequence[pd.DataFrame], options: Mapping[str, Any]) -> Rate:
    errors = np.stack([one["test_loss"].to_numpy(dtype=float) for one in seeds])
    errors *= problem.DIMENSION
    steps = seeds[0]["step"].to_numpy()
    schedule = SCHEDULES[options["schedule"]]
    lr = options["lr"] * np.array([schedule(k / steps[-1]) for k in range(int(steps[-1]))])
    low, high = (1.0, 1.0) if options["parts"] == "fixed" else _range(seeds, steps, lr)
    start, known = float(errors[:, 0].mean()), constants()
    limits = {
        distance: bound(start, low * lr, high * lr, known, distance)[steps[1:]]
        for distance in (None, *([2 * options["radius"]] if options["radius"] else []))
    }
    many = len(seeds) > 1
    return Rate(
        label,
        len(seeds),
        steps[1:].astype(float),
        errors.mean(axis=0)[1:],
        errors.std(axis=0, ddof=1)[1:] if many else np.full(len(steps) - 1, np.nan),
        limits.pop(None),
        next(iter(limits.values()), None),
        low,
        high,
    )


def _range(seeds: Sequence[pd.DataFrame], steps: Array, lr: Array) -> tuple[float, float]:
    """Smallest and largest step size, as a share of what the schedule gives alone."""
    scheduled = np.array([lr[a:b].mean() for a, b in pairwise(steps)])
    ratios = [
        np.array([row[block] for row in one["step_sizes"][1:]], dtype=float) / scheduled
        for one in seeds
        for block in one["step_sizes"].iloc[-1]
    ]
    return float(np.min(ratios)), float(np.max(ratios))
