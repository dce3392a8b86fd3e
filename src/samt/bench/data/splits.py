"""From arrays to a data set: split with a seed, scale by the training part alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from samt.bench.data.dataset import Dataset, Split
from samt.bench.data.raw import Part, RawData
from samt.bench.errors import DataError, SettingsError

TEST_SHARE = 0.2
_LARGEST = 1e38  # about the end of float32
_ROWS = 16384  # scaled at a time, so that no second copy in float64 is ever whole

Rows = npt.NDArray[np.int64]


def assemble(name: str, raw: RawData, validation: float, split_seed: int) -> Dataset:
    """Split and scale.

    Args:
        name: the name of the data set.
        raw: the data as they stand in the files.
        validation: the share of the training part that is split off; 0 means none.
        split_seed: the seed of every split that is drawn here.

    Returns:
        Tensors on the CPU. No number of the test or validation part has touched a scaler.

    Raises:
        DataError: there are too few samples for the split, or some are not finite.
    """
    train = np.arange(len(raw.train))
    held_out = test = train[:0]
    if raw.test is None:
        train, test = _split(name, raw, train, TEST_SHARE, split_seed)
    if validation:
        train, held_out = _split(name, raw, train, validation, split_seed)
    drawn = len(train) < len(raw.train)
    fitted = raw.train.take(train) if drawn else raw.train
    scaled = _Scaler(name, raw, fitted)
    return Dataset(
        name,
        raw.task,
        raw.outputs,
        train=scaled(fitted),
        test=scaled(raw.test or raw.train.take(test)),
        target_scale=scaled.target_scale,
        split_seed=split_seed if drawn else raw.published_split,
        validation=scaled(raw.train.take(held_out)) if validation else None,
        classes=raw.classes,
        notes=raw.notes,
    )


def check_share(validation: float) -> None:
    """Refuse a share that leaves nothing to learn from.

    Args:
        validation: the share of the training part that is to be split off.

    Raises:
        SettingsError: it is not at least 0 and below 1.
    """
    if not 0 <= validation < 1:
        raise SettingsError(
            f"a validation share of {validation} is not possible: it must be at least 0 and below 1"
        )


def _split(name: str, raw: RawData, rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    from sklearn.model_selection import train_test_split

    labels = raw.train.targets[rows] if raw.task == "classification" else None
    if labels is not None and labels.ndim > 1:
        labels = None  # sequences have a class at each position
    try:
        kept, taken = train_test_split(rows, test_size=share, random_state=seed, stratify=labels)
    except ValueError as error:
        raise DataError(
            f"{name} has too few samples to split off {share:.0%} of {len(rows)} (every class "
            f"needs 2 or more, in each part 1): add samples, or choose another share"
        ) from error
    return kept, taken


class _Scaler:
    """What turns the numbers of the files into those that are trained on."""

    def __init__(self, name: str, raw: RawData, fitted: Part) -> None:
        self._name, self._raw = name, raw
        self._inputs = self._fit(fitted.inputs) if raw.scaling == "standardise" else None
        self._pixels = _center_and_unit(fitted.inputs, raw.scaling == "normalise")
        scales = raw.task == "regression" and raw.scales_targets
        self._targets = self._fit(fitted.targets) if scales else None
        self.target_scale = float(self._targets.scale_[0]) if self._targets is not None else 1.0

    def __call__(self, part: Part) -> Split:
        """The same samples, scaled."""
        if self._inputs is not None:
            inputs = self._transformed(self._inputs, part.inputs)
        elif self._raw.scaling == "none":  # through NumPy, which knows more types than torch
            inputs = torch.from_numpy(np.ascontiguousarray(part.inputs, dtype=np.float32))
        else:
            center, unit = self._pixels
            inputs = torch.from_numpy(part.inputs).to(torch.float32).sub_(center).div_(unit)
            if self._raw.scaling == "uneven":
                inputs.mul_(_factors(part.inputs))
        if self._targets is not None:
            return Split(inputs, self._transformed(self._targets, part.targets))
        kind = np.int64 if self._raw.task == "classification" else np.float32
        return Split(inputs, torch.from_numpy(np.ascontiguousarray(part.targets, dtype=kind)))

    def _fit(self, values: npt.NDArray[Any]) -> Any:
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        for start in range(0, len(values), _ROWS):
            scaler.partial_fit(self._checked(values[start : start + _ROWS]).astype(np.float64))
        return scaler

    def _transformed(self, scaler: Any, values: npt.NDArray[Any]) -> Tensor:
        result = torch.empty(values.shape, dtype=torch.float32)
        for start in range(0, len(values), _ROWS):
            chunk = self._checked(values[start : start + _ROWS]).astype(np.float64)
            result[start : start + _ROWS] = torch.from_numpy(
                self._checked(scaler.transform(chunk, copy=False))
            )
        return result

    def _checked(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if values.dtype.kind == "f" and not (np.abs(values, dtype=np.float64) < _LARGEST).all():
            raise DataError(
                f"{self._name} holds a number that is missing, not finite or too large: correct "
                f"or delete its row"
            )
        return values


def _center_and_unit(images: npt.NDArray[Any], normalise: bool) -> tuple[float, float]:
    """What is taken away from each pixel, and what it is divided by."""
    if not normalise:
        return 0.0, 65535.0 if images.dtype == np.uint16 else 255.0
    # Of bytes: counting them is exact, and needs no second copy.
    counts, levels = np.bincount(images.ravel(), minlength=256), np.arange(256)
    mean = float(np.average(levels, weights=counts))
    variance = float(np.average((levels - mean) ** 2, weights=counts))
    return mean, math.sqrt(variance) or 255.0


def _factors(images: npt.NDArray[Any]) -> Tensor:
    """A factor for each pixel, always the same: from 1/30 to 30, evenly spread in its logarithm."""
    exponents = np.random.default_rng(0).uniform(-1.0, 1.0, images.shape[1:])
    return torch.from_numpy((30.0**exponents).astype(np.float32))
