"""Images in folders and zips: every file is read as what it is, or one line says why not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samt.bench.data import cache, load
from samt.bench.errors import DataError

from .data_files import encoded, picture, pictures, write_all, zip_bytes

RANDOM = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three images of each in each part."""
    write_all(tmp_path / "album", pictures())
    return tmp_path / "album"


def inputs(path: Path) -> torch.Tensor:
    return load(str(path), None).train.inputs


def test_folder_and_zip_are_the_same_data(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "album.zip"
    path.write_bytes(zip_bytes({f"album-main/{name}": data for name, data in pictures().items()}))
    one, two = load(str(folder), None), load(str(path), None)
    assert one.fingerprint == two.fingerprint
    assert (one.name, one.classes, one.sample_shape) == ("album", ("cat", "dog"), (3, 5, 6))
    assert one.train.targets.tolist() == one.test.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(tmp_path.iterdir()) == [folder, path]


def test_pixels_are_those_of_the_decoder(folder: Path) -> None:
    with Image.open(folder / "train" / "dog" / "2.jpg") as image:
        expected = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()) / 255
    assert inputs(folder)[-1].equal(expected)


def test_without_a_test_part_one_is_drawn(tmp_path: Path) -> None:
    files = {name: data for name, data in pictures(10).items() if name.startswith("train")}
    write_all(tmp_path, files)
    data = load(str(tmp_path), None, split_seed=5)
    assert (len(data.train), len(data.test), data.split_seed) == (16, 4, 5)
    assert data.test.targets.bincount().tolist() == [2, 2]


def test_grey_stays_grey_and_one_colour_makes_all_colour(folder: Path) -> None:
    for place in folder.rglob("*.jpg"):
        place.write_bytes(picture(100, mode="L"))
    assert inputs(folder).shape[1:] == (1, 5, 6)
    (folder / "train" / "cat" / "1.jpg").write_bytes(picture(100))
    mixed = inputs(folder)
    assert mixed.shape[1:] == (3, 5, 6)
    assert len(mixed[0].unique()) == 1
    assert len(mixed[1].unique()) > 1


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "LA", "CMYK"])
def test_other_modes_are_read(folder: Path, mode: str) -> None:
    image = Image.new("RGB", (6, 5), (255, 255, 255)).convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    (folder / "train" / "cat" / f"x.{form.lower()}").write_bytes(encoded(image, form))
    assert inputs(folder)[3].unique().tolist() == [1]


@pytest.mark.parametrize(
    ("ending", "form"),
    [("webp", "WEBP"), ("tif", "TIFF"), ("tiff", "TIFF"), ("gif", "GIF"), ("BMP", "BMP")],
)
def test_a_class_of_another_format_is_not_left_out(folder: Path, ending: str, form: str) -> None:
    for part in ("train", "test"):
        for index in range(3):
            content = picture(255, mode="L", form=form)
            write_all(folder, {f"{part}/wolf/{index}.{ending}": content})
    data = load(str(folder), None)
    assert data.classes == ("cat", "dog", "wolf")
    assert data.train.inputs[data.train.targets == 2].unique().tolist() == [1]


class TestSixteenBits:
    """Grey images of X-rays, depth or microscopes."""

    PIXELS = RANDOM.integers(0, 65536, (2, 3, 5, 6)).astype(np.uint16)

    def write(self, folder: Path, form: str = "PNG") -> Path:
        for label, images in zip("ab", self.PIXELS, strict=True):
            for index, image in enumerate(images):
                name = f"train/{label}/{index}.{form.lower()}"
                write_all(folder, {name: encoded(Image.fromarray(image), form)})
        write_all(
            folder, {f"test/{label}/0.png": picture(51, mode="L", form="PNG") for label in "ab"}
        )
        return folder

    @pytest.mark.parametrize("form", ["PNG", "TIFF"])
    def test_all_bits_are_kept(self, tmp_path: Path, form: str) -> None:
        expected = torch.from_numpy(self.PIXELS.astype(np.float32)) / 65535
        for _ in range(2):  # decoded, and from the cache
            found = inputs(self.write(tmp_path, form))
            torch.testing.assert_close(found, expected.reshape(6, 1, 5, 6))

    def test_those_of_8_bits_beside_them_stay_as_bright(self, tmp_path: Path) -> None:
        data = load(str(self.write(tmp_path)), None)
        torch.testing.assert_close(data.test.inputs, torch.full((2, 1, 5, 6), 0.2))


