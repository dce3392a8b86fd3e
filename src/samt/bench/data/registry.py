"""Data sets by name or by path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from samt.bench.data import cache, cifar, idx, least_squares, own, sentences
from samt.bench.data.catalogue import PUBLISHED, Published
from samt.bench.data.dataset import Dataset, Task
from samt.bench.data.download import fetch
from samt.bench.data.raw import Part, RawData, Scaling
from samt.bench.data.splits import assemble, check_share
from samt.bench.data.tables import read_split_table
from samt.bench.errors import DataError, UserError
from samt.errors import suggestion

_VARIANTS: dict[str, tuple[Scaling, str]] = {
    "normalised": ("normalise", "pixels of mean 0 and deviation 1"),
    "uneven": ("uneven", "each pixel times a factor of its own from 1/30 to 30"),
}

Find = Callable[[Path], "list[Path | None]"]


@dataclass(frozen=True)
class Entry:
    """A registered data set.

    Args:
        name: on the command line.
        task: what is learnt.
        expected: its files below a data directory, as messages call them.
        find: where those files are; None for one that is missing.
        read: those files, with the number of the split where several are published.
        variant_of: the data set whose files these are, if it is not this one.
    """

    name: str
    task: Task
    expected: tuple[str, ...]
    find: Find
    read: Callable[[list[Path], int], RawData]
    variant_of: str | None = None

    @property
    def published(self) -> Published:
        """Title, source, licence, downloads."""
        if self.variant_of is None:
            return PUBLISHED[self.name]
        original = PUBLISHED[self.variant_of]
        _, words = _VARIANTS[self.name.removeprefix(f"{self.variant_of}-")]
        return replace(original, title=f"{self.variant_of}, {words}")


def load(
    name: str,
    data_dir: Path | None,
    *,
    validation: float = 0.0,
    split_seed: int = 0,
    download: bool = False,
) -> Dataset:
    """Load a data set.

    Args:
        name: a key of `DATASETS`, or the path of a file or folder of the user's own.
        data_dir: where data sets that are files lie, each in a folder of its own name; None is
            `default_data_dir()`.
        validation: share of the training part that is split off, before any scaler is fitted.
        split_seed: of every split that is drawn; number of the split where several are published.
        download: fetch files that are not there. Nothing is ever fetched without.

    Returns:
        Tensors on the CPU: float32 inputs; class numbers, or standardised float32 targets.

    Raises:
        DataError: the name is unknown, or files are absent or damaged.
        SettingsError: the validation share is not possible.
    """
    check_share(validation)
    entry = find(name)
    try:
        if entry is None:
            path = Path(name).expanduser()
            raw, title = own.read(path, split_seed), short_name(name)
        else:
            raw, title = _read(entry, data_dir or default_data_dir(), split_seed, download), name
        return assemble(title, raw, validation, split_seed)
    except UserError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {name} ({error}): check --data-dir") from error
    except MemoryError as error:
        raise DataError(f"{name} does not fit into memory: use a part of it") from error


def find(name: str) -> Entry | None:
    """The registered data set of this name, or None for a path of the user's own.

    Raises:
        DataError: it is neither.
    """
    if name in DATASETS:
        return DATASETS[name]
    if own.is_path(name) or (name.strip() and Path(name).is_dir()):
        return None
    raise DataError(
        f"unknown data set '{name}': {suggestion(name, DATASETS)}, or give the path of a file or "
        f"folder"
    )


def short_name(name: str) -> str:
    """A data set's name in characters that a file name can have.

    Args:
        name: a registered name, or a path.

    Returns:
        The name itself, or the last part of the path without its endings.

    >>> short_name("mnist"), short_name("/data/houses.csv.gz")
    ('mnist', 'houses')
    """
    last = Path(name).expanduser().resolve().name if own.is_path(name) else name
    return last.split(".")[0] or last or "data"


def default_data_dir() -> Path:
    """Where data sets lie if nobody says otherwise: in the user's cache folder."""
    return cache.folder() / "data"


def _read(entry: Entry, data_dir: Path, split_seed: int, download: bool) -> RawData:
    if download:
        prepare(entry, data_dir)
    paths = entry.find(data_dir)
    there = [path for path in paths if path is not None]
    if len(there) < len(paths):
        downloads = entry.published.files
        raise DataError(
            f"no {entry.expected[paths.index(None)]} in {data_dir}: "
            + (f"run samt data prepare {entry.name}, or " if downloads else "")
            + f"name the folder that holds it with --data-dir (SAMT_DATA_DIR); it is from "
            f"{entry.published.source}"
        )
    return entry.read(there, split_seed)


