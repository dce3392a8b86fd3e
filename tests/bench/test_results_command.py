"""`samt results list | show | export | prune`."""

from __future__ import annotations

import json
import math
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from samt.bench.commands import results as command
from samt.bench.experiments.curves import curve_schema
from samt.bench.experiments.frames import (
    CELL_COLUMNS,
)
from samt.bench.experiments.store import Store

from .conftest import Samt
from .stored_cells import (
    MISSING,
    contents,
    first_experiment,
    place,
    save_cell,
    save_experiment,
    words,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An experiment with results of every kind."""
    return first_experiment(str(tmp_path / "results"))


def test_list(samt_here: Samt, store: Store) -> None:
    outcome = samt_here("results", "list", "--results", store.location)
    assert (outcome.code, outcome.err) == (0, "")
    text = words(outcome.out)
    assert "experiment cells finished diverged killed missing" in text
    assert "first 5 3 0 1 1" in text
    assert "(of no experiment) 1 0 1 0 0" in text
    empty = samt_here("results", "list", "--results", f"{store.location}/nothing")
    empty.is_user_error(f"there are no results in {store.location}/nothing", "--results")


def test_location_comes_from_the_environment(
    samt_here: Samt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store
) -> None:
    monkeypatch.setenv("SAMT_RESULTS", store.location)
    assert "first" in samt_here("results", "list").out
    monkeypatch.delenv("SAMT_RESULTS")
    monkeypatch.chdir(tmp_path)
    assert "first" in samt_here("results", "list").out


def test_show_an_experiment(samt_here: Samt, store: Store) -> None:
    outcome = samt_here("results", "show", "first", "--results", store.location)
    assert (outcome.code, outcome.err) == (0, "")
    text = words(outcome.out)
    for piece in (
        "first: title of first",
        "5 cells: 3 finished, 1 killed, 1 missing",
        "without mnist: put it there",
        "digits · mlp 300",
        "SAMT 85.00 % 85.00 % 0.25 2.0 100 2 finished ± 7.07 %",
        "sgd [plain] nan % nan % nan nan nan 2 killed 1/2".replace(" %", ""),
        "SAMT 1.00 1",
        "sgd [plain] 2.00 1",
        "1 did not finish",
    ):
        assert piece in text, piece


def test_show_differences_against_a_method(samt_here: Samt) -> None:
    store = Store("memory://against")
    cells = {}
    for label, values in {"a": (0.9, 0.8, 0.7), "b": (0.5, 0.5, 0.5)}.items():
        for seed, value in enumerate(values):
            cells[save_cell(store, label, seed, value, best_test_metric=1 - value)] = label
    save_experiment(store, "one", cells)
    show = ("results", "show", "one", "--results", "memory://against")
    text = words(samt_here(*show, "--against", "b").out)
    assert re.search(r"digits · mlp 300 a b \+30\.00 \+2\d\.\d\d to \+[34]\d\.\d\d 3", text)
    text = words(samt_here(*show, "--metric", "best").out)
    assert "mean rank by best test metric" in text
    assert re.search(r"digits · mlp 300 a b −30\.00", text)
    samt_here(*show, "--against", "c").is_user_error("--against c", "'a'", "'b'")
    samt_here(*show, "--metric", "last").is_user_error("--metric last", "final or best")


def test_show_what_tuning_chose(samt_here: Samt) -> None:
    store = Store("memory://tuned")
    final = {
        save_cell(store, "samt", seed, 0.9, tuned={"lr": 0.1, "meta_lr": 0.01}): "samt"
        for seed in (0, 1)
    }
    tuning = save_cell(store, "samt:lr=9", role="tuning", validation_metric=0.5)
    cells = [place(store, identity, label) for identity, label in final.items()]
    store.save_experiment("one", {"cells": [place(store, tuning, "samt:lr=9"), *cells]})
    text = words(samt_here("results", "show", "one", "--results", "memory://tuned").out)
    assert 'digits · mlp 300 samt "lr": 0.1, "meta_lr": 0.01' in text
    assert text.count('"lr"') == 1
    assert "samt: lr=9" not in text


def test_show_a_cell(samt_here: Samt, store: Store) -> None:
    identity = save_cell(
        store, "samt", 7, 0.9, status="failed", traceback="Traceback …\n  [line]", evaluations=400
    )
    outcome = samt_here("results", "show", identity[:9], "--results", store.location)
    assert (outcome.code, outcome.err) == (0, "")
    text = words(outcome.out)
    for piece in (
        identity,
        "status failed",
        "error it broke",
        "cell.options.step_size row",
        "Traceback … [line]",
        "25 of 400 evaluations",
        "399 0.0025 0.5 90.00 % 199.50 19950",
    ):
        assert piece in text, piece


def test_long_names_of_a_cell_do_not_run_into_their_values(samt_here: Samt, store: Store) -> None:
    identity, options = 16 * "a", {"inner_steps": 1, "inner_iterations": 5}
    store.save(identity, {"status": "finished", "cell": {"options": options}}, [])
    out = samt_here("results", "show", identity, "--results", store.location).out
    assert re.search(r"options\.inner_steps +1\n", out)
    assert re.search(r"options\.inner_iterations +5\n", out)


def test_show_says_what_is_wrong(samt_here: Samt, store: Store) -> None:
    def show(name: str) -> Any:
        return samt_here("results", "show", name, "--results", store.location)

    show("frist").is_user_error("'frist'", "did you mean 'first'?")
    show("abc").is_user_error("no experiment 'abc'")
    show("fffffff0").is_user_error("no cell 'fffffff0'", "'first'")
    store.beat(MISSING, {"name": "x"})
    show(MISSING[:4]).is_user_error(MISSING, "it runs now")
    one, two = "abcd" + 12 * "0", "abcd" + 12 * "1"
    for identity in (one, two):
        store.save(identity, {"status": "finished", "cell": {}}, [])
    show("abcd").is_user_error("write more digits", one, two)
    assert show(one).code == 0
    (Path(store.location) / "cells" / f"{one}.json").write_text("{")
    show(one).is_user_error("damaged", "samt results prune")
    (Path(store.location) / "curves" / f"{two}.parquet").write_bytes(b"PAR1")
    show(two).is_user_error("damaged", "samt results prune")


def test_damaged_files_are_reported_and_the_rest_is_shown(samt_here: Samt, store: Store) -> None:
    bad = Path(store.location) / "cells" / f"{MISSING}.json"
    bad.write_text("{'")
    for words_ in (("list",), ("show", "first")):
        outcome = samt_here("results", *words_, "--results", store.location)
        assert outcome.code == 0
        assert outcome.err.splitlines() == [
            f"samt: left out {bad}: damaged, or written by another version of samt"
        ]
        assert "first" in outcome.out


# Export


def exported(samt_here: Samt, store: Store, path: Path, *more: str) -> pd.DataFrame:
    outcome = samt_here("results", "export", "-o", path, "--results", store.location, *more)
    assert (outcome.code, outcome.err) == (0, "")
    if path.suffix == ".json":
        assert "NaN" not in path.read_text()
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".json": pd.read_json}
    frame = readers[path.suffix](path)
    assert f"{len(frame)} rows" in outcome.out
    assert isinstance(frame, pd.DataFrame)
    return frame


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_export_of_cells(samt_here: Samt, store: Store, tmp_path: Path, form: str) -> None:
    odd = save_cell(store, "odd", 3, 0.1 + 0.2, train_loss=1e-300)
    frame = exported(samt_here, store, tmp_path / f"cells.{form}")
    assert tuple(frame.columns) == CELL_COLUMNS
    assert len(frame) == 6
    row = frame[frame["identity"] == odd].iloc[0]
    assert (row["test_metric"], row["train_loss"], row["seed"]) == (0.1 + 0.2, 1e-300, 3)
    assert frame["test_metric"].isna().sum() == 1
    part = exported(samt_here, store, tmp_path / f"part.{form}", "--experiment", "first")
    assert list(part["status"])[-1] == "missing"


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_export_of_curves(samt_here: Samt, store: Store, tmp_path: Path, form: str) -> None:
    frame = exported(samt_here, store, tmp_path / f"curves.{form}", "--curves")
    assert list(frame.columns) == curve_schema().names
    assert len(frame) == 15
    sizes = frame["step_sizes"].iloc[0]
    expected = {"hidden1": 0.1, "output": None}
    if form == "parquet":
        assert sizes[0] == ("hidden1", 0.1)
        assert math.isinf(frame["train_loss"].max())
    else:
        assert (json.loads(sizes) if form == "csv" else sizes) == expected
    part = exported(
        samt_here, store, tmp_path / f"part.{form}", "--curves", "--experiment", "first"
    )
    assert len(part) == 12


def test_export_of_nothing(samt_here: Samt, tmp_path: Path) -> None:
    for form in ("csv", "parquet"):
        store = Store(str(tmp_path / "nothing"))
        path = tmp_path / f"empty.{form}"
        assert tuple(exported(samt_here, store, path).columns) == CELL_COLUMNS
        assert exported(samt_here, store, path, "--curves").empty


def test_export_says_what_is_wrong(samt_here: Samt, store: Store, tmp_path: Path) -> None:
    def export(*more: str | Path) -> Any:
        return samt_here("results", "export", "--results", store.location, *more)

    export("-o", tmp_path / "cells.xlsx").is_user_error("--format xlsx", "'csv'")
    export("-o", tmp_path / "cells").is_user_error("--format", "'parquet'")
    export("-o", tmp_path / "no" / "cells.csv").is_user_error("cannot write", "another -o")
    export("-o", tmp_path / "a.csv", "--experiment", "x").is_user_error("'first'")
    export().is_user_error("-o")
    assert not list(tmp_path.glob("*.csv"))


# Prune


def test_prune_by_status(samt_here: Samt, store: Store) -> None:
    killed = next(
        one for one, summary in store.summaries().items() if summary["status"] == "killed"
    )
    prune = ("results", "prune", "--results", store.location, "--status", "killed,failed")
    before = contents(store)
    dry = samt_here(*prune, "--dry-run")
    assert "0 files and 1 result to remove" in dry.out
    assert f"{killed} killed digits mlp 300 sgd 1" in words(dry.out)
    samt_here(*prune).is_user_error("--yes", "--dry-run")
    assert contents(store) == before
    store.beat(killed, {"name": "tried again"})
    assert "0 files and 0 results to remove" in samt_here(*prune, "--yes").out
    store.rest(killed)
    store.save_checkpoint(killed, b"where it goes on")
    assert "0 files and 1 result removed" in samt_here(*prune, "--yes").out
    assert not [name for name in contents(store) if killed in name]
    assert len(store.summaries()) == 4
    prune = (*prune[:-1], "kiled")
    samt_here(*prune).is_user_error("--status kiled", "did you mean 'killed'?")


def test_prune_of_leftovers(samt_here: Samt, store: Store) -> None:
    folder = Path(store.location)
    good, damaged, curveless, *_ = sorted(store.identities())
    (folder / "curves" / f"{MISSING}.parquet").write_bytes(b"of no cell")
    (folder / "cells" / f"{damaged}.json").write_text("[]")
    (folder / "curves" / f"{curveless}.parquet").write_bytes(b"PAR1")
    (folder / "experiments" / "broken.json").write_text("")
    prune = ("results", "prune", "--results", store.location)
    before = contents(store)
    dry = samt_here(*prune, "--dry-run")
    assert "1 result to remove" in dry.out
    assert contents(store) == before
    assert samt_here(*prune, "--yes").code == 0
    names = " ".join(contents(store))
    assert good in names
    for gone in (damaged, curveless, MISSING, "broken"):
        assert gone not in names
    assert "0 files and 0 results to remove" in samt_here(*prune).out


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("\n", 1), ("no\n", 1), ("", 1)])
def test_prune_asks_on_a_terminal(
    samt_here: Samt, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    location = f"memory://asked-{len(answer)}"
    store = Store(location)
    save_cell(store, status="failed")
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    outcome = samt_here("results", "prune", "--results", location, "--status", "failed")
    assert outcome.code == 0
    assert ("nothing removed" in outcome.out) == bool(left)
    assert len(store.summaries()) == left


def test_help_teaches(samt_here: Samt) -> None:
    for name in ("list", "show", "export", "merge", "prune"):
        assert "SAMT_RESULTS" in samt_here("results", name, "--help").out
    assert command.app.info.help is not None
