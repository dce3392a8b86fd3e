"""What the page's script draws, as JSON that is inert inside an HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from samt.bench.report.convergence import DATA, Rate
from samt.bench.report.findings import Findings
from samt.bench.report.grids import Grid
from samt.bench.report.mean_curves import MeanCurve
from samt.bench.report.sensitivity import Dependence
from samt.bench.report.style import looks
from samt.bench.report.wording import metric_name, unfinished

# `<` could end the script, the last two end a line in old JavaScript.
_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def payload(findings: Findings) -> dict[str, Any]:
    """Curves, published levels and dependences of an experiment.

    Args:
        findings: of the experiment.

    Returns:
        `labels` and, in the same order, `looks` of the methods; `places`, `dependences` and
        `rates`, where a method is an index of `labels`.
    """
    index = {label: series for series, label in enumerate(findings.labels)}
    places: dict[tuple[str, str, str], dict[str, Any]] = {}
    for curve in findings.curves:
        key = (curve.data, curve.model, curve.width)
        place = places.setdefault(
            key, {**_where(key, curve.metric), "published": _levels(findings.grids, key, index)}
        )
        place.setdefault("lines", []).append(_line(curve, index[curve.label]))
    return {
        "labels": list(findings.labels),
        "looks": list(looks(findings.labels).values()),
        "places": list(places.values()),
        "dependences": _dependences(findings.dependences),
        "rates": _rates(findings.rates, index),
    }


def inert_json(value: Any) -> str:
    """JSON that no HTML parser takes for anything but text; NaN and infinity become null."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def _where(key: tuple[str, str, str], metric: str) -> dict[str, Any]:
    data, model, width = key
    return {
        "data": data,
        "model": model,
        "width": width,
        "metric": metric_name(metric),
        "percent": metric == "accuracy",
    }


def _line(curve: MeanCurve, series: int) -> dict[str, Any]:
    return {
        "series": series,
        "seeds": sum(curve.statuses.values()),
        "ended": ", ".join(unfinished(curve.statuses)),
        "x": {name: _numbers(values) for name, values in curve.axes.items()},
        "metric": _numbers(curve.metrics),
        "metric_sd": _numbers(curve.metric_deviation),
        "loss": _numbers(curve.losses),
        "loss_sd": _numbers(curve.loss_deviation),
        "blocks": {name: _numbers(values) for name, values in curve.step_sizes.items()},
    }


def _levels(
    grids: Iterable[Grid], key: tuple[str, str, str], index: dict[str, int]
) -> list[dict[str, Any]]:
    """Published numbers of a place."""
    data, model, width = key
    return [
        {"series": index[label], "value": entry.published.value}
        for grid in grids
        if (grid.data, grid.model) == (data, model)
        for (label, other), entry in grid.entries.items()
        if other == width and entry.published and entry.published.is_number
    ]


def _dependences(dependences: Iterable[Dependence]) -> list[dict[str, Any]]:
    """Those of one option on one place together."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in dependences:
        key = (one.data, one.model, one.width)
        metric = next((entry.metric for entry in one.entries if entry.metric), "")
        plot = found.setdefault(
            (one.option, *key), {**_where(key, metric), "option": one.option, "lines": []}
        )
        spreads = [entry.spread("final") for entry in one.entries]
        plot["lines"].append(
            {
                "name": one.family,
                "log": one.is_logarithmic,
                "x": _numbers(one.values),
                "y": _numbers(spread.mean for spread in spreads),
                "sd": _numbers(spread.deviation for spread in spreads),
                "seeds": [spread.n for spread in spreads],
                "trouble": [", ".join(unfinished(entry.statuses)) for entry in one.entries],
            }
        )
    for plot in found.values():
        numbers = looks(line["name"] for line in plot["lines"])
        plot["lines"] = [{**line, "look": numbers[line["name"]]} for line in plot["lines"]]
    return list(found.values())


def _rates(rates: Iterable[Rate], index: dict[str, int]) -> list[dict[str, Any]]:
    """One place with all methods, or none."""
    lines = [
        {
            "series": index[one.label],
            "seeds": one.seeds,
            "x": _numbers(one.steps),
            "y": _numbers(one.errors),
            "sd": _numbers(one.deviations),
            "limit": _numbers(one.limit),
        }
        for one in rates
    ]
    return [{**_where((DATA, "additive", ""), "rmse"), "lines": lines}] if lines else []


def _numbers(values: Iterable[float]) -> list[float | None]:
    """Six digits are more than a screen shows."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]
