"""The tables: means, verdicts, seeds that did not finish, places without a cell."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from samt.bench.experiments.frames import cells_frame
from samt.bench.experiments.store import Store
from samt.bench.report.cell_text import cell_text
from samt.bench.report.findings import gather
from samt.bench.report.grids import Comparison, Grid, grids, pooled
from samt.bench.statistics import Spread

from ..stored_cells import MISSING, save_cell, save_experiment
from .conftest import Grid as Values
from .conftest import save_grid


@pytest.fixture
def tables(filled: Store, paper: Path) -> list[Grid]:
    (one,) = gather(filled, paper=paper)
    return list(one.grids)


def test_means_and_deviations_by_hand(tables: list[Grid]) -> None:
    digits = tables[0]
    assert (digits.data, digits.model, digits.metric) == ("digits", "mlp", "accuracy")
    assert list(digits.widths) == ["16", "64"]
    assert list(digits.labels) == ["SAMT", "sgd", "theirs"]
    spread = digits.entry("SAMT", "16").spread("final")
    assert (spread.mean, spread.deviation) == pytest.approx((92.0, 2.0))
    assert spread.n == 3
    assert cell_text(digits, "SAMT", "16", "final").main == "92.00 ± 2.00"
    assert cell_text(digits, "SAMT", "64", "final").main == "96.00 ± 1.00"
    assert cell_text(digits, "sgd", "16", "final").main == "81.00 ± 1.00"


def test_narrow_networks_stand_first_however_they_were_run(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    save_grid(store, "one", {"sgd": {(800,): [0.9], (64, 8): [0.8], (100,): [0.7]}})
    (one,) = gather(store)
    assert list(one.grids[0].widths) == ["64-8", "100", "800"]


def test_differences_to_published_numbers_by_hand(tables: list[Grid]) -> None:
    # SAMT has 2 and 1 over three seeds each: sqrt((2 * 4 + 2 * 1) / 4).
    near = tables[0].entry("SAMT", "16").comparison()
    assert near is not None
    assert near.difference == pytest.approx(-1.0)
    assert near.deviation == pytest.approx(math.sqrt(2.5))
    assert near.verdict == "agrees"
    text = cell_text(tables[0], "sgd", "16", "final")
    assert (text.published, text.difference, text.verdict) == ("published 90.00", "−9.00", "worse")


def test_a_diverged_seed_is_never_averaged_away(tables: list[Grid]) -> None:
    text = cell_text(tables[0], "sgd", "64", "final")
    assert text.kind == "unfinished"
    assert text.main == "1 of 3 diverged"
    assert text.remarks == ("2 finished: 85.00, 87.00",)
    assert text.published == "published 95.50"
    assert text.difference == ""
    assert math.isnan(tables[0].entry("sgd", "64").spread().mean)


def test_published_numbers_without_a_value_or_a_cell(tables: list[Grid]) -> None:
    assert cell_text(tables[0], "SAMT", "64", "final").published == "published: not available here"
    theirs = cell_text(tables[0], "theirs", "64", "final")
    assert (theirs.kind, theirs.main, theirs.published) == (
        "elsewhere",
        "not run here",
        "published 97.00",
    )
    assert cell_text(tables[0], "theirs", "16", "final").kind == "none"
    absent = cell_text(tables[1], "SAMT", "64", "final")
    assert absent.main == "not run here"
    assert absent.remarks == ("its data are not here",)


def test_cells_without_a_result_are_not_run(store: Store) -> None:
    one = save_cell(store, "samt", 0, 0.9)
    save_experiment(store, "half", {one: "samt", MISSING: "samt", "f" * 16: "sgd"})
    (grid,) = grids(cells_frame(store, "half"), [], {})
    text = cell_text(grid, "samt", "300", "final")
    assert (text.main, text.seeds, text.remarks) == ("90.00", 1, ("1 of 2 not run",))
    assert cell_text(grid, "sgd", "300", "final").main == "not run"


def test_final_and_best_are_different_numbers(store: Store) -> None:
    cells = {save_cell(store, "samt", seed, 0.8, best_test_metric=0.9): "samt" for seed in (0, 1)}
    save_experiment(store, "two", cells)
    (grid,) = grids(cells_frame(store, "two"), [], {})
    assert cell_text(grid, "samt", "300", "final").main == "80.00 ± 0.00"
    assert cell_text(grid, "samt", "300", "best").main == "90.00 ± 0.00"


def test_the_best_of_an_rmse_is_the_smallest(store: Store) -> None:
    values: Values = {"a": {(16,): [50.0, 52.0]}, "b": {(16,): [60.0, 62.0]}}
    save_grid(store, "errors", values, metric="rmse", data="diabetes")
    (grid,) = grids(cells_frame(store, "errors"), [], {})
    assert cell_text(grid, "a", "16", "final").is_best
    assert not cell_text(grid, "b", "16", "final").is_best
    assert cell_text(grid, "a", "16", "final").main == "51.00 ± 1.41"


def test_means_that_look_equal_are_both_best(store: Store) -> None:
    save_grid(store, "equal", {"a": {(16,): [0.90001]}, "b": {(16,): [0.90002]}})
    (grid,) = grids(cells_frame(store, "equal"), [], {})
    assert grid.best("16", "final") == {"a", "b"}


@pytest.mark.parametrize(
    ("metric", "measured", "published", "deviation", "verdict"),
    [
        ("accuracy", 98.7, 98.4, 0.01, "agrees"),  # exactly 0.3 points
        ("accuracy", 98.71, 98.4, 0.01, "better"),
        ("accuracy", 98.0, 98.4, 0.2, "agrees"),  # exactly two deviations
        ("accuracy", 98.0, 98.4, 0.19, "worse"),
        ("accuracy", 98.0, 98.4, math.nan, "worse"),  # one seed: the points alone decide
        ("accuracy", 98.2, 98.4, math.nan, "agrees"),
        ("rmse", 52.5, 50.0, 0.1, "agrees"),  # exactly 5 %
        ("rmse", 53.0, 50.0, 0.1, "worse"),
        ("rmse", 47.0, 50.0, 0.1, "better"),
        ("rmse", 53.0, 50.0, 2.0, "agrees"),
    ],
)
def test_verdicts(
    metric: str, measured: float, published: float, deviation: float, verdict: str
) -> None:
    assert Comparison.of(metric, measured, published, deviation).verdict == verdict


def test_pooled_deviation_needs_seeds() -> None:
    assert math.isnan(pooled([Spread(1.0, math.nan, 1)]))
    assert pooled([Spread(1.0, 3.0, 2), Spread(1.0, math.nan, 1)]) == 3.0
