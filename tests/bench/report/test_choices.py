"""What was tried on the validation part, as the report shows it."""

from __future__ import annotations

import json
import math

import pytest

from samt.bench.experiments.frames import cells_frame
from samt.bench.experiments.store import Store
from samt.bench.report.choices import choices
from samt.bench.report.findings import gather
from samt.bench.report.page import page

from ..stored_cells import save_cell


def _save(store: Store) -> None:
    tried: dict[str, list[float | None]] = {"0.1": [0.80, 0.84], "0.3": [0.90, None]}
    entries = []
    for lr, values in tried.items():
        for seed, value in enumerate(values):
            identity = save_cell(
                *(store, f"sgd:lr={lr}", seed, None),
                status="finished" if value is not None else "diverged",
                role="tuning",
                validation_metric=value,
            )
            entries.append({"identity": identity, "label": f"SGD:lr={lr}", "role": "tuning"})
    identity = save_cell(store, "sgd:lr=0.1", 0, 0.85, tuned={"lr": 0.1})
    entries.append({"identity": identity, "label": "SGD", "role": "final"})
    store.save_experiment("tuned", {"title": "Tuned", "cells": entries})


def test_means_of_all_that_was_tried_and_the_one_that_was_chosen(store: Store) -> None:
    _save(store)
    (table,) = choices(cells_frame(store, "tuned"))
    assert table.labels == ["SGD:lr=0.1", "SGD:lr=0.3"]
    assert table.widths == ["300"]
    spread = table.values["SGD:lr=0.1", "300"]
    assert spread.mean == pytest.approx(82)
    assert spread.deviation == pytest.approx(math.sqrt(8))
    assert math.isnan(table.values["SGD:lr=0.3", "300"].mean)
    assert table.chosen == {("SGD:lr=0.1", "300")}
    assert json.loads(cells_frame(store, "tuned")["tuned"].dropna().iloc[0]) == {"lr": 0.1}


def test_the_order_of_two_options_is_that_of_the_file(store: Store) -> None:
    tried = save_cell(
        store, "sgd-hd:lr=0.1,hypergrad_lr=1e-05", 0, None, role="tuning", validation_metric=0.9
    )
    final = save_cell(store, "sgd-hd", 0, 0.9, tuned={"lr": 0.1, "hypergrad_lr": 1e-05})
    label = "HD:lr=0.1,hypergrad_lr=1e-05"
    entries = [
        {"identity": tried, "label": label, "role": "tuning"},
        {"identity": final, "label": "HD", "role": "final"},
    ]
    store.save_experiment("two", {"title": "Two", "cells": entries})
    (table,) = choices(cells_frame(store, "two"))
    assert table.chosen == {(label, "300")}


def test_the_page_shows_them(store: Store) -> None:
    _save(store)
    text = page(gather(store), "here", {})
    assert "Chosen on the validation part" in text
    assert '<span class="mean best">82.00 ± 2.83</span>' in text
    assert "did not finish" in text


def test_without_tuning_there_is_no_section(store: Store) -> None:
    identity = save_cell(store)
    cells = [{"identity": identity, "label": "samt", "role": "final"}]
    store.save_experiment("plain", {"title": "Plain", "cells": cells})
    assert choices(cells_frame(store, "plain")) == []
    assert "Chosen on the validation part" not in page(gather(store), "here", {})
