"""A user's own data, by the path of a file or folder."""

from __future__ import annotations

from pathlib import Path

from samt.bench.data import idx
from samt.bench.data.images import read_images
from samt.bench.data.npz import read_npz
from samt.bench.data.raw import RawData
from samt.bench.data.tables import read_split_table, read_table
from samt.bench.errors import DataError

_TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_ENDINGS = (*_TABLES, ".npz", ".zip")
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
FORMS = (
    "a table (.csv, .csv.gz), a NumPy archive (.npz), images in a folder or .zip "
    "(train/<class>/*.jpg), or IDX files (*-images-idx3-ubyte[.gz] with their labels)"
)
# For `samt data --help`, which wraps each line by itself; docs/experiments.md says more.
OWN_DATA = (
    "Data of your own are a path in place of a name, wherever a data set is asked for:",
    "- a table (.csv or .tsv, also with .gz): numbers in all columns but the last, which is the "
    "target. It is a class where it is text, or whole numbers (no decimal point) of at most 100 "
    "different values; otherwise a value to predict. A first line of names is left out.",
    "- a NumPy archive (.npz): arrays x_train, y_train, x_test and y_test, or x and y. Targets "
    "of whole numbers or text are classes, others values.",
    "- images (a folder or .zip): train/CLASS/*.jpg, .png or .bmp, all of one size, and "
    "test/CLASS/ if there is a test part.",
    "- IDX files, as of MNIST: *-images-idx3-ubyte[.gz] with *-labels-idx1-ubyte[.gz] beside it, "
    "or the folder with the four of them.",
    "Where there is no test part, a fifth is split off.",
)


def is_path(name: str) -> bool:
    """Whether this is meant as a path and not as a registered name."""
    return "/" in name or "\\" in name or name.lower().endswith(_ENDINGS) or _IMAGES in name


def read(path: Path, split_seed: int) -> RawData:
    """Read a file or folder in one of the formats that `FORMS` names.

    Args:
        path: of it.
        split_seed: number of the split where the folder holds a table with published splits.

    Returns:
        Its data, still to be split and scaled.

    Raises:
        DataError: there is nothing, in no known format, or it is damaged.
    """
    name = path.name.lower()
    if not path.exists():
        raise DataError(f"there is no {path}: check the path; it can be {FORMS}")
    if path.is_dir():
        return _read_folder(path, split_seed)
    if name.endswith(_TABLES):
        return read_table(path)
    if name.endswith(".npz"):
        return read_npz(path)
    if name.endswith(".zip"):
        return read_images(path)
    if _IMAGES in path.name:
        return _read_pair(path)
    raise DataError(f"{path} has a form that samt does not read: it can be {FORMS}")


def _read_folder(path: Path, split_seed: int) -> RawData:
    if (path / "train").is_dir():
        return read_images(path)
    if idx.find(path, f"train-{_IMAGES}"):
        return idx.read_folder(path)
    table = next(
        (path / name for name in ("data.csv.gz", "data.csv") if (path / name).exists()), None
    )
    if table is None:
        raise DataError(f"{path} holds nothing that samt reads: it can be {FORMS}")
    for mask in (path / "test_mask.csv.gz", path / "test_mask.csv"):
        if mask.exists():
            return read_split_table(table, mask, split_seed)
    return read_table(table)


def _read_pair(images_path: Path) -> RawData:
    """Images with the labels beside them."""
    stem = images_path.name.removesuffix(".gz").replace(_IMAGES, _LABELS)
    labels_path = idx.find(images_path.parent, stem)
    if labels_path is None:
        raise DataError(f"{images_path} has no {stem}[.gz] beside it: put the labels there")
    part = idx.read_pair(images_path, labels_path)
    return RawData("classification", int(part.targets.max()) + 1, part, None, "pixels")
