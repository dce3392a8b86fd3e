"""One cell in a process of its own: from its job to its result in the store."""

from __future__ import annotations

import contextlib
import io
import math
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

import samt
from samt.bench.errors import DataError, UserError
from samt.bench.experiments.cells import Cell
from samt.bench.experiments.store import Store
from samt.bench.results import EpochMetrics
from samt.bench.training import Trainer
from samt.errors import SAMTError

_BEAT = 1.0  # seconds
_CHECKPOINT = 30.0
_FOREVER = 1 << 62
# Of the last row of the curve into the summary.
_LAST = (
    *("epoch", "updates", "forward_passes", "backward_passes", "seconds", "train_loss"),
    *("test_loss", "test_metric", "validation_loss", "validation_metric"),
)


def main(job: Mapping[str, Any]) -> None:
    """Run a cell and write its result. The process belongs to this cell alone.

    Args:
        job: `Cell.as_job()`, with the keys `store`, `experiment`, `timeout`, `attempt`, `commit`,
            `jobs` and `tensorboard`.
    """
    # The supervisor decides what Ctrl-C in the terminal means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cell, store = Cell.from_job(job), Store(job["store"])
    run = CellRun(cell, store, job)
    with Heartbeat(store, cell.identity, run.note):
        try:
            run.execute()
        except Exception as error:
            run.fail(error)


class Heartbeat:
    """Says again and again that a cell is being worked on, and ends with who started it.

    Args:
        store: where.
        identity: of the cell.
        note: what is said; whoever owns it may change it at any time.
    """

    def __init__(self, store: Store, identity: str, note: dict[str, Any]) -> None:
        self._store, self._identity, self._note = store, identity, note
        self._parent = os.getppid()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        self._store.rest(self._identity)

    def _beat(self) -> None:
        # The first one is the supervisor's.
        while not self._done.wait(_BEAT):
            if os.getppid() != self._parent:
                os._exit(1)  # the supervisor is gone: another one will go on from the checkpoint
            # A full disk ends the run where a result is lost, not here.
            with contextlib.suppress(UserError):
                self._store.beat(self._identity, dict(self._note))


