"""Figures for print: PNG and PDF, one panel for each width, in the text width of a page."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from samt.bench.report.findings import Findings
from samt.bench.report.grids import Grid
from samt.bench.report.mean_curves import Array, MeanCurve
from samt.bench.report.sensitivity import Dependence
from samt.bench.report.style import (
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    line_width,
    log_scale,
    quiet_axes,
)
from samt.bench.report.wording import by_size, metric_name, slug

FORMATS = ("png", "pdf")
_COLUMNS = 3
_PANEL = (2.3, 1.9)  # inches
_LEGEND = 0.17  # a line of it
_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # text stays text
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}
_AXIS_NAMES = {"epochs": "epochs", "passes": "passes", "seconds": "seconds"}
Draw = Callable[[Any, Sequence[MeanCurve]], None]


def paper_figures(findings: Findings) -> Iterator[tuple[str, bytes]]:
    """Draw an experiment.

    Args:
        findings: of the experiment.

    Yields:
        Name of a file, and its content: for each data set and network the test metric over epochs
        and over passes, the training loss, and the step sizes that were learned; for each option
        that was varied the metric over it.
    """
    labels = list(findings.labels)
    for grid in findings.grids:
        curves = [
            one for one in findings.curves if (one.data, one.model) == (grid.data, grid.model)
        ]
        curves = [one for one in curves if len(one.metrics) > 1 and one.axes]
        name = slug(findings.name, grid.data, grid.model)
        pictures = {
            "metric-epochs": (curves, _metric_panel("epochs", labels, grid)),
            "metric-passes": (
                [one for one in curves if "passes" in one.axes],
                _metric_panel("passes", labels, grid),
            ),
            "loss-epochs": (curves, _loss_panel(labels)),
        }
        for kind, (drawn, draw) in pictures.items():
            if drawn:
                yield from _files(f"{name}-{kind}", _panels(drawn, draw, labels))
        if learned := [one for one in curves if _is_learned(one)]:
            blocks = _blocks(learned)
            steps = _panels(learned, _step_panel(labels, blocks), labels, blocks)
            yield from _files(f"{name}-step-sizes", steps)
    for option in dict.fromkeys(one.option for one in findings.dependences):
        found = [one for one in findings.dependences if one.option == option]
        for data, model in dict.fromkeys((one.data, one.model) for one in found):
            here = [one for one in found if (one.data, one.model) == (data, model)]
            name = slug(findings.name, data, model, "over", option)
            yield from _files(name, _dependence_panels(here))


def _files(name: str, draw: Callable[[], Figure]) -> Iterator[tuple[str, bytes]]:
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = draw()
        for form in FORMATS:
            buffer = io.BytesIO()
            # No date: the same results give the same file.
            metadata = {"CreationDate": None} if form == "pdf" else {"Software": None}
            figure.savefig(buffer, format=form, dpi=300, metadata=metadata)
            yield f"{name}.{form}", buffer.getvalue()


def _grid_of_panels(count: int, handles: Sequence[Line2D]) -> tuple[Figure, list[Any]]:
    """Panels, and below them a legend for all."""
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    # A single panel still has to hold the legend.
    width = max(_PANEL[0] * columns, 3.4 if len(handles) <= 6 else 4.6)
    longest = max(len(str(handle.get_label())) for handle in handles)
    beside = max(1, min(len(handles), int(width / (0.45 + 0.062 * longest))))
    height = _PANEL[1] * rows + _LEGEND * math.ceil(len(handles) / beside) + 0.15
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[count:]:
        unused.set_visible(False)
    figure.legend(handles=handles, loc="outside lower center", ncols=beside, frameon=False)
    return figure, axes[:count]


def _panels(
    curves: Sequence[MeanCurve], draw: Draw, labels: Sequence[str], blocks: Sequence[str] = ()
) -> Callable[[], Figure]:
    """A panel for each width, and one legend, which explains the dashes of blocks too."""

    def drawn() -> Figure:
        widths = by_size(one.width for one in curves)
        seen = {one.label for one in curves}
        handles = [_key(label, i) for i, label in enumerate(labels) if label in seen]
        handles += [
            Line2D([], [], color=INK, linestyle=DASHES[i], label=_printable(block))
            for i, block in enumerate(blocks[: len(DASHES)])
        ]
        figure, panels = _grid_of_panels(len(widths), handles)
        for width, axes in zip(widths, panels, strict=True):
            axes.set_title(f"width {width}" if width else "", loc="left", color=INK)
            draw(axes, [one for one in curves if one.width == width])
        return figure

    return drawn


def _key(name: str, index: int) -> Line2D:
    return Line2D([], [], label=_printable(name), **_look(index), linewidth=1.4)


def _look(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of a method, together different for 35 of them."""
    turn = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[turn % len(DASHES)],
        "marker": MARKERS[(index + turn) % len(MARKERS)],
        "markersize": 3,
    }


