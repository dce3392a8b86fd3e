"""The IDX format of MNIST and its relatives, plain or compressed with gzip.

A file is: two zero bytes, 0x08 for unsigned bytes, the number of dimensions; the size of each
dimension as a big-endian 32-bit number; the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from samt.bench.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot expand a byte to more than this.
_MOST_EXPANSION = 1032
_CHUNK = 1 << 20
_CURE = "fetch the file again"


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
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == _GZIP_MAGIC
            most = path.stat().st_size * (_MOST_EXPANSION if packed else 1)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
            return _parse(path, stream, dimensions, most)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or cut off ({error}): {_CURE}") from error
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror}): check the file and --data-dir"
        ) from error


def _parse(path: Path, stream: BinaryIO, dimensions: int, most: int) -> npt.NDArray[np.uint8]:
    magic = 0x0800 | dimensions
    head = stream.read(4)
    if len(head) == 4 and head != struct.pack(">I", magic):
        raise DataError(
            f"{path} is not the IDX file that is expected here (magic 0x{head.hex()} instead "
            f"of 0x{magic:08x}): {_CURE}, or check whether images and labels are swapped"
        )
    sizes_bytes = stream.read(4 * dimensions)
    if len(head) + len(sizes_bytes) < 4 + 4 * dimensions:
        raise DataError(f"{path} is cut off in its header: {_CURE}")
    shape = struct.unpack(f">{dimensions}I", sizes_bytes)
    expected = math.prod(shape)
    if expected > most:
        raise DataError(f"{path} is cut off (its header promises {expected} bytes): {_CURE}")
    values = _read_at_most(stream, expected + 1)
    if len(values) < expected:
        raise DataError(f"{path} is cut off ({len(values)} of {expected} bytes): {_CURE}")
    if len(values) > expected:
        raise DataError(f"{path} has bytes after its {expected} values: {_CURE}")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _read_at_most(stream: BinaryIO, count: int) -> bytearray:
    values = bytearray()
    while len(values) < count:
        chunk = stream.read(min(_CHUNK, count - len(values)))
        if not chunk:
            break
        values += chunk
    return values
