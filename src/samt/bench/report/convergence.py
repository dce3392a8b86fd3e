"""Measured squared distance to the solution beside the bound, where the solution is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samt.bench.convergence import Constant, bound, constants, rate
from samt.bench.data import least_squares as problem
from samt.bench.experiments.frames import PENDING, curves_frame
from samt.bench.experiments.store import Store
from samt.bench.schedules import SCHEDULES
from samt.step_size import coefficients, relative_factor

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
        limit: bound on the mean that falls with the error; its step sizes lie, in each stretch
            between two evaluations, between the smallest one of it and `high`.
        ball_limit: bound on the mean by the supremum over the balls; None without a radius.
        low: smallest step size over η⁰ on its schedule, of all blocks, seeds and stretches; one is
            the mean over the sweeps between two evaluations, so that a single one may be smaller.
        high: largest one that equation (10) can give, over the same.
        constants: of the problem.
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
    constants: Sequence[Constant]

    @property
    def slope(self) -> float:
        """Of log error over log step, at the end; −1 is a rate of 1/k."""
        return rate(self.steps, self.errors)

    @property
    def limit_slope(self) -> float:
        """That of the bound, over the same steps; NaN where the bound says nothing."""
        return rate(self.steps, self.limit)

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
        Of SAMT on the block problem, in the order of the cells: the bound is that of its scheme. A
        method with a seed that did not finish is left out, as its mean is not known.
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
            if summary is not None and summary["cell"]["method"] == "samt":
                found.append(_rate(str(label), seeds, summary["cell"]["options"]))
    return found


def _rate(label: str, seeds: Sequence[pd.DataFrame], options: Mapping[str, Any]) -> Rate:
    errors = np.stack([one["test_loss"].to_numpy(dtype=float) for one in seeds])
    errors *= problem.DIMENSION
    steps = seeds[0]["step"].to_numpy()
    schedule = SCHEDULES[options["schedule"]]
    lr = options["lr"] * np.array([schedule(k / steps[-1]) for k in range(int(steps[-1]))])
    is_fixed = options["parts"] == "fixed"
    least = lr if is_fixed else lr * _lowest(seeds, steps, lr)
    most = lr if is_fixed else _most(options, lr)
    start, known = float(errors[:, 0].mean()), constants()
    distance = 2 * options["radius"] if options["radius"] else None
    limit = bound(start, least, most, known)[steps[1:]]
    ball_limit = None
    if distance is not None:
        ball_limit = bound(start, least, most, known, distance)[steps[1:]]
    many = len(seeds) > 1
    return Rate(
        label,
        len(seeds),
        steps[1:].astype(float),
        errors.mean(axis=0)[1:],
        errors.std(axis=0, ddof=1)[1:] if many else np.full(len(steps) - 1, np.nan),
        limit,
        ball_limit,
        float((least / lr).min()),
        float((most / lr).max()),
        known.listed(distance),
    )


def _lowest(seeds: Sequence[pd.DataFrame], steps: npt.NDArray[np.int64], lr: Array) -> Array:
    """Smallest mean of a block and seed between two evaluations, as a share of the schedule's mean.

    Returns:
        (sweeps,), the same for all sweeps of a stretch.
    """
    scheduled = np.array([lr[a:b].mean() for a, b in pairwise(steps)])
    sizes = [
        np.array([row[block] for row in one["step_sizes"][1:]], dtype=float)
        for one in seeds
        for block in one["step_sizes"].iloc[-1]
    ]
    shares: Array = np.min(sizes, axis=0) / scheduled
    return np.repeat(shares, np.diff(steps))


def _most(options: Mapping[str, Any], lr: Array) -> Array:
    """Largest step sizes that equation (10) can give, as α and η̃ are at most 1."""
    rho = relative_factor(options["relative"])
    return np.array([max(coefficients(options["parts"], one, rho)) for one in lr], dtype=float)
