"""Data sets by name or by path."""

from __future__ import annotations

from pathlib import Path

from samt.bench.data import cache, own
from samt.bench.data.catalogue import DATASETS, Entry
from samt.bench.data.dataset import Dataset
from samt.bench.data.download import fetch
from samt.bench.data.raw import RawData
from samt.bench.data.splits import assemble, check_share
from samt.bench.errors import DataError
from samt.errors import suggestion


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
        data_dir: the folder where published data sets lie, each in a folder of its own name; None
            means `default_data_dir()`.
        validation: the share of the training part that is split off, before any scaler is fitted.
        split_seed: the seed of every split that is drawn, or the number of the split where several
            are published.
        download: whether files that are not there are fetched. Nothing is ever fetched without.

    Returns:
        Tensors on the CPU: float32 inputs; class numbers, or standardised float32 targets.

    Raises:
        DataError: the name is unknown, or files are absent or damaged.
        SettingsError: the validation share is not possible.

    >>> digits = load("digits", None, validation=0.1)
    >>> [(part, len(split)) for part, split in digits.parts.items()]
    [('train', 1293), ('validation', 144), ('test', 360)]
    """
    check_share(validation)
    entry = find(name)
    try:
        if entry is None:
            raw = own.read(Path(name).expanduser(), split_seed)
        else:
            raw = _read(entry, data_dir or default_data_dir(), split_seed, download)
        return assemble(short_name(name), raw, validation, split_seed)
    except OSError as error:
        raise DataError(f"cannot read {name} ({error}): check the path and --data-dir") from error
    except MemoryError as error:
        raise DataError(f"{name} does not fit into memory: use a part of it") from error


def find(name: str) -> Entry | None:
    """Look a data set up.

    Args:
        name: a registered name, or a path.

    Returns:
        The registered data set of this name, or None for a path of the user's own.

    Raises:
        DataError: it is neither.
    """
    if name in DATASETS:
        return DATASETS[name]
    if _is_own(name):
        return None
    raise DataError(
        f"unknown data set '{name}': {suggestion(name, DATASETS)}, or give the path of a file or "
        f"folder"
    )


def absolute(name: str) -> str:
    """A data set's name that means the same in every folder.

    Args:
        name: a registered name, or a path, perhaps relative or from a home folder.

    Returns:
        The registered name as it is, or the whole path.

    >>> absolute("mnist"), absolute("/data/houses.csv")
    ('mnist', '/data/houses.csv')
    """
    is_own = name not in DATASETS and _is_own(name)
    return str(Path(name).expanduser().absolute()) if is_own else name


def _is_own(name: str) -> bool:
    """Whether a name that is not registered is a path, or a folder that is there."""
    return own.is_path(name) or (bool(name.strip()) and Path(name).expanduser().is_dir())


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


def prepare(entry: Entry, data_dir: Path) -> None:
    """Fetch what is not there. Files that are there, whatever they hold, are left alone.

    Args:
        entry: the registered data set.
        data_dir: the folder of all data sets.

    Raises:
        DataError: a file cannot be had.
    """
    # In the same order as the downloads, where there are any.
    for file, path in zip(entry.files, entry.find(data_dir), strict=False):
        if path is None:
            fetch(file, data_dir.expanduser())


def _read(entry: Entry, data_dir: Path, split_seed: int, download: bool) -> RawData:
    if download:
        prepare(entry, data_dir)
    paths = entry.find(data_dir)
    there = [path for path in paths if path is not None]
    if len(there) < len(paths):
        missing = entry.places[paths.index(None)][0]
        raise DataError(
            f"no {missing} in {data_dir}: "
            + (f"run samt data prepare {entry.name}, or " if entry.files else "")
            + f"name the folder that holds it with --data-dir (SAMT_DATA_DIR); it is from "
            f"{entry.source}"
        )
    return entry.read(there, split_seed)
