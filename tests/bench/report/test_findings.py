"""What could not be reproduced, curves, dependences, provenance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samt.bench.errors import ReportError
from samt.bench.experiments.frames import cells_frame
from samt.bench.experiments.store import Store
from samt.bench.report.findings import Findings, gather
from samt.bench.report.mean_curves import mean_curves

from ..stored_cells import MISSING, save_cell, save_experiment
from .conftest import ACCURACIES, HEAD, save_grid, set_option, write


@pytest.fixture
def table(filled: Store, paper: Path) -> Findings:
    (one,) = gather(filled, paper=paper)
    return one


def test_published_numbers_that_were_not_reproduced(table: Findings) -> None:
    found = table.discrepancies
    assert found.compared == 2
    (gap,) = found.gaps
    assert (gap.published.method, gap.published.value) == ("sgd", 90.0)
    assert gap.measured.mean == pytest.approx(81.0)
    assert gap.comparison.difference == pytest.approx(-9.0)
    assert gap.deviations == pytest.approx(9.0)


def test_seeds_that_did_not_finish_and_places_without_a_cell(table: Findings) -> None:
    (bad,) = table.discrepancies.unfinished
    assert (bad.label, bad.width, dict(bad.statuses)) == (
        "sgd",
        "64",
        {"finished": 2, "diverged": 1},
    )
    assert bad.published == 95.5
    reasons = {(one.data, one.label): one.reason for one in table.discrepancies.unavailable}
    assert reasons == {
        ("digits", "theirs"): "no cell of the experiment",
        ("mnist", "SAMT"): "its files are not here",
    }


def test_what_stands_beside_published_numbers_comes_first(filled: Store, paper: Path) -> None:
    for name in ("a10", "a9", "zoo"):
        save_grid(filled, name, {"samt": {(16,): [0.9]}})
    assert [one.name for one in gather(filled, paper=paper)] == ["table", "a9", "a10", "zoo"]
    save_grid(filled, "table10", {"samt": {(16,): [0.9]}})
    save_grid(filled, "read", {"SAMT": {(16,): [0.9]}})
    write(paper / "reported" / "read.csv", HEAD + "digits,mlp,16,SAMT,accuracy,93.0,\n")
    names = ["table", "read", "table10", "a9", "a10", "zoo"]
    assert [one.name for one in gather(filled, paper=paper)] == names


def test_absent_data_without_published_numbers_are_named(store: Store) -> None:
    save_grid(store, "one", {"samt": {(16,): [0.9]}}, absent={"mnist": "put  it\nthere"})
    (one,) = gather(store)
    (missing,) = one.discrepancies.unavailable
    assert (missing.data, missing.reason) == ("mnist", "put it there")


def test_errors_of_failed_cells_are_told_once(store: Store) -> None:
    cells = {
        save_cell(store, "samt", seed, None, status="failed", error="no\nmemory"): "samt"
        for seed in (0, 1)
    }
    save_experiment(store, "bad", cells)
    (one,) = gather(store)
    (bad,) = one.discrepancies.unfinished
    assert list(bad.errors) == ["no memory"]


def test_notes_are_paragraphs(table: Findings) -> None:
    assert list(table.notes) == ["The first reason.", "The *second* reason."]


def test_labels_hold_published_methods_too(table: Findings) -> None:
    assert list(table.labels) == ["SAMT", "sgd", "theirs"]


def test_published_numbers_beside_the_experiment_file(store: Store, paper: Path) -> None:
    save_grid(store, "table", ACCURACIES, file=str(paper / "table.yaml"))
    (one,) = gather(store)
    assert one.discrepancies.compared == 2


def test_an_empty_store_and_an_unknown_experiment(store: Store) -> None:
    with pytest.raises(ReportError, match="samt run FILE --results"):
        gather(store)
    save_grid(store, "table", ACCURACIES)
    with pytest.raises(ReportError, match="did you mean 'table'"):
        gather(store, ["tabel"])


def test_a_mean_curve_ends_where_a_seed_diverges(table: Findings) -> None:
    curves = {(one.label, one.width): one for one in table.curves}
    whole = curves["SAMT", "16"]
    np.testing.assert_allclose(whole.metrics, [92.0, 92.0, 92.0])
    np.testing.assert_allclose(whole.metric_deviation, [2.0, 2.0, 2.0])
    np.testing.assert_allclose(whole.axes["passes"], [0, 50, 100])
    np.testing.assert_allclose(whole.axes["updates"], [0, 20, 40])
    np.testing.assert_allclose(whole.axes["seconds"], [0, 0.5, 1.0])
    np.testing.assert_allclose(whole.step_sizes["hidden1"], [0.1, 1.1, 2.1])
    assert "output" not in whole.step_sizes  # it never was a number
    assert not whole.has_ended_early
    assert curves["sgd", "64"].has_ended_early
    assert len(curves["sgd", "64"].metrics) == 0


def test_a_curve_that_is_gone_takes_its_line_with_it(store: Store) -> None:
    cells = save_grid(store, "table", ACCURACIES)
    assert store.local is not None
    (store.local / "curves" / f"{next(iter(cells))}.parquet").unlink()
    found = mean_curves(store, cells_frame(store, "table"))
    assert ("SAMT", "16") not in {(one.label, one.width) for one in found}
    assert len(store.damaged) == 1


def test_a_cell_under_two_labels_is_read_once(store: Store) -> None:
    one = save_cell(store, "sgd", 0, 0.9)
    save_experiment(store, "first", {one: "sgd"})
    record = store.experiments()["first"]
    twice = [*record["cells"], {**record["cells"][0], "label": "SGD (tuned)"}]
    store.save_experiment("first", {**record, "cells": twice})
    found = mean_curves(store, cells_frame(store, "first"))
    assert [len(curve.metrics) for curve in found] == [3, 3]


def test_long_curves_are_thinned(store: Store) -> None:
    one = save_cell(store, "sgd", 0, 0.9, evaluations=2001)
    save_experiment(store, "long", {one: "sgd"})
    (curve,) = mean_curves(store, cells_frame(store, "long"))
    assert len(curve.metrics) == 200
    assert curve.axes["epochs"][[0, -1]].tolist() == [0, 2000]


def _sensitive(store: Store, labels: list[str], option: str = "lr") -> Findings:
    cells = save_grid(store, "lr", {label: {(16,): [0.9, 0.92]} for label in labels})
    for identity, label in cells.items():
        set_option(store, identity, option, float(label.split(f"{option}=")[1].split(",")[0]))
    (one,) = gather(store)
    return one


def test_methods_that_differ_in_one_number_are_a_dependence(store: Store) -> None:
    labels = ["samt:lr=1.0", "samt:lr=0.01", "samt:lr=0.1"]
    (one,) = _sensitive(store, labels).dependences
    assert (one.option, one.family, one.width) == ("lr", "samt", "16")
    assert list(one.values) == [0.01, 0.1, 1.0]
    assert one.is_logarithmic
    assert [entry.spread().mean for entry in one.entries] == pytest.approx([91.0] * 3)


def test_a_family_is_called_by_what_it_has_in_common(store: Store) -> None:
    labels = [f"samt:head=dense,lr={value},order=random" for value in (1, 2, 3)]
    (one,) = _sensitive(store, labels).dependences
    assert one.family == "samt:head=dense,order=random"
    assert not one.is_logarithmic


def test_two_values_are_no_dependence(store: Store) -> None:
    assert not _sensitive(store, ["samt:lr=1.0", "samt:lr=0.1"]).dependences


def test_provenance(table: Findings, store: Store) -> None:
    made = table.provenance
    assert (made.cells, dict(made.statuses)) == (12, {"finished": 11, "diverged": 1})
    assert made.seconds == 24.0
    assert list(made.commands) == ["samt run f.yaml"]
    assert list(made.machines) == ["h, c, 2 cores, 1 thread a cell, p"]
    assert made.versions["torch"] == ["2"]
    assert (made.first, made.last) == ("2026-01-01", "2026-01-01")


def test_an_experiment_of_which_nothing_was_run(store: Store, tmp_path: Path) -> None:
    save_experiment(store, "none", {MISSING: "samt"})
    write(tmp_path / "paper" / "reported" / "none.csv", "")
    with pytest.raises(ReportError, match="no column"):
        gather(store, paper=tmp_path / "paper")
    (one,) = gather(store)
    assert not one.curves
    assert one.discrepancies.unfinished
