"""`samt results merge`."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pandas as pd
import pytest

from samt.bench.experiments.frames import cells_frame, experiment_record
from samt.bench.experiments.merge import Merged, merge
from samt.bench.experiments.store import STATUSES, Store

from .conftest import Samt
from .stored_cells import (
    contents,
    first_experiment,
    save_cell,
    save_experiment,
    words,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An experiment with results of every kind."""
    return first_experiment(str(tmp_path / "results"))


def test_merge_copies_what_is_not_there(samt_here: Samt, store: Store, tmp_path: Path) -> None:
    target = Store(str(tmp_path / "target"))
    ours = save_cell(target, "samt", 0, 0.123)  # of the same identity as one of theirs
    new = save_cell(target, "new", 0, 0.5)
    save_experiment(target, "first", {ours: "SAMT", new: "new"})
    before = contents(store)
    outcome = samt_here("results", "merge", store.location, "--results", target.location)
    assert (outcome.code, outcome.err) == (0, "")
    assert "4 copied, 0 replaced, 1 kept, 0 damaged, 1 experiments" in words(outcome.out)
    assert contents(store) == before
    assert target.summaries().keys() == store.summaries().keys() | {new}
    record = experiment_record(target, "first")
    labels = ["SAMT", "SAMT", "SAMT", "new", "sgd [plain]", "sgd [plain]"]
    assert [one["label"] for one in record["cells"]] == labels
    summary = target.summary(ours)
    assert summary is not None
    assert summary["test_metric"] == 0.123
    for identity in store.summaries().keys() - {ours}:
        assert target.summary(identity) == store.summary(identity)
        pd.testing.assert_frame_equal(target.curve(identity), store.curve(identity))
    once = contents(target)
    again = samt_here("results", "merge", store.location, "--results", target.location)
    assert "0 copied, 0 replaced, 5 kept, 0 damaged, 0 experiments" in words(again.out)
    assert contents(target) == once


def test_merge_is_the_same_in_any_order_where_nothing_is_in_both(tmp_path: Path) -> None:
    sources = [Store(str(tmp_path / name)) for name in "abc"]
    for number, source in enumerate(sources):
        save_experiment(source, f"e{number}", {save_cell(source, f"m{number}"): "m"})
    one, other = Store(str(tmp_path / "one")), Store(str(tmp_path / "other"))
    for source in sources:
        assert merge(source, one) == Merged(copied=1, experiments=1)
    for source in reversed(sources):
        merge(source, other)
    assert contents(one) == contents(other)


@pytest.mark.parametrize("theirs", STATUSES)
@pytest.mark.parametrize("ours", STATUSES)
def test_merge_prefers_what_came_to_its_end(ours: str, theirs: str) -> None:
    source, target = Store("memory://theirs"), Store("memory://ours")
    identity = save_cell(source, value=0.2, status=theirs)
    assert save_cell(target, value=0.1, status=ours) == identity
    merge(source, target)
    done = ("finished", "diverged")
    replaced = theirs in done and ours not in done
    summary = target.summary(identity)
    assert summary is not None
    assert summary["status"] == (theirs if replaced else ours)
    assert target.curve(identity)["test_metric"][0] == (0.2 if replaced else 0.1)


def test_merge_leaves_damaged_files_out(samt_here: Samt, store: Store, tmp_path: Path) -> None:
    folder = Path(store.location)
    first, second, third, *_ = sorted(store.identities())
    (folder / "cells" / f"{first}.json").write_bytes(b"\xff{")
    (folder / "curves" / f"{second}.parquet").write_bytes(b"")
    target = Store(str(tmp_path / "target"))
    (tmp_path / "target" / "cells").mkdir(parents=True)
    (tmp_path / "target" / "cells" / f"{third}.json").write_text("half")
    outcome = samt_here("results", "merge", store.location, "--results", target.location)
    assert outcome.code == 0
    assert "3 copied, 0 replaced, 0 kept, 2 damaged" in words(outcome.out)
    lines = outcome.err.splitlines()
    assert len(lines) == 2
    assert f"{first}.json" in lines[0]
    assert f"{second}.parquet" in lines[1]
    assert target.identities() == store.identities() - {first, second}
    assert target.summary(third) is not None


def test_merge_from_an_object_store(samt_here: Samt, tmp_path: Path) -> None:
    source = Store("memory://remote/results")
    identity = save_cell(source, "samt", 0, math.nan, train_loss=math.inf, status="diverged")
    target = str(tmp_path / "target")
    outcome = samt_here("results", "merge", "memory://remote/results", "--results", target)
    assert "1 copied" in outcome.out
    assert Store(target).summary(identity) == source.summary(identity)


