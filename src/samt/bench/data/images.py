"""Folders and zips of images: train/<class>/*.jpg, and test/<class>/*.jpg if there is a test part.

A zip is read in place: nothing is extracted, and what its entries are called never becomes a path.
"""

from __future__ import annotations

import hashlib
import io
import stat
import warnings
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from samt.bench import untrusted
from samt.bench.data import cache
from samt.bench.data.packed import AGAIN, allowed, bomb, reading, require_memory
from samt.bench.data.raw import Part, RawData
from samt.bench.errors import DataError

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")
_FORMATS = ("JPEG", "PNG", "BMP")
_LARGEST_FILE = 64 << 20
_LARGEST_SIDE = 4096
_MOST_FILES = 2_000_000
# Windows and macOS leave such things in folders and zips.
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db")


@dataclass(frozen=True)
class Picture:
    """One image file: where it is, and what its place says about it."""

    key: str
    part: str
    label: str


class Album(ABC):
    """Images in a folder or in a zip."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Paths of all files, from the top, with forward slashes."""

    @abstractmethod
    def content(self, key: str) -> bytes:
        """Bytes of one file."""

    @abstractmethod
    def checksum(self, pictures: Sequence[Picture]) -> str:
        """SHA-256 of everything that is read."""

    def pictures(self) -> list[Picture]:
        """All images, sorted by name: no file system's order gets into a data set."""
        found = []
        for name in sorted(self.names()):
            place = PurePosixPath(name)
            litter = any(part.startswith(".") or part in _LITTER for part in place.parts)
            if not litter and place.suffix.lower() in _ENDINGS:
                found.append(self._placed(name, place))
        if not any(picture.part == "train" for picture in found):
            raise DataError(
                f"{self.path} has no images in train/<class>/: put them there "
                f"({', '.join(_ENDINGS)}), and a test part, if there is one, in test/<class>/"
            )
        if len({PurePosixPath(picture.key).parts[:-3] for picture in found}) > 1:
            raise DataError(f"{self.path} has more than one folder train/: keep one")
        return found

    def _placed(self, name: str, place: PurePosixPath) -> Picture:
        if len(place.parts) < 3 or place.parts[-3] not in ("train", "test"):
            raise DataError(
                f"{self.path} has {name[:80]!r}, which is not in train/<class>/ or test/<class>/: "
                f"move or delete it"
            )
        return Picture(name, place.parts[-3], place.parts[-2])


class Folder(Album):
    """Images in a folder."""

    def names(self) -> Iterator[str]:
        for part in ("train", "test"):
            for path in (self.path / part).rglob("*"):
                if path.is_file():
                    yield path.relative_to(self.path).as_posix()

    def content(self, key: str) -> bytes:
        path = self.path / key
        if path.stat().st_size > _LARGEST_FILE:
            raise DataError(f"{path} is larger than {_LARGEST_FILE >> 20} MiB: make it smaller")
        with untrusted.opened(path) as file:
            return file.read()

    def checksum(self, pictures: Sequence[Picture]) -> str:
        digest = hashlib.sha256()
        for picture in pictures:
            content = self.content(picture.key)
            digest.update(f"{picture.key}\0{len(content)}\0".encode(errors="surrogateescape"))
            digest.update(content)
        return digest.hexdigest()


