"""The store of results: what is written comes back, what is damaged does no harm."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samt.bench.errors import ResultsError
from samt.bench.experiments.curves import curve_schema
from samt.bench.experiments.records import as_json
from samt.bench.experiments.store import STATUSES, Store

from .small_results import ONE, ROW, SUMMARY, TWO, names, one_line


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store, in a folder and in an object store."""
    return Store(str(tmp_path / "results") if request.param == "folder" else f"memory:/{tmp_path}")


def put(store: Store, path: str, content: bytes) -> None:
    """Write a file behind the back of the store."""
    store._fs.makedirs(f"{store._root}/{path}".rsplit("/", 1)[0], exist_ok=True)
    store._fs.pipe_file(f"{store._root}/{path}", content)


# What is written comes back


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert (store.summaries(), store.identities(), store.running()) == ({}, set(), {})
    assert (store.experiments(), store.leftovers()) == ({}, [])
    assert (store.summary(ONE), store.checkpoint(ONE), store.experiment("t")) == (None, None, None)
    with pytest.raises(ResultsError, match="is not there: run the cell again"):
        store.curve(ONE)
    for action in (store.retract, store.rest, store.release, store.remove):
        action(ONE)  # what is not there is not missed


def test_a_result_comes_back(store: Store) -> None:
    store.save(ONE, {**SUMMARY, "test_metric": math.nan, "deep": [{"x": -math.inf}]}, [ROW, {}])
    expected = {**SUMMARY, "test_metric": None, "deep": [{"x": None}]}  # JSON has no NaN
    summary = store.summary(ONE)
    assert summary == {"schema": 1, "identity": ONE, **expected}
    assert store.summaries() == {ONE: summary}
    assert store.identities() == {ONE}
    curve = store.curve(ONE)
    assert list(curve.columns) == curve_schema().names
    assert list(curve["cell"]) == [ONE, ONE]
    assert curve["test_loss"][0] == ROW["test_loss"]
    assert repr(dict(curve["step_sizes"][0])) == repr(ROW["step_sizes"])
    assert curve.iloc[1].drop(["cell", "step_sizes"]).isna().all()


NUMBERS = st.floats(width=64)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"step": st.integers(0, 2**62), "train_loss": NUMBERS, "seconds": NUMBERS},
        optional={"step_sizes": st.dictionaries(st.text(), NUMBERS), "forward_passes": st.just(1)},
    ),
    max_size=3,
)


@settings(deadline=None, max_examples=50)
@given(rows=ROWS)
def test_every_curve_comes_back_bit_for_bit(rows: list[dict[str, Any]]) -> None:
    store = Store("memory://curves")
    store.save(ONE, SUMMARY, rows)
    curve = store.curve(ONE)
    assert len(curve) == len(rows)
    for name in ("train_loss", "seconds"):
        assert list(map(repr, curve[name].astype(float))) == [repr(row[name]) for row in rows]
    assert list(curve["step"]) == [row["step"] for row in rows]
    sizes = [sorted(map(repr, dict(one).items())) for one in curve["step_sizes"]]
    assert sizes == [sorted(map(repr, row.get("step_sizes", {}).items())) for row in rows]


def test_the_curves_of_a_folder_read_as_one_table(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.save(ONE, SUMMARY, [ROW, ROW])
    store.save(TWO, SUMMARY, [])  # of a cell that failed at once
    table = pd.read_parquet(tmp_path / "curves")
    assert list(table["cell"]) == [ONE, ONE]


def test_the_other_files_come_back(store: Store) -> None:
    store.save_checkpoint(ONE, b"\0" * 1000)
    store.save_checkpoint(ONE, b"newer")
    assert store.checkpoint(ONE) == b"newer"
    store.save_experiment("table2.a_b-c", {"cells": [{"identity": ONE}], "x": math.inf})
    record = {"schema": 1, "cells": [{"identity": ONE}], "x": None}
    assert store.experiments() == {"table2.a_b-c": record}
    assert store.experiment("table2.a_b-c") == record
    store.beat(ONE, {"name": "a cell", "share": 0.5})
    (note,) = store.running().values()
    assert (note["name"], note["share"]) == ("a cell", 0.5)
    assert (note["host"], note["pid"]) == (socket.gethostname(), os.getpid())


def test_retracting_keeps_what_a_cell_goes_on_with(store: Store) -> None:
    store.save(ONE, SUMMARY, [])
    store.save_checkpoint(ONE, b"x")
    store.retract(ONE)
    assert (store.summary(ONE), store.checkpoint(ONE)) == (None, b"x")
    store.save(ONE, SUMMARY, [])
    store.release(ONE)
    assert store.checkpoint(ONE) is None
    assert store.summary(ONE) is not None
    store.remove(ONE)
    assert names(store) == []


# Names


HOSTILE = ("../x", "..", "", "a/b", ONE[:-1], f"{ONE}0", ONE.upper(), f"{ONE[:-1]}\n", f"../{ONE}")


@pytest.mark.parametrize("identity", HOSTILE)
def test_what_is_no_identity_is_refused(store: Store, identity: str) -> None:
    actions: list[Callable[[], Any]] = [
        lambda: store.save(identity, SUMMARY, []),
        lambda: store.save_checkpoint(identity, b""),
        lambda: store.beat(identity, {}),
        lambda: store.claim(identity, {}),
        *(
            lambda read=read: read(identity)
            for read in (store.summary, store.curve, store.checkpoint, store.retract)
        ),
        *(lambda end=end: end(identity) for end in (store.remove, store.rest, store.release)),
    ]
    for action in actions:
        with pytest.raises(ResultsError, match="no identity of a cell: it has 16 digits") as caught:
            action()
        one_line(caught)
    assert [name for name in names(store) if name != "running/.lock"] == []


@pytest.mark.parametrize("name", ["../x", "", ".", ".x", "a/b", "x" * 101, "a\n", "a b", "é"])
def test_what_cannot_be_the_name_of_a_file_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ResultsError, match="rename it"):
        store.save_experiment(name, {"cells": []})
    with pytest.raises(ResultsError, match="rename it"):
        store.experiment(name)
    assert names(store) == []


