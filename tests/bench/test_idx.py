"""The IDX reader gives what was written, or one named error."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from samt.bench.data.idx import read_idx
from samt.bench.errors import DataError

from .idx_files import idx_bytes

images = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=5))
vectors = arrays(np.uint8, array_shapes(min_dims=1, max_dims=1, max_side=20))
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
packings = st.sampled_from([bytes, gzip.compress])


@quick
@given(values=images | vectors, packed=st.booleans())
def test_reads_back_what_was_written(tmp_path: Path, values: np.ndarray, packed: bool) -> None:
    content = idx_bytes(values)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    read = read_idx(path, values.ndim)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, values)


@quick
@given(values=images | vectors, packed=st.booleans(), data=st.data())
def test_cut_off_anywhere_is_refused(
    tmp_path: Path, values: np.ndarray, packed: bool, data: st.DataObject
) -> None:
    content = idx_bytes(values)
    whole = gzip.compress(content) if packed else content
    path = tmp_path / "file"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match="again"):
        read_idx(path, values.ndim)


@quick
@given(values=images, extra=st.binary(min_size=1, max_size=5), packed=st.booleans())
def test_bytes_left_over_are_refused(
    tmp_path: Path, values: np.ndarray, extra: bytes, packed: bool
) -> None:
    content = idx_bytes(values) + extra
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match="bytes after"):
        read_idx(path, 3)


@quick
@given(values=images, data=st.data())
def test_a_changed_byte_in_gzip_is_noticed(
    tmp_path: Path, values: np.ndarray, data: st.DataObject
) -> None:
    whole = bytearray(gzip.compress(idx_bytes(values)))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "file"
    path.write_bytes(whole)
    try:
        read = read_idx(path, 3)
    except DataError:
        return
    # Some bytes of a gzip header mean nothing, for example the time.
    np.testing.assert_array_equal(read, values)


@quick
@given(values=images, data=st.data())
def test_a_changed_header_is_noticed(
    tmp_path: Path, values: np.ndarray, data: st.DataObject
) -> None:
    whole = bytearray(idx_bytes(values))
    whole[data.draw(st.integers(0, 15))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "file"
    path.write_bytes(whole)
    with pytest.raises(DataError):
        read_idx(path, 3)


@quick
@given(content=st.binary(max_size=60), dimensions=st.sampled_from([1, 3]))
def test_any_bytes_give_an_array_or_the_named_error(
    tmp_path: Path, content: bytes, dimensions: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    try:
        read_idx(path, dimensions)
    except DataError:
        return


@pytest.mark.parametrize("packed", [False, True])
def test_memory_is_not_taken_on_the_word_of_the_header(tmp_path: Path, packed: bool) -> None:
    content = struct.pack(">4I", 0x0803, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(1000)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="cut off"):
            read_idx(path, 3)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_wrong_magic_names_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match=r"0x00000801 instead of 0x00000803"):
        read_idx(path, 3)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path, 3)


def test_sizes_beside_a_zero_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(struct.pack(">4I", 0x0803, 0, 2**32 - 1, 2**32 - 1))
    with pytest.raises(DataError, match="cut off"):
        read_idx(path, 3)