def test_merge_says_what_is_wrong(samt_here: Samt, store: Store, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing")
    outcome = samt_here("results", "merge", missing, "--results", store.location)
    outcome.is_user_error("holds no results", "check the path")
    outcome = samt_here("results", "merge", "what://ever", "--results", store.location)
    outcome.is_user_error("what://ever")


def shard(location: str, *cells: str, label: str = "m", definition: str = "d") -> Store:
    """A part of the experiment `one`."""
    store = Store(location)
    save_experiment(store, "one", dict.fromkeys(cells, label), definition)
    return store


def labels_and_identities(store: Store) -> list[tuple[str, str]]:
    return [(one["label"], one["identity"]) for one in experiment_record(store, "one")["cells"]]


def test_parts_of_an_experiment_become_one() -> None:
    stores = []
    for number in range(3):
        store = Store(f"memory://part{number}")
        stores.append(shard(store.location, save_cell(store, "m", number)))
    target = Store("memory://whole")
    for store in stores:
        merge(store, target)
    assert list(cells_frame(target, "one")["seed"]) == [0, 1, 2]
    assert list(cells_frame(target, "one")["status"]) == ["finished"] * 3


@pytest.mark.parametrize(("ours", "theirs"), [(True, True), (True, False), (False, True)])
def test_a_place_is_taken_by_the_cell_with_a_result(ours: bool, theirs: bool) -> None:
    """The same seed with other code has another identity, but the same place."""
    here, there = Store(f"memory://here{ours}{theirs}"), Store(f"memory://there{ours}{theirs}")
    own = save_cell(here, "m", code="new", status="finished" if ours else "killed")
    other = save_cell(there, "m", code="old", status="finished" if theirs else "killed")
    shard(here.location, own)
    shard(there.location, other)
    assert merge(there, here).experiments == (not ours)
    assert labels_and_identities(here) == [("m", own if ours else other)]
    assert merge(there, here).experiments == 0


def test_experiments_that_are_defined_otherwise_stay_apart(samt_here: Samt) -> None:
    here, there = Store("memory://mine"), Store("memory://yours")
    own, other = save_cell(here, "m", 0), save_cell(there, "m", 1)
    shard(here.location, own)
    shard(there.location, other, definition="e")
    outcome = samt_here("results", "merge", "memory://yours", "--results", "memory://mine")
    assert "1 copied" in outcome.out
    assert "one is defined otherwise there" in outcome.out
    assert labels_and_identities(here) == [("m", own)]
    assert here.identities() == {own, other}


def test_experiments_that_are_defined_otherwise_can_be_joined(samt_here: Samt) -> None:
    here, there = Store("memory://here-joined"), Store("memory://there-joined")
    own, other = save_cell(here, "m", 0), save_cell(there, "m", 1)
    shard(here.location, own)
    shard(there.location, other, definition="e")
    before = here.experiments()
    assert samt_here("results", "merge", there.location, "--results", here.location).code == 0
    assert here.experiments() == before
    command = ("results", "merge", there.location, "--redefined", "--results", here.location)
    outcome = samt_here(*command)
    assert outcome.code == 0
    assert "defined otherwise" not in outcome.out
    assert labels_and_identities(here) == [("m", own), ("m", other)]
    (name,) = before
    assert here.experiments()[name]["definition"] == before[name]["definition"]


def test_entries_without_a_place_are_all_kept() -> None:
    entries = [{"identity": f"{n:016x}", "label": "m", "role": "final"} for n in range(4)]
    here, there = Store("memory://plain"), Store("memory://plainer")
    here.save_experiment("one", {"cells": entries[:2]})
    there.save_experiment("one", {"cells": entries[1:]})
    merge(there, here)
    assert experiment_record(here, "one")["cells"] == entries


def test_tables_have_the_order_of_the_file_whatever_came_first() -> None:
    order = {
        "data": ["b", "a"],
        "model": ["mlp"],
        "width": ["8", "16"],
        "label": ["z", "y", "y:lr=1"],
    }
    labels = {"final": ["z", "y", "y:lr=1"], "tuning": ["z:lr=0.1", "y:lr=2", "y:lr=1:eps=3"]}
    names = ("role", "data", "width", "label", "seed")
    right = [
        *itertools.product(["tuning"], order["data"], order["width"], labels["tuning"], [0]),
        *itertools.product(["final"], order["data"], order["width"], labels["final"], [0, 1]),
    ]
    entries = [
        {"identity": f"{n:016x}", "model": "mlp"} | dict(zip(names, values, strict=True))
        for n, values in enumerate(right)
    ]
    mixed = random.Random(0).sample(entries, len(entries))
    here, there = Store("memory://ordered"), Store("memory://disordered")
    here.save_experiment("one", {"order": order, "cells": mixed[:9]})
    there.save_experiment("one", {"cells": mixed[5:]})
    assert merge(there, here).experiments == 1
    assert experiment_record(here, "one")["cells"] == entries
    assert merge(there, here).experiments == 0


@pytest.mark.parametrize("order", [None, 1, [], {"label": 3}, {"label": [["m"], None]}])
def test_an_order_that_is_none_leaves_cells_as_they_come(order: object) -> None:
    labels = ["m", "b", "a"]
    entries = [{"identity": f"{n:016x}", "label": labels[n], "role": "final"} for n in range(3)]
    here, there = Store("memory://strange"), Store("memory://stranger")
    here.save_experiment("one", {"order": order, "cells": entries[:2]})
    there.save_experiment("one", {"order": order, "cells": entries[1:]})
    merge(there, here)
    assert experiment_record(here, "one")["cells"] == entries
