"""Tables of numbers: CSV, plain or compressed with gzip; the last column is the target."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samt.bench.data.packed import unpacked
from samt.bench.data.raw import Part, RawData
from samt.bench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_FIELDS = 200_000  # read at a time
_MOST_COLUMNS = 20_000
_LONGEST_LINE = 1 << 20
# Whole numbers with more different values than this are quantities, not classes.
_MOST_NUMBERED_CLASSES = 100
_MOST_NAMED_CLASSES = 1000
_WHOLE = re.compile(r"[+-]?\d{1,18}")


def read_table(path: Path) -> RawData:
    """Read a table with features in all columns but the last.

    The target is a class where it is text, or a whole number written without a decimal point with
    at most 100 different values; otherwise it is a value to predict.

    Args:
        path: a CSV file, with or without a line of names; separated by commas, semicolons or tabs.

    Returns:
        One part, still to be split and standardised.

    Raises:
        DataError: a field is missing or no number, or the file is no table.
    """
    target, features, rows = _Target(path), [], 0
    for frame in _frames(path):
        if frame.shape[1] < 2:
            raise DataError(f"{path} has a single column: put features first and the target last")
        target.add(frame.iloc[:, -1], rows)
        features.append(_numbers(path, frame.iloc[:, :-1], rows))
        rows += len(frame)
    return target.table(np.concatenate(features))


def read_split_table(path: Path, mask_path: Path, split: int) -> RawData:
    """Read a regression table with published splits.

    Args:
        path: the table; the last column is the target.
        mask_path: a column for each split, with a 1 for the rows of its test part.
        split: number of the split, from 0.

    Returns:
        Training and test part, still to be standardised.

    Raises:
        DataError: there is no such split, or the two files do not fit each other.
    """
    table, masks = _read_numbers(path), _read_numbers(mask_path)
    if len(masks) != len(table):
        raise DataError(
            f"{mask_path} has {len(masks)} rows, but {path.name} has {len(table)}: "
            f"they do not belong together, fetch both again"
        )
    if not 0 <= split < masks.shape[1]:
        raise DataError(
            f"{path} has {masks.shape[1]} published splits: "
            f"use a split seed from 0 to {masks.shape[1] - 1}, not {split}"
        )
    if table.shape[1] < 2:
        raise DataError(f"{path} has a single column: put features first and the target last")
    rows = masks[:, split]
    if not np.isin(rows, (0, 1)).all() or rows.min() == rows.max():
        raise DataError(
            f"{mask_path} does not mark test rows in column {split}: "
            f"write 1 for test and 0 for training rows, and some of each"
        )
    parts = (table[rows == 0], table[rows == 1])
    train, test = (Part(part[:, :-1], part[:, -1:]) for part in parts)
    return RawData("regression", 1, train, test, "standardise", published_split=split)


class _Target:
    """The last column: gathered as values and as classes, for as long as it can be either."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: list[npt.NDArray[np.float64]] | None = []
        self._codes: list[npt.NDArray[np.int64]] = []
        self._labels: dict[str, int] | None = {}

    def add(self, column: pd.Series[str], first_row: int) -> None:
        """Take the next rows."""
        import pandas as pd

        texts = column.fillna("").astype(str).str.strip()
        if (texts == "").any():
            row = first_row + int((texts == "").to_numpy().argmax()) + 1
            raise DataError(f"{self._path}: row {row} has no target: fill it in or delete the row")
        if self._values is not None:
            numbers = _floats(texts)
            self._values = None if np.isnan(numbers).any() else [*self._values, numbers]
        if self._labels is not None:
            codes, uniques = pd.factorize(texts)
            known = self._labels
            order = np.array([known.setdefault(label, len(known)) for label in uniques])
            self._codes.append(order[codes])
            if len(known) > _MOST_NAMED_CLASSES:
                self._labels, self._codes = None, []

    def table(self, features: npt.NDArray[np.float64]) -> RawData:
        """The finished table."""
        values = self._values
        if self._labels is not None and (values is None or self._is_numbered(self._labels)):
            return self._classes(self._labels, features)
        if values is None:
            raise DataError(
                f"{self._path}: its last column holds text with more than {_MOST_NAMED_CLASSES} "
                f"different values: put the target last, as classes or as numbers"
            )
        part = Part(features, np.concatenate(values)[:, None])
        return RawData("regression", 1, part, None, "standardise")

    def _is_numbered(self, labels: dict[str, int]) -> bool:
        few = len(labels) <= _MOST_NUMBERED_CLASSES
        return few and all(_WHOLE.fullmatch(label) for label in labels)

    def _classes(self, labels: dict[str, int], features: npt.NDArray[np.float64]) -> RawData:
        numbered = self._is_numbered(labels)
        names = sorted(labels, key=(lambda label: (int(label), label)) if numbered else None)
        if len(names) < 2:
            raise DataError(f"{self._path}: all rows have the class {names[0]!r}: add another")
        place = np.empty(len(names), dtype=np.int64)
        place[[labels[name] for name in names]] = np.arange(len(names))
        part = Part(features, place[np.concatenate(self._codes)])
        return RawData("classification", len(names), part, None, "standardise", tuple(names))


