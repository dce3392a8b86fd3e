"""What a data set is to the training loop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Split:
    """Inputs and targets, one sample for each index of dimension 0."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def tensors(self) -> Iterator[Tensor]:
        """Both tensors."""
        yield self.inputs
        yield self.targets

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The samples of an index tensor on the same device."""
        return self.inputs[index], self.targets[index]

    def to(self, device: torch.device) -> Split:
        """A copy on another device."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Dataset:
    """A data set with its fixed split into training and test part.

    Args:
        name: the name of the data set, short enough for a table.
        task: what is learnt; it decides the loss (cross entropy or mean squared error) and the
            metric.
        outputs: the number of classes, or of values that are predicted.
        train: the part to learn from.
        test: the part that is only ever reported.
        target_scale: how much one unit of a regression target is in the units of the file.
        split_seed: the seed or number of the split, or None where the data come with one split.
        validation: the part to choose options by, taken out of the training part; or None.
        classes: the names of the classes, if they are known.
        notes: what a user should know about how the files were understood, a sentence each.
    """

    name: str
    task: Task
    outputs: int
    train: Split
    test: Split
    target_scale: float = 1.0
    split_seed: int | None = None
    validation: Split | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """Name of what is measured on the test part."""
        return "accuracy" if self.task == "classification" else "rmse"

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one input: (channels, height, width) or (features,)."""
        return tuple(self.train.inputs.shape[1:])

    def to(self, device: torch.device) -> Dataset:
        """The same data on another device."""
        validation = None if self.validation is None else self.validation.to(device)
        return replace(
            self,
            train=self.train.to(device),
            test=self.test.to(device),
            validation=validation,
        )

    @property
    def parts(self) -> dict[str, Split]:
        """The parts that there are, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every number, so that a resumed run notices other data."""
        digest = hashlib.sha256()
        # The validation part comes last, so that data without one keep their old fingerprint.
        parts = [part for part in (self.train, self.test, self.validation) if part is not None]
        for tensor in (tensor for part in parts for tensor in part.tensors()):
            digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    @property
    def checksum(self) -> str:
        """SHA-256 over `fingerprint` and what else decides a result: the units of the target."""
        content = repr((self.fingerprint, self.task, self.outputs, self.target_scale))
        return hashlib.sha256(content.encode()).hexdigest()
