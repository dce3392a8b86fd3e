"""Text to learn character by character: sums, differences and products in English words.

`seventy-two minus nine is sixty-three.` What follows "is" can be learnt, the operands cannot: they
are drawn. So there is a lot to learn, and none of it has to be downloaded.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from samt.bench.data.raw import Part, RawData

LENGTH = 64  # of a sample, in characters
TRAIN, TEST = 4_000, 1_000
CHARACTERS = " -.abcdefghijklmnopqrstuvwxyz"
_SEED = 0

_TO_NINE = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("thir", "four", "fif", "six", "seven", "eigh", "nine")
_SMALL = (*_TO_NINE, "ten", "eleven", "twelve", *(f"{one}teen" for one in _TEENS))
_TENS = tuple(f"{one}ty" for one in ("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine"))


def words(number: int) -> str:
    """A number from 0 to 999 in words.

    >>> words(7), words(42), words(360), words(815)
    ('seven', 'forty-two', 'three hundred sixty', 'eight hundred fifteen')
    """
    if number >= 100:
        hundreds, rest = divmod(number, 100)
        return f"{_SMALL[hundreds]} hundred" + (f" {words(rest)}" if rest else "")
    if number < 20:
        return _SMALL[number]
    tens, rest = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_SMALL[rest]}" if rest else "")


def text(length: int, seed: int) -> str:
    """Sentences, one after the other.

    Args:
        length: in characters; the last sentence may be cut off.
        seed: of the operands.

    >>> text(60, 0)
    'three times twenty-one is sixty-three. thirty plus four is t'
    """
    chance = np.random.default_rng(seed)
    sentences: list[str] = []
    written = 0
    while written < length:
        kind, first, second = (int(chance.integers(bound)) for bound in (3, 100, 100))
        if kind == 0:
            one = f"{words(first)} plus {words(second)} is {words(first + second)}. "
        elif kind == 1:
            first, second = max(first, second), min(first, second)
            one = f"{words(first)} minus {words(second)} is {words(first - second)}. "
        else:
            first, second = first % 30, second % 30
            one = f"{words(first)} times {words(second)} is {words(first * second)}. "
        sentences.append(one)
        written += len(one)
    return "".join(sentences)[:length]


def draw() -> RawData:
    """Samples of `LENGTH` characters, each with those that follow as its targets."""
    position = {character: index for index, character in enumerate(CHARACTERS)}
    count = (TRAIN + TEST) * LENGTH
    numbers = np.array([position[one] for one in text(count + 1, _SEED)], dtype=np.int64)
    inputs, targets = (_cut(numbers[start : start + count]) for start in (0, 1))
    train, test = (
        Part(inputs[rows].astype(np.float32), targets[rows])
        for rows in (slice(TRAIN), slice(TRAIN, None))
    )
    return RawData("classification", len(CHARACTERS), train, test, "none", tuple(CHARACTERS))


def _cut(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return numbers.reshape(-1, LENGTH)
