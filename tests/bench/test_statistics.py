"""Means, paired differences and ranks, by hand and in general."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samt.bench.experiments.frames import cells_frame
from samt.bench.experiments.store import STATUSES, Store
from samt.bench.statistics import (
    Spread,
    bootstrap_interval,
    mean_ranks,
    paired_differences,
    ranks,
    repeated_seeds,
    summarise,
)

from .stored_cells import frame_of, save_cell

numbers = st.floats(allow_nan=False, allow_infinity=False)
ordinary = st.floats(-1e3, 1e3)


def test_spread_by_hand() -> None:
    assert Spread.of([1.0, 2.0, 6.0]) == Spread(3.0, math.sqrt(7), 3)
    single = Spread.of([2.5])
    assert (single.mean, single.n) == (2.5, 1)
    assert math.isnan(single.deviation)
    for values in ([], [1.0, math.nan], [math.inf, 1.0]):
        spread = Spread.of(values)
        assert math.isnan(spread.mean)
        assert math.isnan(spread.deviation)
        assert spread.n == len(values)


@given(st.lists(numbers))
def test_spread_of_any_numbers_lies_between_them_or_is_nan(values: list[float]) -> None:
    spread = Spread.of(values)
    between = values and min(values) <= spread.mean <= max(values)
    assert between or math.isnan(spread.mean)
    assert not spread.deviation < 0


def test_summary_by_hand() -> None:
    first, second = summarise(frame_of({"samt": [0.8, 0.9, 1.0], "sgd": [0.5, None]}))
    assert (first.label, first.data, first.model, first.width) == ("samt", "digits", "mlp", "300")
    assert first.final.mean == pytest.approx(0.9)
    assert first.final.deviation == pytest.approx(0.1)
    assert first.seconds == Spread(2.5, 1.0, 3)
    assert first.passes == Spread(100, 0, 3)
    assert (first.status, first.statuses) == ("finished", {"finished": 3})
    assert (second.status, second.final.n) == ("diverged 1/2", 2)
    for spread in (second.final, second.best, second.train_loss, second.seconds, second.passes):
        assert math.isnan(spread.mean)


@pytest.mark.parametrize("status", STATUSES[1:])
def test_what_did_not_finish_is_never_averaged_away(status: str) -> None:
    """Its last numbers may well be finite."""
    store = Store(f"memory://unfinished-{status}")
    save_cell(store, "samt", 0, 0.9)
    save_cell(store, "samt", 1, 0.9, status=status)
    save_cell(store, "sgd", 0, 0.1)
    save_cell(store, "sgd", 1, 0.1)
    cells = cells_frame(store)
    found = {one.label: one for one in summarise(cells)}
    assert math.isnan(found["samt"].final.mean)
    assert found["samt"].statuses == {"finished": 1, status: 1}
    assert [one.label for one in mean_ranks(cells)] == ["sgd", "samt"]
    (difference,) = paired_differences(cells)
    assert (difference.against, difference.n, difference.unfinished) == ("sgd", 2, 1)
    assert math.isnan(difference.mean)
    assert math.isnan(difference.low)


def test_tuning_cells_are_no_results() -> None:
    cells = frame_of({"samt": [0.9]}, role="tuning")
    assert summarise(cells) == []
    assert ranks(cells).empty
    assert mean_ranks(cells) == []
    assert paired_differences(cells) == []


def test_a_failure_before_the_data_were_read() -> None:
    store = Store("memory://early")
    save_cell(store, "samt", 0, None, status="failed", metric="", task="", train_loss=None)
    (summary,) = summarise(cells_frame(store))
    assert (summary.metric, summary.status) == ("", "failed")
    assert paired_differences(cells_frame(store)) == []


def test_differences_use_the_seeds_that_both_have() -> None:
    cells = frame_of({"samt": [0.9, 0.8, 0.7, 0.1], "sgd": [0.8, 0.6, 0.4], "adam": [0.3]})
    found = {one.label: one for one in paired_differences(cells, against="sgd")}
    assert list(found) == ["samt", "adam"]
    samt, adam = found.values()
    assert (samt.against, samt.n, samt.unfinished) == ("sgd", 3, 0)
    assert samt.mean == pytest.approx(0.2)
    assert 0.1 - 1e-9 <= samt.low < samt.mean < samt.high <= 0.3 + 1e-9
    assert samt.excludes_zero
    assert adam.n == 1
    assert adam.mean == pytest.approx(-0.5)
    assert math.isnan(adam.low)
    assert not adam.excludes_zero


@pytest.mark.parametrize(("metric", "best"), [("accuracy", "a"), ("rmse", "b")])
def test_differences_are_taken_from_the_best(metric: str, best: str) -> None:
    cells = frame_of({"a": [3.0, 4.0], "b": [1.0, 2.0]}, metric=metric)
    (one,) = paired_differences(cells)
    assert one.against == best
    assert (one.mean, one.low, one.high) == ((-2, -2, -2) if best == "a" else (2, 2, 2))


def test_the_best_evaluation_is_another_metric() -> None:
    store = Store("memory://best")
    save_cell(store, "a", 0, 0.5, best_test_metric=0.9)
    save_cell(store, "b", 0, 0.6, best_test_metric=0.7)
    cells = cells_frame(store)
    assert paired_differences(cells)[0].against == "b"
    assert paired_differences(cells, "best")[0].against == "a"
    assert [one.label for one in mean_ranks(cells, "best")] == ["a", "b"]


def test_no_difference_where_a_method_is_absent() -> None:
    assert paired_differences(frame_of({"a": [1.0], "b": [2.0]}), against="c") == []
    assert paired_differences(frame_of({"a": [None], "b": [None]})) == []


@pytest.mark.parametrize(("n", "share"), [(3, 0.71), (5, 0.85), (10, 0.90), (20, 0.93)])
def test_interval_covers_the_mean_as_often_as_documented(n: int, share: float) -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        low, high = bootstrap_interval(list(random.normal(1.0, 2.0, n)))
        hits += low <= 1.0 <= high
    assert hits / 400 == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / 400))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_there_is_no_interval(values: list[float]) -> None:
    assert all(map(math.isnan, bootstrap_interval(values)))


@settings(max_examples=25, deadline=None)
@given(st.lists(ordinary, min_size=2, max_size=8))
def test_interval_of_any_numbers(values: list[float]) -> None:
    low, high = bootstrap_interval(values)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= low <= high <= max(values) + slack
    assert (low, high) == bootstrap_interval(values)
    if len(set(values)) == 1:
        assert (low, high) == (values[0], values[0])


@settings(max_examples=25, deadline=None)
@given(st.lists(numbers, min_size=2, max_size=4))
def test_extreme_numbers_make_no_warning(values: list[float]) -> None:
    low, high = bootstrap_interval(values)
    assert low <= high or math.isnan(low)


def test_ranks_by_hand() -> None:
    cells = pd.concat(
        [
            frame_of({"a": [0.9], "b": [0.8], "c": [0.9], "d": [0.1]}),
            frame_of({"a": [10.0], "b": [5.0], "d": [7.0]}, data="diabetes", metric="rmse"),
            frame_of({"a": [0.9], "b": [None], "d": [None]}, data="mnist"),
        ]
    )
    table = ranks(cells)
    assert table.index.names == ["data", "model", "width"]
    assert table.loc["digits"].iloc[0].to_dict() == {"a": 1.5, "b": 3, "c": 1.5, "d": 4}
    assert table.loc["diabetes"].iloc[0].dropna().to_dict() == {"a": 3, "b": 1, "d": 2}
    assert table.loc["mnist"].iloc[0].dropna().to_dict() == {"a": 1, "b": 2.5, "d": 2.5}
    found = {one.label: (one.mean, one.n) for one in mean_ranks(cells)}
    assert found == {"a": (1.5, 1), "c": (1.5, 1), "b": (3, 1), "d": (4, 1)}
    others = mean_ranks(cells[cells["label"] != "c"])
    assert [(one.label, one.n) for one in others] == [("a", 3), ("b", 3), ("d", 3)]
    assert [one.mean for one in others] == pytest.approx([5 / 3, 5.5 / 3, 7.5 / 3])
    alone = pd.concat([frame_of({"a": [0.9]}), frame_of({"b": [0.8]}, data="mnist")])
    assert mean_ranks(alone) == []
    assert list(found) == ["a", "c", "b", "d"]


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.none() | ordinary, min_size=1))
def test_ranks_of_any_numbers(values: dict[str, float | None]) -> None:
    row = ranks(frame_of({label: [value] for label, value in values.items()})).iloc[0]
    n = len(values)
    assert row.sum() == pytest.approx(n * (n + 1) / 2)
    finite = {label: value for label, value in values.items() if value is not None}
    order = sorted(finite, key=lambda label: -finite[label])
    assert all(row[one] <= row[next_one] for one, next_one in pairwise(order))
    assert all(row[bad] > row[good] for bad in values.keys() - finite.keys() for good in finite)


def test_a_seed_with_two_cells_counts_once() -> None:
    """After a merge: the same seed, computed by two versions of the code."""
    store = Store("memory://twice")
    for seed, value, code in ((0, 1.0, "a"), (0, 3.0, "b"), (1, 5.0, "a")):
        save_cell(store, "samt", seed, value, code=code)
    cells = cells_frame(store)
    assert repeated_seeds(cells) == 1
    assert summarise(cells)[0].final == Spread(3.5, math.sqrt(4.5), 2)
