"""Tables in Markdown, and their place in a page of documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from samt.bench.terminal import shown

_BEGIN, _END = "<!-- {} -->", "<!-- end of {} -->"


# What makes markup anywhere, or where words end, begin, or look like an address.
_MARKUP = re.compile(
    r"[^\w\s.,;:()=%/+'\"@–×±·-]"
    r"|(?<![^\W_])_|_(?![^\W_])"
    r"|:(?=//)|@(?=\w)|(?<=\bwww)\."
    r"|^[^\w\s]|(?<=^\d)[.)](?!\S)|(?<=^\d\d)[.)](?!\S)",
    re.ASCII,
)


def escaped(text: str) -> str:
    """A text from data, so that it reads as it is, in a cell of a table too.

    Args:
        text: any; it becomes one line.

    >>> print(escaped("a|b <i>_x_"), escaped("step_size=row, 0.1"))
    a&#124;b &#60;i&#62;&#95;x&#95; step_size=row, 0.1
    """
    line = shown(" ".join(text.split()))
    return _MARKUP.sub(
        lambda found: f"&#{ord(found[0])};" if found[0].isascii() else found[0], line
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose first columns stand left, the others right; texts from data are `escaped`.

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
