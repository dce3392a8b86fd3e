"""Data sets by name or path, as tensors that stay on the device."""

from samt.bench.data.catalogue import DATASETS, Entry
from samt.bench.data.dataset import Dataset, Split
from samt.bench.data.own import is_path
from samt.bench.data.registry import absolute, default_data_dir, find, load, prepare, short_name

__all__ = [
    "DATASETS",
    "Dataset",
    "Entry",
    "Split",
    "absolute",
    "default_data_dir",
    "find",
    "is_path",
    "load",
    "prepare",
    "short_name",
]
