"""Tables as LaTeX, for `\\input` into a publication that loads booktabs."""

from __future__ import annotations

from samt.bench.report.cell_text import CellText, cell_text
from samt.bench.report.grids import Grid
from samt.bench.report.wording import MINUS, metric_name
from samt.bench.statistics import Metric

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After a row's end they would be its options.
    "[": "{[}",
    "*": "{*}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    MINUS: r"$-$",
    "\N{EN DASH}": "--",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
}


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is.

    >>> latex_text("a_b & 5 %")
    'a\\\\_b \\\\& 5 \\\\%'
    """
    letters = (_ESCAPES.get(one, one if one.isprintable() else " ") for one in text)
    return "".join(letters)


def latex_table(grid: Grid, pick: Metric = "final") -> str:
    """A table of methods and widths.

    Args:
        grid: the table.
        pick: the final metric or the best one.

    Returns:
        A `tabular`, with what it shows in a comment above it. A published number stands in
        brackets behind the measured one.
    """
    about = f"{grid.data}, {grid.model}: {pick} {metric_name(grid.metric)}"
    heads = [f"width {width}" if width else "result" for width in grid.widths]
    lines = [
        f"% {_one_line(about)}; mean and standard deviation over seeds, published in brackets",
        rf"\begin{{tabular}}{{l{'r' * len(grid.widths)}}}",
        r"\toprule",
        _row(["method", *heads]),
        r"\midrule",
        *(
            _row([label], *(_cell(cell_text(grid, label, width, pick)) for width in grid.widths))
            for label in grid.labels
        ),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _row(texts: list[str], *cells: str) -> str:
    return " & ".join([*map(latex_text, texts), *cells]) + r" \\"


def _cell(text: CellText) -> str:
    main = latex_text(text.main)
    if text.is_best:
        main = rf"\textbf{{{main}}}"
    if text.kind == "unfinished":
        main = rf"\emph{{{main}}}"
    published = text.published.removeprefix("published ")
    beside = f" [{latex_text(published)}]" if published and published != text.published else ""
    return main + beside


def _one_line(text: str) -> str:
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
