"""CIFAR-10 and CIFAR-100 in the authors' binary version.

A record is the label (CIFAR-100: coarse label, then fine label), then 3 x 32 x 32 bytes of pixels,
colour after colour. The tar.gz is read from front to back; nothing of it is ever extracted.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from samt.bench.data.packed import AGAIN, read_at_most, unpacked
from samt.bench.data.raw import Part, RawData
from samt.bench.errors import DataError

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_LONGEST_NAMES = 1 << 16


@dataclass(frozen=True)
class Layout:
    """Which files make up a data set.

    Args:
        archive: as the authors call it.
        folder: the only folder inside it.
        train: files with the training images.
        test: file with the test images.
        names: file with the names of the classes; it may be absent.
        labels: bytes ahead of the pixels; the last one is the class.
        classes: number of classes.
    """

    archive: str
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    labels: int
    classes: int

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that is read."""
        return (*self.train, self.test, self.names)


CIFAR10 = Layout(
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test_batch.bin",
    "batches.meta.txt",
    labels=1,
    classes=10,
)
CIFAR100 = Layout(
    "cifar-100-binary.tar.gz",
    "cifar-100-binary",
    ("train.bin",),
    "test.bin",
    "fine_label_names.txt",
    labels=2,
    classes=100,
)


def find(layout: Layout, data_dir: Path, name: str) -> Path | None:
    """Where the data are: the archive, or the folder with its files.

    Args:
        layout: of the data set.
        data_dir: folder of all data sets.
        name: of the data set; also the name of its folder in `data_dir`.

    Returns:
        A path for `read`, or None.
    """
    for base in (data_dir / name, data_dir):
        for path in (base / layout.archive, base / layout.folder):
            if path.exists():
                return path
    return data_dir / name if (data_dir / name / layout.test).exists() else None


def read(layout: Layout, path: Path) -> RawData:
    """Read the archive, or the folder that somebody extracted it to.

    Args:
        layout: of the data set.
        path: from `find`.

    Returns:
        Training and test part.

    Raises:
        DataError: something is absent, damaged or not what the authors published.
    """
    contents = dict(_from_folder(layout, path) if path.is_dir() else _from_archive(layout, path))
    for name in (*layout.train, layout.test):
        if name not in contents:
            raise DataError(f"{path} holds no {name}: {AGAIN}")
    names = _class_names(layout, contents.pop(layout.names, bytearray()))
    test = _part(layout, path, {layout.test: contents.pop(layout.test)})
    train = _part(layout, path, contents)
    return RawData("classification", layout.classes, train, test, "pixels", names)


def _from_folder(layout: Layout, folder: Path) -> Iterator[tuple[str, bytearray]]:
    for name in layout.files:
        path = folder / name
        if path.exists():
            with unpacked(path) as stream:
                yield name, read_at_most(stream, path.stat().st_size)


def _from_archive(layout: Layout, path: Path) -> Iterator[tuple[str, bytearray]]:
    try:
        with unpacked(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = _wanted(layout, path, member)
                if name is None:
                    continue
                file = archive.extractfile(member)
                # At most what the archive promises, as far as it is there.
                values = bytearray() if file is None else read_at_most(file, member.size)  # type: ignore[arg-type]
                if len(values) < member.size:
                    raise DataError(f"{path} is cut off in {name}: {AGAIN}")
                yield name, values
    # A damaged header makes tarfile raise what it happens to stumble over.
    except (tarfile.TarError, ValueError, OverflowError, IndexError, KeyError) as error:
        raise DataError(f"{path} is not a tar archive, or damaged ({error}): {AGAIN}") from error


def _wanted(layout: Layout, path: Path, member: tarfile.TarInfo) -> str | None:
    """The name of a file that is read; None for one that is passed over."""
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts:
        raise DataError(
            f"{path} has an entry that climbs out of it ({member.name[:80]!r}): it is not the "
            f"authors' archive, {AGAIN}"
        )
    if place.parts[:1] != (layout.folder,) or place.name not in layout.files:
        return None
    if not member.isreg() or member.issparse():
        raise DataError(f"{path} has {place.name} as a link or device, not as a file: {AGAIN}")
    return place.name


def _part(layout: Layout, path: Path, contents: dict[str, bytearray]) -> Part:
    record = layout.labels + _PIXELS
    batches: list[npt.NDArray[np.uint8]] = []
    for name in sorted(contents):
        values = contents[name]
        if not values or len(values) % record:
            raise DataError(
                f"{path}: {name} has {len(values)} bytes, which is no whole number of images "
                f"({record} bytes each): {AGAIN}"
            )
        batches.append(np.frombuffer(values, dtype=np.uint8).reshape(-1, record))
    labels = np.concatenate([batch[:, layout.labels - 1] for batch in batches]).astype(np.int64)
    if labels.max() >= layout.classes:
        raise DataError(
            f"{path} has labels above {layout.classes - 1}: it is another data set, or damaged"
        )
    images = np.concatenate([batch[:, layout.labels :] for batch in batches])
    return Part(images.reshape(-1, *_SHAPE), labels)


def _class_names(layout: Layout, content: bytearray) -> tuple[str, ...]:
    lines = content[:_LONGEST_NAMES].decode("ascii", "replace").split()
    return tuple(lines) if len(lines) == layout.classes else ()
