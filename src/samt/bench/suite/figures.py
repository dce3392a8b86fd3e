"""The figures of the suite's page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from samt.bench.suite import progress, scores
from samt.bench.suite.compared import OURS, Compared
from samt.bench.suite.summary import Summary

_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b",
    "#bcbd22", "#17becf", "#9467bd", "#ff9896", "#000000", "#98df8a",
)  # fmt: skip
_DASHES = {0.25: "dot", 0.5: "dash", 1.0: "solid", 2.0: "longdash"}


def figures(found: Compared, made: Summary, halves: Mapping[str, Summary]) -> dict[str, go.Figure]:
    """The figures over all problems, by their titles.

    Args:
        found: what is compared.
        made: what all of it says.
        halves: what each half says, by its name.
    """
    return {
        "Share of problems within a factor of the best error": _profile(found, made),
        "Mean rank": _ranks(found, made, halves),
        "Steps and seconds to where tuned AdamW ends": _targets(found, made),
    }


def problem_figure(found: Compared, name: str) -> go.Figure:
    """The curves of all methods on a problem, at every horizon, averaged over seeds.

    Args:
        found: what is compared.
        name: the name of the problem.
    """
    figure = _figure("steps", found.problems[name].metric)
    runs = found.runs[found.runs["problem"] == name]
    for (label, horizon), rows in runs.groupby(["label", "horizon"], sort=False):
        curve = _curve(rows)
        figure.add_scatter(
            x=[step for step, _ in curve],
            y=[value for _, value in curve],
            name=label if horizon == 1 else f"{label}, {horizon:g} of the steps",
            legendgroup=label,
            visible=True if horizon == 1 else "legendonly",
            mode="lines",
            line={
                "color": colour(label, [*found.labels, *found.ablations]),
                "dash": _DASHES.get(horizon, "dashdot"),
                "width": 3 if label == OURS else 1.5,
            },
        )
    positive = [value for trace in figure.data for value in trace.y if value > 0]
    if positive and max(positive) > 20 * min(positive):
        figure.update_yaxes(type="log")
    figure.update_xaxes(type="log")
    return figure


def _curve(rows: pd.DataFrame) -> progress.Curve:
    """The averaged curve from the first step on, with four digits."""
    return [(step, float(f"{value:.4g}")) for step, value in progress.mean_curve(rows) if step]


def colour(label: str, labels: Sequence[str]) -> str:
    """The colour of a method, the same in every figure."""
    return _COLOURS[list(labels).index(label) % len(_COLOURS)]


def _figure(x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="none",
        xaxis={"title": {"text": x}, "automargin": True},
        yaxis={"title": {"text": y}, "automargin": True},
        margin={"t": 10, "r": 10},
        hovermode="closest",
        legend={"groupclick": "toggleitem"},
    )
    return figure


def _profile(found: Compared, made: Summary) -> go.Figure:
    figure = _figure("factor", "share of problems in %")
    ratios = scores.ratios(made.means)
    most = 4.0
    for label in made.compared:
        values = np.sort(ratios[label].to_numpy())
        within = values[values <= most]
        steps = 100 * np.arange(1, len(within) + 1) / max(1, len(values))
        figure.add_scatter(
            x=[*within.round(4).tolist(), most],
            y=[*steps.round(2).tolist(), steps[-1] if len(within) else 0],
            name=label,
            mode="lines",
            line={
                "shape": "hv",
                "color": colour(label, found.labels),
                "width": 3 if label == OURS else 1.5,
            },
        )
    figure.update_xaxes(type="log", range=[0, math.log10(most)])
    return figure


def _ranks(found: Compared, made: Summary, halves: Mapping[str, Summary]) -> go.Figure:
    figure = _figure("mean rank, 1 is best", "")
    for symbol, (name, one) in zip(
        ("circle", "diamond-open", "x"), {"all problems": made, **halves}.items(), strict=False
    ):
        figure.add_scatter(
            x=_plain(one.ranks.reindex(made.order)),
            y=made.order,
            name=name,
            mode="markers",
            marker={"symbol": symbol, "size": 10},
        )
    figure.update_yaxes(autorange="reversed")
    return figure


def _targets(found: Compared, made: Summary) -> go.Figure:
    figure = _figure("multiple of tuned AdamW's own", "")
    for name, values in (
        ("steps", [one.steps for one in made.lines]),
        ("seconds", [one.seconds for one in made.lines]),
    ):
        figure.add_bar(x=_plain(values), y=made.order, name=name, orientation="h")
    figure.update_yaxes(autorange="reversed")
    figure.add_vline(x=1, line={"dash": "dot"})
    return figure


def _plain(values: Iterable[float]) -> list[float | None]:
    return [round(float(one), 3) if math.isfinite(one) else None for one in values]
