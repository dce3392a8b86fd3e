"""Files that anybody may have written, read without trust in what they are."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

# A record of 100 000 cells fits; parsed, it takes up to thirty times as much memory.
LARGEST_JSON = 64 << 20


def opened(path: Path) -> BinaryIO:
    """Open a file for reading; never wait for what is no file, as a pipe without a writer.

    Args:
        path: of it, or of a link to it.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe, a device or a socket.
    """
    file = open(path, "rb", opener=_at_once)  # noqa: SIM115 - Path.open takes no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe or device, not a file", str(path))
    return file


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parsed_json(content: bytes) -> Any:
    """JSON, or one named error.

    Args:
        content: of a file.

    Raises:
        ValueError: it is no JSON, nested too deeply, or too large.
    """
    if len(content) > LARGEST_JSON:
        raise ValueError(f"more than {LARGEST_JSON >> 20} MiB")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def writable(text: str) -> str:
    """Text that UTF-8 can hold: JSON and names of files may have halves of surrogate pairs.

    >>> writable("a\\ud800")
    'a?'
    """
    return text.encode(errors="replace").decode()
