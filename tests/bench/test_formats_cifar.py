"""CIFAR in the authors' binary version: read as published, or one named error."""

from __future__ import annotations

import gzip
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from samt.bench.data import load
from samt.bench.data.cifar import CIFAR10, CIFAR100, read
from samt.bench.errors import DataError

from .data_files import CIFAR_CLASSES, cifar_files, damaged, outcome, quick, tar_bytes, write_all

FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
ARCHIVES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}


@pytest.mark.parametrize("name", FOLDERS)
def test_archive_and_extracted_folder_are_the_same_data(tmp_path: Path, name: str) -> None:
    files = cifar_files(coarse=name == "cifar100")
    write_all(tmp_path / "one", {ARCHIVES[name]: tar_bytes(files, FOLDERS[name])})
    write_all(tmp_path / "two" / FOLDERS[name], files)
    write_all(tmp_path / "three" / name, files)
    one, two, three = (load(name, tmp_path / folder) for folder in ("one", "two", "three"))
    assert one.fingerprint == two.fingerprint == three.fingerprint
    assert one.sample_shape == (3, 32, 32)
    assert one.classes == two.classes


def test_pixels_and_labels_are_where_the_authors_say(tmp_path: Path) -> None:
    files = cifar_files()
    write_all(tmp_path / FOLDERS["cifar10"], files)
    data = load("cifar10", tmp_path)
    assert data.classes == tuple(CIFAR_CLASSES)
    assert data.train.targets.tolist() == [0, 1, 2, 3] * 5
    # The second record of the third batch: one label, then red, green and blue.
    record = files["data_batch_3.bin"][3073 : 2 * 3073]
    assert record[0] == 1
    pixels = torch.from_numpy(np.frombuffer(record[1:], np.uint8).copy()).view(3, 32, 32) / 255
    torch.testing.assert_close(data.train.inputs[9], pixels, atol=0, rtol=0)


def test_the_class_of_cifar100_is_the_fine_label(tmp_path: Path) -> None:
    write_all(tmp_path / FOLDERS["cifar100"], cifar_files(coarse=True))
    data = load("cifar100", tmp_path)
    assert data.outputs == 100
    assert data.test.targets.tolist() == [90, 91, 92, 93]
    assert data.classes[90] == "fine90"


def _link() -> tarfile.TarInfo:
    info = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


def _device() -> tarfile.TarInfo:
    info = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    info.type = tarfile.FIFOTYPE
    return info


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (tarfile.TarInfo("../../climbs"), "climbs out"),
        (tarfile.TarInfo("cifar-10-batches-bin/../../climbs"), "climbs out"),
        (tarfile.TarInfo("/etc/absolute"), "climbs out"),
        (_link(), "as a link"),
        (_device(), "as a link or device"),
    ],
)
def test_hostile_entries_are_refused(tmp_path: Path, entry: tarfile.TarInfo, words: str) -> None:
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(tar_bytes(cifar_files(), "cifar-10-batches-bin", entry))
    with pytest.raises(DataError, match=words) as error:
        read(CIFAR10, path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test_batch.bin": b""}, "0 bytes"),
        ({"test_batch.bin": bytes(3072)}, "no whole number of images"),
        ({"data_batch_2.bin": b"\x0a" + bytes(3072)}, "labels above 9"),
        ({"data_batch_5.bin": None}, "no data_batch_5.bin"),
    ],
)
def test_wrong_contents_are_refused(
    tmp_path: Path, change: dict[str, bytes | None], words: str
) -> None:
    merged: dict[str, bytes | None] = {**cifar_files(), **change}
    files = {name: content for name, content in merged.items() if content is not None}
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(tar_bytes(files, "cifar-10-batches-bin"))
    with pytest.raises(DataError, match=words):
        read(CIFAR10, path)


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar.gz"
    zeros = {"data_batch_1.bin": bytes(100 << 20)}
    path.write_bytes(tar_bytes(zeros, "cifar-10-batches-bin"))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="decompression bomb"):
        read(CIFAR10, path)


PACKED = gzip.compress(b"not tar at all", mtime=0)  # the hour would be part of the test's name


@pytest.mark.parametrize("content", [b"", b"not gzip at all", PACKED])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read(CIFAR10, path)


SMALL = tar_bytes(cifar_files(coarse=True, count=1), FOLDERS["cifar100"])
PLAIN = gzip.decompress(SMALL)


@quick
@given(content=damaged(SMALL) | damaged(PLAIN) | damaged(PLAIN[:2048]))
def test_damaged_bytes_give_data_or_the_named_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(content)
    raw = outcome(partial(read, CIFAR100), path)
    assert raw is None or raw.train.inputs.shape[1:] == (3, 32, 32)


@quick
@given(end=st.integers(0, len(SMALL) - 1))
def test_cut_off_anywhere_is_refused(tmp_path: Path, end: int) -> None:
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(SMALL[:end])
    with pytest.raises(DataError):
        read(CIFAR100, path)
