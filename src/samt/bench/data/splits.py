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
        name: of the data set.
        raw: as it stands in the files.
        validation: share of the training part that is split off; 0 for none.
        split_seed: of every split that is drawn here.

    Returns:
        Tensors on the CPU. No number of the test or validation part has touched a scaler.

    Raises:
        DataError: there are too few samples for the split, or some are not finite.
    """
    train_rows: Rows = np.arange(len(raw.train))
    held_out, test_rows = raw.test, None
    validation_rows = None
    if held_out is None:
        train_rows, test_rows = _split(name, raw, train_rows, TEST_SHARE, split_seed)
        held_out = raw.train
    if validation:
        train_rows, validation_rows = _split(name, raw, train_rows, validation, split_seed)
    chosen = None if len(train_rows) == len(raw.train) else train_rows
    scaler = _Scaler(name, raw, chosen)
    seeded = test_rows is not None or validation_rows is not None
    return Dataset(
        name,
        raw.task,
        raw.outputs,
        scaler.split(raw.train, chosen),
        scaler.split(held_out, test_rows),
        scaler.target_scale,
        split_seed if seeded else raw.published_split,
        None if validation_rows is None else scaler.split(raw.train, validation_rows),
        raw.classes,
        raw.notes,
    )


def check_share(validation: float) -> None:
    """Refuse a share that leaves nothing to learn from.

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

    def __init__(self, name: str, raw: RawData, rows: Rows | None) -> None:
        self._name = name
        self._scaling = raw.scaling
        self._inputs = self._fit(raw.train.inputs, rows) if raw.scaling == "standardise" else None
        self._pixels = self._fit_pixels(raw.train.inputs, rows)
        self._task = raw.task
        scales = raw.task == "regression" and raw.scales_targets
        self._targets = self._fit(raw.train.targets, rows) if scales else None
        self.target_scale = float(self._targets.scale_[0]) if self._targets is not None else 1.0

    def split(self, part: Part, rows: Rows | None) -> Split:
        """The chosen rows (None: all), scaled."""
        targets = part.targets if rows is None else part.targets[rows]
        if self._task == "classification":
            labels = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.int64))
            return Split(self._scaled_inputs(part.inputs, rows), labels)
        if self._targets is None:
            values = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.float32))
        else:
            values = self._transformed(self._targets, part.targets, rows)
        return Split(self._scaled_inputs(part.inputs, rows), values)

    def _scaled_inputs(self, inputs: npt.NDArray[Any], rows: Rows | None) -> Tensor:
        if self._inputs is not None:
            return self._transformed(self._inputs, inputs, rows)
        chosen = inputs if rows is None else inputs[rows]
        if self._scaling in ("pixels", "normalise", "uneven"):
            mean, deviation = self._pixels
            scaled = torch.from_numpy(chosen).to(torch.float32).sub_(mean).div_(deviation)
            return scaled.mul_(_factors(chosen)) if self._scaling == "uneven" else scaled
        # Through NumPy, which knows more types than torch.
        return torch.from_numpy(np.ascontiguousarray(chosen, dtype=np.float32))

    def _fit_pixels(self, images: npt.NDArray[Any], rows: Rows | None) -> tuple[float, float]:
        """What is taken away from each pixel, and what it is divided by."""
        if self._scaling != "normalise":
            return 0.0, 65535.0 if images.dtype == np.uint16 else 255.0
        chosen = images if rows is None else images[rows]
        # Of bytes: counting them is exact, and needs no second copy.
        counts = np.bincount(chosen.ravel(), minlength=256)
        levels = np.arange(256)
        mean = float(np.average(levels, weights=counts))
        variance = float(np.average((levels - mean) ** 2, weights=counts))
        return mean, math.sqrt(variance) or 255.0

    def _fit(self, values: npt.NDArray[Any], rows: Rows | None) -> Any:
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        count = len(values) if rows is None else len(rows)
        for start in range(0, count, _ROWS):
            scaler.partial_fit(self._chunk(values, rows, start))
        return scaler

    def _transformed(self, scaler: Any, values: npt.NDArray[Any], rows: Rows | None) -> Tensor:
        count = len(values) if rows is None else len(rows)
        result = torch.empty((count, *values.shape[1:]), dtype=torch.float32)
        for start in range(0, count, _ROWS):
            chunk = scaler.transform(self._chunk(values, rows, start))
            if not (np.abs(chunk) < _LARGEST).all():
                raise self._not_finite()
            result[start : start + _ROWS] = torch.from_numpy(chunk)
        return result

    def _chunk(
        self, values: npt.NDArray[Any], rows: Rows | None, start: int
    ) -> npt.NDArray[np.float64]:
        end = start + _ROWS
        chosen = values[start:end] if rows is None else values[rows[start:end]]
        if not (np.abs(chosen) < _LARGEST).all():
            raise self._not_finite()
        return chosen.astype(np.float64, copy=False)

    def _not_finite(self) -> DataError:
        return DataError(
            f"{self._name} holds a number that is missing, not finite or too large: correct or "
            f"delete its row"
        )


def _factors(images: npt.NDArray[Any]) -> Tensor:
    """A factor for each pixel, always the same: from 1/30 to 30, evenly spread in its logarithm."""
    exponents = np.random.default_rng(0).uniform(-1.0, 1.0, images.shape[1:])
    return torch.from_numpy((30.0**exponents).astype(np.float32))
