"""Frames as files for other programs."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from samt.bench.atomic import write_atomically
from samt.bench.errors import ResultsError, RunFolderError
from samt.bench.experiments.curves import curve_schema
from samt.bench.experiments.records import as_json

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "parquet", "json")


def write(frame: pd.DataFrame, form: str, path: Path) -> None:
    """Write a frame; the file is the old or the new one at any moment.

    Args:
        frame: of `frames.cells_frame` or `frames.curves_frame`.
        form: one of `FORMATS`. Numbers keep all of their digits; what is unknown is empty in CSV
            and null in Parquet and JSON. Step sizes are a map in Parquet, a JSON object elsewhere.
            In CSV a text that a spreadsheet would take for a formula begins with an apostrophe.
        path: of the file.

    Raises:
        ResultsError: it cannot be written.
    """
    content = {"csv": _csv, "parquet": _parquet, "json": _json}[form](frame)
    try:
        write_atomically(path, content)
    except RunFolderError as error:
        reason = getattr(error.__cause__, "strerror", None) or error.__cause__
        raise ResultsError(f"cannot write {path} ({reason}): choose another -o") from error


def no_formula(text: str) -> str:
    """Text that no spreadsheet takes for a formula, which could read files or call home.

    >>> no_formula("=1+1"), no_formula("sgd")
    ("'=1+1", 'sgd')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _csv(frame: pd.DataFrame) -> bytes:
    if "step_sizes" in frame:
        frame = frame.assign(step_sizes=frame["step_sizes"].map(_object))
    texts = frame.select_dtypes(["object", "string"]).columns
    frame = frame.assign(
        **{name: frame[name].map(no_formula, na_action="ignore") for name in texts}
    )
    return str(frame.to_csv(index=False, lineterminator="\n")).encode()


def _parquet(frame: pd.DataFrame) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = None
    if "step_sizes" in frame:
        frame = frame.assign(step_sizes=frame["step_sizes"].map(lambda one: list(one.items())))
        schema = curve_schema()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False), buffer)
    return buffer.getvalue()


def _json(frame: pd.DataFrame) -> bytes:
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return b"[" + b",".join(as_json(row) for row in rows) + b"]\n"


def _object(sizes: dict[str, float]) -> str:
    """As JSON, which has no NaN."""
    return json.dumps({name: one if math.isfinite(one) else None for name, one in sizes.items()})
