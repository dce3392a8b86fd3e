"""Results as frames: stored cells, real cells, and what the documentation says of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from samt.bench.errors import ResultsError
from samt.bench.experiments.cells import Cell, Source
from samt.bench.experiments.curves import curve_schema
from samt.bench.experiments.frames import (
    CELL_COLUMNS,
    cells_frame,
    counts_frame,
    curves_frame,
    experiment_record,
)
from samt.bench.experiments.store import STATUSES, Store
from samt.bench.experiments.worker import CellRun
from samt.bench.method_specs import parse_spec

from .conftest import Samt
from .stored_cells import (
    MISSING,
    first_experiment,
    save_cell,
    save_experiment,
)

DOCS = Path(__file__).parents[2] / "docs" / "results.md"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An experiment with results of every kind."""
    return first_experiment(str(tmp_path / "results"))


def test_a_row_for_each_cell(store: Store) -> None:
    frame = cells_frame(store)
    assert tuple(frame.columns) == CELL_COLUMNS
    assert len(frame) == 5
    row = frame[(frame["label"] == "samt") & (frame["seed"] == 1)].iloc[0]
    expected = {"data": "digits", "width": "300", "metric": "accuracy", "test_metric": 0.8}
    expected |= {"passes": 100, "budget": "epochs", "budget_value": 2, "cores": 2}
    assert {name: row[name] for name in expected} == expected
    assert json.loads(row["options"]) == {"lr": 0.1, "step_size": "row"}
    assert pd.isna(row["tuned"])
    assert math.isnan(frame[frame["data"] == "diabetes"]["test_metric"].iloc[0])


def test_rows_of_an_experiment_are_in_its_order(store: Store) -> None:
    frame = cells_frame(store, "first")
    assert list(frame["label"]) == ["SAMT", "SAMT", "sgd [plain]", "sgd [plain]", "SAMT"]
    assert list(frame["status"]) == ["finished"] * 3 + ["killed", "missing"]
    assert set(frame["experiment"]) == {"first"}
    missing = frame.iloc[4]
    assert [missing[one] for one in ("data", "model", "width", "seed")] == [
        "digits",
        "mlp",
        "300",
        9,
    ]
    store.beat(MISSING, {"name": "x"})
    store.beat(frame["identity"][3], {"name": "killed, and tried again"})
    store.beat(frame["identity"][0], {"name": "done, but not yet gone"})
    assert list(cells_frame(store, "first")["status"])[2:] == ["finished", "running", "running"]
    with pytest.raises(ResultsError, match="did you mean 'first'"):
        cells_frame(store, "frist")


def test_counts(store: Store) -> None:
    counts = counts_frame(store)
    assert list(counts.index) == ["first", ""]
    row = counts.loc["first"]
    assert row["title"] == "title of first"
    assert [row[one] for one in ("cells", "finished", "killed", "missing")] == [5, 3, 1, 1]
    assert counts.loc[""]["diverged"] == 1


def test_curves_below_each_other(store: Store) -> None:
    identities = list(cells_frame(store)["identity"])
    frame = curves_frame(store, [*identities, MISSING])
    assert list(frame.columns) == curve_schema().names
    assert list(frame["cell"].unique()) == identities
    assert len(frame) == 15
    assert frame["step_sizes"][1]["hidden1"] == 1.1
    assert len(store.damaged) == 1
    folder = pd.read_parquet(Path(store.location) / "curves")
    assert folder["train_loss"].sum() == frame["train_loss"].sum()
    assert list(curves_frame(store, []).columns) == curve_schema().names


@pytest.mark.parametrize(
    "damage",
    [
        {"cell": {}},
        {"cell": {"hidden": 3, "seed": "one", "budget": [], "options": None, "threads": True}},
        {
            "steps": 1e400,
            "test_metric": "high",
            "machine": None,
            "versions": [],
            "updates": 1 << 70,
        },
    ],
)
def test_summaries_that_hold_something_else(damage: dict[str, Any]) -> None:
    store = Store("memory://odd")
    identity = save_cell(store, **damage)
    frame = cells_frame(store)
    assert tuple(frame.columns) == CELL_COLUMNS
    assert frame["status"][0] == "finished"
    store.remove(identity)


def test_experiment_records_that_hold_something_else(store: Store) -> None:
    cells = [{"identity": "x", "label": "a", "role": "final"}, 3, {"identity": MISSING}]
    store.save_experiment("odd", {"cells": cells})
    store.save_experiment("odder", {"cells": []})
    assert experiment_record(store, "odd")["cells"] == []
    assert cells_frame(store, "odder").empty


def test_cells_of_the_worker(samt_here: Samt, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "results"))
    labels = {}
    for method in ("sgd", "samt:step_size=row"):
        for validation in (0.0, 0.2):
            source = Source("digits", None, 0, validation)
            cell = Cell(
                label=f"my {method}",
                spec=parse_spec(method),
                source=source,
                data_sha256=source.load().checksum,
                model="mlp",
                hidden=(4,),
                dropout=0.0,
                batch_size=256,
                seed=0,
                device="cpu",
                threads=1,
                budget={"epochs": 1.0},
                evaluate=0.5,
            )
            job = {"experiment": "real", "attempt": 1, "timeout": None, "jobs": 1, "commit": None}
            job |= {"store": store.location, "checkpoint": 30.0, "tensorboard": None}
            CellRun(cell, store, cell.as_job() | job).execute()
            labels[cell.identity] = cell.label
    save_experiment(store, "real", labels)
    frame = cells_frame(store)
    final, tuning = (frame[frame["role"] == role] for role in ("final", "tuning"))
    assert len(final) == len(tuning) == 2
    assert final["test_metric"].between(0, 1).all()
    assert tuning["validation_metric"].between(0, 1).all()
    assert final["validation_metric"].isna().all()
    assert tuning["test_metric"].isna().all()
    # Nothing that a cell of today writes is unknown.
    empty = {name for name in CELL_COLUMNS if final[name].isna().all()}
    assert empty == {
        *("error", "tuned", "commit", "validation_loss", "validation_metric"),
        "best_validation_metric",
    }
    curves = curves_frame(store, final["identity"])
    last = curves.groupby("cell", sort=False).last()
    assert list(last["test_metric"]) == list(final["test_metric"])
    identity = final["identity"].iloc[0]
    assert identity in samt_here("results", "show", identity, "--results", store.location).out
    assert "my sgd" in samt_here("results", "show", "real", "--results", store.location).out


def test_every_column_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name in (*CELL_COLUMNS, *curve_schema().names, *STATUSES):
        assert f"`{name}`" in text, name
