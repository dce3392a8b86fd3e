"""Runs the suite: processes by joblib, one writer, nothing twice."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeAlias

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from samt.bench.errors import ExperimentError, UserError
from samt.bench.experiments.environment import commit, machine, versions
from samt.bench.suite.plan import Plan
from samt.bench.suite.problem import Problem
from samt.bench.suite.record import Outcome, Settings
from samt.bench.suite.store import Store
from samt.bench.suite.training import train

_SECONDS_BETWEEN_LOOKS = 1.0

Result: TypeAlias = tuple[Settings, "Outcome | str"]


class Watcher(Protocol):
    """Somebody who is told how the suite goes."""

    def begun(self, ready: Mapping[str, Settings], undecided: int) -> None:
        """Learn what is to run now, and how many runs will follow."""

    def ended(self, settings: Settings, result: Outcome | str) -> None:
        """Learn the outcome of a run, or why it has none."""


def run_suite(plan: Plan, store: Store, jobs: int, data_dir: Path | None, watcher: Watcher) -> bool:
    """Run all of a plan that the store does not have.

    Every outcome is in the store as soon as the run ends, so that a kill loses only the runs that
    were under way. A run that raises is kept as a failure, and is tried again by the next call.

    Args:
        plan: the runs.
        store: the store, open for writing.
        jobs: the number of runs at a time.
        data_dir: the folder of the data sets.
        watcher: who is told how it goes.

    Returns:
        Whether every run has an outcome.

    Raises:
        UserError: processes were killed again and again.
    """
    for one in plan.entries:
        one.method.check_installed()
    made = _made()
    known = {identity: row.outcome for identity, row in store.rows().items()}
    failed: set[str] = set()
    killed = False
    with _stoppable():
        while ready := {one: run for one, run in plan.ready(known).items() if one not in failed}:
            watcher.begun(ready, plan.undecided(known))
            before = len(known) + len(failed)
            try:
                for settings, result in _results(ready, plan.problems, jobs, data_dir):
                    if isinstance(result, Outcome):
                        store.add(settings, result, made)
                        known[settings.identity] = result
                    else:
                        store.add_failure(settings, result)
                        failed.add(settings.identity)
                    watcher.ended(settings, result)
            except TerminatedWorkerError as error:
                if killed and before == len(known) + len(failed):
                    raise ExperimentError(
                        "a process was killed twice in the same runs, perhaps for its memory: "
                        "try a smaller --jobs"
                    ) from error
                killed = True
    return not failed


def _results(
    ready: Mapping[str, Settings], problems: Mapping[str, Problem], jobs: int, data_dir: Path | None
) -> Iterator[Result]:
    """Results in the order in which they come."""
    tasks = (
        joblib.delayed(attempt)(run, problems[run.problem], data_dir, os.getpid())
        for run in ready.values()
    )
    with (
        joblib.parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1),
        warnings.catch_warnings(),
    ):
        # It renews processes whose memory has grown, and warns of that.
        warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
        parallel = joblib.Parallel(
            return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs"
        )
        yield from parallel(tasks)


def attempt(settings: Settings, problem: Problem, data_dir: Path | None, runner: int) -> Result:
    """Run one training in a process of its own.

    Args:
        settings: what is to be run.
        problem: the problem that the settings name.
        data_dir: the folder of the data sets.
        runner: the number of the runner's process, with which this one ends.

    Returns:
        The settings, with the outcome or with the reason why there is none.
    """
    if os.getpid() != runner:
        _end_with(runner)
    try:
        return settings, train(settings, problem, data_dir)
    except UserError as error:
        return settings, str(error)
    except Exception:
        return settings, traceback.format_exc(limit=-4)


@cache
def _end_with(runner: int) -> None:
    """End this process when the runner has ended: one that was killed could not say so."""

    def watch() -> None:
        while os.getppid() == runner:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _made() -> dict[str, str]:
    """With what the runs of this process are computed."""
    return {"commit": commit() or "", "cpu": str(machine("cpu")["cpu"]), **versions()}


@contextmanager
def _stoppable() -> Iterator[None]:
    """End the processes of the runs with this one, also when it is asked to end."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous: Callable[[int, FrameType | None], Any] | int | None
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        get_reusable_executor().shutdown(wait=False, kill_workers=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
