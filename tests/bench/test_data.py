"""What the data sets hold."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes

from samt.bench.data import load
from samt.bench.errors import DataError

from .idx_files import idx_bytes, write_images


def test_digits_are_images_in_the_unit_interval_with_a_stratified_split() -> None:
    digits = load("digits", None)
    assert digits.sample_shape == (1, 8, 8)
    assert len(digits.train) == 1437
    assert len(digits.test) == 360
    assert float(digits.train.inputs.min()) == 0.0
    assert float(digits.train.inputs.max()) == 1.0
    counts = torch.bincount(digits.test.targets)
    assert int(counts.min()) >= 35
    assert int(counts.max()) <= 37


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_the_split_is_the_same_every_time(name: str) -> None:
    torch.manual_seed(1)
    first = load(name, None)
    np.random.seed(7)
    assert first.fingerprint == load(name, None).fingerprint


def test_diabetes_is_standardised_with_statistics_of_the_training_part() -> None:
    data = load("diabetes", None)
    for tensor in data.train.tensors():
        torch.testing.assert_close(tensor.mean(0), torch.zeros(tensor.shape[1]), atol=1e-5, rtol=0)
        ones = torch.ones(tensor.shape[1])
        torch.testing.assert_close(tensor.std(0, correction=0), ones, atol=1e-5, rtol=0)
    assert float(data.test.targets.mean().abs()) > 1e-3
    assert float(data.test.inputs.mean(0).abs().max()) > 1e-2


def test_diabetes_target_scale_leads_back_to_original_units() -> None:
    data = load("diabetes", None)
    _, original = load_diabetes(return_X_y=True, scaled=False)
    both = torch.cat([data.train.targets, data.test.targets]).double() * data.target_scale
    spread = float(both.std(correction=0))
    assert spread == pytest.approx(original.std(), rel=1e-6)


def test_idx_files_plain_and_packed_are_the_same_data(tmp_path: Path, data_dir: Path) -> None:
    for packed in (data_dir / "mnist").iterdir():
        plain = tmp_path / "mnist" / packed.name.removesuffix(".gz")
        plain.parent.mkdir(exist_ok=True)
        plain.write_bytes(gzip.decompress(packed.read_bytes()))
    assert load("mnist", tmp_path).fingerprint == load("mnist", data_dir).fingerprint


def test_pixels_are_divided_by_255(data_dir: Path) -> None:
    data = load("mnist", data_dir)
    assert data.train.inputs.dtype == torch.float32
    assert float(data.train.inputs.max()) == 1.0
    assert data.sample_shape == (1, 8, 8)
    assert data.train.targets[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_normalised_pixels_have_mean_0_and_deviation_1_over_the_training_part(
    data_dir: Path,
) -> None:
    plain = load("mnist", data_dir, validation=0.25)
    data = load("mnist-normalised", data_dir, validation=0.25)
    train = plain.train.inputs.double()
    mean, deviation = train.mean(), train.std(correction=0)
    assert data.train.targets.equal(plain.train.targets)
    assert data.checksum != plain.checksum
    for part, split in plain.parts.items():
        expected = (split.inputs.double() - mean) / deviation
        torch.testing.assert_close(data.parts[part].inputs.double(), expected, atol=2e-6, rtol=2e-6)


def test_images_of_one_grey_can_be_normalised(tmp_path: Path) -> None:
    write_images(tmp_path / "mnist")
    for part, count in (("train", 96), ("t10k", 40)):
        grey = gzip.compress(idx_bytes(np.full((count, 8, 8), 7, np.uint8)))
        (tmp_path / "mnist" / f"{part}-images-idx3-ubyte.gz").write_bytes(grey)
    assert load("mnist-normalised", tmp_path).train.inputs.abs().max() == 0


def test_uneven_pixels_are_each_times_a_factor_of_its_own(tmp_path: Path) -> None:
    write_images(tmp_path / "fashion-mnist")
    plain = load("fashion-mnist", tmp_path, validation=0.25)
    uneven = load("fashion-mnist-uneven", tmp_path, validation=0.25)
    ratio = (uneven.train.inputs / plain.train.inputs).nanmean(0)
    assert 1 / 30 <= ratio.min() < 0.1
    assert 10 < ratio.max() <= 30
    for part, split in plain.parts.items():
        torch.testing.assert_close(uneven.parts[part].inputs, split.inputs * ratio)
        assert uneven.parts[part].targets.equal(split.targets)


def _break_labels(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(np.zeros(95, np.uint8)))


def _break_sizes(folder: Path) -> None:
    write_images(folder.parent / "other", size=9)
    name = "t10k-images-idx3-ubyte.gz"
    (folder.parent / "other" / name).replace(folder / name)


def _break_label_range(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(np.full(96, 10, np.uint8)))


def _swap(folder: Path) -> None:
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"
    content = images.read_bytes()
    images.write_bytes(labels.read_bytes())
    labels.write_bytes(content)


def _remove(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()


def _empty(folder: Path) -> None:
    images = idx_bytes(np.zeros((0, 8, 8), np.uint8))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(images)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(np.zeros(0, np.uint8)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_break_labels, "96 images, but .* has 95 labels"),
        (_break_sizes, "differ in the size"),
        (_break_label_range, "labels above 9"),
        (_swap, "swapped"),
        (_remove, "no mnist/t10k-labels.*https"),
        (_empty, "no pixels"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, damage: object, words: str) -> None:
    write_images(tmp_path / "mnist")
    assert callable(damage)
    damage(tmp_path / "mnist")
    with pytest.raises(DataError, match=words) as error:
        load("mnist", tmp_path)
    assert "\n" not in str(error.value)


class TestValidation:
    """A part to choose options by, taken from the training part before anything is fitted."""

    @pytest.mark.parametrize("name", ["digits", "diabetes", "mnist"])
    def test_parts_are_disjoint_and_make_up_the_whole(self, data_dir: Path, name: str) -> None:
        whole, split = load(name, data_dir), load(name, data_dir, validation=0.25)
        assert split.validation is not None
        assert len(split.train) + len(split.validation) == len(whole.train)
        assert len(split.validation) == pytest.approx(len(whole.train) / 4, abs=1)
        if name == "diabetes":  # scaled by fewer rows, so that only ranks can be compared
            return
        both = torch.cat([split.train.inputs, split.validation.inputs]).flatten(1)
        rows = sorted(map(tuple, both.tolist()))
        assert rows == sorted(map(tuple, whole.train.inputs.flatten(1).tolist()))
        assert torch.equal(split.test.inputs, whole.test.inputs)

    def test_classes_keep_their_shares(self) -> None:
        split = load("digits", None, validation=0.2)
        assert split.validation is not None
        counts = split.validation.targets.bincount()
        assert int(counts.max()) - int(counts.min()) <= 2

    def test_scalers_see_neither_validation_nor_test_part(self) -> None:
        data = load("diabetes", None, validation=0.3)
        assert data.validation is not None
        for tensor in data.train.tensors():
            zeros = torch.zeros(tensor.shape[1])
            torch.testing.assert_close(tensor.mean(0), zeros, atol=1e-5, rtol=0)
        for part in (data.validation, data.test):
            assert float(part.targets.mean().abs()) > 1e-3

    def test_the_seed_decides_and_is_recorded(self, data_dir: Path) -> None:
        one, same, other = (
            load("mnist", data_dir, validation=0.25, split_seed=seed) for seed in (1, 1, 2)
        )
        assert one.fingerprint == same.fingerprint != other.fingerprint
        assert (one.split_seed, other.split_seed) == (1, 2)
        assert load("mnist", data_dir).split_seed is None

    def test_the_validation_part_is_in_the_fingerprint_and_moves(self, data_dir: Path) -> None:
        data = load("mnist", data_dir, validation=0.25)
        assert data.fingerprint != replace(data, validation=None).fingerprint
        moved = data.to(torch.device("meta"))
        assert moved.validation is not None
        assert moved.validation.inputs.device.type == "meta"
        assert list(data.parts) == ["train", "validation", "test"]

    def test_too_few_samples_are_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "few.csv").write_text("1,a\n2,a\n3,b\n4,b\n")
        with pytest.raises(DataError, match="too few samples") as error:
            load(str(tmp_path / "few.csv"), None)
        assert "\n" not in str(error.value)


# Numbers that run folders of earlier versions hold.
@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("digits", "e0bfd3b82041fb11"),
        ("diabetes", "e239659113c66ba9"),
        ("mnist", "dd40f08c9935a0a2"),
        ("fashion-mnist", "91e93f210787e6e2"),
    ],
)
def test_old_runs_can_be_resumed(
    name: str, fingerprint: str, request: pytest.FixtureRequest
) -> None:
    embedded = name in ("digits", "diabetes")
    folder = None if embedded else request.getfixturevalue("real_data_dir")
    assert load(name, folder).fingerprint.startswith(fingerprint)


def test_the_unit_of_the_target_is_part_of_the_checksum_and_of_no_old_fingerprint() -> None:
    data = load("diabetes", None)
    doubled = replace(data, target_scale=2 * data.target_scale)
    assert doubled.fingerprint == data.fingerprint
    assert doubled.checksum != data.checksum


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_files(real_data_dir: Path, name: str) -> None:
    data = load(name, real_data_dir)
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert data.sample_shape == (1, 28, 28)
    assert int(data.train.targets.max()) == 9
    # The published mean of the training pixels.
    mean = {"mnist": 0.1307, "fashion-mnist": 0.2860}[name]
    assert float(data.train.inputs.double().mean()) == pytest.approx(mean, abs=5e-5)
