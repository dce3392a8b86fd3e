"""Folders and zips of images: train/<class>/*.jpg, and test/<class>/*.jpg if there is a test part.

A zip is read in place: nothing is extracted.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from samt.bench.data import cache
from samt.bench.data.raw import Part, Pixels, RawData
from samt.bench.data.reading import reading, require_memory
from samt.bench.errors import DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
_PARTS = ("train", "test")
# Windows and macOS leave such things in folders and zips.
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")
# To be raised when the same files give other pixels than before.
_VERSION = 2

if TYPE_CHECKING:
    from PIL.Image import Image

Content = Callable[[str], bytes]


class Picture(NamedTuple):
    """An image file: its path below the folder or in the zip, and what that says about it."""

    name: str
    part: str
    label: str


def read_images(path: Path) -> RawData:
    """Read images of one size; what was decoded is kept in the user's cache folder.

    Args:
        path: a folder or a zip.

    Returns:
        Training part, and test part if there is one, in whole numbers of 8 or 16 bits.

    Raises:
        DataError: images are absent, damaged or of several sizes, or something in the folders of
            the classes would be left out.
    """
    with _opened(path) as (names, content):
        pictures, classes, notes = _pictures(path, names)
        key = _key(path, pictures, content)
        images = cache.load(key)
        if images is None:
            images = _decoded(path, pictures, content)
            cache.save(key, images)
    labels = np.array([classes.index(picture.label) for picture in pictures], dtype=np.int64)
    tested = sum(picture.part == "test" for picture in pictures)  # they come first by name
    train = Part(images[tested:], labels[tested:])
    test = Part(images[:tested], labels[:tested]) if tested else None
    return RawData(
        *("classification", len(classes), train, test, "pixels", tuple(classes)), notes=notes
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Content]]:
    """The names of all files, and of folders with a slash at the end; and what gives a content."""
    with reading(path):
        if path.is_dir():
            yield list(_names(path)), lambda name: (path / name).read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                yield archive.namelist(), archive.read


def _names(folder: Path) -> Iterator[str]:
    """What lies in a folder, in its parts and in their classes; links are followed."""
    places = [folder, *(folder / part for part in _PARTS)]
    places += [label for part in places[1:] if part.is_dir() for label in part.iterdir()]
    for place in places:
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            name = path.relative_to(folder).as_posix()
            if not path.exists():
                raise DataError(f"{path} is a link that leads nowhere: mend or delete it")
            yield f"{name}/" if path.is_dir() else name


def _pictures(path: Path, names: Sequence[str]) -> tuple[list[Picture], list[str], tuple[str, ...]]:
    """All images, sorted by name, so that no file system decides the order; classes; notes."""
    found, places, tops, others = [], set(), set(), set()
    for name in sorted(names):
        parts = PurePosixPath(name).parts
        if any(part.startswith(".") or part in _LITTER for part in parts):
            continue
        is_folder, is_image = name.endswith("/"), parts[-1].lower().endswith(ENDINGS)
        if not is_folder and parts[-3:-2] and parts[-3] in _PARTS:
            if not is_image:
                raise DataError(
                    f"{path}: {name[-80:]!r} is no image that samt reads: convert it to one of "
                    f"{', '.join(ENDINGS)}, or delete it"
                )
            found.append(Picture(name, *parts[-3:-1]))
            places.add(parts[-3:-1])
            tops.add(parts[:-3])
        elif is_image or (is_folder and parts[-3:-2] and parts[-3] in _PARTS):
            raise DataError(
                f"{path} has {name[:80]!r}, which is not in train/<class>/ or test/<class>/: "
                f"move or delete it"
            )
        elif is_folder and parts[-2:-1] and parts[-2] in _PARTS:
            places.add(parts[-2:])
        elif is_folder and parts[-1] in _PARTS:
            places.add((parts[-1], ""))
        elif is_folder and path.is_dir() and parts[0] not in _PARTS:
            others.add(name)
    if len(tops) > 1:
        raise DataError(f"{path} has more than one folder train/: keep one")
    classes = _checked_classes(path, places, found)
    notes = (f"The folders {', '.join(sorted(others))} are left out.",) if others else ()
    return found, classes, notes


def _checked_classes(
    path: Path, places: set[tuple[str, ...]], pictures: Sequence[Picture]
) -> list[str]:
    """The classes, each of which must have images in each part."""
    classes = sorted({label for _, label in places if label})
    filled = {(picture.part, picture.label) for picture in pictures}
    for part in sorted({"train", *(part for part, _ in places)}, reverse=True):
        for label in classes or ["<class>"]:
            if (part, label) not in filled:
                raise DataError(
                    f"{path} has no images in {part}/{label}/: put some there "
                    f"({', '.join(ENDINGS)}), or remove the class from the other part, too"
                )
    if len(classes) < 2:
        raise DataError(f"{path} has a single class {classes[0]!r}: add a folder with another")
    return classes


def _key(path: Path, pictures: Sequence[Picture], content: Content) -> str:
    """SHA-256 of all that decides the pixels."""
    import PIL
    from PIL import features

    digest = hashlib.sha256(f"{_VERSION} {PIL.__version__} {features.version('jpg')}".encode())
    for picture in pictures:
        image = content(picture.name)
        digest.update(f"{picture.name}\0{len(image)}\0".encode(errors="surrogateescape"))
        digest.update(image)
    return digest.hexdigest()


def _decoded(path: Path, pictures: Sequence[Picture], content: Content) -> Pixels:
    """All images in one array: grey, or of 8 bits, only if all of them are."""
    from tqdm import tqdm

    images: Pixels | None = None
    progress = tqdm(pictures, f"decoding {path.name}", unit="image", disable=None, leave=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pillow's, of odd metadata
        for index, picture in enumerate(progress):
            pixels = _pixels(path, picture, content)
            if images is None:
                # In whole numbers, and then as float32.
                require_memory(path, len(pictures) * (pixels.nbytes + 4 * pixels.size))
                images = np.empty((len(pictures), *pixels.shape), dtype=pixels.dtype)
            if pixels.shape[1:] != images.shape[2:]:
                raise DataError(
                    f"{path}: {picture.name[-80:]!r} has {pixels.shape[2]} x {pixels.shape[1]} "
                    f"pixels, but {pictures[0].name[-80:]!r} has {images.shape[3]} x "
                    f"{images.shape[2]}: resize them to one size"
                )
            if len(pixels) > images.shape[1]:  # the first in colour after grey ones
                images = np.repeat(images, 3, axis=1)
            if pixels.dtype.itemsize > images.dtype.itemsize:
                images = _in_16_bits(images)
            images[index] = _in_16_bits(pixels) if images.dtype == np.uint16 else pixels
    assert images is not None
    return images


def _in_16_bits(pixels: Pixels) -> Pixels:
    """The same shares of white: 255 of 8 bits are 65535."""
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)


def _pixels(path: Path, picture: Picture, content: Content) -> Pixels:
    """One image as (channels, height, width)."""
    import PIL.Image

    where = f"{path}: {picture.name[-80:]!r}"
    try:
        with PIL.Image.open(io.BytesIO(content(picture.name)), formats=_FORMATS) as image:
            problem = _problem(image)
            if problem is None and image.mode.startswith("I"):
                return np.asarray(image).astype(np.uint16)[None]
            if problem is None:
                grey = image.mode in ("L", "1")
                pixels = np.asarray(image.convert("L" if grey else "RGB"))
                return pixels[None] if grey else pixels.transpose(2, 0, 1)
    except Exception as error:  # what damaged images make pillow raise has no common class
        raise DataError(f"{where} is damaged or no image: replace or delete it") from error
    raise DataError(f"{where} {problem}")


def _problem(image: Image) -> str | None:
    """What of an image would get lost, with its cure; None for one that can be read."""
    if getattr(image, "n_frames", 1) > 1:
        return "has several pictures in it: save each of them in a file of its own"
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        return "has pixels of 32 bits: save it with 8 or 16, or put the numbers into a .npz"
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        return "is transparent in places: save it on a background, without transparency"
    return None
