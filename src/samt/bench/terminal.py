"""What is printed: text from a file is shown, and never steers the terminal.

And what happens where it cannot be printed: a stream is closed, full, or nobody reads it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Controls, invisible formats (some reverse the direction of reading), halves of pairs, other
# line ends.
_STEERING = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def shown(text: str) -> str:
    """Text in which what steers a terminal is written out; line ends stay.

    >>> shown("a\\x1b[2J\\nb")
    'a\\\\x1b[2J\\nb'
    """
    if text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode()
        if one != "\n" and unicodedata.category(one) in _STEERING
        else one
        for one in text
    )


def writable(text: str) -> str:
    """Text that UTF-8 can hold: JSON and names of files may have halves of surrogate pairs.

    >>> writable("a\\ud800")
    'a?'
    """
    return text.encode(errors="replace").decode()


NOBODY_READS = 141  # as a shell names what ended by SIGPIPE


class _ShowingConsole(Console):
    """A console whose own colours work, and whose text is `shown`."""

    def on_broken_pipe(self) -> None:
        """End quietly, as other commands do."""
        self.quiet = True
        _drop(1)
        raise SystemExit(NOBODY_READS)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(shown(segment.text), segment.style)


console = _ShowingConsole()


def say(text: str) -> None:
    """Print text as it is, without colours and line breaks of its own."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    """One line on standard error, whatever the text holds; where it is lost, the code remains."""
    try:
        sys.stderr.write(shown(" ".join(text.splitlines())) + "\n")
        sys.stderr.flush()
    except OSError:
        _drop(2)


def open_streams() -> None:
    """Make up for standard streams that are closed, or a file would get the number of one.

    And for those of a locale that lacks our letters (±, −): a question mark stands for them.
    """
    handle = os.open(os.devnull, os.O_RDWR)
    while handle <= 2:
        os.set_inheritable(handle, True)
        handle = os.open(os.devnull, os.O_RDWR)
    os.close(handle)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def lost_output(error: Exception) -> str | None:
    """Why standard output cannot be written, if that made an error; the rest of it is dropped.

    Args:
        error: any; of a file that was opened by its name it is something else.
    """
    if not isinstance(error, OSError) or error.filename is not None:
        return None
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except io.UnsupportedOperation:  # a stream of Python's own
        return None
    except OSError as found:
        _drop(1)
        return found.strerror
    return None


def _drop(stream: int) -> None:
    """Write the rest of a standard stream nowhere: what is left in it must not fail at the end."""
    with contextlib.suppress(OSError, ValueError):
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, (sys.stdout, sys.stderr)[stream - 1].fileno())
        os.close(handle)
