"""Published numbers and notes: what others printed, kept beside the experiment files.

    reported/NAME.csv  data, model, width, method, metric, value, note
    notes/NAME.md      paragraphs of plain text

A value is what is printed: accuracy in per cent, rmse in the data's units. It may be empty, and the
note then says why.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samt.bench.errors import ReportError
from samt.bench.experiments import files

COLUMNS = ("data", "model", "width", "method", "metric", "value", "note")
_METRICS = ("accuracy", "rmse")
_LARGEST = 1 << 20  # bytes of notes


@dataclass(frozen=True)
class Published:
    """A number that somebody printed.

    Args:
        data: name of the data set.
        model: name of the network.
        width: widths of its hidden layers, such as "300-100".
        method: label of the method in the experiment.
        metric: "accuracy", in per cent, or "rmse".
        value: as printed; NaN if there is none.
        note: anything to be said about it.
    """

    data: str
    model: str
    width: str
    method: str
    metric: str
    value: float
    note: str

    @property
    def is_number(self) -> bool:
        """Whether a value was printed."""
        return math.isfinite(self.value)


def folders(file: str | None, given: Path | None = None) -> list[Path]:
    """Where `reported` and `notes` are looked for.

    Args:
        file: of the experiment, as its record names it.
        given: the only folder to look at.

    Returns:
        The first that has a file for an experiment counts.
    """
    if given is not None:
        return [given]
    beside = [] if not file else [Path(file).expanduser().parent]
    return [*beside, *reversed(files.folders())]


def published_numbers(name: str, places: Sequence[Path]) -> list[Published]:
    """Read the published numbers of an experiment.

    Args:
        name: of the experiment.
        places: of `folders`.

    Returns:
        In the order of the file; nothing if there is no file.

    Raises:
        ReportError: the file cannot be read, with its line.
    """
    path = _first(places, "reported", f"{name}.csv")
    return [] if path is None else read_published(path)


def read_published(path: Path) -> list[Published]:
    """Read a file of published numbers.

    Args:
        path: of the CSV file.

    Raises:
        ReportError: it cannot be read, a column is missing, or a value makes no sense.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            missing = [column for column in COLUMNS if column not in (table.fieldnames or ())]
            if missing:
                raise ReportError(
                    f"{path} has no column {missing[0]}: its first line must be {','.join(COLUMNS)}"
                )
            found = {f"{path}, line {table.line_num}": row for row in table}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ReportError(f"cannot read {path} ({reason}): check the file") from error
    published: dict[tuple[str, ...], Published] = {}
    for where, row in found.items():
        one = _row(where, row)
        key = (one.data, one.model, one.width, one.method)
        if key in published:
            raise ReportError(f"{where}: {one.method} stands twice: remove one")
        published[key] = one
    return list(published.values())


def notes(name: str, places: Sequence[Path]) -> list[str]:
    """Paragraphs about an experiment, as plain text.

    Args:
        name: of the experiment.
        places: of `folders`.

    Raises:
        ReportError: the file cannot be read.
    """
    path = _first(places, "notes", f"{name}.md")
    if path is None:
        return []
    try:
        if path.stat().st_size > _LARGEST:
            raise ReportError(f"{path} is larger than 1 MiB: is it a note?")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"cannot read {path} ({error}): check the file") from error
    paragraphs = (" ".join(part.split()) for part in text.replace("\r\n", "\n").split("\n\n"))
    return [part for part in paragraphs if part]


def _first(places: Sequence[Path], kind: str, file: str) -> Path | None:
    paths = (place / kind / file for place in places)
    return next((path for path in paths if path.is_file()), None)


def _row(where: str, row: Mapping[Any, Any]) -> Published:
    if None in row or None in row.values():
        raise ReportError(
            f"{where}: {len(COLUMNS)} fields are needed: write quotation marks around a method or "
            f"note that holds a comma"
        )
    texts = {name: row[name].strip() for name in COLUMNS}
    metric, text = texts["metric"], texts.pop("value")
    if metric not in _METRICS:
        raise ReportError(f"{where}: metric '{metric}' must be accuracy or rmse")
    try:
        value = float(text) if text else math.nan
    except ValueError as error:
        raise ReportError(f"{where}: value '{text}' is no number: correct it") from error
    if text and not math.isfinite(value):
        raise ReportError(f"{where}: a value must be finite: leave it empty and say why in note")
    # No published classifier is right in less than one case out of a hundred.
    if text and metric == "accuracy" and not 1 < value <= 100:
        raise ReportError(f"{where}: accuracy {value:g} must be in per cent, such as 98.1")
    if text and metric == "rmse" and value < 0:
        raise ReportError(f"{where}: rmse {value:g} is below zero: correct it")
    return Published(value=value, **texts)
