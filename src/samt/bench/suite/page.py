"""The suite's page: one file that works without a network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from functools import cache

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from samt.bench.report.payload import inert_json
from samt.bench.suite.block import Best, Block
from samt.bench.suite.compared import Compared
from samt.bench.suite.figures import figures, problem_figure
from samt.bench.suite.report import blocks
from samt.bench.suite.summary import summary


def page(found: Compared, command: str) -> str:
    """Write the page.

    Args:
        found: what is compared.
        command: the command that makes the page, for its foot.

    Returns:
        HTML with tables, figures and plotly inside.
    """
    made = summary(found)
    halves = {
        name: summary(half)
        for name, chosen_on in (("chosen on", True), ("held out", False))
        if (half := found.half(chosen_on)).problems
    }
    parts: Mapping[str, Block] = blocks(found)
    problems = {name: _json(problem_figure(found, name)) for name in found.problems}
    environment = Environment(
        loader=PackageLoader("samt.bench.suite", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["best"] = lambda cell: isinstance(cell, Best)
    return environment.get_template("suite.html").render(
        blocks=parts.values(),
        figures={title: _json(one) for title, one in figures(found, made, halves).items()},
        problems=problems,
        halves={name: one.chosen_on for name, one in found.problems.items()},
        command=command,
        commits=sorted({str(one)[:10] for one in found.runs["commit"] if one}),
        plotly=_plotly(),
    )


def _json(figure: go.Figure) -> Markup:
    return Markup(inert_json(json.loads(figure.to_json())))


@cache
def _plotly() -> Markup:
    """Plotly's script, packed: a third of its size."""
    packed = gzip.compress(get_plotlyjs().encode(), mtime=0)
    return Markup(base64.b64encode(packed).decode())
