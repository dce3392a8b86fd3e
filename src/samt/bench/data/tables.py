"""Tables of numbers: CSV, plain or compressed with gzip; the last column is the target."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from samt.bench.data.raw import Part, RawData
from samt.bench.data.reading import is_packed, reading
from samt.bench.data.table_form import MISSING, Form, form_of
from samt.bench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# Whole numbers with more different values than this are quantities, not classes.
_MOST_NUMBERED_CLASSES, _MOST_NAMED_CLASSES = 100, 1000
_WHOLE = re.compile(r"[+-]?\d{1,18}")
# A first column of this name that counts the rows is no feature.
_INDICES = ("", "index", "id", "rownames", "row.names", "unnamed: 0")

Floats = npt.NDArray[np.float64]


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
    features, target, notes = _read(path)
    values, names = _floats(target), set(target)
    whole = all(map(_WHOLE.fullmatch, names))
    if not (np.isnan(values).any() or (whole and len(names) <= _MOST_NUMBERED_CLASSES)):
        part = Part(features, _finite(path, values, target)[:, None])
        return RawData("regression", 1, part, None, "standardise", notes=notes)
    _check_classes(path, target, values)
    classes = sorted(names, key=(lambda one: (int(one), one)) if whole else None)
    codes = target.map({name: number for number, name in enumerate(classes)})
    part = Part(features, codes.to_numpy(np.int64))
    return RawData(
        *("classification", len(classes), part, None, "standardise", tuple(classes)), notes=notes
    )


def read_split_table(path: Path, mask_path: Path, split: int) -> RawData:
    """Read a regression table with published splits.

    Args:
        path: the table; its last column is the target.
        mask_path: a table with a column for each split, and a 1 for the rows of its test part.
        split: the number of the split, from 0.

    Returns:
        Training and test part, still to be standardised.

    Raises:
        DataError: there is no such split, or the two files do not fit each other.
    """
    features, target, notes = _read(path)
    values = _finite(path, _floats(target), target)[:, None]
    others, last, _ = _read(mask_path, fewest=1)
    masks = np.column_stack([others, _floats(last)])
    if len(masks) != len(values):
        raise DataError(
            f"{mask_path} has {len(masks)} rows, but {path.name} has {len(values)}: "
            f"they do not belong together, fetch both again"
        )
    if not 0 <= split < masks.shape[1]:
        raise DataError(
            f"{path} has {masks.shape[1]} published splits: "
            f"use a split seed from 0 to {masks.shape[1] - 1}, not {split}"
        )
    rows = masks[:, split]
    if not np.isin(rows, (0, 1)).all() or rows.min() == rows.max():
        raise DataError(
            f"{mask_path} does not mark test rows in column {split}: "
            f"write 1 for test and 0 for training rows, and some of each"
        )
    train, test = (Part(features[rows == mark], values[rows == mark]) for mark in (0, 1))
    return RawData(
        *("regression", 1, train, test, "standardise"), published_split=split, notes=notes
    )


def _read(path: Path, fewest: int = 2) -> tuple[Floats, pd.Series[str], tuple[str, ...]]:
    """The numbers of all columns but the last, the texts of the last, and what is to be noted."""
    form = form_of(path)
    frame = _frame(path, form)
    target = frame.pop(form.columns - 1).str.strip()
    if form.decimal == ",":
        target = target.str.replace(",", ".")
    if (target == "").any():
        row = (target == "").argmax() + 1
        raise DataError(f"{path}: row {row} has no target: fill it in or delete the row")
    notes = ["The first line holds names."] if form.names else []
    name = form.names[0].lower() if form.names else None
    if name == "" or (name in _INDICES and _counts(frame[0])):
        frame.pop(0)
        notes.append("The first column is an index, which is left out.")
    if frame.shape[1] < fewest - 1:
        raise DataError(
            f"{path} has no features beside its target: put them into columns ahead of it, "
            f"separated by commas, semicolons or tabs"
        )
    features = np.empty(frame.shape)
    for at, number in enumerate(list(frame)):
        column = frame.pop(number)  # so that no column stands in memory twice
        features[:, at] = _finite(path, _floats(column), column)
    return features, target, tuple(notes)


def _frame(path: Path, form: Form) -> pd.DataFrame:
    """The table as pandas reads it, the last column as text."""
    import pandas as pd

    with reading(path), warnings.catch_warnings():
        # Its warning says that it leaves out fields.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                path,
                compression="gzip" if is_packed(path) else None,
                sep=form.separator,
                decimal=form.decimal,
                header=0 if form.names else None,
                names=range(form.columns),
                index_col=False,
                dtype={form.columns - 1: str},
                na_filter=False,
                skipinitialspace=True,
                encoding="utf-8-sig",
            )
        except pd.errors.ParserWarning as error:
            raise ValueError(error) from error


def _floats(column: pd.Series[str]) -> Floats:
    """Numbers, and NaN where there is none."""
    import pandas as pd

    if column.dtype.kind not in "iufb":
        column = pd.to_numeric(column.astype(str), errors="coerce")
    return column.to_numpy(np.float64)


def _finite(path: Path, values: Floats, column: pd.Series[str]) -> Floats:
    """The same numbers, or an error that names the first field that is none."""
    wrong = ~np.isfinite(values)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{path}: row {row + 1} has {str(column.iloc[row])[:40]!r} in column "
            f"{int(str(column.name)) + 1}, which is no finite number: correct it, or delete the row"
        )
    return values


def _counts(column: pd.Series[str]) -> bool:
    """Whether a column is 0, 1, 2 and so on, or from 1."""
    values = _floats(column)
    return values[0] in (0, 1) and np.array_equal(values - values[0], np.arange(len(values)))


def _check_classes(path: Path, target: pd.Series[str], values: Floats) -> None:
    """Refuse what is not meant as classes, or cannot be split."""
    numbers = ~np.isnan(values)
    strange, others = target[~numbers], target[numbers]
    # Names of classes may be whole numbers and words; numbers beside gaps are none.
    if len(strange) and (
        (len(others) and set(strange) & MISSING) or not all(map(_WHOLE.fullmatch, others))
    ):
        raise DataError(
            f"{path}: row {strange.index[0] + 1} has the target {strange.iloc[0][:40]!r}, but "
            f"others are numbers: correct it, or delete the row"
        )
    counts = target.value_counts()
    if len(counts) > _MOST_NAMED_CLASSES:
        raise DataError(
            f"{path}: its last column holds text with more than {_MOST_NAMED_CLASSES} "
            f"different values: put the target last, as classes or as numbers"
        )
    if len(counts) < 2:
        raise DataError(f"{path}: all rows have the class {counts.index[0]!r}: add another")
    if counts.iloc[-1] < 2:
        raise DataError(
            f"{path}: class {counts.index[-1]!r} has a single row, which cannot be split: add rows "
            f"of it or delete it; if the targets are values, write 3.0 for 3"
        )
