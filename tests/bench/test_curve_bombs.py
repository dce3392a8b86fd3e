"""Curves of a few kilobytes that would fill the memory are refused."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from samt.bench.experiments.curves import curve_schema, from_parquet

CELL = "0123456789abcdef"


def _curve(rows: int, block: str) -> bytes:
    """Rows with nothing in them but a block, all of them the same."""
    zeros = pa.array([0]).take(pa.array([0] * rows)).cast(pa.int32())
    texts = {name: pa.DictionaryArray.from_arrays(zeros, [name]) for name in (CELL, block)}
    steps = pa.MapArray.from_arrays(
        pa.array(range(rows + 1), pa.int32()), texts[block], pa.array([0.5] * rows)
    )
    columns = {field.name: pa.nulls(rows, field.type) for field in curve_schema()}
    buffer = io.BytesIO()
    pq.write_table(pa.table({**columns, "cell": texts[CELL], "step_sizes": steps}), buffer)
    return buffer.getvalue()


def test_many_rows_and_long_names_alone_are_no_bombs() -> None:
    assert len(from_parquet(_curve(1000, "x" * 1000), CELL)) == 1000


@pytest.mark.parametrize(("rows", "length"), [(1_000_000, 1), (20_000, 100_000)])
def test_a_bomb_is_refused(rows: int, length: int) -> None:
    content = _curve(rows, "x" * length)
    assert len(content) < 200_000
    with pytest.raises(ValueError, match="damaged") as error:
        from_parquet(content, CELL)
    assert "far larger than its file" in str(error.value.__cause__)


TRIES = """
import sys
from pathlib import Path
from samt.bench.experiments.curves import from_parquet
whole = Path(sys.argv[1]).read_bytes()
for at in range(len(whole)):
    content = bytearray(whole)
    content[at] ^= 1 + 37 * at % 255
    try:
        from_parquet(bytes(content), sys.argv[2])
    except ValueError:
        pass
"""


def test_no_byte_that_changed_ends_the_process(tmp_path: Path) -> None:
    """Arrow calls `terminate` where the sizes of a column in the footer contradict each other."""
    curve = tmp_path / "curve.parquet"
    curve.write_bytes(_curve(3, "1.weight"))
    command = [sys.executable, "-c", TRIES, str(curve), CELL]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-500:]
