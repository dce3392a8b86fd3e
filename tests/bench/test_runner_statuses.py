"""Cells that do not finish: each status is kept, shown, and treated as it should be."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from samt.bench.experiments.store import Store

from .conftest import ENVIRONMENT
from .disks import mounted
from .grids import assert_same, finish, numbers, run_command, stamps, write_grid


def _run(file: Path, results: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        run_command(file, results),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_a_cell_that_took_too_long_goes_on_when_it_has_more_time(tmp_path: Path) -> None:
    grid = "width: 8\nbudget: {epochs: 150}\nmethods: [samt]\n"
    results, whole = tmp_path / "results", tmp_path / "whole"
    store = Store(str(results))
    summary: dict[str, Any] = {"steps": None}
    seconds = 0.5
    while not summary["steps"]:  # a slow machine needs more for the first of the 150 epochs
        seconds *= 2
        short = write_grid(tmp_path / "short.yaml", f"{grid}timeout: {seconds}\n")
        assert _run(short, results).returncode == 1
        (summary,) = store.summaries().values()
        assert summary["status"] == "timed-out"
    assert 0 < summary["steps"] < 150 * 23
    assert summary["epochs"] == store.curve(summary["identity"])["epoch"].iloc[-1]
    again = _run(short, results)
    assert again.returncode == 1
    assert (store.summary(summary["identity"]) or {})["started"] == summary["started"]
    finish(write_grid(tmp_path / "long.yaml", grid), results)
    (finished,) = store.summaries().values()
    assert finished["identity"] == summary["identity"]
    assert finished["status"] == "finished"
    assert finished["wall_seconds"] > summary["wall_seconds"] - 0.5
    finish(write_grid(tmp_path / "whole.yaml", grid), whole)
    assert_same(numbers(results), numbers(whole))


def test_failed_and_diverged_cells_are_kept_with_the_reason(tmp_path: Path) -> None:
    grid = 'model: "cnn:4"\nwidth: 8\nbudget: {epochs: 1}\nmethods: [dladmm, "sgd:lr=1e20", sgd]\n'
    file, results = write_grid(tmp_path / "grid.yaml", grid), tmp_path / "results"
    done = _run(file, results)
    assert done.returncode == 1
    assert "1 diverged, 1 failed, 1 finished" in done.stdout
    found = {one["label"]: one for one in Store(str(results)).summaries().values()}
    assert found["dladmm"]["status"] == "failed"
    assert "solves fully connected networks" in found["dladmm"]["error"]
    assert found["dladmm"]["traceback"] is None  # a user's mistake needs none
    diverged = found["sgd:lr=1e20"]
    assert diverged["status"] == "diverged"
    assert diverged["test_metric"] is None
    assert diverged["best_test_metric"] is None
    # What failed is tried again, what diverged is a result.
    again = _run(file, results)
    assert again.stdout.count("failed  digits") >= 1
    assert "diverged  digits" not in again.stdout


def test_a_full_disk_ends_the_run_in_one_line_and_loses_nothing(tmp_path: Path) -> None:
    grid = "width: [8, 16, 32]\nseeds: 4\nbudget: {epochs: 2}\nmethods: [sgd]\n"
    file, disk, whole = write_grid(tmp_path / "grid.yaml", grid), tmp_path / "disk", tmp_path / "w"
    with mounted(disk, "size=84k"):
        full = _run(file, disk)
        assert full.returncode == 2, full
        assert full.stderr.count("\n") == 1
        assert "free some space" in full.stderr
        finished = stamps(disk)
        assert len(finished) < 12
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        finish(file, disk)
        assert finished.items() <= stamps(disk).items()
        finish(file, whole)
        assert_same(numbers(disk), numbers(whole))


def test_parts_that_are_run_by_themselves_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    methods = "methods: [{method: sgd, tune: {lr: [0.3, 0.1]}}, samt, adam]\n"
    grid = f"width: [8, 4]\nseeds: 2\nbudget: {{epochs: 1}}\n{methods}"
    file, parts, whole = write_grid(tmp_path / "grid.yaml", grid), tmp_path / "a", tmp_path / "b"
    for only in ("method=adam", "width=4", "method=s*"):
        finish(file, parts, "--only", only)
    finish(file, whole)
    records = [Store(str(results)).experiment("grid") for results in (parts, whole)]
    assert records[0] == records[1]
