"""The interactive page: one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

import samt
from samt.bench.report import wording
from samt.bench.report.cell_text import cell_text
from samt.bench.report.discrepancies import Gap
from samt.bench.report.findings import Findings
from samt.bench.report.grids import DEVIATIONS, POINTS, SHARE
from samt.bench.report.payload import inert_json, payload
from samt.bench.statistics import Difference, Spread

_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("traces.js", "figures.js", "page.js")
_VERDICTS = ("agrees", "better", "worse")


@dataclass(frozen=True)
class Section:
    """A part of an experiment: a key, and its heading."""

    anchor: str
    title: str


@dataclass(frozen=True)
class Shown:
    """An experiment as the templates take it.

    Args:
        anchor: of its place in the page.
        findings: what there is to tell.
        sections: those that have content.
        summary: one line.
        bar: how many published numbers agree, as a picture.
        tally: the same in words.
        payload: JSON for the page's script.
    """

    anchor: str
    findings: Findings
    sections: Sequence[Section]
    summary: str
    bar: Markup
    tally: str
    payload: Markup


def page(findings: Sequence[Findings], location: str, damaged: Mapping[str, str]) -> str:
    """Write the page.

    Args:
        findings: of the experiments.
        location: of the results, for the title.
        damaged: files that could not be read, with the reason.

    Returns:
        HTML with all styles, scripts and numbers inside.
    """
    scripts = [_plotly(), _own_script()]
    return (
        _environment()
        .get_template("page.html")
        .render(
            title="Results of SAMT, beside the published ones",
            lede=_lede(findings, location),
            policy=_policy(scripts),
            style=Markup(_asset("page.css")),
            scripts=[Markup(script) for script in scripts],
            experiments=[_shown(one) for one in findings],
            not_run=list(dict.fromkeys(title for one in findings for title in one.beside)),
            damaged=damaged,
            version=samt.__version__,
            deviations=f"{DEVIATIONS:g}",
            points=f"{POINTS:g}",
            share=f"{100 * SHARE:g}",
        )
    )


def _shown(findings: Findings) -> Shown:
    verdicts: Counter[str] = Counter(
        comparison.verdict
        for grid in findings.grids
        for entry in grid.entries.values()
        if (comparison := entry.comparison("final")) is not None
    )
    return Shown(
        anchor=f"experiment-{findings.name}",
        findings=findings,
        sections=_sections(findings),
        summary=_summary(findings),
        bar=_bar(verdicts),
        tally=", ".join(f"{verdicts[one]} {_WORDS[one]}" for one in _VERDICTS if verdicts[one]),
        payload=Markup(inert_json(payload(findings))),
    )


_WORDS = {"agrees": "agree", "better": "better", "worse": "worse"}


def _sections(findings: Findings) -> list[Section]:
    parts = {
        Section("numbers", "Final numbers"): findings.grids,
        Section("convergence", "Convergence and its bound"): findings.rates,
        Section("sensitivity", "Sensitivity"): findings.dependences,
        Section("curves", "Curves"): findings.curves,
        Section("steps", "Step sizes"): [
            curve for curve in findings.curves if curve.step_sizes and curve.axes
        ],
        Section("methods", "Ranks and differences"): findings.differences,
        Section("choices", "Chosen on the validation part"): findings.choices,
        Section("gaps", "What we could not reproduce and why"): [True],
        Section("made", "How it was made"): [True],
    }
    return [section for section, content in parts.items() if content]


def _summary(findings: Findings) -> str:
    made = findings.provenance
    finished = made.statuses.get("finished", 0)
    words = [
        f"{wording.thousands(count)} {wording.STATUS_WORDS[status]}"
        for status, count in made.statuses.items()
        if status in wording.STATUS_WORDS
    ]
    rest = f", {wording.joined(words)}" if words else ""
    cells = wording.counted(made.cells, "cell")
    done = f"{cells}: {wording.thousands(finished)} finished{rest}."
    return f"{done} {wording.duration(made.seconds)} of computing."


def _lede(findings: Sequence[Findings], location: str) -> str:
    cells = sum(one.provenance.cells for one in findings)
    compared = sum(one.discrepancies.compared for one in findings)
    size = f"{wording.counted(len(findings), 'experiment')} with {wording.counted(cells, 'cell')}"
    beside = f"{wording.counted(compared, 'number')} beside a published one"
    return f"{size} from {location}; {beside}."


def _bar(verdicts: Mapping[str, int]) -> Markup:
    """Shares of the published numbers, beside the words that say the same."""
    total, x, parts = sum(verdicts.values()), 0.0, []
    for verdict in _VERDICTS:
        width = 100 * verdicts[verdict] / total if total else 0.0
        parts.append(
            f'<rect class="{verdict}" x="{x:.2f}" y="0" width="{width:.2f}" height="10"></rect>'
        )
        x += width
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )


def _forest(row: Difference, rows: Sequence[Difference]) -> Markup:
    """The interval of a difference on the scale of its table."""
    reach = _reach(rows)
    if not math.isfinite(row.mean) or not reach:
        return Markup("")

    def x(value: float) -> str:
        return f"{60 + 57 * max(-1.0, min(1.0, value / reach)):.1f}"

    parts = ['<path class="zero" d="M60 0V12"></path>']
    if math.isfinite(row.low):
        parts.append(f'<path class="range" d="M{x(row.low)} 6H{x(row.high)}"></path>')
    if abs(row.mean) <= reach:
        parts.append(f'<circle class="dot" cx="{x(row.mean)}" cy="6" r="3"></circle>')
    else:  # an arrow: it lies outside
        tip, back = (117, -6) if row.mean > 0 else (3, 6)
        parts.append(f'<path class="dot" d="M{tip} 6l{back} -4v8z"></path>')
    return Markup(f'<svg viewBox="0 0 120 12" aria-hidden="true">{"".join(parts)}</svg>')


def _reach(rows: Sequence[Difference]) -> float:
    """Half of a table's scale: one method that fails must not squeeze the others flat."""
    ends = [max(abs(one.low), abs(one.high), abs(one.mean)) for one in rows]
    sizes = sorted(end for end in ends if math.isfinite(end))
    usual = 5 * sizes[(len(sizes) - 1) // 2] if sizes else 0.0
    return max((size for size in sizes if size <= usual), default=0.0)


def _difference_text(row: Difference, rows: Sequence[Difference]) -> str:
    if row.unfinished:
        return f"{row.unfinished} of {row.n} did not finish"
    return wording.difference(row.mean, rows)


def _interval_text(row: Difference, rows: Sequence[Difference]) -> str:
    if not math.isfinite(row.low):
        return "" if row.unfinished else "one seed"
    return f"{wording.difference(row.low, rows)} to {wording.difference(row.high, rows)}"


def _by_place(differences: Iterable[Difference]) -> list[tuple[str, list[Difference]]]:
    found: dict[str, list[Difference]] = {}
    for one in differences:
        found.setdefault(_where(one), []).append(one)
    return list(found.items())


def _where(item: Any) -> str:
    return wording.place(item.data, item.model, item.width)


def _plain(value: float, metric: str) -> str:
    return wording.number(value, wording.decimals(metric, value))


def _spread(one: Spread, metric: str) -> str:
    return wording.spread(metric, one)


def _gap_text(gap: Gap) -> str:
    metric, difference = gap.published.metric, gap.comparison.difference
    text = wording.signed(difference, wording.decimals(metric, gap.measured.mean))
    if metric == "accuracy" or not gap.published.value:
        return text
    return f"{text} ({wording.signed(100 * difference / gap.published.value, 1)} %)"


def _deviations_text(gap: Gap) -> str:
    return f"{gap.deviations:.1f}" if math.isfinite(gap.deviations) else "one seed"


def _troubles(statuses: Mapping[str, int]) -> str:
    return ", ".join(wording.unfinished(statuses))


def _breakable(text: str) -> Markup:
    """Text that may break behind punctuation, as long options must on a phone."""
    parts = "".join(f"{letter}\0" if letter in ":,/=" else letter for letter in text)
    return Markup("<wbr>").join(escape(part) for part in parts.split("\0"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("samt.bench.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {"cell_text": cell_text, "status_words": wording.STATUS_WORDS}
    environment.filters |= {
        "breakable": _breakable,
        "by_place": _by_place,
        "counted": wording.counted,
        "deviations_text": _deviations_text,
        "difference_text": _difference_text,
        "duration": wording.duration,
        "forest": _forest,
        "gap_text": _gap_text,
        "interval_text": _interval_text,
        "metric_name": wording.metric_name,
        "plain": _plain,
        "spread": _spread,
        "thousands": wording.thousands,
        "troubles": _troubles,
        "where": _where,
    }
    return environment


@cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _own_script() -> str:
    parts = "\n".join(_asset(name) for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _policy(scripts: Iterable[str]) -> str:
    """No network at all, and no script but those that are known by their checksums."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        f"img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
