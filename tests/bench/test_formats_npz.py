"""NumPy archives: arrays of numbers, never pickles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from samt.bench.data import load
from samt.bench.errors import DataError

from .data_files import Harmful

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (20, 6, 5), dtype=np.uint8)
LABELS = np.arange(20) % 2


def write(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def layers(count: int, axis: int, images: np.ndarray = IMAGES) -> np.ndarray:
    """Images whose channels are equal."""
    return np.stack([images] * count, axis=axis)


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (IMAGES, (1, 6, 5)),
        (layers(1, -1), (1, 6, 5)),
        (layers(2, -1), (2, 6, 5)),
        (layers(3, -1), (3, 6, 5)),
        (layers(3, 1), (3, 6, 5)),
        (layers(4, -1), (4, 6, 5)),
        (layers(4, 1), (4, 6, 5)),
        (layers(4, -1, IMAGES[:, :4, :4]), (4, 4, 4)),
        (layers(12, -1, IMAGES[:, :5]), (12, 5, 5)),
        (layers(12, 1), (12, 6, 5)),
    ],
)
def test_images_of_every_layout(tmp_path: Path, images: np.ndarray, shape: Any) -> None:
    path = write(tmp_path, x_train=images, y_train=LABELS, x_test=images[:4], y_test=LABELS[:4])
    data = load(str(path), None)
    assert data.sample_shape == shape
    assert (data.name, data.split_seed) == ("data", None)
    if shape != (4, 4, 4):
        expected = torch.from_numpy(IMAGES[:4, : shape[1], : shape[2]].astype(np.float32)) / 255
        torch.testing.assert_close(data.test.inputs, expected[:, None].expand(4, *shape))


def test_images_of_16_bits_are_shares_of_white(tmp_path: Path) -> None:
    images = RANDOM.integers(0, 65536, (20, 6, 5)).astype(np.uint16)
    data = load(str(write(tmp_path, x=images, y=LABELS)), None)
    found = torch.cat([data.train.inputs, data.test.inputs])
    assert 0.99 < float(found.max()) <= 1
    torch.testing.assert_close(found.mean(), torch.tensor(images.mean() / 65535).float())


def test_other_numbers_of_images_stay(tmp_path: Path) -> None:
    images = RANDOM.normal(size=(20, 6, 5))
    data = load(
        str(write(tmp_path, x_train=images, y_train=LABELS, x_test=images, y_test=LABELS)), None
    )
    torch.testing.assert_close(data.train.inputs[:, 0], torch.from_numpy(images).float())


def test_numbers_are_standardised_after_the_split(tmp_path: Path) -> None:
    numbers = RANDOM.normal(5, 3, (40, 4)).astype(">f8")
    data = load(str(write(tmp_path, x=numbers, y=RANDOM.normal(size=40))), None, split_seed=3)
    assert (data.task, len(data.train), len(data.test), data.split_seed) == ("regression", 32, 8, 3)
    torch.testing.assert_close(data.train.inputs.mean(0), torch.zeros(4), atol=1e-6, rtol=0)
    assert float(data.test.inputs.mean(0).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        (np.array(["dog", "cat"])[LABELS], ("cat", "dog")),
        (LABELS * 7 + 3, ("3", "10")),
        (LABELS[:, None] > 0, ("False", "True")),
    ],
)
def test_labels_are_numbered_without_gaps(
    tmp_path: Path, targets: np.ndarray, classes: tuple[str, ...]
) -> None:
    data = load(
        str(write(tmp_path, x_train=IMAGES, y_train=targets, x_test=IMAGES, y_test=targets)), None
    )
    assert (data.classes, data.outputs) == (classes, 2)
    assert [data.classes[target] for target in data.test.targets] == [
        str(one) for one in targets.ravel()
    ]


def test_arrays_that_are_left_out_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path, x=IMAGES, y=LABELS, x_val=IMAGES, y_val=LABELS)
    assert load(str(path), None).notes == ("The arrays x_val, y_val are left out.",)


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "was_run"
    objects = np.array([Harmful(trace), None], dtype=object)
    path = write(tmp_path, x=objects, y=np.arange(2))
    with pytest.raises(DataError, match="pickle"):
        load(str(path), None)
    assert not trace.exists()
    np.load(path, allow_pickle=True)["x"]  # it is harmful, were it loaded
    assert trace.exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": IMAGES}, "no array 'y'"),
        ({"x_train": IMAGES, "y_train": LABELS}, "no array 'x_test'"),
        ({"images": IMAGES}, "no array 'x'.*but has images"),
        ({"x": IMAGES, "y": LABELS[:5]}, "20 inputs, but 5 targets"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, "empty array"),
        ({"x": IMAGES.astype(complex), "y": LABELS}, "type complex"),
        ({"x": IMAGES[0, 0], "y": LABELS[:5]}, r"shape \(5,\)"),
        ({"x": IMAGES / np.nan, "y": LABELS}, "not finite"),
        ({"x": IMAGES, "y": LABELS * 0}, "single class"),
        ({"x": IMAGES, "y": np.stack([LABELS, LABELS], 1)}, "more than one column"),
        ({"x": IMAGES, "y": np.full(20, np.nan)}, "not finite"),
        ({"x": IMAGES, "y": np.zeros(20, complex)}, "mixes"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, :5], "y_test": LABELS}, "shap"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS + 1},
            "test part has the class '2'",
        ),
    ],
)
def test_wrong_arrays_are_one_line(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        load(str(write(tmp_path, **arrays)), None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "one array"])
def test_damaged_files_are_one_line(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path, x=IMAGES, y=LABELS)
    whole = path.read_bytes()
    changed = whole[:300] + bytes([whole[300] ^ 1]) + whole[301:]
    path.write_bytes({"cut": whole[:500], "changed": changed}.get(damage, b""))
    if damage == "one array":
        with path.open("wb") as file:
            np.save(file, IMAGES)
    with pytest.raises(DataError) as error:
        load(str(path), None)
    assert "\n" not in str(error.value)


def test_arrays_that_do_not_fit_into_memory_are_refused(
    tmp_path: Path, small_machine: Callable[[], None]
) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.zeros((5000, 4)), y=np.zeros(5000))
    small_machine()
    with pytest.raises(DataError, match="GiB of memory"):
        load(str(path), None)
