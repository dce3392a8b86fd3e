"""What all readers of files share: damage is one line with its cure, and memory is asked for."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from samt.bench.errors import DataError

# What the standard library, NumPy and pandas raise when bytes are not what a format says.
_DAMAGE = (
    EOFError,
    ValueError,
    RuntimeError,
    zlib.error,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    tarfile.TarError,
)


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn what a library raises about a file into one line with the cure.

    Args:
        path: the file or folder that is read inside the context.

    Raises:
        DataError: the file is damaged, cannot be opened, or does not fit into memory.
    """
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is damaged, or not what its name says ({reason}): get or save the file again"
        ) from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory: use a part of it") from error
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror or error}): check the file and --data-dir"
        ) from error


def is_packed(path: Path) -> bool:
    """Whether a file is compressed with gzip: browsers unpack some and leave their name.

    Args:
        path: the file.
    """
    with reading(path), path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, and unpack it if it is compressed with gzip.

    Args:
        path: the file.

    Raises:
        DataError: here or while the file is read, as of `reading`.
    """
    with reading(path):
        if is_packed(path):
            with gzip.open(path) as content:
                yield cast(BinaryIO, content)
        else:
            with path.open("rb") as file:
                yield file


def require_memory(path: Path, needed: int) -> None:
    """Refuse data that are larger than the memory of this machine, before any of it is taken.

    Args:
        path: the file or folder that holds the data.
        needed: how many bytes the data take in memory, with all copies that are made of them.

    Raises:
        DataError: the machine has less memory than that.
    """
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not known on this system
        return
    if needed > there:
        raise DataError(
            f"{path} needs {needed / 2**30:.0f} GiB of memory, but there are {there / 2**30:.0f}: "
            f"use a part of it"
        )