FOREIGN = (
    *("cells/notes.json", f"cells/{ONE.upper()}.json", f"cells/{ONE}.json.bak", f"cells/{ONE}"),
    *("cells/.hidden", f"cells/{ONE}.json/deeper", "curves/notes.txt", "curves/mine.parquet"),
    *("running/x.json", "running/.lock", "checkpoints/notes.pt", "experiments/.a.json"),
    *("experiments/a b.json", "experiments/readme.md", "notes.txt", "curves/copy.tmp"),
)


def test_files_of_others_are_left_alone(store: Store) -> None:
    for path in FOREIGN:
        put(store, path.replace(ONE, TWO) if "deeper" in path else path, b"{}")
    assert (store.summaries(), store.identities(), store.running()) == ({}, {TWO}, {})
    assert store.experiments() == {}
    assert store.leftovers(older=-1) == []


# Damage


DAMAGED = {
    "empty": b"",
    "cut": as_json({"schema": 1, **SUMMARY})[:-9],
    "no text": b"\xff\xfe",
    "no record": b"[]",
    "null": b"null",
    "without status": as_json({"schema": 1, "cell": {}}),
    "unknown status": as_json({"schema": 1, **SUMMARY, "status": "happy"}),
    "without cell": as_json({"schema": 1, **SUMMARY, "cell": None}),
    "without schema": as_json(SUMMARY),
    "text for a number": as_json({"schema": 1, **SUMMARY, "wall_seconds": "long"}),
}
NEWER = as_json({"schema": 2, **SUMMARY})


@pytest.mark.parametrize("content", [*DAMAGED.values(), NEWER], ids=[*DAMAGED, "newer"])
def test_a_damaged_summary_is_left_out_and_named(store: Store, content: bytes) -> None:
    store.save(TWO, SUMMARY, [])
    put(store, f"cells/{ONE}.json", content)
    path = f"{store._root}/cells/{ONE}.json"
    assert store.summary(ONE) is None
    assert list(store.summaries()) == [TWO]
    assert list(store.damaged) == [path]
    # What a newer version wrote is not what to tidy up.
    assert store.leftovers() == ([] if content == NEWER else [path])
    store.save(ONE, SUMMARY, [])
    assert store.summary(ONE) is not None
    assert store.damaged == {}


def test_the_curve_of_a_newer_version_is_no_leftover(store: Store) -> None:
    store.save(ONE, SUMMARY, [])
    put(store, f"cells/{ONE}.json", NEWER)
    assert store.leftovers() == []


def test_other_damaged_records_are_left_out_and_named(store: Store) -> None:
    put(store, "experiments/a.json", as_json({"schema": 1, "cells": {}}))
    put(store, "experiments/b.json", b"{")
    put(store, f"running/{ONE}.json", as_json({"time": "now"}))
    assert (store.experiments(), store.running()) == ({}, {})
    assert store.experiment("a") is None
    assert len(store.damaged) == 3
    assert store.claim(ONE, {})
    assert list(store.running()) == [ONE]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), cut=st.booleans(), kind=st.sampled_from(["curves", "cells"]))
def test_whatever_happens_to_a_file_it_is_read_or_refused(
    data: st.DataObject, cut: bool, kind: str
) -> None:
    store = Store("memory://damage")
    store.save(ONE, SUMMARY, [ROW] * 3)
    path = f"{kind}/{ONE}.{'json' if kind == 'cells' else 'parquet'}"
    whole = bytearray(store._fs.cat_file(f"{store._root}/{path}"))
    position = data.draw(st.integers(0, len(whole) - 1))
    if cut:
        del whole[position:]
    else:
        whole[position] ^= data.draw(st.integers(1, 255))
    put(store, path, bytes(whole))
    if kind == "cells":
        summary = store.summary(ONE)
        assert summary is None or summary["status"] in STATUSES
        return
    try:
        curve = store.curve(ONE)
    except ResultsError:
        return
    assert list(curve.columns) == curve_schema().names


