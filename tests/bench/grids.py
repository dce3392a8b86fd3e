"""Small experiments, run by real processes, and their results compared."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import psutil

from samt.bench.experiments.store import Store

from .conftest import COMMAND, ENVIRONMENT

T = TypeVar("T")

# What differs from run to run: clocks, and where a cell ran.
_VOLATILE = {"seconds", "wall_seconds", "started", "attempts", "machine", "commit"}


def write_grid(path: Path, text: str) -> Path:
    """An experiment file on digits."""
    path.write_text(f"name: grid\ndata: digits\n{text}", encoding="utf-8")
    return path


def run_command(file: Path, results: Path, *more: object) -> list[str]:
    """The words of `samt run`, quick to save and with two jobs."""
    words = ["run", file, "--results", results, "--checkpoint", "0.05", "--jobs", "2", *more]
    return [*COMMAND, *map(str, words)]


@contextmanager
def running(file: Path, results: Path, *more: object) -> Iterator[psutil.Popen]:
    """A runner in the background; at the end it and all that it started are gone."""
    process = psutil.Popen(
        run_command(file, results, *more),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.is_running():
            process.kill()
        process.communicate()


def finish(file: Path, results: Path, *more: object, timeout: float = 600) -> str:
    """Run to the end; returns what was printed."""
    done = subprocess.run(
        run_command(file, results, *more),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def numbers(results: Path | Store) -> dict[str, Any]:
    """All that must be equal between two runs of the same grid."""
    store = results if isinstance(results, Store) else Store(str(results))
    found = {}
    for identity, summary in store.summaries().items():
        curve = store.curve(identity).drop(columns="seconds")
        curve["step_sizes"] = curve["step_sizes"].map(dict).map(str)
        kept = {name: value for name, value in summary.items() if name not in _VOLATILE}
        found[identity] = {**kept, "curve": curve.astype(object).where(curve.notna(), None)}
    assert not store.damaged
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    for identity, cell in one.items():
        pd.testing.assert_frame_equal(
            cell.pop("curve"), other[identity].pop("curve"), check_exact=True
        )
        assert cell == other[identity]


def stamps(results: Path) -> dict[str, int]:
    """When each result that counts was written, in nanoseconds."""
    found: dict[str, int] = {}
    for path in (results / "cells").glob("*.json"):
        if '"status": "finished"' in path.read_text(encoding="utf-8"):
            found[path.stem] = path.stat().st_mtime_ns
    return found


def descendants(process: psutil.Popen) -> list[psutil.Process]:
    """The nursery of a runner, then its cells; a runner also starts git for a moment."""
    try:
        for child in process.children():
            if "samt.bench.experiments.nursery" in child.cmdline():
                return [child, *child.children()]
    except psutil.NoSuchProcess:
        pass
    return []


def wait_until(condition: Callable[[], T], seconds: float = 300) -> T:
    """Poll until something holds, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)
    return found
