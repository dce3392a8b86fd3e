"""The squared distance to the solution beside its bound, for print: a figure, CSV, LaTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from samt.bench.report.convergence import Rate
from samt.bench.report.findings import Findings
from samt.bench.report.latex import latex_text
from samt.bench.report.paper_figures import figure_files, grid_of_panels
from samt.bench.report.style import COLOURS, INK, log_scale, looks, quiet_axes
from samt.bench.report.table_files import csv_text
from samt.bench.report.wording import MINUS, counted, slug

_BOUND: Any = {"linestyle": (0, (5, 2)), "linewidth": 1.2}
_BALL_BOUND: Any = {"linestyle": (0, (1, 1.5)), "linewidth": 1.2}
_TITLE = 32  # letters that fit above a panel
_CURVE = ("method", "seeds", "steps", "error_mean", "error_sd", "bound", "ball_bound")
_RATE = (
    *("method", "seeds", "steps", "error_mean", "error_sd", "bound", "ball_bound", "is_below"),
    *("slope", "bound_slope", "smallest_share", "largest_share"),
)


def convergence_figures(findings: Findings) -> Iterator[tuple[str, bytes]]:
    """Draw the errors of an experiment and their bounds.

    Args:
        findings: of the experiment.

    Yields:
        Name of a file, and its content: `NAME-bound.png` and `.pdf`, a panel for each method;
        nothing where the solution is not known.
    """
    if findings.rates:
        colours = {
            label: COLOURS[look % len(COLOURS)] for label, look in looks(findings.labels).items()
        }
        yield from figure_files(
            slug(findings.name, "bound"), partial(_drawn, findings.rates, colours)
        )


def convergence_tables(findings: Findings) -> Iterator[tuple[str, str]]:
    """Write the errors of an experiment and their bounds.

    Args:
        findings: of the experiment.

    Yields:
        Name of a file, and its content: `NAME-bound.csv` with every evaluation; `NAME-rates.csv`
        and `NAME-rates.tex` with the last one, the slopes, and the step sizes that the bound takes,
        as shares of η⁰ on its schedule; `NAME-constants.csv`. Nothing where the solution is not
        known.
    """
    rates, name = findings.rates, findings.name
    if not rates:
        return
    yield f"{name}-bound.csv", csv_text(_CURVE, (row for one in rates for row in _curve(one)))
    yield f"{name}-rates.csv", csv_text(_RATE, map(_rate, rates))
    yield f"{name}-rates.tex", _latex(rates)
    known = [[one.symbol, one.name, float(one.value)] for one in rates[0].constants]
    yield f"{name}-constants.csv", csv_text(("symbol", "name", "value"), known)


def _curve(one: Rate) -> Iterator[list[Any]]:
    """A row for each evaluation, without a bound where it says nothing."""
    columns = (one.steps, one.errors, one.deviations, one.limit, _ball_limit(one))
    for step, *numbers in zip(*columns, strict=True):
        yield [one.label, one.seeds, int(step), *map(float, numbers)]


def _rate(one: Rate) -> list[Any]:
    *_, last = _curve(one)
    return [*last, one.is_below, one.slope, one.limit_slope, one.low, one.high]


def _ball_limit(one: Rate) -> Any:
    return np.full(len(one.steps), np.nan) if one.ball_limit is None else one.ball_limit


def _latex(rates: Sequence[Rate]) -> str:
    error = r"$\mathrm{E}\|w - w^*\|^2$"
    heads = ("method", error, "bound", "bound by the balls", "slope", "step sizes")
    lines = [
        f"% after {rates[0].steps[-1]:.0f} sweeps, mean over {rates[0].seeds} seeds; step sizes as"
        " shares of the schedule",
        r"\begin{tabular}{lrrrrr}",
        r"\toprule",
        rf"{' & '.join(heads)} \\",
        r"\midrule",
        *(rf"{' & '.join(_texts(one))} \\" for one in rates),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _texts(one: Rate) -> Iterator[str]:
    yield latex_text(one.label)
    for value in (one.errors[-1], one.limit[-1], _ball_limit(one)[-1]):
        yield f"{value:.3g}" if np.isfinite(value) else "--"
    yield latex_text(f"{one.slope:.2f}".replace("-", MINUS))
    yield f"{one.low:.2f}--{one.high:.2f}"


def _explained(rates: Sequence[Rate]) -> list[Artist]:
    """What the legend holds: nothing that is not drawn."""
    counts = sorted({one.seeds for one in rates})
    seeds = counted(counts[0], "seed") if len(counts) == 1 else "seeds"
    found: list[Artist] = [Line2D([], [], color=INK, linewidth=1.6, label=f"mean over {seeds}")]
    if counts[-1] > 1:
        found.append(Patch(color=INK, alpha=0.15, linewidth=0, label="± standard deviation"))
    found.append(Line2D([], [], color=INK, label="bound", **_BOUND))
    if any(one.ball_limit is not None for one in rates):
        found.append(Line2D([], [], color=INK, label="bound by the balls", **_BALL_BOUND))
    return found


def _drawn(rates: Sequence[Rate], colours: dict[str, str]) -> Figure:
    figure, panels = grid_of_panels(len(rates), _explained(rates))
    for one, axes in zip(rates, panels, strict=True):
        _draw(axes, one, colours[one.label])
    ends = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
        is_first = axes.get_subplotspec().is_first_col()
        axes.tick_params(labelleft=is_first)
        axes.set_ylabel("E‖w − w*‖²" if is_first else "", color=INK)
    return figure


def _draw(axes: Any, one: Rate, colour: str) -> None:
    # On a logarithmic axis a band below zero has no end.
    low = np.maximum(one.errors - one.deviations, 0.05 * one.errors)
    axes.fill_between(
        one.steps, low, one.errors + one.deviations, color=colour, alpha=0.15, linewidth=0
    )
    axes.plot(one.steps, one.errors, color=colour, linewidth=1.6)
    axes.plot(one.steps, one.limit, color=colour, **_BOUND)
    if one.ball_limit is not None:
        axes.plot(one.steps, one.ball_limit, color=colour, **_BALL_BOUND)
    _guide(axes, one)
    for which, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        log_scale(axes, which)
        axis.set_major_locator(LogLocator(numticks=9))
        axis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=9))
        axis.set_minor_formatter(NullFormatter())
    quiet_axes(axes, "sweeps")
    axes.set_title(textwrap.fill(one.label, _TITLE), loc="left", color=INK)


def _guide(axes: Any, one: Rate) -> None:
    """A short line of slope −1, below the beginning of the curve, where there is room."""
    x = np.array([one.steps[0], min(10 * one.steps[0], one.steps[-1])])
    y = 0.05 * one.errors[0] * x[0] / x
    axes.plot(x, y, color=INK, linewidth=0.8)
    axes.annotate(
        *("1/k", (x[0], y[0])),
        xytext=(2, -3),
        textcoords="offset points",
        ha="left",
        va="top",
        color=INK,
        fontsize=7,
    )
