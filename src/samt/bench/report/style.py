"""What all pictures have in common: looks of methods, axes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

# Okabe and Ito's colours, which people with any colour vision can tell apart, the light ones darker
# so that a line of them shows on white. Those of the page, in assets/page.css, are the same.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8578f", "#b97a00", "#338fcd", "#4a4d52")
# Dotted is the last, because published numbers are dotted.
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1)), (0, (1, 1.5)))
MARKERS = ("o", "s", "D", "^", "v", "p", "*")
INK = "#333333"
# Methods that stand in several experiments, by the start of their label; colours begin again at 7.
_KNOWN = {
    "samt": 0,
    "samt-s": 0,
    "samt-e": 1,
    "samt-s annealed": 2,
    "adam": 3,
    "sgd": 4,
    "hd": 5,
    "sgd-hd": 5,
    "dante": 6,
    "samt-s next": 9,
    "dladmm": 10,
    "fixed step": 11,
    "mdlam": 12,
}


def looks(labels: Iterable[str]) -> dict[str, int]:
    """Give each method of an experiment a look: a number that decides colour, dashes and marker.

    Args:
        labels: of the methods, in the order of the experiment.

    Returns:
        A different number for each label. A method that is known looks the same in every
        experiment; the others take what is free, first the colours that no method here has.

    >>> looks(["mine", "SGD", "SAMT-S:lr=1", "SAMT-S:lr=2"])
    {'mine': 1, 'SGD': 4, 'SAMT-S:lr=1': 0, 'SAMT-S:lr=2': 2}
    """
    found: dict[str, int] = {}
    labels = list(dict.fromkeys(labels))
    for label in sorted(labels, key=lambda one: ":" in one):  # a method before its variants
        known = _KNOWN.get(label.partition(":")[0].casefold())
        if known is not None and known not in found.values():
            found[label] = known
    for label in labels:
        if label not in found:
            colours = {look % len(COLOURS) for look in found.values()}
            free = (colour for colour in range(len(COLOURS)) if colour not in colours)
            unused = (look for look in itertools.count() if look not in found.values())
            found[label] = next(itertools.chain(free, unused))
    return {label: found[label] for label in labels}


def log_scale(axes: Any, which: str = "y", low: float = 0.0) -> None:
    """A logarithmic axis with the numbers 1, 2, 5, 10, … as people write them.

    Args:
        axes: of matplotlib, with everything drawn.
        which: "x" or "y".
        low: what is smaller lies outside.
    """
    axes.set(**{f"{which}scale": "log"})
    axis = axes.yaxis if which == "y" else axes.xaxis
    least, high = getattr(axes.dataLim, f"interval{which}")
    if low > least:
        least = low
        axes.set(**{f"{which}lim": (low, high * (high / low) ** 0.04)})
    is_long = 0 < 1e3 * least < high
    axis.set_major_locator(LogLocator(numticks=6) if is_long else LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def least_shown(lines: Iterable[npt.NDArray[np.float64]]) -> float:
    """Where a logarithmic axis of step sizes begins.

    A schedule that ends at almost nothing would squeeze all else flat, so each line is followed for
    four decades below its own largest value, however small that is.

    Args:
        lines: each with a finite value.

    Returns:
        0 or less if a value is, which has no place on such an axis.
    """
    ends = [(float(np.nanmin(one)), float(np.nanmax(one))) for one in lines]
    least = min(low for low, _ in ends)
    return least if least <= 0 else min(max(low, 1e-4 * high) for low, high in ends)


def quiet_axes(axes: Any, x: str) -> None:
    """Two spines, a pale grid, whole epochs, as many short numbers below as there is room for.

    Args:
        axes: of matplotlib, with everything drawn.
        x: label of the horizontal axis.
    """
    axes.set_xlabel(x, color=INK)
    axes.margins(x=0.01)
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=INK, which="both")
    if axes.get_xscale() == "linear":
        is_whole = x.startswith("epoch")
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=is_whole))
        if max(axes.get_xlim()) >= 1e4:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def line_width(index: int, count: int) -> float:
    """Thinner from method to method, so that a curve under another one still shows.

    Args:
        index: of the method.
        count: of methods.
    """
    return 3.4 - 1.8 * index / max(count - 1, 1)
