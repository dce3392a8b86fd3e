"""What the readers of the formats hand on: arrays as they stand in the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from samt.bench.data.dataset import Task
from samt.bench.errors import DataError

# pixels: whole numbers, divided by the largest of their type; normalise: bytes to mean 0 and
# deviation 1 over all pixels of the training part; standardise: the same for each feature; uneven:
# as pixels, then each pixel times a factor of its own, from 1/30 to 30.
Scaling = Literal["pixels", "normalise", "standardise", "uneven", "none"]
Pixels = npt.NDArray[np.uint8 | np.uint16]


@dataclass(frozen=True)
class Part:
    """Inputs and targets, one sample for each index of dimension 0.

    Args:
        inputs: pixels of shape (count, channels, height, width), or numbers of any shape.
        targets: class numbers of shape (count,), or (count, positions) for sequences; or values of
            shape (count, 1).
    """

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: npt.NDArray[np.int64]) -> Part:
        """The samples of these rows."""
        return Part(self.inputs[rows], self.targets[rows])


@dataclass(frozen=True)
class RawData:
    """A data set before it is split and scaled.

    Args:
        task: what is learnt, a class or a value.
        outputs: the number of classes, or of values that are predicted.
        train: the part to learn from; all of the data where there is no test part.
        test: the test part; None means that a share of `train` is drawn with the split seed.
        scaling: how inputs become float32.
        classes: the names of the classes, if they are known.
        published_split: the number of the split, where several come with the data.
        scales_targets: whether the targets of a regression are standardised.
        notes: what a user should know about how the files were understood, a sentence each.
    """

    task: Task
    outputs: int
    train: Part
    test: Part | None
    scaling: Scaling
    classes: tuple[str, ...] = ()
    published_split: int | None = None
    scales_targets: bool = True
    notes: tuple[str, ...] = ()


def numbered(
    path: Path, train: npt.NDArray[Any], *test: npt.NDArray[Any]
) -> tuple[tuple[str, ...], Sequence[npt.NDArray[np.int64]]]:
    """Number the classes that there are, so that no output stands for none.

    Args:
        path: the file that is named in errors.
        train: the labels of the training part.
        *test: the labels of the test part, if there is one.

    Returns:
        The names of the classes in order, and the class numbers of each part.

    Raises:
        DataError: there is a single class, or the training part lacks one.
    """
    names = np.unique(train)
    if len(names) < 2:
        raise DataError(f"{path} has samples of a single class: add some of another")
    for labels in test:
        strange = np.setdiff1d(labels, names)
        if len(strange):
            raise DataError(
                f"{path}: the test part has the class '{strange[0]}', which the training part "
                f"lacks: add such samples to the training part, or remove them"
            )
    codes = [np.searchsorted(names, labels).astype(np.int64) for labels in (train, *test)]
    return tuple(map(str, names)), codes
