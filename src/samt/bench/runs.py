"""One run from its settings to its last checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from samt.bench.data import Dataset
from samt.bench.errors import CheckpointError
from samt.bench.method_specs import MethodSpec
from samt.bench.results import EpochMetrics, Record, RunFolder, Status
from samt.bench.settings import Settings, as_record, torch_device
from samt.bench.training import Trainer
from samt.errors import SAMTError

_STORED_FIELDS = frozenset(
    {"data", "model", "dropout", "epochs", "batch_size", "seed", "device", "threads"}
)


class Observer(Protocol):
    """Who wants to see a run while it goes on."""

    def started(self, record: Record, epochs: int) -> None:
        """The run begins, or continues after some epochs."""

    def step(self, epoch: int, steps: int, loss: float, step_sizes: dict[str, float]) -> None:
        """Some steps of an epoch are done."""

    def epoch(self, record: Record) -> None:
        """An epoch is done and its checkpoint is written."""


class Run:
    """A run that is about to start or to continue.

    Args:
        settings: of the run.
        data: the data set that they name.
        path: folder of the run.
        resume: continue the run in the folder, if there is one.
        overwrite: replace the run in the folder, if there is one.
    """

    def __init__(
        self,
        settings: Settings,
        data: Dataset,
        path: Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder = RunFolder(path)
        stored = self.folder.stored_settings() if resume else None
        self.settings = _on_this_machine(settings, stored or {})
        self.data = data
        self.resume = resume
        self.overwrite = overwrite
        self._record = as_record(self.settings, data)

    def check(self) -> None:
        """Find what is wrong with the settings or the folder, before any work is done.

        Raises:
            UserError: the folder holds another run, or options do not fit.
            SAMTError: SAMT refuses its options.
        """
        self.folder.check(self._record, resume=self.resume, overwrite=self.overwrite)
        Trainer(self.settings, self.data)

    def execute(self, observer: Observer) -> Record:
        """Train until the last epoch; a checkpoint is written after each one.

        Args:
            observer: is told what happens.

        Returns:
            All metrics, with status "finished" or "diverged". After an epoch that diverged the
            checkpoint has its metrics, and the weights and the state of the epoch before.
        """
        torch.set_num_threads(self.settings.threads or 1)
        self.folder.check(self._record, resume=self.resume, overwrite=self.overwrite)
        trainer = Trainer(self.settings, self.data)
        with self.folder.taken():
            return self._train(trainer, observer)

    def _train(self, trainer: Trainer, observer: Observer) -> Record:
        checkpoint = None if self.overwrite else self.folder.load(self._record)
        self.folder.start(self._record, overwrite=self.overwrite)
        if checkpoint is None:
            record = self._so_far(trainer, (trainer.measure(0, math.nan),))
            self.folder.save(self._record, record, trainer.state_dict())
        else:
            record = self._continued(trainer, checkpoint)
            self.folder.write_metrics(record)
        observer.started(record, self.settings.epochs)
        while record.status == "running":
            epoch = record.last.epoch + 1
            row = trainer.train_epoch(epoch, lambda *seen, epoch=epoch: observer.step(epoch, *seen))
            record = self._so_far(trainer, (*record.metrics, row))
            state = trainer.state_dict()
            if record.status == "diverged":  # its weights are of no use to anybody
                state = self.folder.last_state(self._record)
            self.folder.save(self._record, record, state)
            observer.epoch(record)
        return record

    def _so_far(self, trainer: Trainer, metrics: tuple[EpochMetrics, ...]) -> Record:
        last = metrics[-1]
        status: Status = "running"
        if not (math.isfinite(last.train_loss) and math.isfinite(last.test_loss)):
            status = "diverged"
        elif last.epoch >= self.settings.epochs:
            status = "finished"
        label = self.settings.method.label
        return Record(label, self.data.metric, trainer.steps_per_epoch, status, metrics)

    def _continued(self, trainer: Trainer, checkpoint: dict[str, Any]) -> Record:
        try:
            metrics = tuple(EpochMetrics(**row) for row in checkpoint["metrics"])
            trainer.load_state_dict(checkpoint, metrics[-1].seconds)
        except (SAMTError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.folder.checkpoint} does not fit this version of samt or torch: use the "
                f"versions in settings.json, or add --overwrite instead of --resume to start again"
            ) from error
        return self._so_far(trainer, metrics)


def _on_this_machine(settings: Settings, stored: dict[str, Any]) -> Settings:
    """Decide what was left open: as the run that is being resumed, or as torch would."""
    threads = settings.threads or stored.get("threads") or torch.get_num_threads()
    device = settings.device
    if device == "auto":
        device = stored.get("device", device)
    return replace(settings, threads=threads, device=str(torch_device(device)))


def resumed_settings(settings: Settings, stored: dict[str, Any], given: Iterable[str]) -> Settings:
    """Take from a stored run what was not written on the command line.

    Args:
        settings: from the command line, defaults filled in.
        stored: the record of the run folder.
        given: names of the fields that were written on the command line; "method" only if the
            method itself was.

    Returns:
        Settings of the stored run, except for what was written.
    """
    given = frozenset(given)
    spec = settings.method
    if "method" not in given or spec.name == stored["method"]:
        written = {name: spec.options[name] for name in spec.given}
        method = MethodSpec(
            stored["method"],
            {**stored["options"], **written},
            {**stored.get("given", {}), **spec.given},
        )
    else:
        method = spec
    fields: dict[str, Any] = {
        name: stored[name] for name in _STORED_FIELDS - given if name in stored
    }
    if "hidden" not in given and "hidden" in stored:
        fields["hidden"] = tuple(stored["hidden"])
    if "data_dir" not in given and stored.get("data_dir"):
        fields["data_dir"] = Path(stored["data_dir"])
    return replace(settings, method=method, **fields)
