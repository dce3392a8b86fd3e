"""Small files in the real IDX format."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt


def idx_bytes(values: npt.NDArray[np.uint8]) -> bytes:
    """An IDX file of unsigned bytes."""
    magic = struct.pack(">I", 0x0800 | values.ndim)
    return magic + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_images(folder: Path, *, train: int = 96, test: int = 40, size: int = 8) -> None:
    """Four files of a data set in which a bright spot tells the class."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = random.integers(0, 120, size=(count, size, size), dtype=np.uint8)
        images.reshape(count, -1)[np.arange(count), labels * 5] = 255
        files = {"images-idx3": images, "labels-idx1": labels}
        for name, values in files.items():
            packed = gzip.compress(idx_bytes(values), mtime=0)
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(packed)