class TestCache:
    """What was decoded is kept under the checksum of the files."""

    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SAMT_CACHE_DIR", str(tmp_path / "cache"))

    def kept(self) -> dict[str, int]:
        """The files of the cache with their times."""
        return {
            path.name: path.stat().st_mtime_ns for path in (cache.folder() / "images").iterdir()
        }

    def test_images_are_decoded_once(self, folder: Path) -> None:
        first, before = inputs(folder), self.kept()
        assert inputs(folder).equal(first)
        assert self.kept() == before
        (folder / "train" / "cat" / "0.jpg").write_bytes(picture(77))
        assert not inputs(folder).equal(first)
        assert len(self.kept()) == 2

    @pytest.mark.parametrize("content", [b"", b"PK", None])
    def test_a_damaged_cache_is_replaced(self, folder: Path, content: bytes | None) -> None:
        first = inputs(folder)
        (kept,) = (cache.folder() / "images").iterdir()
        whole = kept.read_bytes()
        middle = len(whole) // 2
        changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        kept.write_bytes(changed if content is None else content)
        assert inputs(folder).equal(first)
        assert list(self.kept()) == [kept.name]
        assert kept.read_bytes() == whole

    def test_a_cache_that_cannot_be_written_is_no_error(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "cache").write_bytes(b"a file in its place")
        assert len(inputs(folder)) == 6


