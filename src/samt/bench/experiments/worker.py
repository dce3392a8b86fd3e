"""One cell in a process of its own: from its job to its result in the store."""

from __future__ import annotations

import contextlib
import io
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Literal

import torch

from samt.bench.data import Dataset
from samt.bench.errors import DataError, ResultsError, UserError
from samt.bench.experiments.budget import Budget
from samt.bench.experiments.cells import Cell, Source
from samt.bench.experiments.environment import machine, versions
from samt.bench.experiments.store import Store
from samt.bench.experiments.tensorboard import Events
from samt.bench.results import EpochMetrics
from samt.bench.training import Trainer
from samt.errors import SAMTError

STOPPED = 75  # exit code of a cell that was told to stop and can go on later
UNWRITTEN = 74  # exit code where the disk is full or broken
_BEAT = 1.0  # seconds
_SNAPSHOT = 1.0  # between two snapshots in memory, which are written when the cell must stop
# Of the last row of the curve into the summary.
_LAST = (
    *("epoch", "updates", "forward_passes", "backward_passes", "seconds", "train_loss"),
    *("test_loss", "test_metric", "validation_loss", "validation_metric"),
)


def main(job: Mapping[str, Any]) -> int:
    """Run a cell and write its result. The process belongs to this cell alone.

    Args:
        job: `Cell.as_job()`, with the keys `store`, `experiment`, `timeout`, `checkpoint` (seconds
            between two of them), `attempt`, `commit`, `jobs` and `tensorboard`.

    Returns:
        Exit code: 0 if the cell has a result, `STOPPED` if SIGTERM came before, `UNWRITTEN` if
        results cannot be written or read; the reason then is what it prints.
    """
    cell, store = Cell.from_job(job), Store(job["store"])
    run = CellRun(cell, store, job)
    # Ctrl-C in the terminal is for the runner, which tells its cells.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    try:
        with Heartbeat(store, cell.identity, run.note):
            return run.executed()
    except ResultsError as error:
        # Says nothing about the cell: its checkpoint stays, and it goes on from there.
        sys.stdout.write(str(error))
        return UNWRITTEN


