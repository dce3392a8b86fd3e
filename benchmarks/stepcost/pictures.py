"""The two pictures of the page: cost against depth and against width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from .models import DEPTH_MODELS, DEPTHS, WIDTH_MODELS, WIDTHS
from .results import Row
from .scaling import CURVES, FLOORS, WIDE_LABELS, Curve

_INK = "#333333"


def draw(rows: Sequence[Row], folder: Path, stem: str) -> list[Path]:
    """Draw the pictures that there are results for.

    Args:
        rows: results of any models.
        folder: where the PNG files go.
        stem: that their names begin with.

    Returns:
        The files.
    """
    wanted = (
        (f"{stem}-depth.png", _depth, DEPTH_MODELS, DEPTHS),
        (f"{stem}-width.png", _width, WIDTH_MODELS, WIDTHS),
    )
    drawn = []
    for name, decorate, models, sizes in wanted:
        mine = {(row.model, row.method): row for row in rows if row.model in models}
        if not any(row.ratio for row in mine.values()):
            continue
        figure = Figure(figsize=(9, 5.6), dpi=130, layout="constrained")
        axes = figure.subplots()
        for curve in CURVES:
            _curve(axes, curve, list(models), sizes, mine)
        _frame(axes, sizes)
        decorate(axes)
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / name)
        drawn.append(folder / name)
    return drawn


def _curve(
    axes: Any,
    curve: Curve,
    models: Sequence[str],
    sizes: Sequence[int],
    rows: dict[tuple[str, str], Row],
) -> None:
    found = [
        (size, rows.get((model, curve.method))) for size, model in zip(sizes, models, strict=True)
    ]
    points = [(size, row.ratio, row.low, row.high) for size, row in found if row and row.ratio]
    if not points:
        return
    x, middle, low, high = zip(*points, strict=True)
    compiled = curve.method.startswith("compiled")
    axes.plot(
        x,
        middle,
        color=curve.colour,
        marker=curve.marker,
        markersize=6,
        markerfacecolor="white" if compiled else curve.colour,
        linewidth=2,
        linestyle=(0, (4, 1.5)) if compiled else "-",
        label=curve.label,
        zorder=3,
    )
    axes.fill_between(x, low, high, color=curve.colour, alpha=0.15, linewidth=0)


def _frame(axes: Any, sizes: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("time of a step, as a ratio to torch SGD", color=_INK)
    axes.grid(visible=True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=_INK)
    axes.legend(loc="upper left", frameon=False, fontsize=9, handlelength=3)


def _depth(axes: Any) -> None:
    _floors(axes, DEPTHS, [[floor.deep(layers) for layers in DEPTHS] for floor in FLOORS])
    _labels(axes, [floor.label for floor in FLOORS], [f.deep(DEPTHS[-1]) for f in FLOORS])
    _title(axes, "Cost against depth", "equal layers of 256 units, batch 256")
    axes.set_xlabel("layers, L (each is a block)", color=_INK)


def _width(axes: Any) -> None:
    _floors(axes, WIDTHS, [[floor.wide] * len(WIDTHS) for floor in FLOORS])
    _labels(axes, WIDE_LABELS, [floor.wide for floor in FLOORS])
    _title(axes, "Cost against width", "784-h-10, batch 64")
    axes.set_xlabel("hidden units, h", color=_INK)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 1.6)  # room for the legend
    axes.legend(loc="upper right", frameon=False, fontsize=9, handlelength=3, ncols=2)


def _floors(axes: Any, sizes: Sequence[int], lines: Sequence[Sequence[float]]) -> None:
    for floor, line in zip(FLOORS, lines, strict=True):
        axes.plot(sizes, line, color=floor.colour, linewidth=1.1, linestyle=":", zorder=2)


def _labels(axes: Any, labels: Sequence[str], heights: Sequence[float]) -> None:
    """At the right end of each floor, in its colour."""
    for floor, label, height in zip(FLOORS, labels, heights, strict=True):
        axes.annotate(
            label,
            (1, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=floor.colour,
        )


def _title(axes: Any, title: str, about: str) -> None:
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=_INK, pad=24)
    axes.text(
        0,
        1.025,
        f"{about}; dotted: in theory; band: quartiles",
        transform=axes.transAxes,
        fontsize=9.5,
        color="#666666",
    )
