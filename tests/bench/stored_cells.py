"""Results without training: summaries and curves as a cell would write them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from samt.bench.experiments.frames import cells_frame
from samt.bench.experiments.store import Store

MISSING = "0123456789abcdef"  # identity of a cell without a result


def save_cell(
    store: Store,
    label: str = "samt",
    seed: int = 0,
    value: float | None = 0.9,
    *,
    status: str = "finished",
    data: str = "digits",
    width: tuple[int, ...] = (300,),
    metric: str = "accuracy",
    role: str = "final",
    code: str = "c0de",
    evaluations: int = 3,
    **more: Any,
) -> str:
    """Write a cell's result.

    Args:
        store: where.
        label: of the method.
        seed: of the cell.
        value: of the test metric at the end; `more` replaces any field of the summary.

    Returns:
        Its identity.
    """
    cell = {
        "method": label.partition(":")[0],
        "options": {"lr": 0.1, "step_size": "row"},
        "data": data,
        "data_sha256": "0" * 64,
        "split_seed": 0,
        "validation": 0.1 if role == "tuning" else 0.0,
        "model": "mlp",
        "hidden": list(width),
        "dropout": 0.0,
        "batch_size": 64,
        "seed": seed,
        "device": "cpu",
        "threads": 1,
        "budget": {"epochs": 2.0},
        "evaluate": 1.0,
        "role": role,
        "code": code,
        "torch": "2.9.0",
    }
    identity = hashlib.sha256(json.dumps([label, cell]).encode()).hexdigest()[:16]
    summary = {
        "cell": cell,
        "label": label,
        "experiment": "first",
        "role": role,
        "tuned": None,
        "status": status,
        "error": None if status == "finished" else "it broke",
        "traceback": None,
        "task": "classification" if metric == "accuracy" else "regression",
        "metric": metric,
        "steps": 20,
        "epochs": 2.0,
        "updates": 40.0,
        "forward_passes": 60,
        "backward_passes": 40,
        "seconds": 1.5 + seed,
        "train_loss": 0.25,
        "test_loss": 0.5,
        "test_metric": value,
        "best_test_metric": value,
        "validation_loss": None,
        "validation_metric": None,
        "best_validation_metric": None,
        "wall_seconds": 2.0,
        "started": "2026-01-01T00:00:00+00:00",
        "attempts": 1,
        "machine": {"host": "h", "platform": "p", "cpu": "c", "cores": 2, "device": "cpu"},
        "versions": {"samt": "1", "torch": "2", "numpy": "2", "python": "3"},
        "commit": None,
        **more,
    }
    store.save(identity, summary, [_row(step, value) for step in range(evaluations)])
    return identity


def save_experiment(
    store: Store, name: str, cells: Mapping[str, str], definition: str = "d", **more: Any
) -> None:
    """Write an experiment's record; `cells` maps identities to labels."""
    entries = [place(store, identity, label) for identity, label in cells.items()]
    record: dict[str, Any] = {
        "title": f"title of {name}",
        "file": "f.yaml",
        "profile": None,
        "absent": {},
    }
    store.save_experiment(name, {**record, "definition": definition, "cells": entries, **more})


def place(store: Store, identity: str, label: str) -> dict[str, Any]:
    """The entry of a cell in an experiment's record; of seed 9 if it has no result."""
    summary = store.summary(identity)
    cell: dict[str, Any] = {
        "data": "digits",
        "model": "mlp",
        "hidden": [300],
        "seed": 9,
        "role": "final",
    }
    cell |= summary["cell"] if summary else {}
    return {
        "identity": identity,
        "role": cell["role"],
        "data": cell["data"],
        "model": cell["model"],
        "width": "-".join(map(str, cell["hidden"])),
        "label": label,
        "seed": cell["seed"],
    }


def frame_of(values: Mapping[str, list[float | None]], **more: Any) -> pd.DataFrame:
    """A frame with a cell for each seed of each method; None is a diverged one."""
    store = Store(f"memory://frame-{hashlib.sha256(repr((values, more)).encode()).hexdigest()}")
    for label, numbers in values.items():
        for seed, value in enumerate(numbers):
            status = "diverged" if value is None else "finished"
            save_cell(store, label, seed, value, status=status, **more)
    order = {label: position for position, label in enumerate(values)}
    frame = cells_frame(store).sort_values("seed")
    return frame.sort_values("label", key=lambda column: column.map(order), kind="stable")


def contents(store: Store) -> dict[str, bytes]:
    """Every file of a local store."""
    assert store.local is not None
    return {
        str(path.relative_to(store.local)): path.read_bytes()
        for path in sorted(store.local.rglob("*"))
        if path.is_file()
    }


def _row(step: int, value: float | None) -> dict[str, Any]:
    return {
        "step": 10 * step,
        "epoch": float(step),
        "updates": 20.0 * step,
        "train_loss": math.inf if value is None else 1 / (1 + step),
        "batch_loss": math.nan,
        "test_loss": 0.5,
        "test_metric": math.nan if value is None else value,
        "validation_loss": math.nan,
        "validation_metric": math.nan,
        "seconds": 0.5 * step,
        "forward_passes": 30 * step,
        "backward_passes": 20 * step,
        "step_sizes": {"hidden1": 0.1 + step, "output": math.nan},
    }


def first_experiment(location: str) -> Store:
    """A store with an experiment that has results of every kind, and a result beside it."""
    store = Store(location)
    cells = {
        save_cell(store, "samt", 0, 0.9): "SAMT",
        save_cell(store, "samt", 1, 0.8): "SAMT",
        save_cell(store, "sgd", 0, 0.5): "sgd [plain]",
        save_cell(store, "sgd", 1, 0.25, status="killed"): "sgd [plain]",
        MISSING: "SAMT",
    }
    save_experiment(store, "first", cells, absent={"mnist": "put it there"})
    save_cell(store, "other", 0, None, status="diverged", data="diabetes", metric="rmse")
    return store


def words(text: str) -> str:
    """Text without its layout."""
    return " ".join(text.split())
