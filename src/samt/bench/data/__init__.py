"""Data sets by name, as tensors that stay on the device."""

from samt.bench.data.dataset import Dataset, Split
from samt.bench.data.registry import DATASETS, load

__all__ = ["DATASETS", "Dataset", "Split", "load"]
