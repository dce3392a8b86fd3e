"""CIFAR-10 and CIFAR-100 in the authors' binary version, as an archive or unpacked.

A record is the label (CIFAR-100: coarse label, then fine label), then 3 x 32 x 32 bytes of pixels,
colour after colour.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from samt.bench.data.raw import Part, RawData
from samt.bench.data.reading import reading, unpacked
from samt.bench.errors import DataError

_SHAPE = (3, 32, 32)


class Layout(NamedTuple):
    """Which files make up a data set, and how a record begins."""

    archive: str  # as the authors call it
    folder: str  # the only one inside it
    train: tuple[str, ...]
    test: str
    names: str  # of the classes; the file may be absent
    labels: int  # bytes ahead of the pixels; the last one is the class
    classes: int


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


def read(layout: Layout, path: Path) -> RawData:
    """Read the archive, or the folder that somebody unpacked it to.

    Args:
        layout: which of the two data sets it is.
        path: the archive, the folder, or the file with the test images in the folder.

    Returns:
        Training and test part.

    Raises:
        DataError: something is absent, damaged or not what the authors published.
    """
    folder = path if path.is_dir() else path.parent
    if path.name == layout.archive:
        contents = _from_archive(layout, path)
    else:
        with reading(path):
            contents = {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}
    train, test = (_part(layout, path, contents, names) for names in (layout.train, [layout.test]))
    lines = contents.get(layout.names, b"").decode("ascii", "replace").split()
    classes = tuple(lines) if len(lines) == layout.classes else ()
    return RawData("classification", layout.classes, train, test, "pixels", classes)


def _from_archive(layout: Layout, path: Path) -> dict[str, bytes]:
    """The files by name."""
    contents = {}
    with unpacked(path) as file:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                if place.parent.name == layout.folder and (one := archive.extractfile(member)):
                    contents[place.name] = one.read()
        while file.read(1 << 20):  # to the end, where gzip compares its checksum
            pass
    return contents


def _part(layout: Layout, path: Path, contents: Mapping[str, bytes], names: Iterable[str]) -> Part:
    record = layout.labels + int(np.prod(_SHAPE))
    batches = []
    for name in names:
        content = contents.get(name, b"")
        if not content or len(content) % record:
            raise DataError(
                f"{path}: {name} has {len(content)} bytes, which is no whole number of images "
                f"({record} bytes each): get the file again"
            )
        batches.append(np.frombuffer(content, dtype=np.uint8).reshape(-1, record))
    labels = np.concatenate([batch[:, layout.labels - 1] for batch in batches]).astype(np.int64)
    if labels.max() >= layout.classes:
        raise DataError(
            f"{path} has labels above {layout.classes - 1}: it is another data set, or damaged"
        )
    images = np.concatenate([batch[:, layout.labels :] for batch in batches])
    return Part(images.reshape(-1, *_SHAPE), labels)
