"""What is printed: text from a file is shown, and never steers the terminal."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable

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


class _ShowingConsole(Console):
    """A console whose own colours work, and whose text is `shown`."""

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
    """One line on standard error, whatever the text holds."""
    sys.stderr.write(shown(" ".join(text.splitlines())) + "\n")
