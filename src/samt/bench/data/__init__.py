"""Data sets by name or path, as tensors that stay on the device."""

from samt.bench.data.dataset import Dataset, Split
from samt.bench.data.registry import DATASETS, default_data_dir, load, short_name

__all__ = ["DATASETS", "Dataset", "Split", "default_data_dir", "load", "short_name"]
