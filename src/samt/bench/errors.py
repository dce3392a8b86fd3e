"""What a user of the command line can get wrong: each message is one line with the cure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Base class: the command line prints the message as one line and exits with code 2."""


class DataError(UserError):
    """A data set is unknown, absent or damaged."""


class SettingsError(UserError):
    """An option, a method or a value that does not exist."""


class RunFolderError(UserError):
    """A run folder cannot be used or cannot be written."""


class ResultsError(UserError):
    """A results location cannot be used, or something is not there."""


class ExperimentError(UserError):
    """An experiment file is wrong, or asks for what cannot be done."""


class NoCellError(ExperimentError):
    """What was asked for leaves nothing of an experiment."""


class ReportError(UserError):
    """A report cannot be made or written, or published numbers cannot be read."""


class CheckpointError(RunFolderError):
    """A checkpoint is damaged or does not belong to this run."""


def brief(value: object) -> str:
    """A value as it is named in a message, without the middle of a long one.

    >>> brief(10**99)
    '10000000000000000000…00000000000000000000'
    """
    text = str(value)
    return text if len(text) <= 60 else f"{text[:20]}…{text[-20:]}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch or Python asked for more memory than there is.

    Args:
        error: any; torch has a class of its own for accelerators alone.
    """
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "DefaultCPUAllocator" in text or "Storage size" in text)
    )


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an `OSError` while writing `path` into a line that says what to do.

    Raises:
        RunFolderError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise RunFolderError(
                f"no room to write {path} ({reason}): free some space, then add --resume; "
                f"the last finished checkpoint is intact"
            ) from error
        raise RunFolderError(
            f"cannot write {path} ({reason}): choose a folder that can be written with --run-dir"
        ) from error
