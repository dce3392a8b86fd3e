"""kill -9 at random moments: nothing that is finished is lost, and the rest goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from samt.bench.experiments.store import Store

from .grids import (
    assert_same,
    descendants,
    finish,
    numbers,
    running,
    stamps,
    wait_until,
    write_grid,
)

_GRID = """
width: [[8], [16, 8]]
seeds: 2
budget: {epochs: 12}
methods:
  - samt
  - samt:step_size=element,relative=true,schedule=cosine
  - sgd:momentum=0.9
  - {method: adam, tune: {lr: [0.001, 0.01]}}
"""
# Fifty by hand: SAMT_TEST_KILLS=50 pytest tests/bench/test_runner_kills.py
_KILLS = int(os.environ.get("SAMT_TEST_KILLS", "8"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(write_grid(folder / "grid.yaml", _GRID), folder / "results")
    return folder / "results"


def test_kills_of_runner_and_workers_lose_nothing_and_change_nothing(
    tmp_path: Path, undisturbed: Path
) -> None:
    file, results = write_grid(tmp_path / "grid.yaml", _GRID), tmp_path / "results"
    chance = random.Random(0)
    before: dict[str, int] = {}
    kills = {"runner": 0, "nursery": 0, "worker": 0}
    while sum(kills.values()) < _KILLS:
        with running(file, results) as runner:
            wait_until(lambda: descendants(runner) or runner.poll() is not None)
            while runner.poll() is None and sum(kills.values()) < _KILLS:
                time.sleep(chance.uniform(0.0, 0.6))
                nursery, *workers = descendants(runner) or [None]
                kind = chance.choice(["runner", "nursery", "worker", "worker", "worker"])
                victim = {"runner": runner, "nursery": nursery}.get(kind)
                victim = chance.choice(workers) if kind == "worker" and workers else victim
                if victim is None or runner.poll() is not None:
                    continue
                try:
                    victim.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
                kills[kind] += 1
                after = stamps(results)
                assert before.items() <= after.items(), "a finished result was lost or redone"
                before = after
                if kind == "runner":
                    break
        if len(before) >= len(numbers(undisturbed)):  # all done: begin again
            results, before = tmp_path / f"results{sum(kills.values())}", {}
    finish(file, results)
    assert before.items() <= stamps(results).items()
    assert_same(numbers(results), numbers(undisturbed))
    store = Store(str(results))
    wait_until(lambda: not store.running())
    assert list((results / "checkpoints").glob("*.pt")) == []


def test_a_cell_whose_process_always_dies_is_kept_as_killed_and_tried_again(
    tmp_path: Path,
) -> None:
    grid = "width: 8\nbudget: {epochs: 1500}\nmethods: [sgd]\n"
    file, results = write_grid(tmp_path / "grid.yaml", grid), tmp_path / "results"
    store = Store(str(results))
    with running(file, results) as runner:
        killed: set[int] = set()
        while runner.poll() is None:
            for worker in descendants(runner)[1:]:
                if worker.pid not in killed:
                    killed.add(worker.pid)
                    worker.kill()
            time.sleep(0.01)
        out, _ = runner.communicate()
    assert runner.returncode == 1, out
    assert len(killed) == 3
    assert "killed" in out
    (summary,) = store.summaries().values()
    assert summary["status"] == "killed"
    assert summary["attempts"] == 3
    assert "SIGKILL" in summary["error"]
    finish(file, results)
    (summary,) = store.summaries().values()
    assert summary["status"] == "finished"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stopped_run_says_how_to_go_on_and_goes_on_inside_its_cells(
    tmp_path: Path, name: str
) -> None:
    grid = "width: 8\nseeds: 2\nbudget: {epochs: 100}\nmethods: [sgd]\n"
    file = write_grid(tmp_path / "grid.yaml", grid)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    with running(file, stopped) as runner:
        wait_until(lambda: any((stopped / "checkpoints").glob("*.pt")))
        runner.send_signal(getattr(signal, name))
        _, err = runner.communicate(timeout=300)
    assert runner.returncode == 130
    assert err.count("\n") == 1
    assert "go on with: samt run" in err
    store = Store(str(stopped))
    assert not store.running()
    unfinished = [path.stem for path in (stopped / "checkpoints").glob("*.pt")]
    assert unfinished
    assert not store.identities() & set(unfinished)
    finish(file, stopped)
    finish(file, whole)
    assert_same(numbers(stopped), numbers(whole))


def test_two_runners_share_a_folder_and_no_cell_runs_twice(
    tmp_path: Path, undisturbed: Path
) -> None:
    file, results = write_grid(tmp_path / "grid.yaml", _GRID), tmp_path / "results"
    with running(file, results) as one, running(file, results) as two:
        outputs = [process.communicate(timeout=600) for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], outputs
    assert_same(numbers(results), numbers(undisturbed))
    assert not list(results.rglob("*.tmp"))
