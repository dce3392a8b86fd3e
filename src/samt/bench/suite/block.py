"""A part of the report: a table with what must be known to read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from samt.bench.report.markdown import escaped, table


class Best(str):
    """The text of a cell that stands out."""

    __slots__ = ()


@dataclass(frozen=True)
class Block:
    """A part of the report.

    Args:
        title: its heading.
        head: the heads of the columns; none for a part without a table.
        rows: the cells.
        notes: what must be known to read the table; without a table, the lines of a list.
        left: the number of columns that hold text.
    """

    title: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()
    left: int = 1

    def markdown(self) -> str:
        """The block for a page of documentation."""
        notes = [escaped(note) for note in self.notes]
        if not self.head:
            return "\n".join(f"- {note}" for note in notes)
        rows = [
            [f"**{escaped(cell)}**" if isinstance(cell, Best) else escaped(cell) for cell in row]
            for row in self.rows
        ]
        heads = [escaped(one) for one in self.head]
        return "\n\n".join([table(heads, rows, self.left), *notes])


def number(value: float, digits: int = 2) -> str:
    """A number with the digits that say something.

    >>> number(0.00123456, 3), number(12.3456), number(float("nan")), number(float("inf"))
    ('0.00123', '12.35', '', '∞')
    """
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value and abs(value) < 10 ** (1 - digits):
        return f"{value:.{digits}g}".replace("-", "−", 1)
    return f"{value:.{digits}f}".replace("-", "−", 1)
