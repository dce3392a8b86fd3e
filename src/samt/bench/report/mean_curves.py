"""Curves of an experiment: the mean over seeds of each method, as far as every seed comes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from samt.bench.experiments.frames import PENDING, curves_frame
from samt.bench.experiments.store import Store
from samt.bench.report.wording import scale
from samt.bench.statistics import GROUP

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
AXES = ("epochs", "passes", "updates", "seconds")
_AXIS_COLUMNS = {"epochs": "epoch", "updates": "updates", "seconds": "seconds"}
_MOST = 200  # points of a curve


@dataclass(frozen=True)
class MeanCurve:
    """One method on one data set and network.

    Args:
        data: name of the data set.
        model: name of the network.
        width: widths of its hidden layers.
        label: name of the method.
        metric: "accuracy", "rmse" or "".
        statuses: number of seeds by status.
        axes: epochs, passes, updates, seconds; without those that stand still.
        metrics: mean of the test metric, in per cent if an accuracy.
        metric_deviation: its deviation over seeds; NaN for a single seed.
        losses: mean of the loss over the training part.
        loss_deviation: its deviation over seeds.
        step_sizes: mean step size of each block.
    """

    data: str
    model: str
    width: str
    label: str
    metric: str
    statuses: Mapping[str, int]
    axes: Mapping[str, Array]
    metrics: Array
    metric_deviation: Array
    losses: Array
    loss_deviation: Array
    step_sizes: Mapping[str, Array]

    @property
    def has_ended_early(self) -> bool:
        """Whether a seed did not finish, so that the line ends before the others do."""
        return any(status != "finished" for status in self.statuses)


def mean_curves(store: Store, cells: pd.DataFrame) -> list[MeanCurve]:
    """The mean curves of an experiment.

    Args:
        store: where the curves lie.
        cells: of `frames.cells_frame`.

    Returns:
        In the order of the cells. A mean ends where the first of its seeds ends, or is no longer
        finite: a diverged seed is never left out. Curves that cannot be read are noted in
        `store.damaged`, and their group is left out.
    """
    counting = cells[(cells["role"] == "final") & ~cells["status"].isin(PENDING)]
    # One cell may stand under two labels.
    frame = curves_frame(store, counting["identity"].unique())
    curves = {str(identity): rows for identity, rows in frame.groupby("cell", sort=False)}
    found = []
    for keys, rows in counting.groupby([*GROUP, "label"], sort=False):
        seeds = [curves[one] for one in rows["identity"] if one in curves]
        names = rows["metric"].dropna()
        if len(seeds) == len(rows) and len(names):
            statuses = rows["status"].value_counts().to_dict()
            found.append(_mean(keys, str(names.iloc[0]), statuses, seeds))
    return found


def _mean(
    keys: tuple[str, str, str, str],
    metric: str,
    statuses: Mapping[str, int],
    seeds: Sequence[pd.DataFrame],
) -> MeanCurve:
    length = min(map(len, seeds))
    metrics = _stack(seeds, "test_metric", length) * scale(metric)
    losses = _stack(seeds, "train_loss", length)
    finite = np.isfinite(metrics).all(axis=0) & np.isfinite(losses).all(axis=0)
    end = length if finite.all() else int(np.argmin(finite))
    kept = _thinned(end)

    def mean(curves: Array) -> Array:
        return curves.mean(axis=0)[kept]

    axes = {name: mean(_stack(seeds, column, length)) for name, column in _AXIS_COLUMNS.items()}
    passes = _stack(seeds, "forward_passes", length) + _stack(seeds, "backward_passes", length)
    axes["passes"] = mean(passes)
    return MeanCurve(
        *keys,
        metric=metric,
        statuses=statuses,
        axes={
            name: axes[name] for name in AXES if axes[name].size and axes[name][-1] > axes[name][0]
        },
        metrics=mean(metrics),
        metric_deviation=_deviation(metrics)[kept],
        losses=mean(losses),
        loss_deviation=_deviation(losses)[kept],
        step_sizes=_step_sizes(seeds, length, kept),
    )


def _stack(seeds: Sequence[pd.DataFrame], column: str, length: int) -> Array:
    """(seeds, evaluations)"""
    return np.stack([one[column].to_numpy(dtype=float)[:length] for one in seeds])


def _deviation(curves: Array) -> Array:
    if len(curves) < 2:
        return np.full(curves.shape[1], math.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(curves.std(axis=0, ddof=1))


def _thinned(length: int) -> npt.NDArray[np.intp]:
    """Indices of at most `_MOST` points, the first and the last among them."""
    if length <= _MOST:
        return np.arange(length)
    return np.unique(np.linspace(0, length - 1, _MOST).round().astype(np.intp))


def _step_sizes(
    seeds: Sequence[pd.DataFrame], length: int, kept: npt.NDArray[np.intp]
) -> dict[str, Array]:
    blocks = dict.fromkeys(block for one in seeds for row in one["step_sizes"] for block in row)
    found = {}
    for block in blocks:
        curves = np.array(
            [[row.get(block, math.nan) for row in one["step_sizes"][:length]] for one in seeds],
            dtype=float,
        )
        mean = curves.mean(axis=0)[kept]
        if np.isfinite(mean).any():
            found[block] = mean
    return found