def test_a_number_of_a_curve_that_changed_is_noticed() -> None:
    store = Store("memory://changed")
    store.save(ONE, SUMMARY, [ROW] * 3)
    before = repr(store.curve(ONE).to_dict("records"))
    path = f"{store._root}/curves/{ONE}.parquet"
    whole = store._fs.cat_file(path)
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for position in range(4, pages, 5):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        store._fs.pipe_file(path, bytes(content))
        try:
            assert repr(store.curve(ONE).to_dict("records")) == before
        except ResultsError:
            refused += 1
    assert refused > pages / 5 / 3


def test_a_file_of_another_kind_is_no_curve(store: Store) -> None:
    store.save(ONE, SUMMARY, [ROW])
    frame = pd.DataFrame({"step": [1]})
    put(store, f"curves/{ONE}.parquet", frame.to_parquet())
    with pytest.raises(ResultsError, match="damaged: run samt results prune"):
        store.curve(ONE)


# Who works on what


def dead() -> int:
    """The number of a process that is not there any more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("note", "alive"),
    [
        ({}, True),
        ({"pid": 1}, True),
        ({"pid": dead()}, False),
        ({"pid": 2**70}, False),
        ({"pid": dead(), "host": "elsewhere"}, True),
        ({"pid": None}, True),
        ({"time": time.time() - 3600}, False),
        ({"time": time.time() + 3600}, False),
        ({"time": time.time() - 3600, "host": "elsewhere"}, False),
    ],
)
def test_a_cell_is_worked_on_while_its_process_says_so(
    store: Store, note: dict[str, Any], alive: bool
) -> None:
    store.beat(ONE, note)
    assert (ONE in store.running()) == alive
    assert store.claim(ONE, {"mine": True}) == (not alive)
    assert list(store.running()) == [ONE]
    assert ("mine" in store.running()[ONE]) == (not alive)


@pytest.mark.parametrize("moment", ["NaN", "Infinity", "-Infinity", "1e400", '"now"', "null"])
def test_a_heartbeat_without_a_time_is_none(store: Store, moment: str) -> None:
    note = {"host": "elsewhere", "pid": 1, "time": 0}
    put(store, f"running/{ONE}.json", json.dumps(note).replace("0}", f"{moment}}}").encode())
    assert store.running() == {}
    assert store.claim(ONE, {})


def test_a_cell_can_be_claimed_again_when_nobody_works_on_it(store: Store) -> None:
    assert store.claim(ONE, {})
    assert not store.claim(ONE, {})
    assert store.claim(TWO, {})
    store.rest(ONE)
    assert store.claim(ONE, {})


# Tidying up


def test_leftovers_are_what_nothing_needs(store: Store) -> None:
    done, going, alone, late = (digit * 16 for digit in "1234")
    for identity, status in ((done, "finished"), (late, "timed-out")):
        store.save(identity, {**SUMMARY, "status": status}, [ROW])
        store.save_checkpoint(identity, b"x")
    store.save(going, SUMMARY, [ROW])
    store.retract(going)
    store.beat(going, {})
    store.save(alone, SUMMARY, [ROW])
    store.retract(alone)
    store.save_checkpoint(alone, b"where it goes on")
    store.beat(alone, {"pid": dead()})
    store.save_experiment("t", {"cells": []})
    before = names(store)
    found = store.leftovers()
    short = {path.removeprefix(f"{store._root}/") for path in found}
    assert short == {f"checkpoints/{done}.pt", f"curves/{alone}.parquet", f"running/{alone}.json"}
    for path in found:
        store.delete(path)
    assert set(names(store)) == set(before) - short
    assert store.leftovers() == []
    assert store.summaries().keys() == {done, late}


def test_temporary_files_are_leftovers_when_they_are_old(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.save(ONE, SUMMARY, [])
    paths = [tmp_path / "cells" / f".{ONE}.json.{n * 32}.tmp" for n in "ab"]
    for path in paths:
        path.write_bytes(b"{")
    os.utime(paths[0], (0, 0))
    assert store.leftovers() == [str(paths[0])]
    assert store.leftovers(older=-60) == list(map(str, paths))
    assert (list(store.summaries()), store.damaged) == ([ONE], {})


def test_the_files_of_another_cell_are_not_taken_for_a_result(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.save(ONE, SUMMARY, [ROW])
    for folder, ending in (("cells", "json"), ("curves", "parquet")):
        content = (tmp_path / folder / f"{ONE}.{ending}").read_bytes()
        (tmp_path / folder / f"{TWO}.{ending}").write_bytes(content)
    assert set(store.summaries()) == {ONE}
    assert list(store.damaged) == [str(tmp_path / "cells" / f"{TWO}.json")]
    with pytest.raises(ResultsError, match="damaged"):
        store.curve(TWO)
    assert len(store.curve(ONE)) == 1
