"""What all pictures have in common: colours, dashes, axes."""

from __future__ import annotations

from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# Okabe and Ito's colours, which people with any colour vision can tell apart, the light ones darker
# so that a line of them shows on white. Those of the page, in assets/page.css, are the same.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8578f", "#b97a00", "#338fcd", "#4a4d52")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1)))
MARKERS = ("o", "s", "D", "^", "v", "p", "*")
INK = "#333333"


def log_scale(axes: Any, which: str = "y") -> None:
    """A logarithmic axis with the numbers 1, 2, 5, 10, … as people write them.

    Args:
        axes: of matplotlib, with everything drawn.
        which: "x" or "y".
    """
    axes.set(**{f"{which}scale": "log"})
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = getattr(axes.dataLim, f"interval{which}")
    is_long = 0 < 1e4 * low < high
    axis.set_major_locator(LogLocator(numticks=6) if is_long else LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def quiet_axes(axes: Any, x: str) -> None:
    """Two spines, a pale grid, whole epochs.

    Args:
        axes: of matplotlib.
        x: label of the horizontal axis.
    """
    axes.set_xlabel(x, color=INK)
    axes.margins(x=0.01)
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=INK, which="both")
    if x.startswith("epoch"):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def line_width(index: int, count: int) -> float:
    """Thinner from method to method, so that a curve under another one still shows.

    Args:
        index: of the method.
        count: of methods.
    """
    return 3.4 - 1.8 * index / max(count - 1, 1)
