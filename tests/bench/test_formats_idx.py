"""The IDX format of MNIST, and files of a user's own in it."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from samt.bench.data import load
from samt.bench.errors import DataError

from .data_files import write_all
from .idx_files import idx_bytes, write_images

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (30, 4, 5), dtype=np.uint8)
LABELS = (np.arange(30) % 3).astype(np.uint8)


def pair(
    folder: Path, images: bytes = idx_bytes(IMAGES), labels: bytes = idx_bytes(LABELS)
) -> Path:
    """Images with their labels."""
    write_all(folder, {"own-images-idx3-ubyte": images, "own-labels-idx1-ubyte": labels})
    return folder / "own-images-idx3-ubyte"


@pytest.mark.parametrize("packed", [False, True])
def test_own_images_are_read_with_the_labels_beside_them(tmp_path: Path, packed: bool) -> None:
    path = pair(tmp_path)
    if packed:
        path = tmp_path / f"{path.name}.gz"
        path.write_bytes(gzip.compress(idx_bytes(IMAGES)))
    data = load(str(path), None)
    both = torch.cat([data.train.inputs, data.test.inputs]).flatten(1)
    expected = torch.from_numpy(IMAGES.reshape(30, -1)) / 255
    assert sorted(both.tolist()) == sorted(expected.tolist())
    assert (data.sample_shape, data.classes) == ((1, 4, 5), ("0", "1", "2"))


def test_labels_with_gaps_leave_no_class_empty(tmp_path: Path) -> None:
    data = load(str(pair(tmp_path, labels=idx_bytes(LABELS * 9 + 1))), None)
    assert (data.classes, data.outputs) == (("1", "10", "19"), 3)
    assert data.test.targets.unique().tolist() == [0, 1, 2]


def test_a_folder_is_read_with_its_own_test_part(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = load(str(tmp_path), None)
    assert (len(data.train), len(data.test), data.split_seed) == (96, 40, None)


WHOLE = idx_bytes(IMAGES)
LYING = struct.pack(">4I", 0x0803, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(1000)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (WHOLE[:-1], None, "fewer than the 600 values"),
        (WHOLE[:9], None, "no IDX file"),
        (b"", None, "no IDX file"),
        (WHOLE + b"x", None, "more than the 600 values"),
        (idx_bytes(LABELS), None, "0x00000801.*swapped"),
        (LYING, None, "GiB of memory"),
        (idx_bytes(IMAGES[:0]), idx_bytes(LABELS[:0]), "no pixels"),
        (None, idx_bytes(LABELS[:-1]), "30 images, but .* has 29 labels"),
        (None, idx_bytes(LABELS * 0), "single class"),
    ],
)
def test_wrong_files_are_one_line(
    tmp_path: Path, images: bytes | None, labels: bytes | None, words: str
) -> None:
    path = pair(tmp_path, WHOLE if images is None else images, labels or idx_bytes(LABELS))
    with pytest.raises(DataError, match=words) as error:
        load(str(path), None)
    assert "\n" not in str(error.value)


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    pair(tmp_path)
    path = tmp_path / "own-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(WHOLE)[:-30])
    with pytest.raises(DataError, match="damaged") as error:
        load(str(path), None)
    assert "\n" not in str(error.value)


def test_images_that_do_not_fit_into_memory_are_refused(
    tmp_path: Path, small_machine: Callable[[], None]
) -> None:
    path = pair(tmp_path, idx_bytes(np.zeros((30, 20, 20), np.uint8)))
    small_machine()
    with pytest.raises(DataError, match="GiB of memory"):
        load(str(path), None)
