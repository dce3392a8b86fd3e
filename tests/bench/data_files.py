"""Small files in the real formats."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CIFAR_CLASSES = (
    "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
)


def cifar_files(*, coarse: bool = False, count: int = 4) -> dict[str, bytes]:
    """The files of CIFAR-10 or, with coarse labels, of CIFAR-100."""
    random = np.random.default_rng(0)
    names = ["train.bin", "test.bin"]
    if not coarse:
        names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    files = {}
    for name in names:
        images = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)[:, None]
        heads = [labels % 20, labels + 90] if coarse else [labels]
        files[name] = np.concatenate([*heads, images], axis=1).tobytes()
    if coarse:
        fine = "".join(f"fine{number}\n" for number in range(100))
        return {**files, "fine_label_names.txt": fine.encode()}
    return {**files, "batches.meta.txt": ("\n".join(CIFAR_CLASSES) + "\n\n").encode()}


def tar_bytes(files: Mapping[str, bytes], folder: str) -> bytes:
    """A tar.gz as the authors made theirs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        top = tarfile.TarInfo(folder)
        top.type = tarfile.DIRTYPE
        archive.addfile(top)
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def picture(
    value: int, *, size: tuple[int, int] = (6, 5), mode: str = "RGB", form: str = "JPEG"
) -> bytes:
    """An image of one colour."""
    colour: int | tuple[int, ...] = value if mode in ("L", "1") else (value, 0, 255 - value)
    return encoded(Image.new(mode, size, colour), form)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The content of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pictures(count: int = 3) -> dict[str, bytes]:
    """Images of two classes: paths and contents."""
    return {
        f"{part}/{label}/{index}.jpg": picture(value + index)
        for part in ("train", "test")
        for label, value in (("cat", 20), ("dog", 200))
        for index in range(count)
    }


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """A zip with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class Harmful:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))
