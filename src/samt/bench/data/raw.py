"""What the readers of the formats hand on: arrays as they stand in the files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from samt.bench.data.dataset import Task

# pixels: bytes, divided by 255; normalise: bytes to mean 0 and deviation 1 over all pixels of the
# training part; standardise: the same for each feature; uneven: as pixels, then each pixel times a
# factor of its own, from 1/30 to 30.
Scaling = Literal["pixels", "normalise", "standardise", "uneven", "none"]


@dataclass(frozen=True)
class Part:
    """Inputs and targets, one sample for each index of dimension 0.

    Args:
        inputs: bytes of images (count, channels, height, width), or numbers.
        targets: class numbers (count,), or (count, positions) for sequences; or values (count, 1).
    """

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class RawData:
    """A data set before it is split and scaled.

    Args:
        task: classification or regression.
        outputs: number of classes, or of predicted values.
        train: the part to learn from; all of the data where there is no test part.
        test: None: a share of `train` is drawn with the split seed.
        scaling: how inputs become float32.
        classes: their names, if known.
        published_split: which of the splits that come with the data was chosen, if there are some.
        scales_targets: whether the targets of a regression are standardised.
    """

    task: Task
    outputs: int
    train: Part
    test: Part | None
    scaling: Scaling
    classes: tuple[str, ...] = ()
    published_split: int | None = None
    scales_targets: bool = True
