"""NumPy archives: `x_train, y_train, x_test, y_test`, or `x, y` that are split here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samt.bench.data.raw import Part, RawData, Scaling, numbered
from samt.bench.data.reading import reading, require_memory
from samt.bench.errors import DataError

_SPLIT, _WHOLE = ("x_train", "y_train", "x_test", "y_test"), ("x", "y")
Array = npt.NDArray[Any]


def read_npz(path: Path) -> RawData:
    """Read inputs and targets from a NumPy archive.

    Inputs are images of 8 or 16 bits (divided by 255 or 65535) of shape (count, height, width),
    (count, height, width, channels) or (count, channels, height, width); or numbers, of which those
    of shape (count, features) are standardised. Targets of whole numbers or text are classes,
    others values.

    Args:
        path: the archive, written by `numpy.savez` or `numpy.savez_compressed`.

    Returns:
        The parts, still to be scaled.

    Raises:
        DataError: arrays are absent, damaged, of a wrong type or shape, or hold objects.
    """
    arrays, notes = _arrays(path)
    names = list(arrays)
    inputs = [_inputs(path, name, arrays[name]) for name in names[::2]]
    targets = [arrays[name] for name in names[1::2]]
    for values, labels in zip(inputs, targets, strict=True):
        if len(values) != len(labels):
            raise DataError(
                f"{path} has {len(values)} inputs, but {len(labels)} targets: "
                f"give every sample one of each"
            )
        if not values.size:
            raise DataError(f"{path} has an empty array: put samples into it")
    if len({values.shape[1:] for values in inputs}) > 1:
        raise DataError(f"{path} has training and test inputs of different shapes: make them equal")
    if all(labels.ndim == 2 and labels.shape[1] == 1 for labels in targets):
        targets = [labels[:, 0] for labels in targets]
    if any(labels.ndim != 1 for labels in targets):
        raise DataError(f"{path} has targets of more than one column: keep one for each sample")
    classes: tuple[str, ...] = ()
    if all(labels.dtype.kind in "iubU" for labels in targets):
        classes, targets = numbered(path, *targets)  # type: ignore[assignment]
    elif all(labels.dtype.kind == "f" for labels in targets):
        targets = [labels[:, None] for labels in targets]
    else:
        raise DataError(f"{path} mixes whole numbers and others in its targets: use one type")
    train, *test = (Part(*pair) for pair in zip(inputs, targets, strict=True))
    return RawData(
        "classification" if classes else "regression",
        len(classes) or 1,
        train,
        test[0] if test else None,
        _scaling(inputs),
        classes,
        notes=notes,
    )


def _arrays(path: Path) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The arrays that are wanted, in this order, and what is left out."""
    with reading(path), path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a single array: save it with numpy.savez(x=…, y=…)")
        wanted = _SPLIT if _SPLIT[0] in archive else _WHOLE
        missing = [name for name in wanted if name not in archive]
        if missing:
            raise DataError(
                f"{path} has no array {missing[0]!r}: it needs x_train, y_train, x_test and "
                f"y_test, or x and y, but has {', '.join(sorted(archive))[:80] or 'none'}"
            )
        assert archive.zip is not None  # as it is open
        sizes = {one.filename: one.file_size for one in archive.zip.infolist()}
        require_memory(path, 2 * sum(sizes.get(f"{name}.npy", 0) for name in wanted))
        try:
            arrays = {name: archive[name] for name in wanted}
        except ValueError as error:
            if "Object arrays" not in str(error):
                raise
            raise DataError(
                f"{path} holds Python objects (a pickle), which could run code: save plain "
                f"numbers or text instead"
            ) from error
        others = sorted(set(archive) - set(wanted))
    return arrays, (f"The arrays {', '.join(others)} are left out.",) if others else ()


def _scaling(inputs: list[Array]) -> Scaling:
    if all(values.dtype in (np.uint8, np.uint16) and values.ndim == 4 for values in inputs):
        return "pixels"
    return "standardise" if inputs[0].ndim == 2 else "none"


def _inputs(path: Path, name: str, values: Array) -> Array:
    """Inputs with the channels ahead of height and width."""
    if values.dtype.kind not in "iufb" or values.ndim not in (2, 3, 4):
        raise DataError(
            f"{path}: {name} has type {values.dtype} and shape {values.shape}: use numbers of "
            f"shape (count, features), or images"
        )
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and _has_channels_last(*values.shape[1:]):
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{path}: {name} holds numbers that are not finite: correct them")
    return values


def _has_channels_last(first: int, second: int, last: int) -> bool:
    """Whether (first, second, last) is height, width, channels: grey, with alpha or in colour."""
    if first in (1, 3):
        return False
    if last in (1, 3):
        return True
    if (first in (2, 4)) != (last in (2, 4)):
        return last in (2, 4)
    return first == second != last  # images are more often square than channels as many as rows
