"""Where a store can be, what becomes of it on a bad disk, and a model that it must equal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from samt.bench.errors import ResultsError
from samt.bench.experiments.store import STATUSES, Store

from .disks import mounted
from .small_results import ONE, ROW, SUMMARY, TWO, names, one_line

Write = Callable[[Store], object]
WRITES: dict[str, Write] = {
    "result": lambda store: store.save(ONE, {**SUMMARY, "more": "x" * 20_000}, [ROW]),
    "checkpoint": lambda store: store.save_checkpoint(ONE, b"x" * 20_000),
    "heartbeat": lambda store: store.beat(ONE, {"name": "x" * 20_000}),
    "claim": lambda store: store.claim(ONE, {"name": "x" * 20_000}),
    "experiment": lambda store: store.save_experiment("t", {"cells": ["x" * 20_000]}),
}


def fill(disk: Path, but: int) -> Path:
    """Leave so many bytes free."""
    junk = disk / "junk"
    with junk.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    os.truncate(junk, junk.stat().st_size - but)
    return junk


def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=512k"):
        store = Store(str(tmp_path / "disk" / "results"))
        store.save(ONE, SUMMARY, [ROW])
        store.save_checkpoint(ONE, b"old")
        store.save_experiment("t", {"cells": []})
        store.save(TWO, SUMMARY, [ROW] * 2)
        junk = fill(tmp_path / "disk", but=12_288)
        before = names(store)
        for write in WRITES.values():
            with pytest.raises(
                ResultsError, match=r"No space left on device\): free some"
            ) as caught:
                write(store)
            one_line(caught)
        assert [name for name in names(store) if name != "running/.lock"] == before
        assert store.summaries().keys() == {ONE, TWO}
        assert store.damaged == {}
        assert (store.checkpoint(ONE), store.experiments()["t"]["cells"]) == (b"old", [])
        assert (len(store.curve(ONE)), len(store.curve(TWO))) == (1, 2)
        assert store.running() == {}
        junk.unlink()
        for write in WRITES.values():
            write(store)


def test_a_disk_that_can_only_be_read(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=1m"):
        store = Store(str(disk))
        store.save(ONE, SUMMARY, [ROW])
        store.beat(TWO, {})
        remount(disk, "ro")
        actions: list[Write] = [*WRITES.values(), lambda store: store.retract(ONE)]
        for write in actions:
            with pytest.raises(ResultsError, match=f"{disk}.*Read-only file system") as caught:
                write(store)
            one_line(caught)
        assert store.summary(ONE) is not None
        assert len(store.curve(ONE)) == 1
        assert list(store.running()) == [TWO]
        assert store.leftovers() == []
        remount(disk, "rw")


def remount(disk: Path, how: str) -> None:
    assert os.system(f"mount -o remount,{how} {disk}") == 0


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(str(tmp_path / "file"))
    reads: list[Write] = [Store.summaries, Store.identities, Store.running, Store.leftovers]
    for action in (*WRITES.values(), *reads):
        with pytest.raises(ResultsError, match=r"Not a directory|File exists") as caught:
            action(store)
        one_line(caught)


@pytest.mark.parametrize("name", ["a::b", "x y", "[1]*?", "é%20#1", "a:b", "-x", "s3:"])
def test_a_folder_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(name)
    assert (store.local, store.location) == (tmp_path / name, str(tmp_path / name))
    store.save(ONE, SUMMARY, [ROW])
    assert (tmp_path / name / "cells" / f"{ONE}.json").is_file()
    monkeypatch.chdir("/")
    assert Store(store.location).summaries() == store.summaries()
    assert len(store.curve(ONE)) == 1
    store.remove(ONE)
    assert names(store) == []


def test_the_same_folder_by_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Store("~/results").save(ONE, SUMMARY, [])
    for location in (f"file://{tmp_path}/results", f"{tmp_path}/results/", f"{tmp_path}//results"):
        store = Store(location)
        assert store.identities() == {ONE}
        assert store.local == tmp_path / "results"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("nowhere://x", "Protocol not known"),
        ("reference://x", "cannot use reference://x"),
        ("dir://x", "cannot use dir://x"),
        ("zip://none.zip", "cannot use zip://none.zip"),
    ],
)
def test_a_location_that_cannot_be_used(location: str, reason: str) -> None:
    with pytest.raises(ResultsError, match=f"{reason}.*give a folder") as caught:
        Store(location)
    one_line(caught)


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(location: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ResultsError, match=r"Install s3fs to access S3.*give a folder, or install"):
        Store("s3://bucket/x")


@pytest.mark.parametrize("error", [OSError("connection lost"), PermissionError(13, "Forbidden")])
def test_an_object_store_that_fails(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    store = Store("memory://fails")
    store.save(ONE, SUMMARY, [])

    def fail(*_: object, **__: object) -> None:
        raise error

    for name in ("pipe_file", "cat_file", "ls", "rm_file"):
        monkeypatch.setattr(store._fs, name, fail)
    actions: list[Write] = [Store.identities, lambda store: store.summary(ONE)]
    actions += [*WRITES.values(), lambda store: store.remove(ONE)]
    for action in actions:
        with pytest.raises(ResultsError, match=r"connection lost|Forbidden") as caught:
            action(store)
        one_line(caught)


def test_a_file_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.save(ONE, SUMMARY, [])
    (tmp_path / "cells" / f"{TWO}.json").mkdir()
    assert list(store.summaries()) == [ONE]
    assert "Is a directory" in store.damaged[str(tmp_path / "cells" / f"{TWO}.json")]
    assert store.leftovers() == []


# A store and a dictionary

IDENTITIES = st.sampled_from([digit * 16 for digit in "0af"])
NAMES = st.sampled_from(["one", "two"])


class Model(RuleBasedStateMachine):
    """Does the same with a store and with dictionaries."""

    @initialize(local=st.booleans())
    def begin(self, local: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        where = self.folder.name
        self.store = Store(where if local else f"memory:/{where}")
        self.cells: dict[str, dict[str, Any]] = {}
        self.curves: dict[str, int] = {}
        self.checkpoints: dict[str, bytes] = {}
        self.notes: dict[str, int] = {}
        self.experiments: dict[str, list[int]] = {}

    @rule(one=IDENTITIES, status=st.sampled_from(STATUSES), rows=st.integers(0, 2), x=st.floats())
    def save(self, one: str, status: str, rows: int, x: float) -> None:
        self.store.save(one, {"status": status, "cell": {"x": 1}, "seconds": rows}, [ROW] * rows)
        self.cells[one] = {"status": status, "seconds": rows}
        self.curves[one] = rows

    @rule(one=IDENTITIES, content=st.binary(max_size=9))
    def save_checkpoint(self, one: str, content: bytes) -> None:
        self.store.save_checkpoint(one, content)
        self.checkpoints[one] = content

    @rule(one=IDENTITIES, number=st.integers(0, 9))
    def beat(self, one: str, number: int) -> None:
        self.store.beat(one, {"number": number})
        self.notes[one] = number

    @rule(one=IDENTITIES)
    def claim(self, one: str) -> None:
        assert self.store.claim(one, {"number": 0}) == (one not in self.notes)
        self.notes.setdefault(one, 0)

    @rule(one=IDENTITIES)
    def retract(self, one: str) -> None:
        self.store.retract(one)
        self.cells.pop(one, None)

    @rule(one=IDENTITIES)
    def rest(self, one: str) -> None:
        self.store.rest(one)
        self.notes.pop(one, None)

    @rule(one=IDENTITIES)
    def release(self, one: str) -> None:
        self.store.release(one)
        self.notes.pop(one, None)
        self.checkpoints.pop(one, None)

    @rule(one=IDENTITIES)
    def remove(self, one: str) -> None:
        self.store.remove(one)
        for kept in (self.cells, self.curves, self.checkpoints, self.notes):
            kept.pop(one, None)

    @rule(name=NAMES, cells=st.lists(st.integers(0, 9), max_size=2))
    def save_experiment(self, name: str, cells: list[int]) -> None:
        self.store.save_experiment(name, {"cells": cells})
        self.experiments[name] = cells

    @rule()
    def tidy(self) -> None:
        for path in self.store.leftovers():
            self.store.delete(path)
        goes_on = ("timed-out", "killed")
        self.curves = {k: v for k, v in self.curves.items() if k in {**self.cells, **self.notes}}
        self.checkpoints = {
            one: content
            for one, content in self.checkpoints.items()
            if one not in self.cells or self.cells[one]["status"] in goes_on
        }

    @rule()
    def come_back(self) -> None:
        self.store = Store(self.store.location)

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def they_are_equal(self) -> None:
        store, found = self.store, self.store.summaries()
        kept = {one: {key: found[one][key] for key in ("status", "seconds")} for one in found}
        assert kept == self.cells
        assert store.identities() == self.cells.keys()
        assert {one: note["number"] for one, note in store.running().items()} == self.notes
        for one in (digit * 16 for digit in "0af"):
            assert store.checkpoint(one) == self.checkpoints.get(one)
            assert store.summary(one) == found.get(one)
        for one, rows in self.curves.items():
            assert len(store.curve(one)) == rows
        assert {one: record["cells"] for one, record in store.experiments().items()} == (
            self.experiments
        )
        assert store.damaged == {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