@lru_cache(maxsize=2)
def load(source: Source) -> Dataset:
    """The data of a cell, with their checksum; kept for the next cell that uses them."""
    data = source.load()
    assert data.checksum
    return data


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
        self.attempt = int(job["attempt"])
        self.rows: list[dict[str, Any]] = []
        self.note: dict[str, Any] = {"name": cell.name, "attempt": self.attempt, "share": 0.0}
        self._started = datetime.now(timezone.utc)
        self._clock = time.monotonic()
        self._earlier = 0.0  # seconds of attempts before this one
        self._stopped = False
        self._snapshot_bytes = b""
        self._snapshot_at = self._written_at = self._clock
        self._events = Events(cell, job["tensorboard"])
        self._metric = ""
        self._task = ""

    def stop(self) -> None:
        """Ask the run to end after the current step, so that it can go on later."""
        self._stopped = True

    @property
    def _wall(self) -> float:
        return self._earlier + time.monotonic() - self._clock

    def executed(self) -> int:
        """`execute`, or say what went wrong with the cell."""
        try:
            return self.execute()
        except ResultsError:
            raise
        except Exception as error:
            self.fail(error)
            return 0

    def execute(self) -> int:
        """Train to the end of the budget, and write the result; returns the exit code."""
        cell = self.cell
        torch.set_num_threads(cell.threads)
        data = load(cell.source)
        if data.checksum != cell.data_sha256:
            raise DataError(f"{cell.source.name} is not the same on this machine: copy the files")
        self._metric, self._task = data.metric, data.task
        trainer, step = self._resumed(data)
        budget = Budget(cell.budget, cell.evaluate, trainer)
        status = "running" if self.rows else self._measure(trainer, step, math.nan)
        while status == "running" and step < budget.steps and not budget.is_spent():
            stop = min((step // budget.every + 1) * budget.every, budget.steps)
            reached, loss = trainer.train(
                step, stop, self._reporter(step, budget), self._until(budget)
            )
            if self._stopped or self._is_late():
                # The steps since the last evaluation are taken again, so that the mean loss over
                # them is that of an undisturbed run.
                self._write_checkpoint()
                if self._stopped:
                    return STOPPED
                status = "timed-out"
                break
            step = reached
            status = self._measure(trainer, step, loss)
            self._snapshot(trainer, step)
        self._finish("finished" if status == "running" else status)
        return 0

    def fail(self, error: Exception) -> None:
        """Write what went wrong."""
        expected = isinstance(error, UserError | SAMTError)
        line = " ".join(str(error).split()) or type(error).__name__
        trace = None if expected else "".join(traceback.format_exception(error))
        message = line if expected else f"{type(error).__name__}: {line}"
        self._finish("failed", error=message[:1000], traceback=trace)

    def give_up(self, status: Literal["killed", "timed-out"], error: str) -> None:
        """Write what became of a cell whose process could not write it."""
        self._finish(status, error=error)
        self.store.rest(self.cell.identity)

    def _is_late(self) -> bool:
        return self.job["timeout"] is not None and self._wall > self.job["timeout"]

    def _until(self, budget: Budget) -> Callable[[], bool]:
        return lambda: self._stopped or budget.is_spent() or self._is_late()

    def _reporter(self, start: int, budget: Budget) -> Callable[..., None]:
        def report(steps: int, loss: float, step_sizes: dict[str, float]) -> None:
            share = budget.share(start + steps)
            self.note.update(share=share, loss=loss, wall=self._wall)

        return report

    def _measure(self, trainer: Trainer, step: int, loss: float) -> str:
        """Add a row to the curve; returns the status."""
        epoch = step / trainer.steps_per_epoch
        seen = trainer.measure(math.ceil(epoch), loss)
        self.rows.append(self._row(seen, step, epoch, trainer.method.updates_per_step))
        self.note.update(metric=self._metric, value=seen.test_metric)
        self._events.add(self.rows[-1], self._metric)
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

    def _snapshot(self, trainer: Trainer, step: int) -> None:
        now = time.monotonic()
        every = self.job["checkpoint"]
        if now - self._snapshot_at < min(_SNAPSHOT, every):
            return
        buffer = io.BytesIO()
        content = {
            **trainer.state_dict(),
            "seconds": trainer.seconds,
            "step": step,
            "rows": self.rows,
            "wall": self._wall,
        }
        torch.save(content, buffer)
        self._snapshot_bytes, self._snapshot_at = buffer.getvalue(), now
        if now - self._written_at >= every:
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        if self._snapshot_bytes:
            self.store.save_checkpoint(self.cell.identity, self._snapshot_bytes)
            self._snapshot_bytes, self._written_at = b"", time.monotonic()

    def _resumed(self, data: Dataset) -> tuple[Trainer, int]:
        """A trainer, and the steps that it has taken: those of the checkpoint, if there is one."""
        trainer = Trainer(self.cell.settings, data)
        content = self.store.checkpoint(self.cell.identity)
        if content is None:
            return trainer, 0
        try:
            saved = torch.load(io.BytesIO(content), weights_only=True)
            trainer.load_state_dict(saved, saved["seconds"])
            rows, wall, step = saved["rows"], float(saved["wall"]), int(saved["step"])
        except Exception:  # what a damaged file makes the unpickler raise has no common class
            return Trainer(self.cell.settings, data), 0  # the whole cell again costs only time
        self.rows, self._earlier = rows, wall
        return trainer, step

    def _finish(self, status: str, **more: Any) -> None:
        self.store.save(self.cell.identity, self.summary(status, **more), self.rows)
        if status not in ("timed-out", "killed"):
            self.store.release(self.cell.identity)
        self._events.close()

    def summary(
        self, status: str, error: str | None = None, traceback: str | None = None
    ) -> dict[str, Any]:
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
            "traceback": traceback,
            "task": self._task,
            "metric": self._metric,
            "steps": last.get("step"),
            "epochs": numbers.pop("epoch"),
            **numbers,
            "wall_seconds": self._wall,
            "started": self._started.isoformat(timespec="seconds"),
            "attempts": self.attempt,
            "machine": {**machine(self.cell.device), "jobs": self.job["jobs"]},
            "versions": versions(),
            "commit": self.job["commit"],
        }


if __name__ == "__main__":
    import json

    sys.exit(main(json.load(sys.stdin)))
