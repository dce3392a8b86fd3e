"""CIFAR in the authors' binary version: read as published, or one named error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from samt.bench.data import load
from samt.bench.errors import DataError

from .data_files import CIFAR_CLASSES, cifar_files, tar_bytes, write_all

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
    assert one.classes == two.classes == three.classes != ()


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test_batch.bin": b""}, "0 bytes"),
        ({"test_batch.bin": bytes(3072)}, "no whole number of images"),
        ({"data_batch_2.bin": b"\x0a" + bytes(3072)}, "labels above 9"),
        ({"data_batch_5.bin": None}, "data_batch_5.bin has 0 bytes"),
    ],
)
def test_wrong_contents_are_refused(
    tmp_path: Path, change: dict[str, bytes | None], words: str
) -> None:
    merged: dict[str, bytes | None] = {**cifar_files(), **change}
    files = {name: content for name, content in merged.items() if content is not None}
    write_all(tmp_path, {ARCHIVES["cifar10"]: tar_bytes(files, FOLDERS["cifar10"])})
    with pytest.raises(DataError, match=words):
        load("cifar10", tmp_path)


WHOLE = tar_bytes(cifar_files(count=1), FOLDERS["cifar10"])
CHANGED = WHOLE[:5000] + bytes([WHOLE[5000] ^ 1]) + WHOLE[5001:]


@pytest.mark.parametrize(
    "content", [b"", b"no tar at all", WHOLE[:-1], WHOLE[:5000], CHANGED], ids=range(5)
)
def test_damaged_archives_are_one_line(tmp_path: Path, content: bytes) -> None:
    write_all(tmp_path, {ARCHIVES["cifar10"]: content})
    with pytest.raises(DataError) as error:
        load("cifar10", tmp_path)
    assert "\n" not in str(error.value)
