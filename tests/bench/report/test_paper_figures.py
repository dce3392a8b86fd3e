"""Figures for print as people read them: colours, ticks, legends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from samt.bench.comparison import Result
from samt.bench.experiments.store import Store
from samt.bench.report.figures import comparison_png
from samt.bench.report.findings import gather
from samt.bench.report.paper_figures import paper_figures
from samt.bench.report.style import least_shown, looks
from samt.bench.results import EpochMetrics, Record

from ..stored_cells import save_experiment
from .conftest import ACCURACIES, Grid, save_grid, set_option

Draw = Callable[[Store], dict[str, Figure]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Draw what a store holds: the figures as they are when they are saved, by name."""

    def draw(store: Store) -> dict[str, Figure]:
        saved: list[Figure] = []

        def save(figure: Figure, *_: Any, **__: Any) -> None:
            figure.draw_without_rendering()
            saved.append(figure)

        monkeypatch.setattr(Figure, "savefig", save)
        names = [name for one in gather(store) for name, _ in paper_figures(one)]
        return dict(zip(names, saved, strict=True))

    return draw


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def _keys(figure: Figure) -> dict[str, tuple[Any, ...]]:
    """Colour, dashes and marker of each key of the legend."""
    legend = figure.legends[0]
    return {
        text.get_text(): (line.get_color(), line.get_linestyle(), line.get_marker())
        for text, line in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if isinstance(line, Line2D)
    }


def _change(
    store: Store, identities: Iterable[str], change: Callable[[dict[str, Any]], Any]
) -> None:
    """Change every row of some curves."""
    for identity in identities:
        summary = store.summary(identity)
        assert summary is not None
        curve = store.curve(identity).to_dict("records")
        rows = [{**row, "step_sizes": dict(row["step_sizes"])} for row in curve]
        store.save(identity, summary, [{**row, **change(row)} for row in rows])


TABLE = ["Dante", "HD", "SGD", "Adam", "SAMT-S", "SAMT-E", "SAMT-S annealed"]


def test_a_method_looks_the_same_in_every_experiment(store: Store, drawn: Draw) -> None:
    first = ("mine", "SGD", "Adam", "SAMT-E")
    second = ("Adam", "fixed step", "SAMT-E", "yours", "SGD")
    for name, labels in (("first", first), ("second", second)):
        save_grid(store, name, {label: {(16,): [0.8, 0.9]} for label in labels}, host=name)
    figures = drawn(store)
    one, two = (_keys(figures[f"{n}-digits-mlp-metric-epochs.png"]) for n in ("first", "second"))
    for label in set(first) & set(second):
        assert one[label] == two[label]
    for keys in (one, two):
        assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize(
    "labels",
    [
        TABLE,
        TABLE[::-1],
        ["dlADMM", "mDLAM", "SAMT-E"],
        ["SAMT", "SAMT-S", "samt:lr=1", "samt"],
        [f"samt:lr={n}" for n in range(20)] + TABLE,
    ],
)
def test_no_two_methods_of_an_experiment_look_alike(labels: list[str]) -> None:
    found = looks(labels)
    assert list(found) == labels
    assert len(set(found.values())) == len(labels)
    assert max(found.values()) < 35


def test_methods_have_a_colour_of_their_own_while_there_is_one() -> None:
    for labels in (TABLE, ["a", "b", "SGD", "c", "Adam", "SAMT-S:lr=1", "SAMT-S:lr=2"]):
        assert len({look % 7 for look in looks(labels).values()}) == len(labels)


@pytest.mark.parametrize(
    ("longest", "passes"),
    [(0.5, 40), (7, 9_000), (30, 225_000), (199, 600_000), (600, 5_100_000), (9e4, 3e7)],
)
def test_tick_labels_keep_their_distance(
    store: Store, drawn: Draw, longest: float, passes: float
) -> None:
    cells = save_grid(store, "t", {"a": {(n,): [0.8, 0.9] for n in (16, 32, 64)}})

    def stretch(row: dict[str, Any]) -> dict[str, Any]:
        share = row["epoch"] / 2
        return {"epoch": longest * share, "forward_passes": int(passes * share)}

    _change(store, cells, stretch)
    for name, figure in drawn(store).items():
        for axes in figure.axes:
            low, high = axes.get_xlim()
            texts = [
                text
                for text, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
                if low <= place <= high
            ]
            assert 2 <= len(texts) <= 10
            boxes = [text.get_window_extent() for text in texts]
            for left, right in itertools.pairwise(boxes):
                assert right.x0 - left.x1 > 2, (name, [text.get_text() for text in texts])
            assert max(len(text.get_text()) for text in texts) <= 4, name


def test_methods_without_a_curve_are_named(store: Store, drawn: Draw) -> None:
    values: Grid = {
        "SAMT": {(16,): [0.9, 0.92, 0.94], (64,): [0.9, 0.92, 0.94]},
        "sgd": {(16,): [0.8, 0.81, 0.82], (64,): [0.8, None, 0.82]},
        "adam": {(16,): [None, None, 0.7], (64,): [None, None, None]},
    }
    save_grid(store, "t", values)
    for name, figure in drawn(store).items():
        texts = _legend(figure)
        assert "sgd at width 64 (not drawn: 1 of 3 diverged)" in texts
        assert "adam at width 16 (not drawn: 2 of 3 diverged)" in texts
        assert "adam at width 64 (not drawn: 3 of 3 diverged)" in texts
        assert "adam" not in texts
        box = figure.legends[0].get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width, name


