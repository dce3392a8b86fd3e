"""Several processes work with the same store, and some of them die."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from samt.bench.experiments.store import Store

from . import store_workers as work
from .store_workers import ONE

# Forked from a process that has imported everything and has no threads.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([work.__name__])

Start = Callable[..., tuple[BaseProcess, Connection]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a function in a process that ends with the test; it gets a connection to this one."""
    processes: list[BaseProcess] = []

    def begin(function: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
        here, there = _context.Pipe()
        process = _context.Process(target=function, args=(*arguments, there))
        process.start()
        there.close()
        processes.append(process)
        return process, here

    yield begin
    for process in processes:
        process.kill()
        process.join()
        process.close()


def received(connection: Connection) -> Any:
    """What a process says; an error if it says nothing for too long."""
    assert connection.poll(300)
    return connection.recv()


@pytest.mark.parametrize("before", ["nothing", "dead"])
def test_of_many_processes_one_gets_each_cell(tmp_path: Path, start: Start, before: str) -> None:
    """Also when all of them take over what a process left behind."""
    identities = [f"{number:016x}" for number in range(30)]
    if before == "dead":
        process, found = start(work.claim_one, str(tmp_path))
        assert received(found) is True
        process.join()
        note = next((tmp_path / "running").glob("*.json")).read_bytes()
        for identity in identities:
            (tmp_path / "running" / f"{identity}.json").write_bytes(note)
    barrier = _context.Barrier(9)
    connections = [start(work.claim_all, str(tmp_path), identities, barrier)[1] for _ in range(8)]
    barrier.wait(300)
    claimed = [received(connection) for connection in connections]
    notes = Store(str(tmp_path)).running()
    assert sorted(one for several in claimed for one in several) == identities
    owners = {notes[one]["pid"] for several in claimed for one in several}
    assert len(owners) == sum(bool(several) for several in claimed)
    barrier.wait(300)


def test_the_claim_of_a_dead_process_is_taken_over(tmp_path: Path, start: Start) -> None:
    process, found = start(work.claim_one, str(tmp_path))
    assert received(found) is True
    process.join()
    store = Store(str(tmp_path))
    assert (tmp_path / "running" / f"{ONE}.json").is_file()
    assert store.running() == {}
    assert store.claim(ONE, {})
    assert store.running()[ONE]["pid"] == os.getpid()


def is_locked(folder: Path) -> bool:
    with (folder / "running" / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_process_that_is_killed_with_the_lock_blocks_nobody(tmp_path: Path, start: Start) -> None:
    process, ready = start(work.hold_the_lock, str(tmp_path))
    assert received(ready) is True
    assert is_locked(tmp_path)
    _, other = start(work.claim_one, str(tmp_path))
    assert not other.poll(0.3)  # it waits
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert received(other) is True
    assert not is_locked(tmp_path)


def test_a_process_that_was_forked_with_the_lock_blocks_nobody(
    tmp_path: Path, start: Start
) -> None:
    _, found = start(work.fork_with_the_lock, str(tmp_path))
    assert received(found) is True


def read_everything(store: Store) -> int | None:
    """Assert that every file is whole; returns the number of the summary."""
    note = store.running().get(ONE)
    assert note is None or note["text"] == "x" * (note["number"] % 3000)
    for record in store.experiments().values():
        assert len(record["cells"]) == (record["cells"][0] if record["cells"] else 0) % 300
    saved = store.checkpoint(ONE)
    assert saved is None or len(set(saved.split())) == 1
    assert saved is None or saved.count(b" ") == 1000
    summary = store.summary(ONE)
    assert store.damaged == {}
    if summary is None:
        return None
    number = int(summary["cell"]["number"])
    assert summary["cell"] == work.numbered(number)[0]["cell"]
    curve = store.curve(ONE)  # at least as new: it is written first
    step = int(curve["step"][0])
    assert list(curve["step"]) == [row["step"] for row in work.numbered(step)[1]]
    assert step >= number
    return number


def test_readers_never_see_half_of_a_file(tmp_path: Path, start: Start) -> None:
    store = Store(str(tmp_path))
    process, ready = start(work.write_without_end, str(tmp_path))
    assert received(ready) is True
    seen: set[int | None] = set()
    reads = 0
    while process.is_alive() and (reads < 200 or len(seen) < 2):
        seen.add(read_everything(store))
        reads += 1
    ready.send("enough")
    process.join()
    assert process.exitcode == 0
    assert len(seen) > 1
    assert None not in seen
    assert store.leftovers(older=-60) == [
        f"{tmp_path}/running/{ONE}.json",  # of a process that is not there any more
        f"{tmp_path}/checkpoints/{ONE}.pt",
    ]


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.11, 0.17])
def test_a_writer_that_is_killed_leaves_whole_files(
    tmp_path: Path, start: Start, delay: float
) -> None:
    store = Store(str(tmp_path))
    process, ready = start(work.write_without_end, str(tmp_path))
    assert received(ready) is True
    process.join(delay)
    process.kill()
    process.join()
    number = read_everything(store)
    assert number is not None
    for path in store.leftovers(older=-60):
        store.delete(path)
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == {f"{ONE}.json", f"{ONE}.parquet", "t.json"}
    assert read_everything(store) == number
