"""A user's own data, by the path of a file or folder."""

from __future__ import annotations

from pathlib import Path

from samt.bench.data import idx
from samt.bench.data.images import ENDINGS, read_images
from samt.bench.data.npz import read_npz
from samt.bench.data.raw import RawData
from samt.bench.data.tables import read_split_table, read_table
from samt.bench.errors import DataError

_TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
_FORMS = (
    "a table (.csv, .csv.gz), a NumPy archive (.npz), images in a folder or .zip "
    "(train/<class>/*.jpg), or IDX files (*-images-idx3-ubyte[.gz] with their labels)"
)
# For `samt data --help`, which wraps each line by itself; docs/experiments.md says more.
OWN_DATA = (
    "Data of your own are a path in place of a name, wherever a data set is asked for:",
    "- a table (.csv or .tsv, also with .gz): numbers in all columns but the last, which is the "
    "target. It is a class where it is text, or whole numbers (no decimal point) of at most 100 "
    "different values; otherwise a value to predict. A first line of names and an index are left "
    "out.",
    "- a NumPy archive (.npz): arrays x_train, y_train, x_test and y_test, or x and y. Targets "
    "of whole numbers or text are classes, others values.",
    f"- images (a folder or .zip): train/CLASS/ with images ({', '.join(ENDINGS)}), all of one "
    "size, and test/CLASS/ if there is a test part.",
    "- IDX files, as of MNIST: *-images-idx3-ubyte[.gz] with *-labels-idx1-ubyte[.gz] beside it, "
    "or the folder with the four of them.",
    "Where there is no test part, a fifth is split off. samt data info PATH shows what was "
    "understood.",
)


def is_path(name: str) -> bool:
    """Whether a name is meant as a path and not as the name of a registered data set.

    Args:
        name: what a user wrote where a data set is asked for.
    """
    endings = (*_TABLES, ".npz", ".zip")
    return "/" in name or "\\" in name or name.lower().endswith(endings) or _IMAGES in name


def read(path: Path, split_seed: int) -> RawData:
    """Read a file or folder of a user's own.

    Args:
        path: the file or folder, in one of the forms that `samt data --help` names.
        split_seed: the number of the split where the folder holds a table with published splits.

    Returns:
        Its data, still to be split and scaled.

    Raises:
        DataError: there is nothing, it has no known form, or it is damaged.
    """
    name = path.name.lower()
    if not path.exists():
        raise DataError(f"there is no {path}: check the path; it can be {_FORMS}")
    if path.is_dir():
        return _read_folder(path, split_seed)
    if name.endswith(_TABLES):
        return read_table(path)
    if name.endswith(".npz"):
        return read_npz(path)
    if name.endswith(".zip"):
        return read_images(path)
    if _IMAGES in path.name:
        return idx.read_pairs([path, _labels(path)])
    raise DataError(f"{path} has a form that samt does not read: it can be {_FORMS}")


def _read_folder(path: Path, split_seed: int) -> RawData:
    if (path / "train").is_dir():
        return read_images(path)
    train, test = (_first(path, f"{part}-{_IMAGES}") for part in ("train", "t10k"))
    if train and test:
        return idx.read_pairs([train, _labels(train), test, _labels(test)])
    table, mask = _first(path, "data.csv"), _first(path, "test_mask.csv")
    if table and mask:
        return read_split_table(table, mask, split_seed)
    if table:
        return read_table(table)
    raise DataError(f"{path} holds nothing that samt reads: it can be {_FORMS}")


def _first(folder: Path, name: str) -> Path | None:
    """The file of this name, packed or not."""
    return next((one for one in (folder / f"{name}.gz", folder / name) if one.exists()), None)


def _labels(images: Path) -> Path:
    """The labels beside images."""
    name = images.name.removesuffix(".gz").replace(_IMAGES, _LABELS)
    labels = _first(images.parent, name)
    if labels is None:
        raise DataError(f"{images} has no {name}[.gz] beside it: put the labels there")
    return labels
