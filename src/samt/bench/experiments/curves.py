"""The curve of a cell as a Parquet file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_BLOCK = "step_sizes.key_value.key"
# Parquet stores what comes again once; curves stay far below this.
_EXPANSION, _ALWAYS_ALLOWED = 200, 64 << 20


def curve_schema() -> pa.Schema:
    """Columns of every curve: equal in all files, so that a folder of them reads as one table."""
    import pyarrow as pa

    numbers = (
        "epoch updates train_loss batch_loss validation_loss validation_metric test_loss "
        "test_metric seconds"
    )
    return pa.schema(
        [
            ("cell", pa.string()),
            ("step", pa.int64()),
            *((name, pa.float64()) for name in numbers.split()),
            ("forward_passes", pa.int64()),
            ("backward_passes", pa.int64()),
            ("step_sizes", pa.map_(pa.string(), pa.float64())),
        ]
    )


def to_parquet(identity: str, curve: Sequence[Mapping[str, Any]], version: int) -> bytes:
    """A curve as a Parquet file.

    Args:
        identity: of the cell.
        curve: a row for each evaluation; columns that a row lacks are null.
        version: of the schema, for the file's metadata.

    Returns:
        Content of the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {**row, "cell": identity, "step_sizes": list(row.get("step_sizes", {}).items())}
        for row in curve
    ]
    table = pa.Table.from_pylist(rows, schema=curve_schema())
    table = table.replace_schema_metadata({"samt_schema": str(version)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def from_parquet(content: bytes, identity: str) -> pd.DataFrame:
    """The curve of a Parquet file.

    Args:
        content: of the file.
        identity: of the cell whose curve it must be.

    Returns:
        A row for each evaluation.

    Raises:
        ValueError: it is damaged, no curve, that of another cell, or far larger than its file.
    """
    import pyarrow.parquet as pq

    names = curve_schema().names
    most = max(_ALWAYS_ALLOWED, _EXPANSION * len(content))
    try:
        file = pq.ParquetFile(
            io.BytesIO(content),
            read_dictionary=["cell", _BLOCK],  # a long text many times stays one text
            page_checksum_verification=True,
        )
        # Every column is opened here first, where Arrow raises what ends the process in metadata.
        file.scan_contents()
        if _numbers(file.metadata) * 8 > most:
            raise ValueError("far larger than its file")
        table = file.read(columns=names)
        _check_texts(table, identity, most)
        table = table.cast(curve_schema())
        return table.to_pandas()
    except Exception as error:  # what pyarrow raises has no common class
        raise ValueError("damaged") from error


def _numbers(metadata: Any) -> int:
    groups = (metadata.row_group(at) for at in range(metadata.num_row_groups))
    return sum(group.column(at).num_values for group in groups for at in range(group.num_columns))


def _check_texts(table: pa.Table, identity: str, most: int) -> None:
    for cell in table["cell"].chunks:
        if cell.null_count or not set(cell.dictionary.to_pylist()) <= {identity}:
            raise ValueError("another cell's")
    for steps in table["step_sizes"].chunks:
        longest = max((len(block or "") for block in steps.keys.dictionary.to_pylist()), default=0)
        if longest * len(steps.keys) > most:
            raise ValueError("far larger than its file")
