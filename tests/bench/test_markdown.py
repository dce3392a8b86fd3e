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

from samt.bench.report.markdown import escaped, inserted, table
from samt.bench.suite.block import Best, Block
from samt.bench.terminal import shown

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
def test_a_block_of_evil_names_is_one_table(evil: str, parser: str) -> None:
    block = Block("t", [evil, "b"], [[evil, Best("1")]], [f"{evil} ends."])
    page = inserted("<!-- one -->\n<!-- end of one -->\n", "one", block.markdown())
    assert inserted(page, "one", "other") == "<!-- one -->\n\nother\n\n<!-- end of one -->\n"
    found = Texts(PARSERS[parser](page))
    line = shown(" ".join(evil.split()))
    assert found.rows == [[line, "b"], [line, "1"]]
    assert [" ".join(one.split()) for one in found.paragraphs] == [f"{line} ends.".strip()]
    assert found.tags - {"comment"} <= {"table", "thead", "tbody", "tr", "th", "td", "p", "strong"}


@pytest.mark.parametrize(
    "page", ["", "<!-- x -->", "<!-- end of x -->", "<!-- end of x --><!-- x -->"]
)
def test_a_page_without_marks(page: str) -> None:
    with pytest.raises(ValueError, match="are not there: write them"):
        inserted(page, "x", "text")
