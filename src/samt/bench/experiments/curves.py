"""The curve of a cell as a Parquet file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


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


def from_parquet(content: bytes) -> pd.DataFrame:
    """The curve of a Parquet file.

    Args:
        content: of the file.

    Returns:
        A row for each evaluation.

    Raises:
        ValueError: it is damaged, or no curve.
    """
    import pyarrow.parquet as pq

    names = curve_schema().names
    try:
        table = pq.read_table(io.BytesIO(content), columns=names, page_checksum_verification=True)
        right = table.schema.equals(curve_schema())
        frame = table.to_pandas()
    except Exception as error:  # what pyarrow raises has no common class
        raise ValueError("damaged") from error
    if not right:
        raise ValueError("no curve")
    return frame
