"""Images in folders and zips: decoded once, read in place, nothing extracted."""

from __future__ import annotations

import io
import shutil
import stat
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from samt.bench.data import cache, images, load
from samt.bench.data.images import read_images
from samt.bench.errors import DataError

from .data_files import damaged, outcome, picture, pictures, quick, write_all, zip_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three images of each in each part."""
    write_all(tmp_path / "album", pictures())
    return tmp_path / "album"


def test_folder_and_zip_are_the_same_data(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "album.zip"
    path.write_bytes(zip_bytes({f"album-main/{name}": data for name, data in pictures().items()}))
    one, two = load(str(folder), None), load(str(path), None)
    assert one.fingerprint == two.fingerprint
    assert (one.name, one.classes, one.sample_shape) == ("album", ("cat", "dog"), (3, 5, 6))
    assert one.train.targets.tolist() == one.test.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_pixels_are_those_of_the_decoder(folder: Path) -> None:
    raw = read_images(folder)
    with Image.open(folder / "train" / "dog" / "2.jpg") as image:
        expected = np.asarray(image).transpose(2, 0, 1)
    np.testing.assert_array_equal(raw.train.inputs[-1], expected)


def test_without_a_test_part_one_is_drawn(tmp_path: Path) -> None:
    files = {name: data for name, data in pictures(10).items() if name.startswith("train")}
    write_all(tmp_path, files)
    data = load(str(tmp_path), None, split_seed=5)
    assert (len(data.train), len(data.test), data.split_seed) == (16, 4, 5)
    assert data.test.targets.bincount().tolist() == [2, 2]


def test_grey_stays_grey_and_one_colour_makes_all_colour(folder: Path) -> None:
    for place in folder.rglob("*.jpg"):
        place.write_bytes(picture(100, mode="L"))
    assert read_images(folder).train.inputs.shape[1:] == (1, 5, 6)
    (folder / "train" / "cat" / "1.jpg").write_bytes(picture(100))
    mixed = read_images(folder).train.inputs
    assert mixed.shape[1:] == (3, 5, 6)
    assert set(mixed[0].flat) == {100}
    assert len(set(mixed[1].flat)) > 1


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "LA"])
def test_other_kinds_of_png_are_read(folder: Path, mode: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (9, 9, 9)).convert(mode).save(buffer, "PNG")
    (folder / "train" / "cat" / "more.png").write_bytes(buffer.getvalue())
    assert len(read_images(folder).train) == 7


class TestCache:
    """What was decoded is kept under the checksum of the files."""

    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SAMT_CACHE_DIR", str(tmp_path / "cache"))

    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
        counts: Counter[str] = Counter()
        original = images._pixels

        def counted(album: images.Album, image: images.Picture) -> np.ndarray:
            counts[image.key] += 1
            return original(album, image)

        monkeypatch.setattr(images, "_pixels", counted)
        return counts

    def test_images_are_decoded_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        counts = self.decoded(monkeypatch)
        first = read_images(folder)
        assert counts.total() == 12
        np.testing.assert_array_equal(read_images(folder).train.inputs, first.train.inputs)
        assert counts.total() == 12
        (folder / "train" / "cat" / "0.jpg").write_bytes(picture(77))
        assert read_images(folder).train.inputs[0, 0, 0, 0] == 77
        assert counts.total() == 24

    @pytest.mark.parametrize("content", [b"", b"PK", None])
    def test_a_damaged_cache_is_replaced(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
    ) -> None:
        first = read_images(folder)
        (kept,) = (cache.folder() / "images").iterdir()
        whole = kept.read_bytes()
        middle = len(whole) // 2
        changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        kept.write_bytes(changed if content is None else content)
        counts = self.decoded(monkeypatch)
        np.testing.assert_array_equal(read_images(folder).train.inputs, first.train.inputs)
        assert counts.total() == 12
        assert [path.name for path in kept.parent.iterdir()] == [kept.name]
        read_images(folder)
        assert counts.total() == 12

    def test_a_cache_that_cannot_be_written_is_no_error(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "cache").write_bytes(b"a file in its place")
        assert len(read_images(folder).train) == 6


def _link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("train/cat/link.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (zipfile.ZipInfo("../train/cat/9.jpg"), "climbs out"),
        (zipfile.ZipInfo("train/../../cat/9.jpg"), "climbs out"),
        (zipfile.ZipInfo("/train/cat/9.jpg"), "climbs out"),
        (_link(), "symbolic link"),
        (zipfile.ZipInfo("train\\cat\\9.jpg"), "not in train/<class>/"),
        (zipfile.ZipInfo("stray.jpg"), "not in train/<class>/"),
        (zipfile.ZipInfo("valid/cat/9.jpg"), "not in train/<class>/"),
        (zipfile.ZipInfo("other/train/cat/9.jpg"), "more than one folder"),
        (zipfile.ZipInfo("train/bird/9.jpg"), "no images of 'bird' in test/"),
        (zipfile.ZipInfo("train/cat/empty.jpg"), "damaged or no image"),
    ],
)
def test_hostile_and_stray_entries_are_refused(
    tmp_path: Path, entry: zipfile.ZipInfo, words: str
) -> None:
    path = tmp_path / "album.zip"
    path.write_bytes(zip_bytes(pictures()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, b"")
    with pytest.raises(DataError, match=words) as error:
        read_images(path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_litter_of_other_systems_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "album.zip"
    litter = {"__MACOSX/train/cat/._0.jpg": b"x", "train/.DS_Store": b"x", "README.md": b"x"}
    path.write_bytes(zip_bytes({**pictures(), **litter}))
    assert len(read_images(path).train) == 6


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train/cat/9.jpg", picture(5, size=(6, 6)), "6 x 6 pixels, but .* resize"),
        ("train/cat/9.jpg", picture(5)[:-200], "damaged or no image"),
        ("train/cat/9.png", picture(5, size=(5000, 1), mode="1"), "more than 4096 on a side"),
        ("train/cat/9.jpg", b"GIF89a", "damaged or no image"),
    ],
)
def test_wrong_images_are_one_line(folder: Path, name: str, content: bytes, words: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        read_images(folder)
    assert "\n" not in str(error.value)


def test_a_picture_that_claims_a_billion_pixels_is_refused(folder: Path) -> None:
    png = bytearray(picture(5, mode="1"))
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    (folder / "train" / "cat" / "9.png").write_bytes(png)
    with pytest.raises(DataError, match=r"damaged|4096"):
        read_images(folder)


def test_a_zip_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "album.zip"
    path.write_bytes(zip_bytes({**pictures(), "train/cat/9.bmp": b"BM" + bytes(80 << 20)}))
    with pytest.raises(DataError, match=r"decompression bomb"):
        read_images(path)


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    whole = zip_bytes({"train/cat/0.jpg": picture(5) + bytes(20_000), "train/dog/0.jpg": b""})
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        first, second = archive.infolist()
    # Its second entry now claims as many packed bytes as the whole archive has.
    directory = whole.rindex(b"PK\x01\x02")
    changed = bytearray(whole)
    changed[directory + 20 : directory + 24] = (len(whole)).to_bytes(4, "little")
    assert second.compress_size < first.compress_size
    path = tmp_path / "album.zip"
    path.write_bytes(changed)
    with pytest.raises(DataError, match="decompression bomb"):
        read_images(path)


def test_images_that_do_not_fit_into_memory_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine of one page.
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1}.__getitem__)
    monkeypatch.setattr(cache, "load", lambda key, count: None)
    write_all(folder, {f"train/cat/x{index}.jpg": picture(5) for index in range(10)})
    with pytest.raises(DataError, match="GiB of memory"):
        read_images(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no zip"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "album.zip"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_images(path)


def test_a_single_class_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "train" / "dog")
    shutil.rmtree(folder / "test" / "dog")
    with pytest.raises(DataError, match="single class"):
        read_images(folder)


SMALL = zip_bytes(pictures(1))


@quick
@given(content=damaged(SMALL))
def test_damaged_zips_give_images_or_the_named_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "album.zip"
    path.write_bytes(content)
    raw = outcome(read_images, path)
    assert raw is None or raw.train.inputs.shape[1:] == (3, 5, 6)


@quick
@given(content=damaged(picture(5)) | damaged(picture(5, mode="RGBA")))
def test_damaged_images_give_images_or_the_named_error(tmp_path: Path, content: bytes) -> None:
    write_all(tmp_path, {**pictures(1), "train/cat/0.jpg": content})
    raw = outcome(read_images, tmp_path)
    assert raw is None or raw.train.inputs.shape[1:] == (3, 5, 6)


def test_the_real_archive(real_data_dir: Path) -> None:
    path = real_data_dir / "cifar10-jpeg.zip"
    if not path.exists():
        pytest.skip(f"no {path}")
    raw = read_images(path)
    assert raw.test is not None
    assert raw.train.inputs.shape == (50_000, 3, 32, 32)
    assert np.bincount(raw.test.targets).tolist() == [1000] * 10
    assert raw.classes[0] == "airplane"
    # Lossy, and yet near the published mean of CIFAR-10, (125.3, 123.0, 113.9).
    means = raw.train.inputs[::10].mean(axis=(0, 2, 3))
    np.testing.assert_allclose(means, (125.3, 123.0, 113.9), atol=1.5)
