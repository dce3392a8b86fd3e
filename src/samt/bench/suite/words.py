"""Lines of code as bags of words, with the module that each comes from."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

import torch

from samt.bench.suite.samples import Parts, divided
from samt.bench.suite.texts import standard_library

WORDS, MODULES, LONGEST = 6_000, 20, 12
NO_WORD = 0
_LINES = 1_000  # of each module, at most
_FEWEST = 3  # words in a line
_WORD = re.compile(r"[A-Za-z_]+")


@lru_cache(maxsize=1)
def lines_of_code() -> Parts:
    """Lines of the largest modules of the standard library.

    Returns:
        Numbers of words, filled up with `NO_WORD`, and the number of the module. The most frequent
        words of all lines have a number of their own; the others count as no word.
    """
    texts = sorted(standard_library(), key=len)[-MODULES:]
    lines = [(line, module) for module, text in enumerate(texts) for line in _lines(text)]
    counts = Counter(word for words, _ in lines for word in words)
    number = {word: place for place, (word, _) in enumerate(counts.most_common(WORDS - 1), 1)}
    modules: dict[tuple[int, ...], int] = {}
    for words, module in lines:
        known = [number[word] for word in words if word in number][:LONGEST]
        # Each row once, in the first module that has it: parts of the data must share none.
        modules.setdefault((*known, *[NO_WORD] * (LONGEST - len(known))), module)
    return divided(torch.tensor(list(modules)), torch.tensor(list(modules.values())), 2_000, 2_000)


def _lines(text: str) -> list[list[str]]:
    """The first lines with enough words, each as its words."""
    lines = (_WORD.findall(line) for line in text.splitlines())
    return [words for words in lines if len(words) >= _FEWEST][:_LINES]
