"""Who starts the process of a cell, and sees to it that something becomes of it.

On this machine a thread of the runner, on a cluster a task: `supervise` is all that they are given.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as NotYet
from typing import Any, Literal

import torch

from samt.bench.errors import ExperimentError, ResultsError
from samt.bench.experiments.cells import Cell
from samt.bench.experiments.code_version import code_version
from samt.bench.experiments.nursery import Child, Nursery
from samt.bench.experiments.store import Store
from samt.bench.experiments.worker import STOPPED, UNWRITTEN, CellRun

Outcome = Literal["done", "stopped", "elsewhere"]
_ATTEMPTS = 3
_POLL = 0.1  # seconds
_GRACE = 60.0  # after its timeout, for a cell that does not end by itself

nursery = Nursery()


class Interrupt:
    """What Ctrl-C means for the cells of this process: first to stop, then to be killed."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.kill = threading.Event()

    def __call__(self, *_: object) -> None:
        """A signal came."""
        (self.kill if self.stop.is_set() else self.stop).set()


interrupt = Interrupt()


def is_done(summary: Mapping[str, Any] | None, timeout: float | None) -> bool:
    """Whether a cell need not run (again).

    Args:
        summary: its result, or None.
        timeout: seconds that it may take now.

    Returns:
        True for a finished or diverged cell, and for one that timed out if it would again. What
        failed or was killed is tried again.
    """
    if summary is None:
        return False
    if summary["status"] == "timed-out":
        return timeout is not None and summary["wall_seconds"] >= timeout
    return summary["status"] in ("finished", "diverged")


def supervise(job: Mapping[str, Any]) -> Outcome:
    """Run one cell in a process of its own, and again if that dies.

    Args:
        job: as `worker.main` takes it.

    Returns:
        "done" if the cell has a result, whatever its status; "stopped" if it can go on later;
        "elsewhere" if another runner works on it.

    Raises:
        ResultsError: results cannot be written or read.
    """
    if interrupt.stop.is_set():
        return "stopped"
    cell, store = Cell.from_job(job), Store(job["store"])
    _check_versions(cell, job["host"])
    identity = cell.identity
    if not store.claim(identity, {"name": cell.name, "attempt": 1, "share": 0.0}):
        return "elsewhere"
    summary = store.summary(identity)
    if summary is not None and is_done(summary, job["timeout"]):
        _tidy(store, identity, summary)
        return "done"
    store.retract(identity)
    run = CellRun(cell, store, job)
    for attempt in range(1, _ATTEMPTS + 1):
        deadline = _Deadline(job["timeout"])
        code, printed = _watched(nursery.start({**job, "attempt": attempt}), deadline)
        summary = store.summary(identity)
        if summary is not None:
            _tidy(store, identity, summary)
            return "done"
        if code == UNWRITTEN:
            with contextlib.suppress(ResultsError):
                store.rest(identity)
            raise ResultsError(printed)
        if code == STOPPED or interrupt.stop.is_set():
            store.rest(identity)
            return "stopped"
        if deadline.is_over or attempt == _ATTEMPTS:
            break
        store.beat(identity, {"name": cell.name, "attempt": attempt + 1, "share": 0.0})
    run.attempt = attempt
    run.give_up("timed-out" if deadline.is_over else "killed", _reason(code, printed))
    return "done"


def _tidy(store: Store, identity: str, summary: Mapping[str, Any]) -> None:
    """What the process of a cell does at its end, but may have been killed before."""
    goes_on = summary["status"] in ("timed-out", "killed")
    (store.rest if goes_on else store.release)(identity)


def supervise_here(job: Mapping[str, Any]) -> Outcome:
    """`supervise` in a thread of the runner: where one cannot write, the others stop too.

    They would be waited for, perhaps for hours, before anybody learns of the error.
    """
    try:
        return supervise(job)
    except BaseException:
        interrupt.stop.set()
        raise


def _check_versions(cell: Cell, host: str) -> None:
    """Refuse a machine of the cluster on which the same cell would be another one."""
    if socket.gethostname() == host:
        return
    here = {"code": code_version(cell.spec.name), "torch": torch.__version__}
    for name, version in here.items():
        if cell.record[name] != version:
            raise ExperimentError(
                f"{socket.gethostname()} has another version of {name} than {host} ({version}, not "
                f"{cell.record[name]}): install the same there"
            )


class _Deadline:
    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout + _GRACE

    @property
    def is_over(self) -> bool:
        return self._at is not None and time.monotonic() > self._at


def _watched(child: Child, deadline: _Deadline) -> tuple[int, str]:
    """Wait for the end of a process, or bring it about."""
    told = False
    while True:
        with contextlib.suppress(NotYet):
            return child.exit.result(timeout=_POLL)
        if interrupt.kill.is_set() or deadline.is_over:
            child.kill()
        elif interrupt.stop.is_set() and not told:
            child.stop()
            told = True


def _reason(code: int, printed: str) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            ended = f"its process was ended by {signal.Signals(-code).name}"
            return f"{ended}, {_ATTEMPTS} times" if not printed else f"{ended}: {printed}"
    return f"its process ended with exit code {code}: {printed}"
