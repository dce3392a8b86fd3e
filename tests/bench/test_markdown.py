"""Texts from data in Markdown: they stay what they are, where they are."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import markdown
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from samt.bench.report.dependence_text import dependence_text
from samt.bench.report.grids import Entry
from samt.bench.report.markdown import escaped, inserted, table
from samt.bench.report.sensitivity import Dependence
from samt.bench.report.standing_text import standing_text
from samt.bench.standing import standings
from samt.bench.terminal import shown

from .standing_cells import cells

EVIL = [
    *(
        "a|b",
        "`a|b`",
        "``|",
        "<i>x</i>",
        "[a](javascript:x)",
        "![a](b)",
        "two\nlines",
        "a\\|b",
        "\\",
    ),
    *("**a**", "_a_", "a_b", "__a__", "~~a~~", "# a", "- a", "+ a", "1. a", "12) a", "> a", "---"),
    *("&lt;", "&#124;", "<!-- end of one, ours -->", "<script>", "https://a.b", "www.a.b", "a@b.c"),
    *("a\x1b[2J\r", "\u202eabc", "a\u2028b", "| --- |", "{: .x}", "[^1]", "!!! note", "$x$", "```"),
]
PARSERS: dict[str, Callable[[str], str]] = {
    "of the documentation": lambda text: markdown.markdown(
        text, extensions=["tables", "admonition", "pymdownx.superfences"]
    ),
    "of the terminal": MarkdownIt("commonmark").enable(["table", "strikethrough"]).render,
}


class Texts(HTMLParser):
    """The texts of rows and paragraphs, and the elements that there are."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.paragraphs: list[str] = []
        self.tags: set[str] = set()
        self._inside: list[str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._inside = self.rows[-1]
        if tag == "p":
            self._inside = self.paragraphs
        if tag in ("td", "th", "p") and self._inside is not None:
            self._inside.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "p"):
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self._inside[-1] += data

    def handle_comment(self, data: str) -> None:
        self.tags.add("comment")


def assert_reads(text: str, parser: str) -> None:
    line = shown(" ".join(text.split()))
    rows = [[escaped(text), "1", escaped(text)], ["x", escaped(text), "2"]]
    html = PARSERS[parser](f"{table(['a', escaped(text), 'c'], rows)}\n\n{escaped(text)} ends.\n")
    found = Texts(html)
    assert found.rows == [["a", line, "c"], [line, "1", line], ["x", line, "2"]], html
    assert [" ".join(one.split()) for one in found.paragraphs] == [f"{line} ends.".strip()], html
    assert found.tags <= {"table", "thead", "tbody", "tr", "th", "td", "p"}, html


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("text", EVIL)
def test_an_evil_text_is_one_cell_that_reads_as_it_is(text: str, parser: str) -> None:
    assert_reads(text, parser)


@pytest.mark.parametrize("parser", PARSERS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=st.text(st.one_of(st.sampled_from("|`<>[]()!*_~#&\\-+1.:/\n $@{}="), st.characters())))
def test_any_text_is_one_cell_that_reads_as_it_is(text: str, parser: str) -> None:
    assert_reads(text, parser)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("evil", EVIL)
def test_a_standing_of_evil_names_is_one_table(evil: str, parser: str) -> None:
    values = {evil: [0.9, 0.92], "SGD": [0.8, 0.8], f"{evil} tuned": [0.1, 0.2]}
    judged = standings({evil: cells("accuracy", values)}, evil, ["SGD", f"{evil} tuned"])
    text = standing_text(judged, ["SGD", f"{evil} tuned"])
    page = inserted("<!-- one, ours -->\n<!-- end of one, ours -->\n", "one, ours", text)
    assert inserted(page, "one, ours", "other") == (
        "<!-- one, ours -->\n\nother\n\n<!-- end of one, ours -->\n"
    )
    found = Texts(PARSERS[parser](page))
    line = shown(" ".join(evil.split()))
    assert len(found.rows) == 4
    assert {len(row) for row in found.rows} == {6}
    assert (found.rows[0][2], found.rows[1][0]) == (line, line)
    assert found.tags - {"comment"} <= {"table", "thead", "tbody", "tr", "th", "td", "p", "strong"}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("evil", EVIL)
def test_a_dependence_of_evil_names_is_one_table(evil: str, parser: str) -> None:
    entry = Entry("", {"failed": 1})
    one = Dependence(evil, evil, evil, "8", evil, [0.1, 1.0, 10.0], [entry] * 3)
    found = Texts(PARSERS[parser](dependence_text([one])))
    line = shown(" ".join(evil.split()))
    assert [row[0] for row in found.rows] == [line, line]
    assert {len(row) for row in found.rows} == {5}
    place = shown(" ".join(f"{evil}, {evil}, width 8".split()))
    assert found.paragraphs == [f"{place}: test metric, by {line}"]
