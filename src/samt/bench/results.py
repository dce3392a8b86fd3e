"""The folder of a run: settings, metrics table, checkpoint."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from samt.bench.atomic import lock, write_atomically
from samt.bench.errors import CheckpointError, RunFolderError, explained
from samt.bench.settings import differences

Status = Literal["running", "finished", "diverged"]
_KEYS = {"format", "settings", "status", "metrics", "model", "method", "rng"}
_FORMAT = 1
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("method", "data", "model", "device"), (str,)),
    **dict.fromkeys(("options", "given"), (dict,)),
    **dict.fromkeys(("epochs", "batch_size", "seed"), (int,)),
    "hidden": (list,),
    "dropout": (int, float),
    "threads": (int, type(None)),
    "data_dir": (str, type(None)),
}


@dataclass(frozen=True)
class EpochMetrics:
    """One row of the metrics table.

    Args:
        epoch: number of finished epochs; 0 is before training.
        train_loss: mean loss over the training part, measured after the epoch.
        batch_loss: mean loss of the epoch's mini-batches, each before its step; of a full-batch
            solver its own objective for each sample.
        test_loss: mean loss over the test part.
        test_metric: accuracy (a share of 1), or root mean squared error in original units.
        seconds: time of training since the start, evaluation excluded.
        forward_passes: since the start.
        backward_passes: since the start.
        step_sizes: of each block, as `Method.epoch_step_sizes` gives them.
    """

    epoch: int
    train_loss: float
    batch_loss: float
    test_loss: float
    test_metric: float
    seconds: float
    forward_passes: int
    backward_passes: int
    step_sizes: dict[str, float]


@dataclass(frozen=True)
class Record:
    """What is known about a run after some epochs."""

    label: str
    metric: str
    steps_per_epoch: int
    status: Status
    metrics: tuple[EpochMetrics, ...]

    @property
    def last(self) -> EpochMetrics:
        """The most recent row."""
        return self.metrics[-1]


def metrics_csv(metrics: Sequence[EpochMetrics], metric: str) -> str:
    """The metrics table as CSV, numbers in full precision.

    Args:
        metrics: one entry for each epoch.
        metric: "accuracy" or "rmse", for the head of its column.

    Returns:
        One line for each epoch below the head; step sizes in columns `step_size[block]`.
    """
    blocks = list(metrics[0].step_sizes)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = [name for name in EpochMetrics.__dataclass_fields__ if name != "step_sizes"]
    head = [f"test_{metric}" if name == "test_metric" else name for name in names]
    table.writerow([*head, *(f"step_size[{block}]" for block in blocks)])
    for row in metrics:
        sizes = [row.step_sizes[block] for block in blocks]
        table.writerow([*(repr(getattr(row, name)) for name in names), *map(repr, sizes)])
    return text.getvalue()


def _is_settings(record: Any) -> bool:
    """Whether this may be what `settings.as_record` made."""
    if not isinstance(record, dict) or not {"method", "options", "data"} <= record.keys():
        return False
    return all(
        type(record[name]) in kinds for name, kinds in _KINDS.items() if name in record
    ) and all(type(width) is int for width in record.get("hidden", ()))


class RunFolder:
    """One run on disk.

    Args:
        path: the folder; it is made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "settings.json"
        self.metrics = path / "metrics.csv"
        self.checkpoint = path / "checkpoint.pt"

    def holds_run(self) -> bool:
        """Whether something of a run is there."""
        with explained(self.path):
            return any(path.exists() for path in (self.settings, self.checkpoint))

    def stored_settings(self) -> dict[str, Any] | None:
        """The record in `settings.json`, or None if there is none.

        Raises:
            RunFolderError: the file is damaged or not a record of samt.
        """
        try:
            record = json.loads(self.settings.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunFolderError(
                f"cannot read {self.settings} ({error.strerror}): choose another --run-dir"
            ) from error
        except ValueError:
            record = None
        if not _is_settings(record):
            raise RunFolderError(
                f"{self.settings} was not written by samt, or is damaged: "
                f"choose another --run-dir, or delete it"
            )
        return record

    def check(self, record: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that this run must not touch. Writes nothing.

        Args:
            record: settings of the run that is about to start.
            resume: continue the run that is there.
            overwrite: replace the run that is there.

        Raises:
            RunFolderError: the folder holds a run and neither flag is set, or another run.
        """
        stored = self.stored_settings()  # also with overwrite: a foreign file is never replaced
        if overwrite or not self.holds_run():
            return
        if not resume:
            raise RunFolderError(
                f"{self.path} already holds a run: add --resume to continue it, --overwrite to "
                f"replace it, or choose another --run-dir"
            )
        different = differences(stored, record) if stored is not None else []
        if different:
            raise RunFolderError(
                f"{self.path} holds another run, which differs in {', '.join(different)}: "
                f"give these the values that it has, or choose another --run-dir"
            )

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Make the folder, and keep other processes from running in it.

        Raises:
            RunFolderError: one does already, or the folder cannot be made.
        """
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                lock(handle)
            except BlockingIOError as error:
                raise RunFolderError(
                    f"another process is training in {self.path}: wait until it is done, or "
                    f"choose another --run-dir"
                ) from error
            yield
        finally:
            os.close(handle)

    def start(self, record: dict[str, Any], *, overwrite: bool) -> None:
        """Write the settings.

        Args:
            record: settings of the run.
            overwrite: remove the files of the run that is there first, and nothing else.
        """
        with explained(self.path):
            if overwrite:
                for path in (self.checkpoint, self.metrics, self.settings):
                    path.unlink(missing_ok=True)
        write_atomically(self.settings, (json.dumps(record, indent=2) + "\n").encode())

    def save(self, settings: dict[str, Any], record: Record, state: dict[str, Any]) -> None:
        """Write the checkpoint, then the metrics table, which is a copy of what it holds.

        Args:
            settings: record of the run.
            record: its metrics so far.
            state: model, method and random states.
        """
        payload = {
            **state,
            "format": _FORMAT,
            "settings": json.dumps(settings),
            "status": record.status,
            "metrics": [asdict(row) for row in record.metrics],
        }
        # Through memory: on a full disk torch's own writer fails without saying so.
        buffer = io.BytesIO()
        torch.save(payload, buffer)
        write_atomically(self.checkpoint, buffer.getvalue())
        self.write_metrics(record)

    def write_metrics(self, record: Record) -> None:
        """Write the metrics table."""
        write_atomically(self.metrics, metrics_csv(record.metrics, record.metric).encode())

    def load(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Read the checkpoint.

        Args:
            settings: record of the run that wants to continue.

        Returns:
            What `save` wrote, or None if there is no checkpoint.

        Raises:
            CheckpointError: it is damaged, or belongs to another run.
        """
        if not self.checkpoint.exists():
            return None
        payload = self._read_checkpoint()
        different = differences(json.loads(payload["settings"]), settings)
        if different:
            raise CheckpointError(
                f"{self.checkpoint} belongs to another run, which differs in "
                f"{', '.join(different)}: put the right file there, or add --overwrite instead "
                f"of --resume to start again"
            )
        return payload

    def last_state(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Model, method and random states of the checkpoint that is there.

        Args:
            settings: record of the run.

        Raises:
            CheckpointError: it is missing, damaged, or belongs to another run.
        """
        payload = self.load(settings)
        if payload is None:
            raise CheckpointError(f"{self.checkpoint} is gone: leave run folders alone in a run")
        return {name: payload[name] for name in ("model", "method", "rng")}

    def _read_checkpoint(self) -> dict[str, Any]:
        try:
            content = self.checkpoint.read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"cannot read {self.checkpoint} ({error.strerror}): try again when it can be read"
            ) from error
        try:
            # torch.load does not look at the checksums in the file; zipfile does.
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                damaged = archive.testzip()
            payload = None if damaged else torch.load(io.BytesIO(content), weights_only=True)
        except Exception:  # what a damaged file makes the unpickler raise has no common class
            payload = None
        if not isinstance(payload, dict) or not payload.keys() >= _KEYS:
            raise CheckpointError(
                f"{self.checkpoint} is damaged or half-written: put a good copy there, or add "
                f"--overwrite instead of --resume to start again"
            )
        if payload["format"] != _FORMAT:
            raise CheckpointError(
                f"{self.checkpoint} was written by another version of samt: use that version, "
                f"or add --overwrite instead of --resume to start again"
            )
        return payload
