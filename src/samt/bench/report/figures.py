"""The picture of a comparison."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from samt.bench.comparison import Result
from samt.bench.report.style import (
    COLOURS,
    DASHES,
    INK,
    least_shown,
    line_width,
    log_scale,
    quiet_axes,
)
from samt.bench.results import EpochMetrics

Array = npt.NDArray[np.float64]

_FAR = 5.0


def comparison_png(results: Sequence[Result], title: str) -> bytes:
    """Draw test metric, training loss and step sizes of every method.

    Args:
        results: one for each method; a line is the mean over its seeds, a band the standard
            deviation, a cross the last epoch before a run diverged.
        title: above the picture.

    Returns:
        A PNG file.
    """
    metric = results[0].records[0].metric
    figure = Figure(figsize=(11, 7.6), dpi=130, layout="constrained")
    (by_epoch, loss), (step_size, by_time) = figure.subplots(2, 2)
    for index, result in enumerate(results):
        colour = COLOURS[index % len(COLOURS)]
        epochs = _curves(result, lambda row: row.epoch)[0]
        metrics = _curves(result, lambda row: row.test_metric)
        seconds = _curves(result, lambda row: row.seconds).mean(axis=0)
        losses = _curves(result, lambda row: row.train_loss)
        width = line_width(index, len(results))
        _draw(by_epoch, epochs, metrics, colour, width)
        _draw(loss, epochs, losses, colour, width)
        _draw(by_time, seconds, metrics, colour, width)
    log_scale(loss)
    _draw_step_sizes(step_size, results)
    for axes in (by_epoch, by_time):
        _scale_metric(axes, results, metric)
    named = "accuracy" if metric == "accuracy" else "root mean squared error"
    _label(by_epoch, f"Test {named}", "epoch")
    _label(loss, "Training loss", "epoch")
    _label(step_size, "Step size of each block (SAMT: mean over the epoch)", "epoch")
    _label(by_time, f"Test {named} by time", "seconds of training")
    _block_legend(step_size, results)
    _legend(figure, results)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _curves(result: Result, value: Callable[[EpochMetrics], float]) -> Array:
    """(seeds, epochs); NaN after a run has diverged."""
    length = max(len(record.metrics) for record in result.records)
    curves = np.full((len(result.records), length), np.nan)
    for curve, record in zip(curves, result.records, strict=True):
        curve[: len(record.metrics)] = [value(row) for row in record.metrics]
    return curves


def _draw(axes: Any, x: Array, curves: Array, colour: str, width: float, dashes: Any = "-") -> None:
    # A plain mean, so that one diverged seed ends the line.
    mean = curves.mean(axis=0)
    axes.plot(x, mean, color=colour, linestyle=dashes, linewidth=width)
    if len(curves) > 1:
        deviation = curves.std(axis=0, ddof=1)
        axes.fill_between(
            x, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0
        )
    known = np.flatnonzero(np.isfinite(mean))
    if known.size and known[-1] < len(mean) - 1:
        last = known[-1]
        axes.plot(x[last], mean[last], marker="x", color=colour, markersize=9, markeredgewidth=2)


def _step_size(block: str, row: EpochMetrics) -> float:
    return row.step_sizes[block]


def _step_sizes(result: Result) -> list[Array]:
    """One array of curves for each block; only one if the blocks do not differ, or none."""
    blocks = list(result.records[0].last.step_sizes)
    curves = [_curves(result, partial(_step_size, name)) for name in blocks]
    same = all(np.array_equal(curve, curves[0], equal_nan=True) for curve in curves)
    return curves[:1] if same else curves


def _draw_step_sizes(axes: Any, results: Sequence[Result]) -> None:
    """Learned step sizes, and constant ones where they do not squeeze the learned ones flat."""
    sizes = [_step_sizes(result) for result in results]
    existing = [curves for curves in sizes if curves]
    if not existing:  # solvers that take no steps along a gradient
        return
    learned = [curves for curves in existing if np.nanmin(curves) < np.nanmax(curves)] or existing
    low = min(float(np.nanmin(curves)) for curves in learned) / _FAR
    high = max(float(np.nanmax(curves)) for curves in learned) * _FAR
    missing, shown = [], []
    for index, (result, curves) in enumerate(zip(results, sizes, strict=True)):
        if curves and (np.nanmax(curves) < low or np.nanmin(curves) > high):
            missing.append(f"{result.label} {np.nanmax(curves):.3g}")
            continue
        shown += [curve for curve in curves if np.isfinite(curve).any()]
        for block, curve in enumerate(curves):
            _draw(
                axes,
                np.arange(curve.shape[1], dtype=np.float64),
                curve,
                COLOURS[index % len(COLOURS)],
                line_width(index, len(results)),
                DASHES[block % len(DASHES)],
            )
    if missing:
        axes.annotate(
            f"off this scale: {', '.join(missing)}",
            (1, 0),
            xycoords="axes fraction",
            xytext=(0, -24),
            textcoords="offset points",
            va="top",
            ha="right",
            fontsize=8,
            color=INK,
        )
    if shown and 0 < 20 * (low := least_shown(shown)) < max(map(np.nanmax, shown)):
        log_scale(axes, low=low)


def _scale_metric(axes: Any, results: Sequence[Result], metric: str) -> None:
    """Leave out the steep beginning, where all curves look the same."""
    values = np.concatenate(
        [_curves(result, lambda row: row.test_metric).ravel() for result in results]
    )
    values = values[np.isfinite(values)]
    if metric == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, symbol=" %"))
        if values.size > 2 * len(results):
            low = max(0.0, float(np.quantile(values, 0.2)))
            high = float(values.max())
            margin = max(0.005, 0.08 * (high - low))
            axes.set_ylim(low - margin, min(1.0 + margin / 2, high + margin))
    elif values.size > 2 * len(results):
        low, high = float(values.min()), float(np.quantile(values, 0.8))
        margin = max(1e-12, 0.08 * (high - low))
        axes.set_ylim(low - margin, high + margin)


def _label(axes: Any, title: str, x: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    quiet_axes(axes, x)


def _block_legend(axes: Any, results: Sequence[Result]) -> None:
    names = max((list(result.records[0].last.step_sizes) for result in results), key=len)
    if len(names) <= 1:
        return
    handles = [
        Line2D([], [], color=INK, linestyle=DASHES[index % len(DASHES)], label=name)
        for index, name in enumerate(names)
    ]
    axes.legend(handles=handles, fontsize=8, frameon=False, ncols=2, handlelength=3)


def _legend(figure: Figure, results: Sequence[Result]) -> None:
    handles = []
    for index, result in enumerate(results):
        label = result.label if not result.diverged else f"{result.label} ({result.status})"
        colour = COLOURS[index % len(COLOURS)]
        handles.append(Line2D([], [], color=colour, linewidth=2.5, label=label))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False
    )
