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
    inputs = torch.full((len(lines), LONGEST), NO_WORD)
    for row, (words, _) in enumerate(lines):
        known = [number[word] for word in words if word in number][:LONGEST]
        inputs[row, : len(known)] = torch.tensor(known, dtype=torch.int64)
    targets = torch.tensor([module for _, module in lines])
    return divided(inputs, targets, 2_000, 2_000)


def _lines(text: str) -> list[list[str]]:
    """The lines with enough words, each once: parts of the data must share none."""
    lines = dict.fromkeys(tuple(_WORD.findall(line)) for line in text.splitlines())
    return [list(words) for words in lines if len(words) >= _FEWEST][:_LINES]
