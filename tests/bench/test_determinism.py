"""The same seed gives the same bits: a test for each promise of docs/good-to-know.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ENVIRONMENT
from .determinism_digests import all_digests, data_digests, training_digests
from .grids import assert_same, finish, numbers, write_grid

# Threads that wait for each other in a loop take ages on a busy machine.
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
_SCRIPT = Path(__file__).parent / "determinism_digests.py"


def of_new_process(threads: int, hash_seed: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", _SCRIPT, str(threads)],
        env={**ENVIRONMENT, "PYTHONHASHSEED": hash_seed, **_PASSIVE},
        capture_output=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def of_fork() -> dict[str, str]:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(all_digests(1)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        found: dict[str, str] = json.loads(answer.read())
    os.waitpid(child, 0)
    return found


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    return data_digests() | training_digests()


def test_again_in_the_same_process(here: dict[str, str]) -> None:
    assert data_digests() | training_digests() == here
    assert len(set(here.values())) == len(here)  # each depends on what it is of


def test_in_a_forked_process(here: dict[str, str]) -> None:
    assert of_fork() == here


def test_in_a_new_process_whatever_the_seed_of_hashes(here: dict[str, str]) -> None:
    other = "1" if os.environ.get("PYTHONHASHSEED") == "4242" else "4242"
    assert of_new_process(1, other) == here


def test_with_two_threads_each_time_and_the_same_data_as_with_one(here: dict[str, str]) -> None:
    two = of_new_process(2, "random")
    assert of_new_process(2, "random") == two
    same = [name for name, digest in two.items() if here[name] == digest]
    assert set(same) >= {name for name in here if name.startswith(("data ", "order ", "weights "))}


def test_whatever_the_number_of_jobs(tmp_path: Path) -> None:
    grid = "width: 8\nseeds: 2\nbudget: {epochs: 2}\nmethods: [auto-samt, samt, adam, bcd]\n"
    file = write_grid(tmp_path / "grid.yaml", grid)
    for jobs in (1, 2, 4):
        finish(file, tmp_path / str(jobs), "--jobs", jobs)
        same = numbers(tmp_path / str(jobs)), numbers(tmp_path / "1")
        assert len(same[0]) == 8
        assert_same(*same)
