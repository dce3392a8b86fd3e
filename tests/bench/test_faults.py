"""Every system call with which a command writes, disturbed: nothing is lost, half or left over."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from samt.bench.experiments.store import Store
from samt.bench.suite import store as suite
from samt.bench.suite.methods import METHODS
from samt.bench.suite.record import Outcome, Settings

from .faults import NONE, Disturbed, Fault, Victims, victims
from .stored_cells import save_cell

# The k-th call for a sample of k by default, and for every k by hand:
# SAMT_TEST_FAULTS=all pytest tests/bench/test_faults.py
_EVERY = os.environ.get("SAMT_TEST_FAULTS") == "all"
_KILLS = 4

Words = Sequence[object]


@dataclass(frozen=True)
class Scenario:
    """A command that writes below a folder.

    Args:
        prepare: what is there before.
        first: words of the command, from the folder and the place of things that are only read.
        again: those of the one that goes on after a fault; the same by default.
        then: those of one that tidies up after that.
        optional: files that may be absent though the command succeeds.
    """

    prepare: Callable[[Path], object]
    first: Callable[[Path, Path], Words]
    again: Callable[[Path, Path], Words] | None = None
    then: Callable[[Path, Path], Words] | None = None
    optional: str = "nothing"


def _train(*more: object) -> Callable[[Path, Path], Words]:
    words = ("--data", "mnist", "--hidden", "4", "--threads", "1", "--device", "cpu")
    return lambda folder, given: (
        *("train", *words, "--data-dir", given / "data", "--run-dir", folder / "run", *more),
    )


def _compare(*more: object) -> Callable[[Path, Path], Words]:
    words = ("--data", "mnist", "--hidden", "4", "--threads", "1", "--device", "cpu")
    return lambda folder, given: (
        *("compare", "sgd", "adam", *words, "--epochs", 1, "--data-dir", given / "data"),
        *("--run-dir", folder / "both", *more),
    )


def _results(*words: object, ending: Words = ()) -> Callable[[Path, Path], Words]:
    return lambda folder, given: (
        *("results", *words, *(folder / "two" / str(name) for name in ending)),
        *("--results", folder / "two" / "results"),
    )


def _nothing(folder: Path) -> None:
    """An empty folder."""


def _copied(name: str) -> Callable[[Path], object]:
    """What was made once for all faults."""
    return lambda folder: shutil.copytree(folder.parent / "given" / name, folder / name)


SCENARIOS = {
    "train": Scenario(_nothing, _train("--epochs", 1), _train("--epochs", 1, "--resume")),
    "resume": Scenario(_copied("run"), _train("--epochs", 2, "--resume")),
    "overwrite": Scenario(_copied("run"), _train("--epochs", 1, "--seed", 5, "--overwrite")),
    "compare": Scenario(_nothing, _compare(), _compare("--resume")),
    "merge": Scenario(
        _copied("two"),
        lambda folder, given: (
            *("results", "merge", given / "two" / "other", "--results", folder / "two" / "results"),
        ),
    ),
    "export": Scenario(
        _copied("two"), _results("export", "--curves", "-o", ending=["curves.parquet"])
    ),
    "prune": Scenario(
        *(_copied("two"), _results("prune", "--status", "failed", "--yes")),
        then=_results("prune", "--yes"),
    ),
    "into": Scenario(
        _copied("suite"),
        lambda folder, given: (
            *("report", given / "suite" / "runs.jsonl", "-o", folder / "report"),
            *("--into", folder / "suite" / "page.md"),
        ),
    ),
    "report": Scenario(
        _copied("two"),
        lambda folder, given: (
            *("report", given / "two" / "results", "-o", folder / "report", "--no-figures"),
        ),
    ),
    "images": Scenario(
        _nothing,
        lambda folder, given: ("data", "prepare", given / "photographs"),
        optional="cache/",
    ),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """Things that commands read."""
    given = tmp_path_factory.mktemp("faults") / "given"
    shutil.copytree(data_dir, given / "data")
    _two_stores(given / "two")
    _suite(given / "suite")
    for number in range(12):
        path = given / "photographs" / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return given


def _two_stores(folder: Path) -> None:
    """Results with a cell that failed; and others, in which it and another one finished."""
    here, there = Store(str(folder / "results")), Store(str(folder / "other"))
    ones = [save_cell(here, label, seed) for label in ("samt", "SGD tuned") for seed in (0, 1)]
    save_cell(here, "Adam tuned", 0, None, status="failed")
    more = [save_cell(there, "Adam tuned", seed) for seed in (0, 1)]
    for store, identities in ((here, ones), (there, more)):
        entries = [{"identity": one, "role": "final", "label": "x"} for one in identities]
        labels = {one: (store.summary(one) or {})["label"] for one in identities}
        cells = [{**entry, "label": labels[str(entry["identity"])]} for entry in entries]
        store.save_experiment("first", {"title": "", "definition": "d", "cells": cells})


def _suite(folder: Path) -> None:
    """A run of the suite, as it is exported, and a page for its table."""
    options = METHODS["adamw-fixed"].complete({})
    settings = Settings(problem="digits", method="adamw-fixed", options=options, seed=0)
    curve = ((0, 90.0), (1_600, 3.0))
    outcome = Outcome(
        final=3.0, diverged=False, steps=1_600, seconds=2.0, curve=curve, state_bytes=8.0
    )
    folder.mkdir()
    with suite.Store(folder.parent / "suite.sqlite", writing=True) as store:
        store.add(settings, outcome, {"commit": ""})
        suite.export(store, folder / "runs.jsonl")
    (folder / "page.md").write_text(
        "# Page\n\n<!-- suite problems -->\n<!-- end of suite problems -->\n\nmore text\n"
    )


@pytest.fixture(scope="module")
def running(given: Path) -> Iterator[Victims]:
    with victims(given.parent) as started:
        made = started.run(given, _train("--epochs", 1)(given, given))
        assert made.code == 0, made
        yield started


@dataclass(frozen=True)
class Undisturbed:
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    calls: Sequence[str]


class Scene:
    """A scenario in its folder, again and again from the beginning."""

    def __init__(self, name: str, running: Victims, given: Path) -> None:
        self.scenario, self._running, self._given = SCENARIOS[name], running, given
        self.folder = given.parent / "work"
        self.before = self.begin()
        done = self.run()
        assert done.code == 0, done
        self.calls, self.after = done.calls, contents(self.folder)
        assert len(done.calls) >= 3
        assert self.before != self.after

    def begin(self) -> dict[str, Any]:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.scenario.prepare(self.folder)
        return contents(self.folder)

    def run(self, fault: Fault = NONE) -> Disturbed:
        return self._running.run(self.folder, self.scenario.first(self.folder, self._given), fault)

    def run_again(self) -> Disturbed:
        words = self.scenario.again or self.scenario.first
        again = self._running.run(self.folder, words(self.folder, self._given))
        if again.code == 0 and self.scenario.then is not None:
            return self._running.run(self.folder, self.scenario.then(self.folder, self._given))
        return again

    def disturb(self, fault: Fault) -> None:
        """One fault, and what must hold then."""
        self.begin()
        done = self.run(fault)
        where = f"{fault} at {self.calls[fault.at - 1]!r}: {done.err}"
        if fault.kills:
            assert done.code == -9, where
        elif done.code == 0:
            missing = self.after.keys() - contents(self.folder).keys()
            assert all(name.startswith(self.scenario.optional) for name in missing), where
            assert done.err == "", where
        else:
            assert fault.mode != "short", where
            done.is_user_error()
        left = contents(self.folder)
        for name, content in left.items():
            if not is_temporary(name):
                assert content != "damaged", f"{name}: {where}"
                self._is_old_or_new(name, content, where)
            else:
                assert fault.kills or fault.mode == "dead" or "unlink" in where, where
        again = self.run_again()
        assert again.code == 0, (where, again)
        assert contents(self.folder) == self.after, where

    def problem(self, fault: Fault) -> str | None:
        """The first line of what does not hold after a fault."""
        try:
            self.disturb(fault)
        except AssertionError as error:
            return str(error).splitlines()[0]
        return None

    def _is_old_or_new(self, name: str, content: Any, where: str) -> None:
        if name.endswith(("checkpoint.pt", "metrics.csv")):
            return  # one of any epoch
        known = [one[name] for one in (self.before, self.after) if name in one]
        assert content in known, f"{name}: {where}"


def is_temporary(name: str) -> bool:
    return name.endswith(".tmp")


def contents(folder: Path) -> dict[str, Any]:
    """What is below a folder, by name; without clocks, and "damaged" where a file is half."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".lock" and path.name != ".lock":
            name = path.relative_to(folder).as_posix()
            try:
                found[name] = path.stat().st_size if is_temporary(name) else _content(path)
            except Exception:
                found[name] = "damaged"
    return found


