"""A reader beside writers that are killed at their writes: it sees whole files, and never fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from samt.bench.experiments.store import Store

from .conftest import ENVIRONMENT
from .faults import Fault, Victims, victims
from .grids import wait_until
from .stored_cells import save_cell, save_experiment

# Ten times as many by hand: SAMT_TEST_FAULTS=all pytest tests/bench/test_reader_beside_faults.py
_KILLS = 40 if os.environ.get("SAMT_TEST_FAULTS") == "all" else 4
_CELLS = 3  # in each merge
# Reads all that there is, again and again, until a line arrives; a file has a byte for each time.
_READER = """
import contextlib, json, os, select, sys
from samt.bench.cli import main
from samt.bench.experiments.frames import cells_frame
from samt.bench.experiments.store import Store

location, loops = sys.argv[1:]
counts, most = {"loops": 0, "cells": 0, "curves": 0}, 0
while True:
    store = Store(location)
    found = store.summaries()
    assert len(found) >= most, "a result is gone"
    most = len(found)
    for identity in found:
        assert len(store.curve(identity)) == 3
        assert store.summary(identity)["status"] == "finished"
    record = store.experiment("first")
    assert set(store.experiments()) == {"first"} and record["title"] == "title of first"
    assert len(cells_frame(store)) >= most
    assert not store.damaged, store.damaged
    if counts["loops"] % 3 == 0:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            try:
                main(["results", "show", "first", "--results", location])
            except SystemExit as ended:
                assert ended.code == 0, ended.code
    counts["loops"] += 1
    counts["cells"] = most
    with open(loops, "a") as file:
        file.write(".")
    if select.select([sys.stdin], [], [], 0)[0]:
        print(json.dumps(counts))
        break
"""


@contextmanager
def reading(location: Path, loops: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", "-c", _READER, str(location), str(loops)]
    pipe = subprocess.PIPE
    reader = subprocess.Popen(
        command,
        env={**os.environ, **ENVIRONMENT},
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )
    try:
        yield reader
    finally:
        reader.kill()
        reader.communicate()


def _others(folder: Path, number: int) -> Path:
    """Results of which nobody has heard."""
    store = Store(str(folder / f"other{number}"))
    for cell in range(_CELLS):
        save_cell(store, "SGD", 1000 + _CELLS * number + cell)
    return folder / f"other{number}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    with victims(tmp_path_factory.mktemp("victims")) as started:
        started.run(Path("/nowhere"), ("--help",))  # when everything is imported
        yield started


def test_a_reader_sees_whole_files_beside_writers_that_are_killed(
    running: Victims, tmp_path: Path
) -> None:
    location = tmp_path / "work" / "results"
    store = Store(str(location))
    cells = {save_cell(store, label, 0): label for label in ("SAMT", "SGD")}
    save_experiment(store, "first", cells)
    loops = tmp_path / "loops"
    with reading(location, loops) as reader:

        def read_again(times: int) -> None:
            """Wait until the reader has read everything so many more times, or has failed."""
            before = loops.stat().st_size if loops.exists() else 0
            wait_until(
                lambda: (
                    reader.poll() is not None
                    or (loops.exists() and loops.stat().st_size >= before + times)
                )
            )
            assert reader.poll() is None, reader.communicate()[1]

        def merge(other: Path, fault: Fault) -> int:
            words = ("results", "merge", other, "--results", location)
            done = running.run(tmp_path / "work", words, fault)
            calls.append(len(done.calls))
            return done.code

        calls: list[int] = []
        read_again(1)
        assert merge(_others(tmp_path, 0), Fault()) == 0
        for kill in range(_KILLS):
            other = _others(tmp_path, kill + 1)
            mode = ("before", "after")[kill % 2]
            at = 1 + (kill * 7) % calls[0]
            assert merge(other, Fault(mode, at)) == -9
            read_again(2)  # the second time begins after the kill
            assert merge(other, Fault()) == 0
        read_again(2)
        said, complained = reader.communicate("enough\n", timeout=300)
        assert reader.returncode == 0, complained
    counts = json.loads(said)
    assert counts["cells"] == len(cells) + _CELLS * (_KILLS + 1)
    assert counts["loops"] > 2
