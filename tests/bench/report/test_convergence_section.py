"""Rates of convergence in the report, from curves that are known by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samt.bench.convergence import bound, constants
from samt.bench.experiments.frames import cells_frame
from samt.bench.experiments.store import Store
from samt.bench.report.convergence import Rate, rates
from samt.bench.report.findings import gather
from samt.bench.report.page import page

from .rate_cells import ERRORS, LR, STEPS, save_rate_cell, save_rates, save_two_seeds


@pytest.fixture
def measured(store: Store) -> Store:
    save_two_seeds(store)
    return store


def _only(store: Store) -> Rate:
    (found,) = rates(store, cells_frame(store, "convergence"))
    return found


def _saved(store: Store, shares: dict[str, Any], **more: Any) -> Rate:
    """That of a single cell."""
    save_rate_cell(store, "0" * 16, 0, ERRORS, shares, **more)
    save_rates(store, {"0" * 16: "SAMT"})
    return _only(store)


def test_errors_step_sizes_and_slope_are_those_of_the_curves(measured: Store) -> None:
    rate = _only(measured)
    assert rate.seeds == 2
    np.testing.assert_allclose(rate.errors, 2 * 2.0 / (1 + STEPS[1:] / 40))
    np.testing.assert_allclose(rate.deviations, np.sqrt(2) * 2.0 / (1 + STEPS[1:] / 40))
    assert rate.low == pytest.approx(0.5)
    assert rate.slope == pytest.approx(-1, abs=0.05)
    assert rate.ball_limit is not None
    assert (rate.limit < rate.ball_limit).all()


def test_the_largest_step_size_is_what_equation_10_allows_and_not_a_mean(measured: Store) -> None:
    assert _only(measured).high == 1.0
    assert _saved(measured, {"block1": 0.5}, relative=3.0).high == pytest.approx(3)
    assert _saved(measured, {"block1": 0.5}, relative=3.0, parts="left").high == 1.0


def test_the_bound_takes_the_smallest_share_of_each_stretch(store: Store) -> None:
    """A step size that was almost 0 once costs that stretch alone."""
    shares = np.full(len(STEPS) - 1, 0.8)
    shares[0] = 1e-8
    rate = _saved(store, {"block1": shares, "block2": 0.9})
    lows = LR * np.where(np.arange(4000) < 100, 1e-8, 0.8)
    np.testing.assert_allclose(rate.limit, bound(ERRORS[0], lows, LR, constants())[STEPS[1:]])
    assert rate.low == pytest.approx(1e-8)
    assert rate.limit_slope < -0.5


def test_a_fixed_step_size_is_known_exactly(store: Store) -> None:
    rate = _saved(store, {"block1": 0.999, "block2": 1.001}, parts="fixed")
    assert (rate.low, rate.high) == (1.0, 1.0)
    np.testing.assert_allclose(rate.limit, bound(ERRORS[0], LR, LR, constants())[STEPS[1:]])


def test_the_absolute_form_has_no_bound_that_says_anything(store: Store) -> None:
    """There a step size may be 1, however small η⁰ is."""
    rate = _saved(store, {"block1": 0.5}, relative=False)
    assert np.isinf(rate.limit).all()
    assert np.isnan(rate.limit_slope)


def test_other_methods_on_the_problem_have_no_bound(measured: Store) -> None:
    save_rate_cell(measured, "2" * 16, 0, ERRORS, {}, method="sgd")
    save_rates(measured, {"0" * 16: "SAMT", "1" * 16: "SAMT", "2" * 16: "SGD"})
    assert _only(measured).label == "SAMT"


def test_an_error_above_the_bound_is_seen(measured: Store) -> None:
    assert _only(measured).is_below
    shares = {"block1": 0.9, "block2": 0.95}
    save_rate_cell(measured, "1" * 16, 1, np.full(len(STEPS), 400.0), shares)
    save_rate_cell(measured, "0" * 16, 0, np.concatenate([[1.0], np.full(40, 400.0)]), shares)
    assert not _only(measured).is_below


def test_the_page_shows_the_section_and_only_for_that_problem(measured: Store) -> None:
    text = page(gather(measured), "here", {})
    assert "Convergence and its bound" in text
    assert "gradient stability between two blocks" in text
    assert "a single sweep may take less" in text
    assert "at every evaluation" in text
    assert '"limit":[' in text
