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
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from samt.bench.data.reading import is_packed, require_memory, unpacked
from samt.bench.errors import DataError

_LINES, _CHARACTERS = 1000, 1 << 20  # that are looked at
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity|nan)", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")
MISSING = frozenset(("", "?", "-", "NA", "N/A", "NaN", "nan", "NULL", "null"))
_BYTES = 40  # that a field takes in memory, with pandas' columns and all copies

Row = Sequence[str]


class Form(NamedTuple):
    """How a table is written."""

    separator: str  # between two fields
    decimal: str  # a point or a comma
    names: tuple[str, ...]  # the first line, if it holds names; the first is empty above an index
    columns: int  # of a row


def form_of(path: Path) -> Form:
    """Look at the first lines of a table.

    Args:
        path: a CSV file, plain or compressed with gzip.

    Returns:
        How the table is written.

    Raises:
        DataError: the file is no table, is too large, or its first line cannot be understood.
    """
    lines = _first_lines(path)
    readings = {one: _fields(lines, one) for one in ",;\t"}
    separator = max(readings, key=lambda one: _numbers(readings[one][:50]))
    rows = readings[separator]
    if not _numbers(rows):  # names alone, or no table at all
        raise DataError(
            f"{path} has no rows of numbers: put one sample in each line, with commas, "
            f"semicolons or tabs between its fields"
        )
    _require_memory(path, lines, len(rows[0]))
    marks = {mark for row in rows for one in row if _is_number(one) for mark in ",." if mark in one}
    commas = separator != "," and marks == {","}
    first, *below = rows
    if below and len(below[0]) == len(first) + 1:  # R has no name for the names of rows
        first = ["", *first]
    elif below and len(below[0]) != len(first):
        raise DataError(
            f"{path}: its first line has {len(first)} fields, but the next one has "
            f"{len(below[0])}: give all lines as many"
        )
    below = [row for row in below if len(row) == len(first)]  # pandas will name the others
    names = tuple(first) if _holds_names(path, first, below) else ()
    return Form(separator, "," if commas else ".", names, len(first))


def _first_lines(path: Path) -> list[str]:
    lines: list[str] = []
    left = _CHARACTERS
    with unpacked(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="") as file:
        while len(lines) < _LINES and (left > 0 or len(lines) < 3) and (line := file.readline()):
            left -= len(line)
            lines += [line] if line.strip() else []
    return lines


def _require_memory(path: Path, lines: Sequence[str], columns: int) -> None:
    """Refuse a table that cannot fit, going by the length of its first lines."""
    size = path.stat().st_size
    if is_packed(path):
        with path.open("rb") as file:
            file.seek(-4, io.SEEK_END)
            size = int.from_bytes(file.read(), "little")  # of what is packed
    require_memory(path, _BYTES * columns * (size * len(lines) // sum(map(len, lines))))


def _fields(lines: Sequence[str], separator: str) -> list[list[str]]:
    try:
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except csv.Error:
        return [[line] for line in lines]
    return [[field.strip() for field in row] for row in rows]


def _numbers(rows: Sequence[Row]) -> int:
    """How many fields are numbers: most of them are if the separator is right."""
    return sum(_is_number(field) for row in rows for field in row)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.replace(",", ".", 1)) is not None


def _is_whole(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None


def _holds_names(path: Path, first: Row, below: Sequence[Row]) -> bool:
    """Whether the first line holds names; an error where that cannot be told."""
    *features, last = range(len(first))
    columns = [[row[at] for row in below] for at in range(len(first))]
    # What comes again, as True or the name of a class does, is no name of a column.
    words = {
        at
        for at, one in enumerate(first)
        if not _is_number(one) and one not in MISSING and one not in columns[at]
    }
    unnamed = first[0] == "" and {*features[1:], last} <= words  # as pandas and R name an index
    if unnamed or (words and set(features) <= words):
        return True
    above_numbers = {at for at in words if any(map(_is_number, columns[at]))}
    if last in above_numbers:
        return True
    if last in words and len(set(columns[last])) == len(below):  # so are all the others
        return False
    # A name such as 2019 above numbers that all have decimals does not look like them.
    odd = {
        at
        for at, column in enumerate(columns)
        if _is_whole(first[at]) and column and not any(map(_is_whole, column))
    }
    answer = None if words else _count(first, odd)
    if last in words and (above_numbers or set(features) <= odd):
        answer = True
    if answer is None:
        text = ",".join(first)
        raise DataError(
            f"{path}: its first line ({text[:60]}{'…' if len(text) > 60 else ''}) may hold names "
            f"or a sample: write a word above every column, or its numbers as in the other lines "
            f"(1.0 for 1)"
        )
    return answer


def _count(first: Row, odd: set[int]) -> bool | None:
    """Whether a line of numbers holds names, as 0,1,2 of pandas or years; None if it may."""
    if not all(map(_is_whole, first)):
        return False
    values = list(map(int, first))
    steps = {after - before for before, after in pairwise(values)}
    all_odd = len(first) > 2 and set(range(len(first) - 1)) <= odd
    if len(steps) != 1 or min(steps) < 1:
        return None if all_odd and len(set(values)) == len(values) else False
    if all_odd or (steps == {1} and len(first) >= (4 if odd else 8)):
        return True
    return None if steps == {1} and (odd or len(first) > 2) else False
