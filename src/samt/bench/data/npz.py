"""NumPy archives: `x_train, y_train, x_test, y_test`, or `x, y` that are split here.

Objects (pickles) are never read: loading them could run code.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from samt.bench.data.packed import AGAIN, allowed, bomb, reading
from samt.bench.data.raw import Part, RawData, Scaling
from samt.bench.errors import DataError
from samt.bench.untrusted import opened

_NAMES = "x_train, y_train, x_test and y_test, or x and y"
_SPLIT, _WHOLE = ("x_train", "y_train", "x_test", "y_test"), ("x", "y")
_LONGEST_HEADER = 10_000


def read_npz(path: Path) -> RawData:
    """Read inputs and targets from a NumPy archive.

    Inputs are images of bytes (divided by 255) of shape (count, height, width), (count, height,
    width, channels) or (count, channels, height, width); or numbers, of which those of shape
    (count, features) are standardised. Targets of whole numbers or text are classes, others values.

    Args:
        path: written by `numpy.savez` or `numpy.savez_compressed`.

    Returns:
        The parts, still to be scaled.

    Raises:
        DataError: arrays are absent, damaged, of a wrong type or shape, or hold objects.
    """
    arrays = _arrays(path)
    inputs = [_images(path, name, arrays.pop(name)) for name in sorted(arrays) if name[0] == "x"]
    # In the order of the alphabet: x_test comes before x_train.
    targets = [arrays.pop(name) for name in sorted(arrays)]
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
    return _assembled(path, inputs, targets)


def _assembled(path: Path, inputs: list[Any], targets: list[Any]) -> RawData:
    pixels = all(values.dtype == np.uint8 and values.ndim == 4 for values in inputs)
    table: Scaling = "standardise" if inputs[0].ndim == 2 else "none"
    scaling: Scaling = "pixels" if pixels else table
    classes: tuple[str, ...] = ()
    if all(labels.ndim == 2 and labels.shape[1] == 1 for labels in targets):
        targets = [labels[:, 0] for labels in targets]
    if any(labels.ndim != 1 for labels in targets):
        raise DataError(f"{path} has targets of more than one column: keep one for each sample")
    if all(labels.dtype.kind in "iubU" for labels in targets):
        names = np.unique(np.concatenate(targets))
        if len(names) < 2:
            raise DataError(f"{path} has a single class: add samples of another")
        targets = [np.searchsorted(names, labels).astype(np.int64) for labels in targets]
        classes = tuple(str(name) for name in names)
    elif all(labels.dtype.kind == "f" for labels in targets):
        targets = [labels[:, None] for labels in targets]
    else:
        raise DataError(f"{path} mixes whole numbers and others in its targets: use one type")
    parts = [Part(values, labels) for values, labels in zip(inputs, targets, strict=True)]
    train, test = parts[-1], parts[0] if len(parts) == 2 else None
    if classes:
        return RawData("classification", len(classes), train, test, scaling, classes)
    return RawData("regression", 1, train, test, scaling)


def _images(path: Path, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Inputs with the channels ahead of height and width."""
    if values.dtype.kind not in "iufb" or values.ndim not in (2, 3, 4):
        raise DataError(
            f"{path}: {name} has type {values.dtype} and shape {values.shape}: use numbers of "
            f"shape (count, features), or images"
        )
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and values.shape[3] in (1, 3) and values.shape[1] not in (1, 3):
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{path}: {name} holds numbers that are not finite: correct them")
    return values


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    with reading(path):
        try:
            with opened(path) as file, zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                wanted = _SPLIT if _SPLIT[0] in members else _WHOLE
                missing = [name for name in wanted if name not in members]
                if missing:
                    raise DataError(
                        f"{path} has no array {missing[0]!r}: it needs {_NAMES}, but has "
                        f"{', '.join(sorted(members))[:80] or 'none'}"
                    )
                return {name: _array(path, name, archive, members[name]) for name in wanted}
        except (
            zipfile.BadZipFile,
            ValueError,
            OverflowError,
            NotImplementedError,
            RuntimeError,
            SyntaxError,
            TypeError,
            zlib.error,
        ) as error:
            reason = " ".join(str(error).split())[:160]
            raise DataError(f"{path} is damaged or no NPZ file ({reason}): {AGAIN}") from error


def _array(
    path: Path, name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> npt.NDArray[Any]:
    """Read one array after its header agrees with the size of what was packed."""
    if info.file_size > allowed(min(info.compress_size, path.stat().st_size)):
        raise bomb(path)
    with archive.open(info) as stream:
        shape, fortran, dtype = _header(stream)
        if dtype.hasobject:
            raise DataError(
                f"{path}: {name} holds Python objects (a pickle), which could run code: save "
                f"plain numbers or text instead"
            )
        promised, there = math.prod(shape) * dtype.itemsize, info.file_size - stream.tell()
        if min(shape, default=0) < 0 or promised != there:
            raise DataError(f"{path}: {name} is cut off or damaged in its header: {AGAIN}")
        values = np.empty(promised // max(dtype.itemsize, 1), dtype=dtype)
        _fill(stream, values)
        stream.read(1)  # to the end, where zipfile compares the checksum
    return values.reshape(shape, order="F" if fortran else "C")


def _fill(stream: IO[bytes], values: npt.NDArray[Any]) -> None:
    buffer = values.view(np.uint8)
    done = 0
    while done < len(buffer):
        chunk = stream.read(min(1 << 20, len(buffer) - done))
        if not chunk:
            raise EOFError("the array ends early")
        buffer[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the array format")
    return readers[version](stream, max_header_size=_LONGEST_HEADER)
