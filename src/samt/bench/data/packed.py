"""Files that may be compressed, read without trust in what they say about themselves."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from samt.bench.errors import DataError
from samt.bench.untrusted import opened

AGAIN = "fetch the file again"
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20
_BUFFER = 1 << 16
# Deflate can make a thousand bytes of one; tables and images of real data stay far below this.
_EXPANSION = 200
_ALWAYS_ALLOWED = 64 << 20


def allowed(packed: int) -> int:
    """The most bytes that `packed` compressed bytes may become before they count as a bomb."""
    return max(_ALWAYS_ALLOWED, _EXPANSION * packed)


class _Bounded(io.RawIOBase):
    """A stream that ends with an error instead of filling the memory."""

    def __init__(self, stream: BinaryIO, path: Path, most: int) -> None:
        self._stream, self._path, self._left = stream, path, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        count: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self._left -= count
        if self._left < 0:
            raise bomb(self._path)
        return count


def bomb(path: Path | str) -> DataError:
    """The error of a file that unpacks to far more than real data would."""
    return DataError(
        f"{path} unpacks to more than {_EXPANSION} times its size, as a decompression bomb does: "
        f"unpack it yourself if you trust it"
    )


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """Open a file, plain or gzip (told apart by content, not by name).

    Args:
        path: the file.

    Yields:
        Its unpacked bytes, as many as a file of this size may honestly hold.

    Raises:
        DataError: here or while the stream is read: the file is absent, damaged or a bomb.
    """
    with reading(path), opened(path) as file:
        if file.peek(2)[:2] != _GZIP_MAGIC:  # type: ignore[attr-defined]
            yield file
            return
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=file))
        yield io.BufferedReader(_Bounded(stream, path, allowed(path.stat().st_size)), _BUFFER)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes the standard library raise into one line with the cure."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or cut off ({error}): {AGAIN}") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory: use a smaller file") from error
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror or error}): check the file and --data-dir"
        ) from error


def require_memory(path: Path, pixels: int) -> None:
    """Refuse images that cannot fit: they stand in memory as bytes, and then as float32.

    Args:
        path: where they come from.
        pixels: bytes of all images.

    Raises:
        DataError: the machine has less memory than that.
    """
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not known on this system
        return
    needed = 5 * pixels
    if needed > there:
        raise DataError(
            f"{path} needs {needed / 2**30:.0f} GiB of memory, but there are {there / 2**30:.0f}: "
            f"use fewer images, or smaller ones"
        )


def read_at_most(stream: BinaryIO, count: int) -> bytearray:
    """Read up to `count` bytes; memory grows with what is there, not with what was promised."""
    values = bytearray()
    while len(values) < count:
        chunk = stream.read(min(_CHUNK, count - len(values)))
        if not chunk:
            break
        values += chunk
    return values