def _read_numbers(path: Path) -> npt.NDArray[np.float64]:
    pieces: list[npt.NDArray[np.float64]] = []
    for frame in _frames(path):
        pieces.append(_numbers(path, frame, sum(map(len, pieces))))
    return np.concatenate(pieces)


def _frames(path: Path) -> Iterator[pd.DataFrame]:
    """The table in pieces, the last column as text."""
    import pandas as pd

    separator, names, columns = _form(path)
    rows = 0
    try:
        with (
            unpacked(path) as stream,
            pd.read_csv(
                stream,
                sep=separator,
                header=None,
                names=list(range(columns)),
                index_col=False,
                skiprows=1 if names else 0,
                chunksize=max(1, _FIELDS // columns),
                dtype={columns - 1: str},
                na_filter=False,
                encoding="utf-8-sig",
                on_bad_lines="error",
            ) as frames,
        ):
            for frame in frames:
                rows += len(frame)
                if len(frame):
                    yield frame
    # ParserError and UnicodeDecodeError are ValueErrors; its parser raises others on strange bytes.
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path} is not a table in CSV ({reason}): correct the file") from error
    if not rows:
        raise DataError(f"{path} has no rows: put one sample in each line")


def _form(path: Path) -> tuple[str, bool, int]:
    """Separator, whether the first line holds names, number of columns."""
    with unpacked(path) as stream:
        line = stream.readline(_LONGEST_LINE)
    first = line.decode("utf-8-sig", "replace").strip("\r\n")
    if len(line) == _LONGEST_LINE or "\0" in first:
        raise DataError(f"{path} is not a table in CSV (its first line): correct the file")
    if not first.strip():
        raise DataError(f"{path} has an empty first line: put one sample in each line")
    separator = max(",;\t", key=first.count)
    fields = first.split(separator)
    if len(fields) > _MOST_COLUMNS:
        raise DataError(
            f"{path} has {len(fields)} columns, more than {_MOST_COLUMNS}: use NPZ for such data"
        )
    features = [field.strip() for field in fields[:-1]] or fields
    named = all(field and not _is_number(field) for field in features)
    return separator, named, len(fields)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _floats(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """Numbers; NaN where there is none, infinity where float64 ends."""
    import pandas as pd

    try:
        numbers = pd.to_numeric(column, errors="coerce")
    except OverflowError:  # whole numbers of hundreds of digits, which it takes as text alone
        numbers = pd.to_numeric(column.astype(str), errors="coerce")
    return numbers.to_numpy(dtype=np.float64)


def _numbers(path: Path, frame: pd.DataFrame, first_row: int) -> npt.NDArray[np.float64]:
    """The frame as float64, or an error that names the first field that is no number."""
    columns: list[Any] = []
    for name in frame:
        column = frame[name]
        numbers = _floats(column)
        wrong = ~np.isfinite(numbers)
        if wrong.any():
            at = int(wrong.argmax())
            raise DataError(
                f"{path}: row {first_row + at + 1} has {str(column.iloc[at])[:40]!r} in column "
                f"{int(name) + 1}, which is no finite number: correct it, or delete the row"
            )
        columns.append(numbers)
    return np.stack(columns, axis=1)
