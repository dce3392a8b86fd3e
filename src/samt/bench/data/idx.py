"""The IDX format of MNIST and its relatives, plain or compressed with gzip.

A file is: two zero bytes, 0x08 for unsigned bytes, the number of dimensions; the size of each
dimension as a big-endian 32-bit number; the values.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from samt.bench.data.packed import AGAIN, read_at_most, unpacked
from samt.bench.data.raw import Part, RawData
from samt.bench.errors import DataError

# Deflate cannot expand a byte to more than this.
_MOST_EXPANSION = 1032


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes.

    Nothing is allocated on the word of the header alone.

    Args:
        path: the file, plain or gzip (told apart by content, not by name).
        dimensions: 3 for images, 1 for labels.

    Returns:
        An array with that many dimensions.

    Raises:
        DataError: the file cannot be read, is another format, is cut off or has bytes left over.
    """
    with unpacked(path) as stream:
        return _parse(path, stream, dimensions, path.stat().st_size * _MOST_EXPANSION)


def _parse(path: Path, stream: BinaryIO, dimensions: int, most: int) -> npt.NDArray[np.uint8]:
    magic = 0x0800 | dimensions
    head = stream.read(4)
    if len(head) == 4 and head != struct.pack(">I", magic):
        raise DataError(
            f"{path} is not the IDX file that is expected here (magic 0x{head.hex()} instead "
            f"of 0x{magic:08x}): {AGAIN}, or check whether images and labels are swapped"
        )
    sizes_bytes = stream.read(4 * dimensions)
    if len(head) + len(sizes_bytes) < 4 + 4 * dimensions:
        raise DataError(f"{path} is cut off in its header: {AGAIN}")
    shape = struct.unpack(f">{dimensions}I", sizes_bytes)
    expected = math.prod(shape)
    # Not the product alone: beside a size of 0 the others can be anything.
    if math.prod(size or 1 for size in shape) > most:
        raise DataError(f"{path} is cut off (its header promises {expected} bytes): {AGAIN}")
    values = read_at_most(stream, expected + 1)
    if len(values) < expected:
        raise DataError(f"{path} is cut off ({len(values)} of {expected} bytes): {AGAIN}")
    if len(values) > expected:
        raise DataError(f"{path} has bytes after its {expected} values: {AGAIN}")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def read_pair(images_path: Path, labels_path: Path) -> Part:
    """Read images with their labels.

    Args:
        images_path: IDX file of three dimensions.
        labels_path: IDX file of one dimension.

    Returns:
        Images of shape (count, 1, height, width), and class numbers.

    Raises:
        DataError: a file is damaged, empty, or the two do not belong together.
    """
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} has {len(images)} images, but {labels_path.name} has {len(labels)} "
            f"labels: they do not belong together, fetch both again"
        )
    if not images.size:
        raise DataError(f"{images_path} has no pixels: {AGAIN}")
    return Part(images[:, None], labels.astype(np.int64))


def read_folder(folder: Path, classes: int | None = None, missing: str = "put it there") -> RawData:
    """Read the four files of MNIST or of a set in its form.

    Args:
        folder: holds train-images-idx3-ubyte and so on, plain or .gz.
        classes: how many there are; None takes it from the largest label.
        missing: what to do about a file that is not there.

    Returns:
        Training and test part.

    Raises:
        DataError: a file is absent or damaged, or the files do not fit each other.
    """
    train, test = (
        read_pair(
            _existing(folder, f"{part}-images-idx3-ubyte", missing),
            _existing(folder, f"{part}-labels-idx1-ubyte", missing),
        )
        for part in ("train", "t10k")
    )
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise DataError(
            f"training and test images in {folder} differ in size: fetch the files again"
        )
    outputs = classes or int(max(train.targets.max(), test.targets.max())) + 1
    for name, part in (("train", train), ("t10k", test)):
        if part.targets.max() >= outputs:
            raise DataError(
                f"{folder / name}-labels-idx1-ubyte has labels above {outputs - 1}: {AGAIN}"
            )
    return RawData("classification", outputs, train, test, scaling="pixels")


def find(folder: Path, stem: str) -> Path | None:
    """The file with this name in the folder, packed or not."""
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.exists()), None)


def _existing(folder: Path, stem: str, missing: str) -> Path:
    path = find(folder, stem)
    if path is None:
        raise DataError(f"no {stem}[.gz] in {folder}: {missing}")
    return path
