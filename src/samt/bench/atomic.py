"""Files that are the old or the new one at any moment, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from samt.bench.errors import explained

TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp")


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace a file so that a crash at any moment leaves the old or the new content.

    Args:
        path: the file.
        content: all of it.
        durable: wait until it would survive a power cut.

    Raises:
        RunFolderError: it cannot be written; the old content is still there.
    """
    with explained(path), replaced(path, durable=durable) as file:
        file.write(content)


@contextmanager
def replaced(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Write a file beside another one; at the end it takes that one's place.

    What earlier writes of the same file left behind when they were killed is removed.

    Args:
        path: the file that is replaced.
        durable: wait until the new one would survive a power cut.

    Yields:
        The new file.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    if path.exists():  # one that may not be written is not replaced either
        os.close(os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0)))
    _remove_abandoned(path)
    file = _opened(path)
    try:
        with file:
            yield file
            settle(file, path, durable=durable)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def settle(file: BinaryIO, path: Path, *, durable: bool = True) -> None:
    """Give an open file the name of another one, whose place it takes.

    Args:
        file: all of it is written.
        path: its new name.
        durable: wait until it would survive a power cut.

    Raises:
        OSError: it cannot be done.
    """
    file.flush()
    if durable:
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _opened(path: Path) -> BinaryIO:
    """A new file, held by this process, with a name of its own: several may write the same one."""
    while True:
        file = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp").open("xb")
        try:
            lock(file.fileno(), wait=True)
            if os.fstat(file.fileno()).st_nlink:  # else somebody took it for an abandoned one
                return file
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            file.close()
            raise
        file.close()


def _remove_abandoned(path: Path) -> None:
    """Those that nobody holds: the process that wrote them is gone, whatever a clock says."""
    with os.scandir(path.parent) as entries:
        beside = [one.path for one in entries if _writes(one.name) == path.name]
    for one in beside:
        with contextlib.suppress(OSError), Path(one).open("rb") as file:
            if lock(file.fileno()):
                Path(one).unlink()


def _writes(name: str) -> str | None:
    found = TEMPORARY.fullmatch(name)
    return found and found[1]


def lock(handle: int, *, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed or the process ends.

    Args:
        handle: of it.
        wait: until nobody else has the lock.

    Returns:
        False where there are no locks, as on some network drives.

    Raises:
        BlockingIOError: somebody else has it.
    """
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