def _content(path: Path) -> Any:
    if path.name == "checkpoint.pt":
        payload = torch.load(path, weights_only=True)
        for row in payload["metrics"]:
            del row["seconds"]
        return repr(payload)
    if path.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(path.read_text())))
        clocks = [index for index, name in enumerate(rows[0]) if name.startswith("seconds")]
        assert all(len(row) == len(rows[0]) for row in rows)
        return [[one for index, one in enumerate(row) if index not in clocks] for row in rows]
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return picture.size
    content = path.read_bytes()
    return content.decode() if path.suffix in (".json", ".md") else hashlib.sha256(content).digest()


@pytest.fixture(scope="module")
def scenes(running: Victims, given: Path) -> Callable[[str], Scene]:
    return lambda name: Scene(name, running, given)


def chosen(calls: Sequence[str], mode: str, offset: int) -> Sequence[int]:
    """Numbers of calls, from 1: all; or some, of which other faults take others."""
    if _EVERY:
        return range(1, len(calls) + 1)
    some = {"before": _KILLS, "after": 0}.get(mode, 1)
    return [1 + (offset * 7 + one * len(calls) // some) % len(calls) for one in range(some)]


ERRORS = [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EINTR]
FAULTS = [
    *(("before", 0), ("after", 0), ("short", 0)),
    *(("fail", error) for error in ERRORS),
    *(("full", errno.ENOSPC), ("dead", errno.EIO)),
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_disturbed_call_loses_nothing_and_leaves_nothing(
    name: str, scenes: Callable[[str], Scene]
) -> None:
    scene = scenes(name)
    faults = [
        Fault(mode, at, value)
        for offset, (mode, value) in enumerate(FAULTS)
        for at in chosen(scene.calls, mode, offset)
    ]
    broken = [message for fault in faults if (message := scene.problem(fault))]
    assert not broken, "\n".join(broken)
