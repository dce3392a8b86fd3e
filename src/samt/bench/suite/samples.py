"""The samples of a problem: loaded or drawn, and cut into three parts that share none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from samt.bench.data import Split, load

# A problem is evaluated thirty times in a run, so each evaluation has to be short.
EVALUATED = 4_000
_VALIDATION_SHARE = 0.1
_LARGEST = 60_000 * 28 * 28  # numbers of a training part that a process keeps


@dataclass(frozen=True)
class Parts:
    """The three parts of a data set.

    Args:
        train: the samples that a network is trained on.
        validation: the samples on which settings are chosen; none of them is trained on.
        test: the samples that are only ever reported.
        unit: how much of a target counts as an error of 1; it is 1 for classes, and the
            standard deviation of the training part for targets that are not standardised.
    """

    train: Split
    validation: Split
    test: Split
    unit: float = 1.0

    def with_inputs(self, change: Callable[[Tensor], Tensor]) -> Parts:
        """Apply a function to the inputs of all three parts.

        Args:
            change: a function from inputs to inputs, which treats each sample alone.

        Returns:
            Parts with new inputs and the same targets.
        """
        return self.changed(lambda one: replace(one, inputs=change(one.inputs)))

    def with_targets(self, change: Callable[[Tensor], Tensor], unit: float = 1.0) -> Parts:
        """Apply a function to the targets of all three parts.

        Args:
            change: a function from targets to targets, which treats each sample alone.
            unit: how much of a new target counts as an error of 1.

        Returns:
            Parts with the same inputs and new targets.
        """
        changed = self.changed(lambda one: replace(one, targets=change(one.targets)))
        return replace(changed, unit=unit)

    def at_most(self, train: int, evaluated: int = EVALUATED) -> Parts:
        """Keep only the first samples of each part.

        Args:
            train: how many training samples are kept.
            evaluated: how many samples of the validation part, and of the test part, are kept.

        Returns:
            Parts that share memory with these.
        """
        return replace(
            self,
            train=first(self.train, train),
            validation=first(self.validation, evaluated),
            test=first(self.test, evaluated),
        )

    def without_repeats(self) -> Parts:
        """Leave those samples out of validation and test part that are in the training part, too.

        Returns:
            Parts that share no sample, as far as inputs are the same to the bit.
        """
        seen = set(_as_bytes(self.train.inputs))

        def new(part: Split) -> Split:
            kept = [i for i, row in enumerate(_as_bytes(part.inputs)) if row not in seen]
            return Split(*part.take(torch.tensor(kept)))

        return replace(self, validation=new(self.validation), test=new(self.test))

    def changed(self, change: Callable[[Split], Split]) -> Parts:
        """Apply a function to all three parts.

        Args:
            change: a function from a part to a part, which treats each sample alone.

        Returns:
            Parts of the same unit.
        """
        return replace(
            self,
            train=change(self.train),
            validation=change(self.validation),
            test=change(self.test),
        )


def _as_bytes(inputs: Tensor) -> list[bytes]:
    """The memory of each sample."""
    return [row.tobytes() for row in inputs.flatten(1).contiguous().numpy()]


def first(split: Split, count: int) -> Split:
    """The first samples of a part, or all of them if there are fewer.

    Args:
        split: any part.
        count: how many samples are taken.

    Returns:
        A part that shares memory with the old one.
    """
    return Split(split.inputs[:count], split.targets[:count])


@lru_cache(maxsize=8)
def loaded(name: str, data_dir: Path | None) -> Parts:
    """Load a data set of the bench and split a validation part off its training part.

    Args:
        name: a key of `samt.bench.data.DATASETS`.
        data_dir: the folder of all data sets; None means the user's own.

    Returns:
        The data set's own test part, what was split off, and the rest of the training part: at
        most `EVALUATED` samples of the first two, and as many of the last as fill 190 MB. Targets
        of a regression are standardised.

    Raises:
        DataError: the data set is not there, or damaged.
    """
    data = load(name, data_dir, validation=_VALIDATION_SHARE)
    assert data.validation is not None
    kept = _LARGEST // math.prod(data.sample_shape)
    train = Split(*(tensor[:kept].clone() for tensor in data.train.tensors()))
    return Parts(train, first(data.validation, EVALUATED), shuffled(data.test, EVALUATED))


def shuffled(split: Split, count: int) -> Split:
    """Choose samples of a part at random, always the same ones.

    Args:
        split: any part.
        count: how many samples are chosen, unless there are fewer.

    Returns:
        The chosen samples.
    """
    chosen = torch.randperm(len(split), generator=generator(0))[:count]
    return Split(*split.take(chosen))


def divided(inputs: Tensor, targets: Tensor, validation: int, test: int) -> Parts:
    """Cut samples that come without a split into three parts, always in the same way.

    Args:
        inputs: one sample for each index of dimension 0.
        targets: as many targets.
        validation: the number of samples of the validation part.
        test: the number of samples of the test part; all others are for training.

    Returns:
        The three parts.
    """
    order = torch.randperm(len(inputs), generator=generator(0))
    everything = Split(inputs, targets)
    train = len(inputs) - validation - test
    rows = order.split([train, validation, test])
    learnt, chosen, reported = (Split(*everything.take(one)) for one in rows)
    return Parts(learnt, chosen, reported)


def generator(*numbers: int) -> torch.Generator:
    """A generator of random numbers that follow from the arguments alone.

    Args:
        numbers: a seed and, where a seed needs several generators, what tells them apart; each
            below a million.

    Returns:
        A new generator on the CPU.
    """
    seed = 0
    for number in numbers:
        seed = seed * 1_000_003 + number
    return torch.Generator().manual_seed(seed % 2**63)
