"""NumPy archives: arrays of numbers, never pickles."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from samt.bench.data import load
from samt.bench.data.npz import read_npz
from samt.bench.errors import DataError

from .data_files import Harmful, damaged, outcome, quick

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (20, 6, 5), dtype=np.uint8)
LABELS = np.arange(20) % 2


def write(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (IMAGES, (1, 6, 5)),
        (np.stack([IMAGES] * 3, axis=-1), (3, 6, 5)),
        (np.stack([IMAGES] * 3, axis=1), (3, 6, 5)),
    ],
)
def test_images_of_every_layout(tmp_path: Path, images: np.ndarray, shape: Any) -> None:
    path = write(tmp_path, x_train=images, y_train=LABELS, x_test=images[:4], y_test=LABELS[:4])
    data = load(str(path), None)
    assert data.sample_shape == shape
    assert data.split_seed is None
    expected = torch.from_numpy(IMAGES[:4].astype(np.float32)) / 255
    torch.testing.assert_close(data.test.inputs[:, 0], expected)
    assert data.name == "data"


def test_numbers_are_standardised_after_the_split(tmp_path: Path) -> None:
    numbers = RANDOM.normal(5, 3, (40, 4)).astype(">f8")
    data = load(str(write(tmp_path, x=numbers, y=RANDOM.normal(size=40))), None, split_seed=3)
    assert (data.task, len(data.train), len(data.test), data.split_seed) == ("regression", 32, 8, 3)
    torch.testing.assert_close(data.train.inputs.mean(0), torch.zeros(4), atol=1e-6, rtol=0)
    assert float(data.test.inputs.mean(0).abs().max()) > 1e-3


def test_labels_may_be_names(tmp_path: Path) -> None:
    names = np.array(["dog", "cat"])[LABELS]
    raw = read_npz(write(tmp_path, x=IMAGES, y=names))
    assert raw.classes == ("cat", "dog")
    assert [raw.classes[target] for target in raw.train.targets] == names.tolist()


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "was_run"
    objects = np.array([Harmful(trace), None], dtype=object)
    path = write(tmp_path, x=objects, y=np.arange(2))
    with pytest.raises(DataError, match="pickle"):
        read_npz(path)
    assert not trace.exists()
    np.load(path, allow_pickle=True)["x"]  # it is harmful, were it loaded
    assert trace.exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": IMAGES}, "no array 'x'"),
        ({"x_train": IMAGES, "y_train": LABELS}, "no array 'x_test'"),
        ({"x": IMAGES, "y": LABELS[:19]}, "20 inputs, but 19 targets"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, "empty"),
        ({"x": IMAGES[0, 0], "y": LABELS[:5]}, r"shape \(5,\)"),
        ({"x": np.array(3.0), "y": np.array(1)}, "shape"),
        ({"x": IMAGES.astype("S1"), "y": LABELS}, "type"),
        ({"x": IMAGES.astype(complex), "y": LABELS}, "type complex"),
        ({"x": np.full((20, 3), np.nan), "y": LABELS}, "not finite"),
        ({"x": IMAGES, "y": np.zeros(20, int)}, "single class"),
        ({"x": IMAGES, "y": np.zeros((20, 2))}, "more than one column"),
        ({"x": IMAGES, "y": np.full(20, np.nan)}, "not finite"),
        ({"x": IMAGES, "y": np.zeros(20, complex)}, "mixes|type"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, :5], "y_test": LABELS}, "shap"),
    ],
)
def test_wrong_arrays_are_one_line(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    path = write(tmp_path, **arrays)
    with pytest.raises(DataError, match=words) as error:
        load(str(path), None)
    assert "\n" not in str(error.value)


def _with_header(shape: str, descr: str = "'|u1'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)


@pytest.mark.parametrize(
    "array",
    [
        _with_header(f"({2**62},)"),
        _with_header(f"({2**40}, {2**40})"),
        _with_header("(-4, -4)"),
        _with_header("(-1,)"),
        _with_header("'text'"),
        _with_header("(16,)", "'<U99999999999'"),
        _with_header("(16,)", "__import__('os').system('false')"),
        _with_header("(16,)", "[" * 500 + "]" * 500),
        _with_header("(16,)", "[('a', 'no type')]"),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, array: bytes) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", array)
        archive.writestr("y.npy", array)
    with pytest.raises(DataError) as error:
        read_npz(path)
    assert "\n" not in str(error.value)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.zeros((100 << 20, 1), np.uint8), y=LABELS)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="decompression bomb"):
        read_npz(path)


def _whole(save: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, x=IMAGES[:4], y=LABELS[:4])
    return buffer.getvalue()


@quick
@given(content=damaged(_whole(np.savez)) | damaged(_whole(np.savez_compressed)) | st.binary())
def test_any_bytes_give_arrays_or_the_named_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    raw = outcome(read_npz, path)
    if raw is not None:  # what the checksums let pass is what was written.
        np.testing.assert_array_equal(raw.train.inputs[:, 0], IMAGES[:4])