class Zip(Album):
    """Images in a zip archive.

    Args:
        path: the archive.
        archive: the same, open.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        super().__init__(path)
        self._archive = archive
        self._entries = {info.filename: info for info in archive.infolist() if not info.is_dir()}

    def names(self) -> Iterator[str]:
        if len(self._entries) > _MOST_FILES:
            raise DataError(f"{self.path} has more than {_MOST_FILES} files: use NPZ instead")
        packed = sum(info.compress_size for info in self._entries.values())
        # Entries that share their bytes are the trick of the best bombs.
        if packed > self.path.stat().st_size or self._unpacked() > allowed(packed):
            raise bomb(self.path)
        for name, info in self._entries.items():
            self._check(name, info)
            yield name

    def _unpacked(self) -> int:
        return sum(info.file_size for info in self._entries.values())

    def _check(self, name: str, info: zipfile.ZipInfo) -> None:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise DataError(
                f"{self.path} has an entry that climbs out of it ({name[:80]!r}): it was not made "
                f"for reading, get the archive from a place that you trust"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(
                f"{self.path} has a symbolic link ({name[:80]!r}): put the images themselves in"
            )
        if info.flag_bits & 1:
            raise DataError(f"{self.path} is encrypted ({name[:80]!r}): save it without a password")
        if info.file_size > _LARGEST_FILE:
            raise DataError(
                f"{self.path}: {name[:80]!r} is larger than {_LARGEST_FILE >> 20} MiB: make it "
                f"smaller"
            )

    def content(self, key: str) -> bytes:
        return self._archive.read(self._entries[key])

    def checksum(self, pictures: Sequence[Picture]) -> str:
        import pooch

        return str(pooch.file_hash(str(self.path), alg="sha256"))


@contextmanager
def opened(path: Path) -> Iterator[Album]:
    """Open a folder or a zip.

    Args:
        path: of either.

    Yields:
        The album.

    Raises:
        DataError: here or while it is read: it is absent, damaged or hostile.
    """
    with reading(path):
        if path.is_dir():
            yield Folder(path)
            return
        try:
            with untrusted.opened(path) as file, zipfile.ZipFile(file) as archive:
                yield Zip(path, archive)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            ValueError,
            IndexError,
            zlib.error,
        ) as error:
            reason = " ".join(str(error).split())[:160]
            raise DataError(f"{path} is damaged or no zip ({reason}): {AGAIN}") from error


def read_images(path: Path) -> RawData:
    """Read images of one size; what was decoded is kept in the user's cache folder.

    Args:
        path: a folder or a zip.

    Returns:
        Training part, and test part if there is one; still bytes.

    Raises:
        DataError: images are absent, damaged, of several sizes, or the archive is hostile.
    """
    with opened(path) as album:
        pictures = album.pictures()
        classes = tuple(sorted({picture.label for picture in pictures}))
        _check_classes(path, pictures, classes)
        key = hashlib.sha256(f"{album.checksum(pictures)} {_decoder()}".encode()).hexdigest()
        images = cache.load(key, len(pictures))
        if images is None:
            images = _decoded(album, pictures)
            cache.save(key, images)
    numbers = {label: number for number, label in enumerate(classes)}
    labels = np.array([numbers[picture.label] for picture in pictures], dtype=np.int64)
    tested = sum(picture.part == "test" for picture in pictures)  # they come first by name
    train = Part(images[tested:], labels[tested:])
    test = Part(images[:tested], labels[:tested]) if tested else None
    return RawData("classification", len(classes), train, test, "pixels", classes)


def _check_classes(path: Path, pictures: Sequence[Picture], classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise DataError(f"{path} has a single class {classes[0]!r}: add a folder with another")
    for part in {picture.part for picture in pictures}:
        missing = set(classes) - {picture.label for picture in pictures if picture.part == part}
        if missing:
            raise DataError(
                f"{path} has no images of {sorted(missing)[0]!r} in {part}/: add some, or remove "
                f"the class from the other part"
            )


def _decoder() -> str:
    """What the pixels depend on besides the files."""
    import PIL
    from PIL import features

    return f"1 pillow {PIL.__version__} jpeg {features.version('jpg')}"


def _decoded(album: Album, pictures: Sequence[Picture]) -> npt.NDArray[np.uint8]:
    """All images in one array: grey if all of them are."""
    from tqdm import tqdm

    images: npt.NDArray[np.uint8] | None = None
    progress = tqdm(
        pictures, desc=f"decoding {album.path.name}", unit="image", disable=None, leave=False
    )
    with progress, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pillow's, of odd metadata
        for index, picture in enumerate(progress):
            pixels = _pixels(album, picture)
            if images is None:
                require_memory(album.path, len(pictures) * pixels.size)
                images = np.empty((len(pictures), *pixels.shape), dtype=np.uint8)
            if pixels.shape[1:] != images.shape[2:]:
                raise _other_size(album, picture, pictures[0], pixels.shape, images.shape)
            if len(pixels) > images.shape[1]:  # the first colour after grey ones
                images = np.repeat(images, 3, axis=1)
            images[index] = pixels  # a grey one among colours is repeated
    assert images is not None
    return images


def _pixels(album: Album, picture: Picture) -> npt.NDArray[np.uint8]:
    """One image as (channels, height, width)."""
    from PIL import Image

    content = album.content(picture.key)
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if max(image.size) <= _LARGEST_SIDE:  # so far only its header was read
                grey = image.mode in ("L", "1")
                pixels = np.asarray(image.convert("L" if grey else "RGB"))
                return pixels[None] if grey else pixels.transpose(2, 0, 1)
            size = f"{image.width} x {image.height}"
    except Exception as error:  # what damaged images make pillow raise has no common class
        raise DataError(
            f"{album.path}: {picture.key[-80:]!r} is damaged or no image: replace or delete it"
        ) from error
    raise DataError(
        f"{album.path}: {picture.key[-80:]!r} has {size} pixels, more than {_LARGEST_SIDE} on a "
        f"side: make it smaller"
    )


def _other_size(
    album: Album, picture: Picture, first: Picture, shape: Sequence[int], others: Sequence[int]
) -> DataError:
    return DataError(
        f"{album.path}: {picture.key[-80:]!r} has {shape[-1]} x {shape[-2]} pixels, but "
        f"{first.key[-80:]!r} has {others[-1]} x {others[-2]}: resize them to one size"
    )
