"""Stored cells of the convergence experiment, with curves that are known by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from samt.bench.data import least_squares as problem
from samt.bench.experiments.store import Store

Array = npt.NDArray[np.float64]

STEPS = np.arange(0, 4001, 100)
LR = 0.012 / (1 + 100 * np.arange(4000) / 4000)  # of each sweep
ERRORS: Array = 2.0 / (1 + STEPS / 40)


def save_rate_cell(
    store: Store,
    identity: str,
    seed: int,
    errors: Array,
    shares: Mapping[str, float | Array],
    **more: Any,
) -> None:
    """A cell with an evaluation after every hundred sweeps.

    Args:
        store: gets it.
        identity: 16 hexadecimal digits.
        seed: of the cell.
        errors: ‖w − w*‖² at each evaluation, the first one included.
        shares: of the scheduled step size by block: one number, or one for each evaluation but the
            first.
        more: options of the method; `method` is its name.
    """
    scheduled = np.array([part.mean() for part in np.split(LR, len(STEPS) - 1)])
    sizes = {name: [np.nan, *(share * scheduled)] for name, share in shares.items()}
    curve = [
        {
            "step": int(step),
            "epoch": step / 4000,
            "test_loss": error / problem.DIMENSION,
            "test_metric": float(np.sqrt(error)),
            "train_loss": 1.0,
            "step_sizes": {name: values[index] for name, values in sizes.items()},
        }
        for index, (step, error) in enumerate(zip(STEPS, errors, strict=True))
    ]
    method = more.pop("method", "samt")
    options = {"lr": 0.012, "schedule": "inverse"}
    if method == "samt":
        options |= {"radius": 2.0, "parts": "full", "relative": 1.0}
    cell = {
        **{"method": method, "options": options | more, "data": "least-squares"},
        **{"model": "additive", "hidden": [], "seed": seed, "budget": {"epochs": 1.0}},
        **{"role": "final"},
    }
    summary = {
        **{"cell": cell, "label": method, "role": "final", "status": "finished"},
        **{"metric": "rmse", "test_metric": 0.1, "wall_seconds": 1.0, "error": None},
    }
    store.save(identity, summary, curve)


def save_rates(store: Store, labels: Mapping[str, str]) -> None:
    """The experiment `convergence`; its methods by the identity of their cells."""
    entries = [{"identity": one, "label": label, "role": "final"} for one, label in labels.items()]
    store.save_experiment("convergence", {"title": "Rates", "cells": entries})


def save_two_seeds(store: Store, label: str = "SAMT") -> None:
    """The experiment with one method: mean error 4 / (1 + k / 40), shares from 0.5 to 0.95."""
    save_rate_cell(store, "0" * 16, 0, ERRORS, {"block1": 0.5, "block2": 0.95})
    save_rate_cell(store, "1" * 16, 1, 3 * ERRORS, {"block1": 0.9, "block2": 0.95})
    save_rates(store, dict.fromkeys(("0" * 16, "1" * 16), label))
