"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samt.bench.data.dataset import Dataset, Split
from samt.bench.data.idx import read_idx
from samt.bench.errors import DataError
from samt.errors import suggestion

SPLIT_SEED = 0
TEST_SHARE = 0.2

_SOURCES = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist#get-the-data",
}


def load(name: str, data_dir: Path | None) -> Dataset:
    """Load a data set.

    Args:
        name: a key of `DATASETS`.
        data_dir: where data sets that are files lie, each in a folder of its own name.

    Returns:
        Tensors on the CPU: float32 inputs; class numbers, or standardised float32 targets.

    Raises:
        DataError: the name is unknown, or files are absent or damaged.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set '{name}': {suggestion(name, DATASETS)}")
    try:
        return DATASETS[name](data_dir)
    except OSError as error:
        raise DataError(f"cannot read {name} ({error}): check --data-dir") from error


def _digits(data_dir: Path | None) -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images[:, None] / 16.0).astype(np.float32)
    parts = train_test_split(
        images,
        digits.target.astype(np.int64),
        test_size=TEST_SHARE,
        random_state=SPLIT_SEED,
        stratify=digits.target,
    )
    train, test = _splits(*parts)
    return Dataset("digits", "classification", 10, train, test, split_seed=SPLIT_SEED)


def _diabetes(data_dir: Path | None) -> Dataset:
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    inputs, targets = load_diabetes(return_X_y=True, scaled=False)
    train_x, test_x, train_y, test_y = train_test_split(
        inputs, targets[:, None], test_size=TEST_SHARE, random_state=SPLIT_SEED
    )
    # Statistics of the training part only: the test part is not seen before it is reported.
    input_scaler = StandardScaler().fit(train_x)
    target_scaler = StandardScaler().fit(train_y)
    parts = (
        input_scaler.transform(train_x),
        input_scaler.transform(test_x),
        target_scaler.transform(train_y),
        target_scaler.transform(test_y),
    )
    train, test = _splits(*(part.astype(np.float32) for part in parts))
    scale = float(target_scaler.scale_[0])
    return Dataset("diabetes", "regression", 1, train, test, scale, SPLIT_SEED)


def _splits(train_x: Any, test_x: Any, train_y: Any, test_y: Any) -> tuple[Split, Split]:
    """From arrays in the order in which `train_test_split` returns them."""
    train_x, test_x, train_y, test_y = map(torch.from_numpy, (train_x, test_x, train_y, test_y))
    return Split(train_x, train_y), Split(test_x, test_y)


def _idx(name: str) -> Callable[[Path | None], Dataset]:
    def loader(data_dir: Path | None) -> Dataset:
        if data_dir is None:
            raise DataError(
                f"{name} is read from files: name the folder that holds '{name}/' with --data-dir "
                f"or SAMT_DATA_DIR; get the files from {_SOURCES[name]}"
            )
        folder = data_dir / name
        train, test = _idx_split(folder, "train", name), _idx_split(folder, "t10k", name)
        if train.inputs.shape[1:] != test.inputs.shape[1:]:
            raise DataError(
                f"training and test images in {folder} differ in size: fetch the files again"
            )
        return Dataset(name, "classification", 10, train, test)

    return loader


def _idx_split(folder: Path, part: str, name: str) -> Split:
    images_path = _existing(folder, f"{part}-images-idx3-ubyte", name)
    labels_path = _existing(folder, f"{part}-labels-idx1-ubyte", name)
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} has {len(images)} images, but {labels_path.name} has {len(labels)} "
            f"labels: they do not belong together, fetch both again"
        )
    if not images.size:
        raise DataError(f"{images_path} has no pixels: fetch the file again")
    if labels.max() > 9:
        raise DataError(f"{labels_path} has labels above 9: fetch the file again")
    inputs = torch.from_numpy(images).unsqueeze(1).to(torch.float32).div_(255.0)
    return Split(inputs, torch.from_numpy(labels.astype(np.int64)))


def _existing(folder: Path, stem: str, name: str) -> Path:
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.exists():
            return path
    raise DataError(
        f"no {stem}[.gz] in {folder}: put it there or point --data-dir (SAMT_DATA_DIR) at the "
        f"folder that holds '{name}/'; get it from {_SOURCES[name]}"
    )


DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "digits": _digits,
    "diabetes": _diabetes,
    "mnist": _idx("mnist"),
    "fashion-mnist": _idx("fashion-mnist"),
}
