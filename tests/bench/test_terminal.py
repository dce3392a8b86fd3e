"""What a file holds is shown in the terminal, and never steers it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from samt.bench.experiments.store import Store
from samt.bench.terminal import shown

from .conftest import Samt
from .data_files import picture
from .stored_cells import save_cell, save_experiment

# Clears the screen, changes the window's title, reverses the reading direction, half a pair.
STEERING = "\x1b[2J\x1b]0;mine\x07\x9b5m\u202edrow\u2028\ud800"
WRITTEN = r"\x1b[2J\x1b]0;mine\x07\x9b5m\u202edrow\u2028\ud800"


@pytest.mark.parametrize("text", ["ä € 12\u202f345 ± \u00a0 步长", "two\nlines", "[red]", ""])
def test_text_of_people_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_what_steers_a_terminal_is_written_out() -> None:
    assert shown(STEERING) == WRITTEN


def test_results_of_others_do_not_steer_the_terminal(samt_here: Samt, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    hostile = f"[red]{STEERING}[/nothing]"
    more: dict[str, Any] = {
        "metric": hostile,
        "error": hostile,
        "traceback": hostile,
        "data": hostile,
    }
    cells = {
        save_cell(store, hostile, seed, 0.5, status="failed", **more): hostile for seed in (0, 1)
    }
    save_experiment(store, "first", cells, title=hostile, absent={hostile: hostile})
    (tmp_path / "cells" / f"{'0' * 16}.json").write_text("{")
    cell, _ = cells
    for command in (["list"], ["show", "first"], ["show", cell], ["prune", "--dry-run"]):
        outcome = samt_here("results", *command, "--results", tmp_path)
        assert outcome.code == 0
        said = outcome.out + outcome.err
        assert {one for one in said if not one.isprintable()} == {"\n"}
        if command[0] == "show":
            assert r"[red]\x1b[2J" in said


def test_a_path_with_brackets_is_printed_as_it_is(samt_here: Samt, tmp_path: Path) -> None:
    folder = tmp_path / "[bold]" / "[" / "x]"
    outcome = samt_here("train", "--data", "digits", "--epochs", "0", "--run-dir", folder)
    assert (outcome.code, outcome.err) == (0, "")
    assert str(folder) in outcome.out


def test_file_names_of_another_encoding_are_shown(samt_here: Samt, tmp_path: Path) -> None:
    for label in (b"cat\xff", b"dog"):
        folder = os.fsencode(tmp_path) + b"/train/" + label
        os.makedirs(folder)  # noqa: PTH103
        for number in range(8):
            (Path(os.fsdecode(folder)) / f"{number}.jpg").write_bytes(picture(number))
    outcome = samt_here("data", "info", tmp_path)
    assert outcome.code == 0, outcome
    assert r"cat\udcff, dog" in outcome.out
