"""Events for TensorBoard say what the curve says."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from samt.bench.errors import ExperimentError
from samt.bench.experiments.cells import Cell, Source
from samt.bench.experiments.tensorboard import Events, check_tensorboard
from samt.bench.method_specs import parse_spec

from .conftest import Samt

CELL = Cell(
    label="SAMT/E: 1",
    spec=parse_spec("samt"),
    source=Source("digits", None, 0, 0.0),
    data_sha256="0" * 64,
    model="mlp",
    hidden=(8,),
    dropout=0.0,
    batch_size=64,
    seed=3,
    device="cpu",
    threads=1,
    budget={"epochs": 1.0},
    evaluate=1.0,
)
TUNING = replace(CELL, source=replace(CELL.source, validation=0.1))


def row(step: int, value: float, part: str = "test") -> dict[str, Any]:
    other = "validation" if part == "test" else "test"
    return {
        "step": step,
        "train_loss": value,
        f"{part}_loss": value + 1,
        f"{part}_metric": value + 2,
        f"{other}_loss": math.nan,
        f"{other}_metric": math.nan,
        "step_sizes": {"hidden1": value / 3, "output": value / 7},
    }


def write(cell: Cell, folder: Path, rows: Sequence[dict[str, Any]], metric: str) -> None:
    events = Events(cell, str(folder))
    for one in rows:
        events.add(one, metric)
    events.close()


def read(folder: Path) -> dict[str, list[tuple[int, str]]]:
    """Steps and values of every scalar of the only cell."""
    (cell,) = folder.iterdir()
    accumulator = EventAccumulator(str(cell), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        name: [(event.step, repr(event.value)) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def single(value: float) -> str:
    """As TensorBoard keeps a number."""
    return repr(float(np.float32(value)))


@pytest.mark.parametrize(
    ("cell", "part", "metric"), [(CELL, "test", "accuracy"), (TUNING, "validation", "rmse")]
)
def test_events_equal_the_curve(tmp_path: Path, cell: Cell, part: str, metric: str) -> None:
    rows = [row(step, value, part) for step, value in ((0, 2.3), (9, 1e-9), (2**40, math.nan))]
    write(cell, tmp_path, rows, metric)
    columns = {
        "loss/train": [one["train_loss"] for one in rows],
        f"loss/{part}": [one[f"{part}_loss"] for one in rows],
        f"{metric}/{part}": [one[f"{part}_metric"] for one in rows],
        "step_size/hidden1": [one["step_sizes"]["hidden1"] for one in rows],
        "step_size/output": [one["step_sizes"]["output"] for one in rows],
    }
    assert read(tmp_path) == {
        name: [(one["step"], single(value)) for one, value in zip(rows, values, strict=True)]
        for name, values in columns.items()
    }


@pytest.mark.parametrize("again", [0, 20])
def test_a_cell_that_goes_on_replaces_what_it_does_again(tmp_path: Path, again: int) -> None:
    write(CELL, tmp_path, [row(step, 1.0) for step in (0, 10, 20, 30)], "accuracy")
    (file,) = tmp_path.rglob("events.*")
    file.rename(file.with_name(f"events.out.tfevents.0000000001.{file.name[-9:]}"))  # long ago
    write(CELL, tmp_path, [row(step, 2.0) for step in range(again, 41, 10)], "accuracy")
    expected = [(step, single(2.0 if step >= again else 1.0)) for step in range(0, 41, 10)]
    assert read(tmp_path)["loss/train"] == expected


def test_what_is_written_can_be_read_before_the_end(tmp_path: Path) -> None:
    events = Events(CELL, str(tmp_path))
    events.add(row(0, 1.0), "accuracy")
    assert read(tmp_path)["loss/train"] == [(0, "1.0")]
    events.close()


def test_each_cell_has_a_folder_that_its_name_and_identity_tell(tmp_path: Path) -> None:
    cells = [CELL, replace(CELL, seed=4), TUNING, replace(CELL, batch_size=32)]
    for cell in cells:
        write(cell, tmp_path, [row(0, 1.0)], "accuracy")
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == sorted(f"{cell.file_name}-{cell.identity}" for cell in cells)
    assert f"digits-mlp-8-SAMT-E-1-seed-3-{CELL.identity}" in found


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    events = Events(CELL, None)
    events.add(row(0, 1.0), "accuracy")
    events.close()
    untouched = Events(CELL, str(tmp_path / "events"))
    untouched.close()
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboard_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samt_here: Samt
) -> None:
    check_tensorboard(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ExperimentError, match=r"pip install 'samt\[tensorboard\]'"):
        check_tensorboard(tmp_path)
    outcome = samt_here("run", "smoke", "--results", tmp_path, "--tensorboard", tmp_path / "events")
    outcome.is_user_error("--tensorboard needs TensorBoard", "pip install 'samt[tensorboard]'")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_found_before_any_cell_runs(
    tmp_path: Path, samt_here: Samt
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "events"
    with pytest.raises(ExperimentError, match="choose another folder"):
        check_tensorboard(folder)
    outcome = samt_here("run", "smoke", "--results", tmp_path / "r", "--tensorboard", folder)
    outcome.is_user_error("cannot write", "choose another folder")
    assert not (tmp_path / "r").exists()
