"""Figures for print: PNG and PDF, one panel for each width, in the text width of a page."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from samt.bench.report.findings import Findings
from samt.bench.report.grids import Grid
from samt.bench.report.mean_curves import Array, MeanCurve
from samt.bench.report.sensitivity import Dependence
from samt.bench.report.style import (
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    least_shown,
    line_width,
    log_scale,
    looks,
    quiet_axes,
)
from samt.bench.report.wording import by_size, joined, metric_name, slug, unfinished

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
_CROSS: Any = {"marker": "x", "markersize": 6, "markeredgewidth": 1.6}
Draw = Callable[[Any, Sequence[MeanCurve]], None]


@dataclass(frozen=True)
class _Look:
    """Colour, dashes and marker of a method, together different for 35 of them, and its width."""

    colour: str
    dashes: Any
    marker: str
    width: float

    def line(self) -> dict[str, Any]:
        return {
            "color": self.colour,
            "linestyle": self.dashes,
            "marker": self.marker,
            "markersize": 3,
        }


@dataclass(frozen=True)
class _Picture:
    """Curves, what draws those of a panel, and what the legend explains besides the methods."""

    curves: Sequence[MeanCurve]
    draw: Draw
    explained: Sequence[Artist] = field(default_factory=list)


def paper_figures(findings: Findings) -> Iterator[tuple[str, bytes]]:
    """Draw an experiment.

    Args:
        findings: of the experiment.

    Yields:
        Name of a file, and its content: for each data set and network the test metric over epochs
        and over passes, the training loss, and the step sizes that were learned; for each option
        that was varied the metric over it.
    """
    styles = _looks(findings.labels)
    for grid in findings.grids:
        curves = [
            one for one in findings.curves if (one.data, one.model) == (grid.data, grid.model)
        ]
        name = slug(findings.name, grid.data, grid.model)
        for kind, picture in _pictures(curves, grid, styles).items():
            if picture.curves:
                yield from figure_files(f"{name}-{kind}", _panels(picture, styles))
    for option in dict.fromkeys(one.option for one in findings.dependences):
        found = [one for one in findings.dependences if one.option == option]
        for data, model in dict.fromkeys((one.data, one.model) for one in found):
            here = [one for one in found if (one.data, one.model) == (data, model)]
            name = slug(findings.name, data, model, "over", option)
            yield from figure_files(name, _dependence_panels(here))


def _looks(labels: Sequence[str]) -> dict[str, _Look]:
    found = {}
    for index, (label, look) in enumerate(looks(labels).items()):
        colour, turn = look % len(COLOURS), look // len(COLOURS)
        found[label] = _Look(
            COLOURS[colour],
            DASHES[turn % len(DASHES)],
            MARKERS[(look + turn) % len(MARKERS)],
            0.5 * line_width(index, len(labels)),
        )
    return found


def _pictures(
    curves: Sequence[MeanCurve], grid: Grid, styles: Mapping[str, _Look]
) -> dict[str, _Picture]:
    """The pictures of a data set and network by the end of their name."""
    curves = [one for one in curves if len(one.metrics) > 1 and one.axes]
    counting = [one for one in curves if "passes" in one.axes]
    learned = [one for one in curves if _is_learned(one)]
    blocks = list(dict.fromkeys(block for one in learned for block in one.step_sizes))
    missing = _not_drawn(curves, grid, styles)
    dashes = [
        Line2D([], [], color=INK, linestyle=DASHES[i], label=_printable(block))
        for i, block in enumerate(blocks[: len(DASHES)])
    ]
    levels = _explanations(curves, grid)
    return {
        "metric-epochs": _Picture(
            curves, _metric_panel("epochs", styles, grid), [*levels, *missing]
        ),
        "metric-passes": _Picture(
            counting,
            _metric_panel("passes", styles, grid),
            [*_explanations(counting, grid), *_not_drawn(counting, grid, styles, "no passes")],
        ),
        "loss-epochs": _Picture(curves, _loss_panel(styles), [*_explanations(curves), *missing]),
        "step-sizes": _Picture(learned, _step_panel(styles, blocks), [*dashes, *missing]),
    }


def figure_files(name: str, draw: Callable[[], Figure]) -> Iterator[tuple[str, bytes]]:
    """Draw one figure.

    Args:
        name: of the files, without their endings.
        draw: makes it, in the style of all.

    Yields:
        Name of a file, and its content: PNG and PDF.
    """
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


def grid_of_panels(count: int, handles: Sequence[Artist]) -> tuple[Figure, list[Any]]:
    """Panels, and below them a legend for all."""
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    entry = 0.45 + 0.062 * max(len(str(handle.get_label())) for handle in handles)
    # A single panel still has to hold the legend.
    width = max(_PANEL[0] * columns, 3.4 if len(handles) <= 6 else 4.6, entry)
    beside = max(1, min(len(handles), int(width / entry)))
    height = _PANEL[1] * rows + _LEGEND * math.ceil(len(handles) / beside) + 0.15
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[count:]:
        unused.set_visible(False)
    figure.legend(handles=handles, loc="outside lower center", ncols=beside, frameon=False)
    return figure, axes[:count]


def _panels(picture: _Picture, styles: Mapping[str, _Look]) -> Callable[[], Figure]:
    """A panel for each width, and one legend."""

    def drawn() -> Figure:
        widths = by_size(one.width for one in picture.curves)
        seen = {one.label for one in picture.curves}
        keys = [_key(label, look) for label, look in styles.items() if label in seen]
        figure, panels = grid_of_panels(len(widths), [*keys, *picture.explained])
        for width, axes in zip(widths, panels, strict=True):
            axes.set_title(f"width {width}" if width else "", loc="left", color=INK)
            picture.draw(axes, [one for one in picture.curves if one.width == width])
        return figure

    return drawn


def _key(name: str, look: _Look) -> Line2D:
    return Line2D([], [], label=_printable(name), **look.line(), linewidth=1.4)


def _explanations(curves: Sequence[MeanCurve], grid: Grid | None = None) -> list[Artist]:
    """What bands, crosses and, with a table of published numbers, dotted lines mean."""
    found: list[Artist] = []
    if any(np.isfinite(one.metric_deviation).any() for one in curves):
        found.append(Patch(color=INK, alpha=0.2, linewidth=0, label="standard deviation"))
    if any(one.has_ended_early for one in curves):
        found.append(Line2D([], [], color=INK, linestyle="", **_CROSS, label="ended early"))
    if grid is not None and any(_level(grid, one.label, one.width) is not None for one in curves):
        found.append(Line2D([], [], color=INK, linestyle=":", linewidth=0.9, label="published"))
    return found


def _not_drawn(
    drawn: Sequence[MeanCurve], grid: Grid, styles: Mapping[str, _Look], otherwise: str = ""
) -> list[Artist]:
    """Keys of methods that were run and of which there is no curve, with the reason.

    A diverged seed ends a mean, so that of a method that diverges at once nothing is left.
    """
    there = {(one.label, one.width) for one in drawn}
    keys: list[Artist] = []
    for label in grid.labels:
        reasons: dict[str, list[str]] = {}
        for width in grid.widths:
            statuses = grid.entry(label, width).statuses
            reason = ", ".join(unfinished(statuses)) or otherwise
            if reason and set(statuses) - {"missing", "running"} and (label, width) not in there:
                reasons.setdefault(reason, []).append(width)
        is_partial = len(reasons) > 1 or any(label == other for other, _ in there)
        for reason, widths in reasons.items():
            where = f" at width {joined(widths)}" if is_partial else ""
            text = _printable(f"{label}{where} (not drawn: {reason})")
            keys.append(Line2D([], [], color=styles[label].colour, ls="", **_CROSS, label=text))
    return keys


def _draw_line(axes: Any, x: Array, mean: Array, deviation: Array, look: _Look) -> None:
    every = max(1, len(x) // 6)
    axes.plot(x, mean, **look.line(), linewidth=look.width, markevery=every)
    if np.isfinite(deviation).any():
        low, high = mean - deviation, mean + deviation
        axes.fill_between(x, low, high, color=look.colour, alpha=0.13, linewidth=0)


def _cross(axes: Any, x: float, y: float, look: _Look, **more: Any) -> None:
    axes.plot(x, y, color=look.colour, **_CROSS, **more)


def _level(grid: Grid, label: str, width: str) -> float | None:
    published = grid.entry(label, width).published
    return published.value if published is not None and published.is_number else None


def _metric_panel(axis: str, styles: Mapping[str, _Look], grid: Grid) -> Draw:
    def draw(axes: Any, curves: Sequence[MeanCurve]) -> None:
        levels = []
        for one in curves:
            look = styles[one.label]
            x = one.axes[axis]
            _draw_line(axes, x, one.metrics, one.metric_deviation, look)
            if one.has_ended_early:
                _cross(axes, x[-1], one.metrics[-1], look, zorder=5)
            if (level := _level(grid, one.label, one.width)) is not None:
                levels.append(level)
                axes.axhline(level, color=look.colour, linestyle=":", linewidth=0.9)
        quiet_axes(axes, axis)
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


def _loss_panel(styles: Mapping[str, _Look]) -> Draw:
    def draw(axes: Any, curves: Sequence[MeanCurve]) -> None:
        for one in curves:
            look = styles[one.label]
            # On a logarithmic axis a band below zero has no end.
            deviation = np.minimum(one.loss_deviation, 0.95 * np.abs(one.losses))
            _draw_line(axes, one.axes["epochs"], one.losses, deviation, look)
            if one.has_ended_early:
                _cross(axes, one.axes["epochs"][-1], one.losses[-1], look, zorder=5)
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


def _step_panel(styles: Mapping[str, _Look], blocks: list[str]) -> Draw:
    """Colour is the method, as everywhere; dashes tell the blocks apart."""

    def draw(axes: Any, curves: Sequence[MeanCurve]) -> None:
        for one in curves:
            for block, sizes in one.step_sizes.items():
                dashes = DASHES[blocks.index(block) % len(DASHES)]
                axes.plot(
                    *(one.axes["epochs"], sizes),
                    **{**styles[one.label].line(), "linestyle": dashes},
                    linewidth=1.0,
                    markevery=max(1, len(sizes) // 6),
                )
        lines = [sizes for one in curves for sizes in one.step_sizes.values()]
        low = least_shown(lines)
        if 0 < 20 * low < max(map(np.nanmax, lines)):
            log_scale(axes, low=low)
        quiet_axes(axes, "epochs")
        axes.set_ylabel("step size", color=INK)

    return draw


def _dependence_panels(dependences: Sequence[Dependence]) -> Callable[[], Figure]:
    styles = _looks(list(dict.fromkeys(one.family for one in dependences)))

    def drawn() -> Figure:
        widths = by_size(one.width for one in dependences)
        handles = [_key(family, look) for family, look in styles.items()]
        figure, panels = grid_of_panels(len(widths), [*handles, *_of_bars(dependences)])
        for width, axes in zip(widths, panels, strict=True):
            axes.set_title(f"width {width}" if width else "", loc="left", color=INK)
            here = [one for one in dependences if one.width == width]
            for one in here:
                _draw_dependence(axes, one, styles[one.family])
            if all(one.is_logarithmic for one in here):
                log_scale(axes, "x")
            quiet_axes(axes, _printable(here[0].option))
            axes.margins(x=0.05)
            metric = next((entry.metric for one in here for entry in one.entries), "")
            axes.set_ylabel(metric_name(metric), color=INK)
        return figure

    return drawn


def _of_bars(dependences: Sequence[Dependence]) -> list[Artist]:
    """What bars and crosses mean."""
    spreads = [entry.spread() for one in dependences for entry in one.entries]
    found = []
    if any(math.isfinite(spread.deviation) for spread in spreads):
        bar: Any = {"linestyle": "", "marker": "|", "markersize": 7}
        found.append(Line2D([], [], color=INK, **bar, label="standard deviation"))
    if not all(math.isfinite(spread.mean) for spread in spreads):
        found.append(Line2D([], [], color=INK, linestyle="", **_CROSS, label="did not finish"))
    return [*found]


def _draw_dependence(axes: Any, one: Dependence, look: _Look) -> None:
    spreads = [entry.spread("final") for entry in one.entries]
    means = np.array([spread.mean for spread in spreads])
    deviations = np.nan_to_num(np.array([spread.deviation for spread in spreads]))
    axes.errorbar(one.values, means, deviations, **look.line(), linewidth=1.2, capsize=2)
    for value, mean in zip(one.values, means, strict=True):
        if not math.isfinite(mean):  # a seed did not finish
            _cross(axes, value, 0.03, look, transform=axes.get_xaxis_transform())


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text) or " "