def test_links_to_folders_and_files_are_followed(folder: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_all(tmp_path, {f"elsewhere/{part}/{at}.jpg": picture(240) for at in range(2)})
        (folder / part / "owl").symlink_to(tmp_path / "elsewhere" / part)
    (folder / "train" / "cat" / "9.jpg").symlink_to(tmp_path / "elsewhere" / "train" / "0.jpg")
    data = load(str(folder), None)
    assert data.classes == ("cat", "dog", "owl")
    assert data.train.targets.bincount().tolist() == [4, 3, 2]
    shutil.move(folder / "train", tmp_path / "train")
    (folder / "train").symlink_to(tmp_path / "train")
    assert load(str(folder), None).fingerprint == data.fingerprint


def test_what_is_left_out_is_noted(folder: Path) -> None:
    write_all(folder, {"valid/cat/0.jpg": picture(5), "README.md": b"x", ".hidden/x": b"x"})
    assert load(str(folder), None).notes == ("The folders valid/ are left out.",)


def test_litter_of_other_systems_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "album.zip"
    litter = {"__MACOSX/train/cat/._0.jpg": b"x", "train/.DS_Store": b"x", "README.md": b"x"}
    path.write_bytes(zip_bytes({**pictures(), **litter, "train/cat/Thumbs.db": b"x"}))
    assert len(inputs(path)) == 6


def _frames() -> bytes:
    one, two = Image.new("L", (6, 5), 0), Image.new("L", (6, 5), 255)
    return encoded(one, "GIF", save_all=True, append_images=[two])


def _transparent(mode: str) -> bytes:
    image = Image.fromarray(RANDOM.integers(0, 255, (5, 6, 4), dtype=np.uint8), "RGBA")
    return encoded(image.convert(mode) if mode != "P" else image.quantize())


WRONG: dict[str, tuple[dict[str, bytes], str]] = {
    "another size": ({"train/cat/9.jpg": picture(5, size=(6, 6))}, "6 x 6 pixels, but .* resize"),
    "cut off": ({"train/cat/9.jpg": picture(5)[:-200]}, "damaged or no image"),
    "empty": ({"train/cat/9.jpg": b""}, "damaged or no image"),
    "another format": ({"train/cat/9.jpg": b"%PDF-1.7"}, "damaged or no image"),
    "a format that is not read": ({"train/cat/9.heic": b"x"}, "no image that samt reads: convert"),
    "numbers": ({"train/cat/9.npy": b"x"}, "no image that samt reads: convert"),
    "several pictures": ({"train/cat/9.gif": _frames()}, "several pictures"),
    "transparent": ({"train/cat/9.png": _transparent("RGBA")}, "transparent in places: save"),
    "transparent grey": ({"train/cat/9.png": _transparent("LA")}, "transparent in places: save"),
    "transparent palette": ({"train/cat/9.png": _transparent("P")}, "transparent in places: save"),
    "32 bits": ({"train/cat/9.tif": encoded(Image.new("I", (6, 5)), "TIFF")}, "pixels of 32 bits"),
    "real numbers": ({"train/cat/9.tif": encoded(Image.new("F", (6, 5)), "TIFF")}, "of 32 bits"),
    "deeper": ({"train/cat/tabby/9.jpg": picture(5)}, "not in train/<class>/"),
    "not in a class": ({"train/9.jpg": picture(5)}, "not in train/<class>/"),
    "not in a part": ({"9.jpg": picture(5)}, "not in train/<class>/"),
    "a class in one part": ({"train/bird/9.jpg": picture(5)}, "no images in test/bird/"),
    "a class for the test alone": ({"test/bird/9.jpg": picture(5)}, "no images in train/bird/"),
    "only litter in a class": ({"train/bird/.keep": b"", "test/bird/.keep": b""}, "train/bird/"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_wrong_images_are_one_line(tmp_path: Path, name: str, zipped: bool) -> None:
    files, words = WRONG[name]
    path = tmp_path / ("album.zip" if zipped else "album")
    if zipped:
        folders = dict.fromkeys(
            ("train/", "train/cat/", "train/bird/" if "bird" in words else "test/"), b""
        )
        path.write_bytes(zip_bytes({**folders, **pictures(), **files}))
    else:
        write_all(path, {**pictures(), **files})
    with pytest.raises(DataError, match=words) as error:
        load(str(path), None)
    assert "\n" not in str(error.value)


def _empty(folder: Path) -> None:
    (folder / "train" / "bird").mkdir()


def _no_images(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()


def _no_test_images(folder: Path) -> None:
    for label in ("cat", "dog"):
        shutil.rmtree(folder / "test" / label)


def _single(folder: Path) -> None:
    for part in ("train", "test"):
        shutil.rmtree(folder / part / "dog")


def _nowhere(folder: Path) -> None:
    (folder / "train" / "owl").symlink_to(folder / "absent")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_empty, "no images in train/bird/"),
        (_no_images, "no images in train/"),
        (_no_test_images, "no images in test/cat/"),
        (_single, "single class 'cat'"),
        (_nowhere, "owl is a link that leads nowhere"),
    ],
)
def test_classes_do_not_vanish(folder: Path, change: Callable[[Path], None], words: str) -> None:
    change(folder)
    with pytest.raises(DataError, match=words) as error:
        load(str(folder), None)
    assert "\n" not in str(error.value)


def test_two_sets_in_a_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "album.zip"
    path.write_bytes(zip_bytes({**pictures(), "other/train/cat/9.jpg": picture(5)}))
    with pytest.raises(DataError, match="more than one folder"):
        load(str(path), None)


def test_images_that_do_not_fit_into_memory_are_refused(
    folder: Path, small_machine: Callable[[], None]
) -> None:
    write_all(folder, {f"train/cat/x{index}.jpg": picture(9) for index in range(10)})
    small_machine()
    with pytest.raises(DataError, match="GiB of memory"):
        load(str(folder), None)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no zip", None])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path, whole = tmp_path / "album.zip", zip_bytes(pictures())
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError) as error:
        load(str(path), None)
    assert "\n" not in str(error.value)


def test_a_byte_that_changed_in_a_zip_is_noticed(tmp_path: Path) -> None:
    whole = bytearray(zip_bytes(pictures()))
    whole[len(whole) // 4] ^= 1
    path = tmp_path / "album.zip"
    path.write_bytes(whole)
    with pytest.raises(DataError, match="damaged"):
        load(str(path), None)