def test_methods_that_take_no_passes_are_named(store: Store, drawn: Draw) -> None:
    cells = save_grid(store, "t", {one: {(16,): [0.8, 0.9]} for one in ("samt", "dladmm")})
    solved = [identity for identity, label in cells.items() if label == "dladmm"]
    _change(store, solved, lambda _: {"forward_passes": 0, "backward_passes": 0, "step_sizes": {}})
    figures = drawn(store)
    assert "dladmm (not drawn: no passes)" in _legend(figures["t-digits-mlp-metric-passes.png"])
    for kind in ("metric-epochs", "loss-epochs", "step-sizes"):
        assert not any("not drawn" in text for text in _legend(figures[f"t-digits-mlp-{kind}.png"]))


def test_what_was_not_run_is_no_missing_curve(store: Store, drawn: Draw) -> None:
    cells = save_grid(store, "t", {"samt": {(16,): [0.8, 0.9]}})
    waiting = save_grid(store, "u", {"sgd": {(16,): [0.8, 0.9]}})
    save_experiment(store, "t", cells | waiting)
    assert store.local is not None
    for identity in waiting:
        for path in store.local.rglob(f"{identity}*"):
            path.unlink()
    figures = drawn(Store(store.location))
    assert _legend(figures["t-digits-mlp-loss-epochs.png"]) == ["samt", "standard deviation"]


def test_legends_explain_bands_and_dotted_lines(store: Store, paper: Any, drawn: Draw) -> None:
    save_grid(store, "table", ACCURACIES, file=str(paper / "table.yaml"))
    save_grid(store, "alone", {"SAMT": {(16,): [0.9]}})
    figures = drawn(store)
    assert _legend(figures["table-digits-mlp-metric-epochs.png"])[1:4] == [
        *("sgd", "standard deviation", "published")
    ]
    assert "published" not in _legend(figures["table-digits-mlp-loss-epochs.png"])
    assert _legend(figures["alone-digits-mlp-metric-epochs.png"]) == ["SAMT"]


def test_legends_explain_crosses(store: Store, drawn: Draw) -> None:
    cells = save_grid(store, "t", {"samt": {(16,): [0.8, None]}})

    def late(row: dict[str, Any]) -> dict[str, Any]:
        is_over = row["epoch"] == 2 and not math.isfinite(row["test_metric"])
        return {} if is_over else {"test_metric": 0.5, "train_loss": 0.5}

    _change(store, cells, late)
    for kind in ("metric-epochs", "metric-passes", "loss-epochs"):
        assert "ended early" in _legend(drawn(store)[f"t-digits-mlp-{kind}.png"])


def test_legends_explain_bars(store: Store, drawn: Draw) -> None:
    values: Grid = {f"samt:lr={lr}": {(16,): [0.8, 0.9]} for lr in (0.01, 0.1)}
    cells = save_grid(store, "t", {**values, "samt:lr=1.0": {(16,): [0.8, None]}})
    for identity, label in cells.items():
        set_option(store, identity, "lr", float(label.split("=")[1]))
    texts = _legend(drawn(store)["t-digits-mlp-over-lr.png"])
    assert texts == ["samt", "standard deviation", "did not finish"]


def _schedule(first: float, last: float) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(row: dict[str, Any]) -> dict[str, Any]:
        return {"step_sizes": {"hidden1": first * (last / first) ** (row["epoch"] / 2)}}

    return change


def test_a_schedule_that_ends_at_nothing_squeezes_no_step_sizes(store: Store, drawn: Draw) -> None:
    cells = save_grid(store, "t", {one: {(16,): [0.8, 0.9]} for one in ("a", "cosine", "tiny")})
    for label, (first, last) in {"a": (0.1, 0.4), "cosine": (0.3, 2e-9)}.items():
        _change(store, [i for i, one in cells.items() if one == label], _schedule(first, last))
    _change(store, [i for i, one in cells.items() if one == "tiny"], _schedule(1e-5, 2e-5))
    low, high = drawn(store)["t-digits-mlp-step-sizes.png"].axes[0].get_ylim()
    assert 1e-6 < low <= 1e-5, "an ordinary value stays"
    assert 0.4 < high < 1


@pytest.mark.parametrize(
    ("lines", "least"),
    [
        ([[0.3, 2e-9], [0.1, 0.2]], 3e-5),
        ([[0.3, 2e-9], [1e-5, 2e-5]], 1e-5),
        ([[math.nan, 0.3, 0.01]], 0.01),
        ([[0.3, 0.0], [0.1, 0.2]], 0.0),
        ([[0.3, -0.1], [0.1, 0.2]], -0.1),
    ],
)
def test_least_shown(lines: Sequence[Sequence[float]], least: float) -> None:
    assert least_shown([np.array(one) for one in lines]) == pytest.approx(least)


def test_the_picture_of_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: saved.append(figure))

    def result(label: str, sizes: Sequence[float]) -> Result:
        rows = [
            EpochMetrics(n, 1.0, 1.0, 1.0, 0.5, float(n), n, n, {"b": size})
            for n, size in enumerate(sizes)
        ]
        return Result(label, (Record(label, "accuracy", 1, "finished", tuple(rows)),))

    comparison_png([result("samt", [0.1, 0.4, 0.2]), result("sgd", [0.3, 0.1, 2e-9])], "title")
    sizes = saved[0].axes[2]
    assert sizes.get_ylim()[0] == pytest.approx(3e-5)
    # Of SGD and HD it is the one of the moment.
    assert sizes.get_title(loc="left") == "Step size of each block (SAMT: mean over the epoch)"
