"""The IDX format of MNIST and its relatives, plain or compressed with gzip.

A file is: two zero bytes, 0x08 for unsigned bytes, the number of dimensions; the size of each
dimension as a big-endian 32-bit number; the values.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samt.bench.data.raw import Part, RawData, numbered
from samt.bench.data.reading import require_memory, unpacked
from samt.bench.errors import DataError


def read_pairs(paths: Sequence[Path], classes: int | None = None) -> RawData:
    """Read images with their labels.

    Args:
        paths: images and labels of the training part, then perhaps those of the test part.
        classes: the number of classes; None means that those which occur are numbered.

    Returns:
        The parts, with images of shape (count, 1, height, width).

    Raises:
        DataError: a file is damaged or empty, or the files do not fit each other.
    """
    pairs = [_pair(*paths[at : at + 2]) for at in range(0, len(paths), 2)]
    if len({part.inputs.shape[1:] for part in pairs}) > 1:
        raise DataError(
            f"{paths[0]} and {paths[2].name} differ in the size of their images: make them equal"
        )
    names: tuple[str, ...] = ()
    if classes is None:
        names, codes = numbered(paths[1], *(part.targets for part in pairs))
        pairs = [Part(part.inputs, labels) for part, labels in zip(pairs, codes, strict=True)]
    elif max(int(part.targets.max()) for part in pairs) >= classes:
        raise DataError(f"{paths[1]} has labels above {classes - 1}: get the file again")
    test = pairs[1] if len(pairs) > 1 else None
    return RawData("classification", classes or len(names), pairs[0], test, "pixels", names)


def _pair(images_path: Path, labels_path: Path) -> Part:
    images, labels = _array(images_path, 3), _array(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} has {len(images)} images, but {labels_path.name} has {len(labels)} "
            f"labels: they do not belong together, get both again"
        )
    if not images.size:
        raise DataError(f"{images_path} has no pixels: get the file again")
    return Part(images[:, None], labels.astype(np.int64))


def _array(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The values of one file: images have 3 dimensions, labels 1."""
    with unpacked(path) as file:
        head = file.read(4 + 4 * dimensions)
        if head[:4] != struct.pack(">I", 0x0800 | dimensions) or len(head) < 4 + 4 * dimensions:
            raise DataError(
                f"{path} is no IDX file of {dimensions} dimensions (it begins with "
                f"0x{head[:4].hex()}): get it again, or check whether images and labels are swapped"
            )
        shape = struct.unpack(f">{dimensions}I", head[4:])
        expected = math.prod(shape)
        require_memory(path, 5 * expected)  # as bytes, and then as float32
        values = file.read(expected + 1)
    if len(values) != expected:
        raise DataError(
            f"{path} has {'more' if len(values) > expected else 'fewer'} than the {expected} "
            f"values that its header names: get the file again"
        )
    return np.frombuffer(bytearray(values), dtype=np.uint8).reshape(shape)
