"""Curves of a cell as TensorBoard reads them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samt.bench.errors import ExperimentError
from samt.bench.experiments.cells import Cell

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def check_tensorboard(folder: Path) -> None:
    """Find out before any work whether TensorBoard can be written.

    Args:
        folder: where its files go; it is made.

    Raises:
        ExperimentError: it is not installed, or the folder cannot be written.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ExperimentError(
            "--tensorboard needs TensorBoard: pip install 'samt[tensorboard]'"
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExperimentError(
            f"cannot write {folder} ({error.strerror}): choose another folder for --tensorboard"
        ) from error


class Events:
    """Loss, metric and step sizes of a cell, a folder for each cell.

    Args:
        cell: what runs.
        folder: of all cells, or None to write nothing.
    """

    def __init__(self, cell: Cell, folder: str | None) -> None:
        self._path = None if folder is None else Path(folder) / f"{cell.file_name}-{cell.identity}"
        self._part = "validation" if cell.role == "tuning" else "test"
        self._writer: SummaryWriter | None = None

    def add(self, row: Mapping[str, Any], metric: str) -> None:
        """Write a row of the curve.

        Args:
            row: as in `CellRun.rows`; what was written after its step before is replaced.
            metric: "accuracy" or "rmse".
        """
        if self._path is None:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._path), purge_step=row["step"])
        scalars = {
            "loss/train": row["train_loss"],
            f"loss/{self._part}": row[f"{self._part}_loss"],
            f"{metric}/{self._part}": row[f"{self._part}_metric"],
            **{f"step_size/{block}": size for block, size in row["step_sizes"].items()},
        }
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