class CellRun:
    """A cell while it runs.

    Args:
        cell: what is run.
        store: where results go.
        job: as in `main`.
    """

    def __init__(self, cell: Cell, store: Store, job: Mapping[str, Any]) -> None:
        self.cell, self.store, self.job = cell, store, job
        self.rows: list[dict[str, Any]] = []
        self.note: dict[str, Any] = {"name": cell.name, "attempt": job["attempt"], "share": 0.0}
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()
        self._earlier = 0.0  # seconds of attempts before this one
        self._metric = ""
        self._task = ""

    @property
    def _wall(self) -> float:
        return time.monotonic() - self._clock

    def execute(self) -> None:
        """Train to the end of the budget, and write the result."""
        cell = self.cell
        torch.set_num_threads(cell.threads)
        data = cell.source.load()
        if data.fingerprint != cell.data_sha256:
            raise DataError(f"{cell.source.name} is not the same on this machine: copy the files")
        self._metric, self._task = data.metric, data.task
        trainer = Trainer(cell.settings, data)
        budget = _Budget(cell, trainer)
        step = self._resume(trainer)
        saved = time.monotonic()
        status = self._measure(trainer, step, math.nan) if not self.rows else "running"
        while status == "running" and step < budget.steps:
            stop = min((step // budget.every + 1) * budget.every, budget.steps)
            step, loss = trainer.train(
                step, stop, self._reporter(step, budget), self._until(budget)
            )
            if self._is_late():
                status = "timed-out"
                break
            status = self._measure(trainer, step, loss)
            if budget.is_spent():
                break
            if status == "running" and time.monotonic() - saved > _CHECKPOINT:
                self._checkpoint(trainer, step)
                saved = time.monotonic()
        self._finish("finished" if status == "running" else status)

    def fail(self, error: Exception) -> None:
        """Write what went wrong."""
        expected = isinstance(error, UserError | SAMTError)
        line = " ".join(str(error).split()) or type(error).__name__
        trace = None if expected else "".join(traceback.format_exception(error))
        message = line if expected else f"{type(error).__name__}: {line}"
        self._finish("failed", error=message[:1000], traceback=trace)

    def _is_late(self) -> bool:
        return self.job["timeout"] is not None and self._wall > self.job["timeout"]

    def _until(self, budget: _Budget) -> Callable[[], bool]:
        return lambda: budget.is_spent() or self._is_late()

    def _reporter(self, start: int, budget: _Budget) -> Callable[..., None]:
        def report(steps: int, loss: float, step_sizes: dict[str, float]) -> None:
            share = budget.share(start + steps)
            self.note.update(share=share, loss=loss, epoch=(start + steps) / budget.steps_per_epoch)

        return report

    def _measure(self, trainer: Trainer, step: int, loss: float) -> str:
        """Add a row to the curve; returns the status."""
        epoch = step / trainer.steps_per_epoch
        seen = trainer.measure(math.ceil(epoch), loss)
        self.rows.append(self._row(seen, step, epoch, trainer.method.updates_per_step))
        self.note["metric"] = f"{self._metric} {seen.test_metric:.4g}"
        finite = math.isfinite(seen.train_loss) and math.isfinite(seen.test_loss)
        return "running" if finite else "diverged"

    def _row(self, seen: EpochMetrics, step: int, epoch: float, updates: float) -> dict[str, Any]:
        row = asdict(seen)
        judged = "validation" if self.cell.role == "tuning" else "test"
        other = "test" if judged == "validation" else "validation"
        loss, metric = row.pop("test_loss"), row.pop("test_metric")
        return {
            **row,
            "step": step,
            "epoch": epoch,
            "updates": step * updates,
            f"{judged}_loss": loss,
            f"{judged}_metric": metric,
            f"{other}_loss": math.nan,
            f"{other}_metric": math.nan,
        }

    def _checkpoint(self, trainer: Trainer, step: int) -> None:
        buffer = io.BytesIO()
        content = {
            **trainer.state_dict(),
            "seconds": trainer.seconds,
            "step": step,
            "rows": self.rows,
            "wall": self._earlier + self._wall,
        }
        torch.save(content, buffer)
        self.store.save_checkpoint(self.cell.identity, buffer.getvalue())

    def _resume(self, trainer: Trainer) -> int:
        """Continue from the checkpoint if there is a good one; returns the steps that are done."""
        content = self.store.checkpoint(self.cell.identity)
        if content is None:
            return 0
        try:
            saved = torch.load(io.BytesIO(content), weights_only=True)
            trainer.load_state_dict(saved, saved["seconds"])
            self.rows, self._earlier = saved["rows"], saved["wall"]
            return int(saved["step"])
        except Exception as error:  # what a damaged file makes the unpickler raise has no class
            raise DataError(
                f"the checkpoint of cell {self.cell.identity} is damaged: delete it with samt "
                f"results prune --status failed"
            ) from error

    def _finish(self, status: str, **more: Any) -> None:
        self.store.save(self.cell.identity, self.summary(status, **more), self.rows)
        if status != "timed-out":
            self.store.release(self.cell.identity)

    def summary(self, status: str, error: str | None = None, **more: Any) -> dict[str, Any]:
        """What the JSON file of the cell holds."""
        last = self.rows[-1] if self.rows else {}
        numbers = {name: last.get(name) for name in _LAST}
        best = max if self._metric == "accuracy" else min
        for judged in ("test", "validation"):
            values = [row[f"{judged}_metric"] for row in self.rows]
            finite = [value for value in values if math.isfinite(value)]
            right = finite and status != "diverged"
            numbers[f"best_{judged}_metric"] = best(finite) if right else None
        return {
            "cell": self.cell.record,
            "label": self.cell.spec.label,
            "experiment": self.job["experiment"],
            "role": self.cell.role,
            "tuned": self.cell.tuned,
            "status": status,
            "error": error,
            **more,
            "task": self._task,
            "metric": self._metric,
            "steps": last.get("step"),
            "epochs": numbers.pop("epoch"),
            **numbers,
            "wall_seconds": self._earlier + self._wall,
            "started": self._started.isoformat(timespec="seconds"),
            "attempts": self.job["attempt"],
            "machine": {**machine(self.cell.device), "jobs": self.job["jobs"]},
            "versions": versions(),
            "commit": self.job["commit"],
        }


class _Budget:
    """How many steps a cell has, as far as that can be said before."""

    def __init__(self, cell: Cell, trainer: Trainer) -> None:
        self._budget, self._trainer = cell.budget, trainer
        self.steps_per_epoch = trainer.steps_per_epoch
        self.every = max(1, round(cell.evaluate * self.steps_per_epoch))
        epochs = cell.budget.get("epochs")
        self.steps = _FOREVER if epochs is None else round(epochs * self.steps_per_epoch)
        if "passes" in cell.budget and trainer.method.full_batch:
            raise DataError(
                f"method {cell.spec.name} takes no passes through the network: give it a budget "
                f"of epochs or seconds"
            )

    def is_spent(self) -> bool:
        """Whether passes or seconds are used up."""
        return "epochs" not in self._budget and self._used() >= 1

    def share(self, step: int) -> float:
        """How much of the budget is used up, from 0 to 1."""
        return min(1.0, step / max(self.steps, 1) if "epochs" in self._budget else self._used())

    def _used(self) -> float:
        if "passes" in self._budget:
            return sum(self._trainer.method.passes) / self._budget["passes"]
        return self._trainer.seconds_so_far() / self._budget["seconds"]


def machine(device: str) -> dict[str, Any]:
    """What the numbers of seconds were measured on."""
    cuda = device.startswith("cuda")
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if cuda else device,
    }


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def versions() -> dict[str, str]:
    """Of what computes."""
    import numpy as np

    return {
        "samt": samt.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    import json

    main(json.load(sys.stdin))
