"""Tables in Markdown, and their place in a page of documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_BEGIN, _END = "<!-- {} -->", "<!-- end of {} -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose first columns stand left, the others right.

    >>> print(table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | ---: |
    | 1 | 2 |
    """
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def inserted(page: str, name: str, text: str) -> str:
    """A page with the text between its two marks replaced.

    Args:
        page: has a line `<!-- NAME -->`, and `<!-- end of NAME -->` below it.
        name: of the mark.
        text: what comes between them.

    Raises:
        ValueError: the marks are not there.

    >>> inserted("a\\n<!-- x -->\\nold\\n<!-- end of x -->\\nb", "x", "new")
    'a\\n<!-- x -->\\n\\nnew\\n\\n<!-- end of x -->\\nb'
    """
    begin, end = _BEGIN.format(name), _END.format(name)
    before, mark, rest = page.partition(begin)
    _, closing, after = rest.partition(end)
    if not mark or not closing:
        raise ValueError(f"the lines {begin} and {end} are not there: write them")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"
