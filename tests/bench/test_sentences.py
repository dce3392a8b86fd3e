"""Generated text: what it says is true, and never changes."""

from __future__ import annotations

import re

import numpy as np
import torch

from samt.bench import data
from samt.bench.data import sentences

_SENTENCE = re.compile(r"([a-z -]+?) (plus|minus|times) ([a-z -]+?) is ([a-z -]+)")


def test_numbers_have_words_of_their_own() -> None:
    found = {sentences.words(number): number for number in range(1000)}
    assert len(found) == 1000
    assert found["nine hundred ninety-nine"] == 999
    assert found["twenty"] == 20


def test_every_sentence_is_true() -> None:
    numbers = {sentences.words(number): number for number in range(1000)}
    text = sentences.text(100_000, 3)
    assert len(text) == 100_000
    kinds = set()
    for sentence in text.split(". ")[:-1]:
        matched = _SENTENCE.fullmatch(sentence)
        assert matched, sentence
        first, kind, second, result = matched.groups()
        a, b = numbers[first], numbers[second]
        expected = {"plus": a + b, "minus": a - b, "times": a * b}[kind]
        assert numbers[result] == expected, sentence
        kinds.add(kind)
    assert kinds == {"plus", "minus", "times"}


def test_targets_are_the_next_characters() -> None:
    loaded = data.load("characters", None)
    inputs, targets = loaded.train.tensors()
    assert inputs.shape == targets.shape == (sentences.TRAIN, sentences.LENGTH)
    assert torch.equal(inputs[:, 1:].long(), targets[:, :-1])
    assert torch.equal(inputs[1:, 0].long(), targets[:-1, -1])
    assert loaded.outputs == len(sentences.CHARACTERS)
    whole = "".join(loaded.classes[number] for number in inputs.flatten().long().tolist())
    assert whole == sentences.text(len(whole), 0)


def test_a_validation_part_is_split_off() -> None:
    loaded = data.load("characters", None, validation=0.25)
    assert loaded.validation is not None
    assert len(loaded.validation) == sentences.TRAIN // 4
    assert len(loaded.train) == 3 * sentences.TRAIN // 4
    assert len(loaded.test) == sentences.TEST


def test_the_text_never_changes() -> None:
    """Results of different machines and times are of one text."""
    assert data.load("characters", None).checksum.startswith(CHECKSUM)
    assert np.random.default_rng(0).integers(3) == 2  # what the text is drawn with


CHECKSUM = "f6449223437e"