def _draw_line(axes: Any, x: Array, mean: Array, deviation: Array, curve: int, count: int) -> None:
    width = 0.5 * line_width(curve, count)
    every = max(1, len(x) // 6)
    axes.plot(x, mean, **_look(curve), linewidth=width, markevery=every)
    if np.isfinite(deviation).any():
        low, high = mean - deviation, mean + deviation
        axes.fill_between(
            x, low, high, color=COLOURS[curve % len(COLOURS)], alpha=0.13, linewidth=0
        )


def _cross(axes: Any, x: float, y: float, curve: int) -> None:
    colour = COLOURS[curve % len(COLOURS)]
    axes.plot(x, y, marker="x", color=colour, markersize=6, markeredgewidth=1.6, zorder=5)


def _metric_panel(axis: str, labels: list[str], grid: Grid) -> Draw:
    def draw(axes: Any, curves: Sequence[MeanCurve]) -> None:
        for one in curves:
            index = labels.index(one.label)
            x = one.axes[axis]
            _draw_line(axes, x, one.metrics, one.metric_deviation, index, len(labels))
            if one.has_ended_early:
                _cross(axes, x[-1], one.metrics[-1], index)
        levels = []
        for label in dict.fromkeys(one.label for one in curves):
            published = grid.entry(label, curves[0].width).published
            if published is not None and published.is_number:
                levels.append(published.value)
                colour = COLOURS[labels.index(label) % len(COLOURS)]
                axes.axhline(published.value, color=colour, linestyle=":", linewidth=0.9)
        quiet_axes(axes, _AXIS_NAMES[axis])
        axes.set_ylabel(metric_name(curves[0].metric), color=INK)
        _leave_out_the_beginning(axes, curves, levels)

    return draw


def _leave_out_the_beginning(
    axes: Any, curves: Sequence[MeanCurve], levels: Sequence[float]
) -> None:
    """The steep start, where all curves look the same, would take most of the panel."""
    whole = [one.metrics for one in curves if not one.has_ended_early]
    if not whole:
        return
    share = 0.3 if curves[0].metric == "accuracy" else 0.7
    ends = [float(np.quantile(one, share)) for one in whole]
    late = [float(value) for one in whole for value in one[len(one) // 2 :]]
    low, high = min(*ends, *late, *levels), max(*ends, *late, *levels)
    margin = max(0.06 * (high - low), 0.2 if curves[0].metric == "accuracy" else 1e-9)
    axes.set_ylim(low - margin, high + margin)


def _loss_panel(labels: list[str]) -> Draw:
    def draw(axes: Any, curves: Sequence[MeanCurve]) -> None:
        for one in curves:
            index = labels.index(one.label)
            # On a logarithmic axis a band below zero has no end.
            deviation = np.minimum(one.loss_deviation, 0.95 * np.abs(one.losses))
            _draw_line(axes, one.axes["epochs"], one.losses, deviation, index, len(labels))
            if one.has_ended_early:
                _cross(axes, one.axes["epochs"][-1], one.losses[-1], index)
        if all((one.losses > 0).all() for one in curves):
            log_scale(axes)
        quiet_axes(axes, "epochs")
        axes.set_ylabel("training loss", color=INK)

    return draw


def _is_learned(curve: MeanCurve) -> bool:
    """Whether a step size moves; constant ones are known from the method's name."""
    return "epochs" in curve.axes and any(
        np.nanmax(sizes) > np.nanmin(sizes) for sizes in curve.step_sizes.values()
    )


def _blocks(curves: Sequence[MeanCurve]) -> list[str]:
    return list(dict.fromkeys(block for one in curves for block in one.step_sizes))


def _step_panel(labels: list[str], blocks: list[str]) -> Draw:
    """Colour is the method, as everywhere; dashes tell the blocks apart."""

    def draw(axes: Any, curves: Sequence[MeanCurve]) -> None:
        for one in curves:
            look = _look(labels.index(one.label))
            for block, sizes in one.step_sizes.items():
                dashes = DASHES[blocks.index(block) % len(DASHES)]
                axes.plot(
                    *(one.axes["epochs"], sizes),
                    **{**look, "linestyle": dashes},
                    linewidth=1.0,
                    markevery=max(1, len(sizes) // 6),
                )
        values = np.concatenate([sizes for one in curves for sizes in one.step_sizes.values()])
        finite = values[np.isfinite(values)]
        if finite.size and 0 < 20 * finite.min() < finite.max():
            log_scale(axes)
        quiet_axes(axes, "epochs")
        axes.set_ylabel("step size", color=INK)

    return draw


def _dependence_panels(dependences: Sequence[Dependence]) -> Callable[[], Figure]:
    families = list(dict.fromkeys(one.family for one in dependences))

    def drawn() -> Figure:
        widths = by_size(one.width for one in dependences)
        handles = [_key(family, index) for index, family in enumerate(families)]
        figure, panels = _grid_of_panels(len(widths), handles)
        for width, axes in zip(widths, panels, strict=True):
            axes.set_title(f"width {width}" if width else "", loc="left", color=INK)
            here = [one for one in dependences if one.width == width]
            for one in here:
                _draw_dependence(axes, one, families.index(one.family))
            if all(one.is_logarithmic for one in here):
                log_scale(axes, "x")
            quiet_axes(axes, _printable(here[0].option))
            axes.margins(x=0.05)
            metric = next((entry.metric for one in here for entry in one.entries), "")
            axes.set_ylabel(metric_name(metric), color=INK)
        return figure

    return drawn


def _draw_dependence(axes: Any, one: Dependence, index: int) -> None:
    spreads = [entry.spread("final") for entry in one.entries]
    means = np.array([spread.mean for spread in spreads])
    deviations = np.nan_to_num(np.array([spread.deviation for spread in spreads]))
    axes.errorbar(one.values, means, deviations, **_look(index), linewidth=1.2, capsize=2)
    for value, mean in zip(one.values, means, strict=True):
        if not math.isfinite(mean):  # a seed did not finish
            axes.plot(
                *(value, 0.03),
                marker="x",
                color=COLOURS[index % len(COLOURS)],
                markersize=6,
                markeredgewidth=1.6,
                transform=axes.get_xaxis_transform(),
            )


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text) or " "
