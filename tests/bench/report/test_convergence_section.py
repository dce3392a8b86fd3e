"""Rates of convergence in the report, from curves that are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from samt.bench.data import least_squares as problem
from samt.bench.experiments.frames import cells_frame
from samt.bench.experiments.store import Store
from samt.bench.report.convergence import rates
from samt.bench.report.findings import gather
from samt.bench.report.page import page

_STEPS = np.arange(0, 4001, 100)
_LR = 0.012


def _save(store: Store, identity: str, seed: int, errors: np.ndarray, ratio: float) -> None:
    """A cell that took `ratio` of the scheduled step size all the time."""
    scheduled = _LR / (1 + 100 * np.arange(4000) / 4000)
    sizes = [scheduled[:1].mean(), *(part.mean() for part in np.split(scheduled, 40))]
    curve = [
        {
            "step": int(step),
            "epoch": step / 4000,
            "test_loss": error / problem.DIMENSION,
            "test_metric": float(np.sqrt(error)),
            "train_loss": 1.0,
            "step_sizes": {"block1": ratio * size, "block2": size},
        }
        for step, error, size in zip(_STEPS, errors, sizes, strict=True)
    ]
    options = {"lr": _LR, "schedule": "inverse", "radius": 2.0, "parts": "full"}
    cell = {
        **{"method": "samt", "options": options, "data": "least-squares", "model": "additive"},
        **{"hidden": [], "seed": seed, "budget": {"epochs": 1.0}, "role": "final"},
    }
    summary = {
        **{"cell": cell, "label": "samt", "role": "final", "status": "finished"},
        **{"metric": "rmse", "test_metric": 0.1, "wall_seconds": 1.0, "error": None},
    }
    store.save(identity, summary, curve)


@pytest.fixture
def measured(store: Store) -> Store:
    errors = 2.0 / (1 + _STEPS / 40)
    _save(store, "0" * 16, 0, errors, 0.5)
    _save(store, "1" * 16, 1, 3 * errors, 0.9)
    entries = [{"identity": one, "label": "SAMT", "role": "final"} for one in ("0" * 16, "1" * 16)]
    store.save_experiment("convergence", {"title": "Rates", "cells": entries})
    return store


def test_errors_step_sizes_and_slope_are_those_of_the_curves(measured: Store) -> None:
    (rate,) = rates(measured, cells_frame(measured, "convergence"))
    assert rate.seeds == 2
    np.testing.assert_allclose(rate.errors, 2 * 2.0 / (1 + _STEPS[1:] / 40))
    np.testing.assert_allclose(rate.deviations, np.sqrt(2) * 2.0 / (1 + _STEPS[1:] / 40))
    assert rate.low == pytest.approx(0.5)
    assert rate.high == pytest.approx(1.0)
    assert rate.slope == pytest.approx(-1, abs=0.05)
    assert rate.ball_limit is not None
    assert (rate.limit < rate.ball_limit).all()


def test_an_error_above_the_bound_is_seen(measured: Store) -> None:
    (rate,) = rates(measured, cells_frame(measured, "convergence"))
    assert rate.is_below
    _save(measured, "1" * 16, 1, np.full(len(_STEPS), 400.0), 0.9)
    _save(measured, "0" * 16, 0, np.concatenate([[1.0], np.full(40, 400.0)]), 0.9)
    (rate,) = rates(measured, cells_frame(measured, "convergence"))
    assert not rate.is_below


def test_the_page_shows_the_section_and_only_for_that_problem(measured: Store) -> None:
    text = page(gather(measured), "here", {})
    assert "Convergence and its bound" in text
    assert "at every evaluation" in text
    assert '"limit":[' in text
