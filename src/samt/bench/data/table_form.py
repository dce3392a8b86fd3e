"""How a table is written: what separates its fields, and whether its first line holds names.

pandas reads the table; what it cannot know is decided here, from the first lines of the file. What
cannot be told is an error: a line of names that is read as a sample, or the other way round, would
change a result without a word.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from samt.bench.data.reading import is_packed, require_memory, unpacked
from samt.bench.errors import DataError

_LINES, _CHARACTERS = 1000, 1 << 20  # that are looked at
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.I)
_WHOLE = re.compile(r"[+-]?\d+")
MISSING = frozenset(("", "?", "-", "NA", "N/A", "NaN", "nan", "NULL", "null"))
_BYTES = 32  # that a field takes in memory, with pandas' columns and all copies

Row = Sequence[str]


@dataclass(frozen=True)
class Form:
    """How a table is written.

    Args:
        separator: the character between two fields.
        decimal: the character ahead of the decimals of a number.
        names: the fields of the first line if it holds names; empty if it is a sample.
        columns: the number of fields of a row.
    """

    separator: str
    decimal: str
    names: tuple[str, ...]
    columns: int


def form_of(path: Path) -> Form:
    """Look at the first lines of a table.

    Args:
        path: a CSV file, plain or compressed with gzip.

    Returns:
        How the table is written. Where the rows begin with a name that the first line has no
        field for, as R writes them, `names` begins with an empty one.

    Raises:
        DataError: the file is no table, is too large, or its first line cannot be understood.
    """
    lines = _first_lines(path)
    if not lines:
        raise DataError(f"{path} has no rows: put one sample in each line")
    readings = {one: _fields(lines, one) for one in ",;\t"}
    separator = max(readings, key=lambda one: _numbers(readings[one][:50], one != ","))
    first, *below = readings[separator]
    _require_memory(path, lines, len(first))
    comma = separator != "," and any(
        "," in field and _is_number(field, True) for row in below for field in row
    )
    if comma:
        first, below = _with_points([first])[0], _with_points(below)
    if below and len(below[0]) == len(first) + 1:
        first = ["", *first]
    elif below and len(below[0]) != len(first):
        raise DataError(
            f"{path}: its first line has {len(first)} fields, but the next one has "
            f"{len(below[0])}: give all lines as many"
        )
    below = [row for row in below if len(row) == len(first)]  # pandas will name the others
    names = tuple(first) if _holds_names(path, first, below) else ()
    return Form(separator, "," if comma else ".", names, len(first))


def _first_lines(path: Path) -> list[str]:
    with unpacked(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="") as file:
        lines: list[str] = []
        left = _CHARACTERS
        while len(lines) < _LINES and (left > 0 or len(lines) < 3):
            line = file.readline()
            if not line:
                break
            left -= len(line)
            if line.strip():
                lines.append(line)
    return lines


def _require_memory(path: Path, lines: Sequence[str], columns: int) -> None:
    """Refuse a table that cannot fit, going by the length of its first lines."""
    size = path.stat().st_size
    if is_packed(path):
        with path.open("rb") as file:
            file.seek(-4, io.SEEK_END)
            size = int.from_bytes(file.read(), "little")  # of what is packed
    rows = size * len(lines) // sum(map(len, lines))
    require_memory(path, _BYTES * rows * columns)


def _fields(lines: Sequence[str], separator: str) -> list[list[str]]:
    try:
        rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        return [[field.strip() for field in row] for row in rows]
    except csv.Error:
        return [[line] for line in lines]


def _numbers(rows: Sequence[Row], commas: bool) -> tuple[int, int]:
    """How much speaks for a separator: fields that are numbers, then fields at all."""
    numbers = sum(_is_number(field, commas) for row in rows for field in row)
    return numbers, sum(map(len, rows))


def _is_number(text: str, commas: bool = False) -> bool:
    return _NUMBER.fullmatch(text.replace(",", ".", 1) if commas else text) is not None


def _with_points(rows: Sequence[Row]) -> list[list[str]]:
    return [
        [one.replace(",", ".") if _is_number(one, True) else one for one in row] for row in rows
    ]


def _holds_names(path: Path, first: Row, below: Sequence[Row]) -> bool:
    """Whether the first line holds names; an error where that cannot be told."""
    *features, last = range(len(first))
    words = {at for at, one in enumerate(first) if not _is_number(one) and one not in MISSING}
    unnamed = first[0] == "" and {*features[1:], last} <= words  # as pandas and R name an index
    if unnamed or (features and set(features) <= words) or (not features and words):
        return True
    columns = [[row[at] for row in below] for at in range(len(first))]
    above_numbers = {at for at in words if any(map(_is_number, columns[at]))}
    # A name such as 2019 above numbers that all have decimals does not look like them.
    odd = {
        at
        for at in range(len(first))
        if _WHOLE.fullmatch(first[at]) and columns[at] and not any(map(_is_whole, columns[at]))
    }
    if last in above_numbers:
        return True
    if last in words:  # above classes: one that comes again is a class, as the others do
        if first[last] in columns[last] or len(set(columns[last])) == len(below):
            return False
        answer = True if above_numbers or set(features) <= odd else None
    elif above_numbers:
        answer = None
    else:
        answer = _are_numbers_names(first, bool(set(features) <= odd), bool(odd))
    if answer is None:
        text = ",".join(first)
        raise DataError(
            f"{path}: its first line ({text[:60]}{'…' if len(text) > 60 else ''}) may hold names "
            f"or a sample: write a word above every column, or its numbers as in the other lines "
            f"(1.0 for 1)"
        )
    return answer


def _is_whole(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None


def _are_numbers_names(first: Row, all_odd: bool, some_odd: bool) -> bool | None:
    """Whether a line of numbers holds names, as 0,1,2 of pandas or years; None if it may."""
    if not all(map(_is_whole, first)) or len(first) < 2:
        return False
    values = list(map(int, first))
    steps = {after - before for before, after in pairwise(values)}
    counts = len(steps) == 1 and min(steps) > 0
    if all_odd and len(first) > 2:
        return True if counts else None if len(set(values)) == len(values) else False
    if steps == {1} and values[0] == 0 and (len(first) >= 8 or (some_odd and len(first) >= 4)):
        return True
    if steps == {1} and (some_odd or len(first) >= 3):
        return None
    return False