def prepare(entry: Entry, data_dir: Path) -> None:
    """Fetch what is not there. Files that are there, whatever they hold, are left alone.

    Args:
        entry: the data set.
        data_dir: folder of all data sets.

    Raises:
        DataError: a file cannot be had.
    """
    # In the same order as the downloads, where there are any.
    for file, path in zip(entry.published.files, entry.find(data_dir), strict=False):
        if path is None:
            fetch(file, data_dir)


def _digits(paths: list[Path], split: int) -> RawData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:, None] / 16.0).astype(np.float32)
    part = Part(images, digits.target.astype(np.int64))
    return RawData("classification", 10, part, None, "none")


def _diabetes(paths: list[Path], split: int) -> RawData:
    from sklearn.datasets import load_diabetes

    inputs, targets = load_diabetes(return_X_y=True, scaled=False)
    return RawData("regression", 1, Part(inputs, targets[:, None]), None, "standardise")


def _least_squares(paths: list[Path], split: int) -> RawData:
    return least_squares.draw(split)


def _characters(paths: list[Path], split: int) -> RawData:
    return sentences.draw()


def _embedded(data_dir: Path) -> list[Path | None]:
    return []


def _downloads(name: str) -> tuple[str, ...]:
    return tuple(file.path for file in PUBLISHED[name].files)


def _idx(name: str) -> Entry:
    expected = _downloads(name)
    stems = [Path(path).name.removesuffix(".gz") for path in expected]

    def files(data_dir: Path) -> list[Path | None]:
        return [idx.find(data_dir / name, stem) for stem in stems]

    def read(paths: list[Path], split: int) -> RawData:
        return idx.read_folder(paths[0].parent, classes=10)

    return Entry(name, "classification", expected, files, read)


def _variant(entry: Entry, name: str) -> Entry:
    """The same images in another scaling, one of `_VARIANTS`."""

    def read(paths: list[Path], split: int) -> RawData:
        return replace(entry.read(paths, split), scaling=_VARIANTS[name][0])

    return replace(entry, name=f"{entry.name}-{name}", read=read, variant_of=entry.name)


def _cifar(name: str, layout: cifar.Layout) -> Entry:
    def files(data_dir: Path) -> list[Path | None]:
        return [cifar.find(layout, data_dir, name)]

    def read(paths: list[Path], split: int) -> RawData:
        return cifar.read(layout, paths[0])

    return Entry(name, "classification", _downloads(name), files, read)


def _uci(name: str) -> Entry:
    def files(data_dir: Path) -> list[Path | None]:
        folder = data_dir / "uci" / name
        return [_packed_or_not(folder / stem) for stem in ("data.csv", "test_mask.csv")]

    def read(paths: list[Path], split: int) -> RawData:
        table, mask = paths
        return read_split_table(table, mask, split)

    return Entry(name, "regression", _downloads(name), files, read)


def _archive(name: str) -> Entry:
    """A zip of images, or the folder that somebody extracted it to."""

    def files(data_dir: Path) -> list[Path | None]:
        candidates = (data_dir / f"{name}.zip", data_dir / name / f"{name}.zip", data_dir / name)
        return [next((path for path in candidates if path.exists()), None)]

    def read(paths: list[Path], split: int) -> RawData:
        return own.read(paths[0], split)

    return Entry(name, "classification", (f"{name}.zip",), files, read)


def _packed_or_not(path: Path) -> Path | None:
    packed = path.with_name(f"{path.name}.gz")
    return next((one for one in (packed, path) if one.exists()), None)


_ENTRIES = (
    Entry("digits", "classification", (), _embedded, _digits),
    Entry("diabetes", "regression", (), _embedded, _diabetes),
    Entry("least-squares", "regression", (), _embedded, _least_squares),
    Entry("characters", "classification", (), _embedded, _characters),
    _idx("mnist"),
    _idx("kmnist"),
    _idx("fashion-mnist"),
    *(_variant(_idx(name), "normalised") for name in ("mnist", "kmnist", "fashion-mnist")),
    _variant(_idx("fashion-mnist"), "uneven"),
    _cifar("cifar10", cifar.CIFAR10),
    _cifar("cifar100", cifar.CIFAR100),
    _archive("cifar10-jpeg"),
    *map(_uci, ("bike", "pol", "keggdirected", "keggundirected")),
)
DATASETS: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
