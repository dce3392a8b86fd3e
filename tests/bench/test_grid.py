"""From an experiment to its cells: which, in what order, on which part of the data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samt.bench.data import Dataset
from samt.bench.errors import DataError, ExperimentError
from samt.bench.experiments.cells import Cell, Source
from samt.bench.experiments.grid import Group, Machine, groups
from samt.bench.experiments.spec import Experiment

from .idx_files import write_images


def experiment(**fields: Any) -> Experiment:
    small = {"name": "t", "data": "digits", "methods": ["sgd"], "budget": {"epochs": 1}}
    return Experiment.model_validate({**small, **fields})


def found(what: Experiment, *only: str) -> list[tuple[str, str, str, str, int]]:
    """Data, model, width, label and seed of every cell that is not of a tuning."""
    return [
        (cell.record["data"], cell.model, "-".join(map(str, cell.hidden)), cell.label, cell.seed)
        for group in groups(what, Machine(), only)[0]
        for cell in group.final({})
    ]


GRID = experiment(
    data=["digits", "diabetes"],
    model=["mlp", "cnn:4"],
    width=[[8], [8, 4], []],
    methods=["sgd", {"method": "samt", "label": "S"}],
    seeds=[7, 1],
)


def test_all_combinations_in_the_order_of_the_file() -> None:
    assert found(GRID) == [
        (data, model, width, label, seed)
        for data in ("digits", "diabetes")
        for model in ("mlp", "cnn:4")
        for width in ("8", "8-4", "")
        for label in ("sgd", "S")
        for seed in (7, 1)
    ]


def test_a_list_of_options_makes_a_method_of_each_value() -> None:
    several = {
        "method": "samt:order=random",
        "options": {"lr": [0.1, 0.01], "radius": None, "relative": [True, 2]},
    }
    named = {"method": "sgd", "label": "SGD", "options": {"momentum": [0, 0.9], "lr": 0.5}}
    what = experiment(methods=[several, named])
    assert [label for *_, label, _ in found(what)] == [
        "samt:order=random,radius=none,lr=0.1,relative=true",
        "samt:order=random,radius=none,lr=0.1,relative=2",
        "samt:order=random,radius=none,lr=0.01,relative=true",
        "samt:order=random,radius=none,lr=0.01,relative=2",
        "SGD:momentum=0",
        "SGD:momentum=0.9",
    ]
    cells = [cell for group in groups(what, Machine())[0] for cell in group.final({})]
    assert cells[1].spec.options["relative"] == 2.0
    assert cells[1].spec.options["order"] == "random"
    assert [cells[-1].spec.options[name] for name in ("momentum", "lr")] == [0.9, 0.5]


@pytest.mark.parametrize(
    ("excluded", "gone"),
    [
        ({"data": "digits"}, lambda cell: cell[0] == "digits"),
        ({"model": "cnn:4"}, lambda cell: cell[1] == "cnn:4"),
        ({"width": 8}, lambda cell: cell[2] == "8"),
        ({"width": [8, 4]}, lambda cell: cell[2] == "8-4"),
        ({"width": []}, lambda cell: cell[2] == ""),
        ({"method": "S"}, lambda cell: cell[3] == "S"),
        ({"method": "samt"}, lambda cell: False),  # it has another label
        ({"seed": 1}, lambda cell: cell[4] == 1),
        (
            {"seed": 1, "data": "digits", "method": "S"},
            lambda cell: (cell[0], *cell[3:]) == ("digits", "S", 1),
        ),
    ],
)
def test_what_is_excluded_is_not_there(excluded: dict[str, Any], gone: Any) -> None:
    everything = found(GRID)
    left = found(GRID.model_copy(update={"exclude": [excluded, {"seed": 9}]}))
    assert left == [cell for cell in everything if not gone(cell)]


@pytest.mark.parametrize("name", ["a/own.csv", "own"])
def test_a_path_is_excluded_as_it_is_written_or_by_its_name(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / "own.csv", [number / 7 for number in range(40)])
    path = str(tmp_path / "own.csv")
    assert [cell[0] for cell in found(experiment(data=["digits", path]))] == ["digits", "own"]
    what = experiment(data=["digits", path], exclude=[{"data": name.replace("a", str(tmp_path))}])
    assert [cell[0] for cell in found(what)] == ["digits"]


@pytest.mark.parametrize(
    ("only", "kept"),
    [
        (["data=dig*"], lambda cell: cell[0] == "digits"),
        (["model=cnn*"], lambda cell: cell[1] == "cnn:4"),
        (["width=8*"], lambda cell: cell[2] in ("8", "8-4")),
        (["width="], lambda cell: cell[2] == ""),
        (["method=[sS]*", "seed=1"], lambda cell: cell[4] == 1),
        (["seed=1", "seed=7"], lambda cell: True),
        (["method=?", "data=x", "data=diabetes"], lambda cell: cell[::3] == ("diabetes", "S")),
    ],
)
def test_only_keeps_what_agrees_with_a_pattern_of_every_key(only: list[str], kept: Any) -> None:
    assert found(GRID, *only) == [cell for cell in found(GRID) if kept(cell)]


def test_a_pattern_may_hold_an_equals_sign() -> None:
    what = experiment(methods=["samt:lr=1", "samt:lr=2"])
    assert [cell[3] for cell in found(what, "method=samt:lr=2")] == ["samt:lr=2"]


@pytest.mark.parametrize("only", ["sgd", "=sgd", "methods=sgd", "budget=1", ""])
def test_a_pattern_that_cannot_be_read(only: str) -> None:
    with pytest.raises(ExperimentError, match="KEY one of data, model, width, method, seed"):
        groups(GRID, Machine(), [only])


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(ExperimentError, match="no cell is left: check exclude and --only"):
        groups(GRID, Machine(), ["method=adam"])
    with pytest.raises(ExperimentError, match="no cell is left"):
        groups(experiment(exclude=[{"model": "mlp"}]), Machine())


@pytest.mark.parametrize("model", ["resnet18", "vgg11:8"])
def test_networks_without_widths_are_there_once(model: str) -> None:
    what = experiment(model=[model, "mlp"], width=[[8], [4]])
    assert [cell[1:3] for cell in found(what)] == [(model, ""), ("mlp", "8"), ("mlp", "4")]


# Data that are not here


def test_absent_data_are_left_out_with_the_reason(tmp_path: Path, data_dir: Path) -> None:
    missing = str(tmp_path / "none.csv")
    what = experiment(data=["mnist", "digits", missing, "cifar10"])
    machine = Machine(data_dir=data_dir)
    there, absent = groups(what, machine)
    assert [group.final({})[0].record["data"] for group in there] == ["mnist", "digits"]
    assert list(absent) == ["none", "cifar10"]
    assert "there is no " in absent["none"]
    assert "samt data prepare cifar10" in absent["cifar10"]
    assert groups(what, machine, ["data=mnist"])[1] == {}  # what is not wanted is not missed


def test_if_no_data_are_here_that_is_an_error(tmp_path: Path) -> None:
    what = experiment(data=["mnist", "cifar10"])
    with pytest.raises(DataError, match="samt data prepare mnist"):
        groups(what, Machine(data_dir=tmp_path))


# Choosing options on the validation part

TUNED = {"method": "sgd", "label": "SGD", "tune": {"lr": [0.1, 1.0], "momentum": [0.0, 0.9]}}
CHOICES = [{"lr": lr, "momentum": momentum} for lr in (0.1, 1.0) for momentum in (0.0, 0.9)]


def tuned_group(**fields: Any) -> Group:
    what = {"methods": [TUNED], "tuning": {"seeds": [0, 5]}, **fields}
    (group,), _ = groups(experiment(**what), Machine())
    return group


GROUP = tuned_group()


def summary(
    score: float | None, metric: str = "accuracy", status: str = "finished"
) -> dict[str, Any]:
    return {"status": status, "metric": metric, "validation_metric": score}


def summaries(scores: Sequence[Sequence[float | None]], **more: str) -> dict[str, dict[str, Any]]:
    return {
        cell.identity: summary(score, **more)
        for (_, cells), row in zip(GROUP.tuning, scores, strict=True)
        for cell, score in zip(cells, row, strict=True)
    }


def test_every_choice_is_tried_with_every_seed_of_the_tuning() -> None:
    assert [options for options, _ in GROUP.tuning] == CHOICES
    for options, cells in GROUP.tuning:
        assert [(cell.seed, cell.role) for cell in cells] == [(0, "tuning"), (5, "tuning")]
        assert all(options.items() <= cell.spec.options.items() for cell in cells)
    cells = [cell for _, cells in GROUP.tuning for cell in cells]
    assert len({cell.identity for cell in cells}) == 8
    assert cells[-1].label == "SGD:lr=1.0,momentum=0.9"


def test_what_was_chosen_is_the_method_that_counts() -> None:
    (cell,) = GROUP.final(CHOICES[2])
    assert (cell.role, cell.label, cell.tuned) == ("final", "SGD", CHOICES[2])
    assert CHOICES[2].items() <= cell.spec.options.items()
    (plain,), _ = groups(experiment(methods=["sgd:lr=1.0,momentum=0"]), Machine())
    assert plain.final({})[0].identity == cell.identity  # how it was chosen changes no number
    assert plain.choice({}) == {}
    assert plain.final({})[0].tuned is None


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 1), ("rmse", 3)])
def test_the_best_mean_over_the_seeds_is_chosen(metric: str, best: int) -> None:
    scores = [[0.9, 0.1], [0.6, 0.8], [0.7, 0.5], [0.1, 0.8]]
    assert GROUP.choice(summaries(scores, metric=metric)) == CHOICES[best]


SCORE = st.floats(0, 100, allow_subnormal=False)


@given(scores=st.lists(st.lists(SCORE, min_size=2, max_size=2), min_size=4, max_size=4))
def test_the_first_of_equal_choices_is_chosen(scores: list[list[float]]) -> None:
    means = [math.fsum(row) / 2 for row in scores]
    assert GROUP.choice(summaries(scores)) == CHOICES[means.index(max(means))]
    smallest = CHOICES[means.index(min(means))]
    assert GROUP.choice(summaries(scores, metric="rmse")) == smallest


def test_a_choice_that_diverged_is_last() -> None:
    scores: list[list[float | None]] = [[0.99, None], [0.1, 0.1], [0.2, 0.0], [0.0, 0.0]]
    results = summaries(scores)
    results[GROUP.tuning[0][1][1].identity]["status"] = "diverged"
    assert GROUP.choice(results) == CHOICES[1]
    # Also if the number that it ended with can be read.
    results = summaries([[0.99, 0.99], [0.1, 0.1], [0.2, 0.0], [0.0, 0.0]])
    results[GROUP.tuning[0][1][1].identity]["status"] = "diverged"
    assert GROUP.choice(results) == CHOICES[1]
    nothing = summaries([[None, None]] * 4, status="diverged")
    assert GROUP.choice(nothing) == CHOICES[0]


@pytest.mark.parametrize("status", ["failed", "timed-out", "killed", None])
@pytest.mark.parametrize("index", range(4))
def test_without_all_results_nothing_is_chosen(status: str | None, index: int) -> None:
    results: dict[str, Any] = summaries([[0.9, 0.9], [0.1, 0.1], [0.2, 0.0], [0.0, 0.0]])
    identity = GROUP.tuning[index][1][1].identity
    if status is None:
        del results[identity]
    else:
        results[identity]["status"] = status
    assert GROUP.choice(results) is None


def test_the_tuning_has_a_budget_of_its_own_or_that_of_what_it_is_for() -> None:
    def budgets(group: Group) -> tuple[Mapping[str, float], Mapping[str, float]]:
        return group.tuning[0][1][0].budget, group.final(CHOICES[0])[0].budget

    assert budgets(GROUP) == ({"epochs": 1.0}, {"epochs": 1.0})
    own = {"passes": 9}
    assert budgets(tuned_group(tuning={"budget": own})) == (own, {"epochs": 1.0})
    longer = {**TUNED, "budget": {"epochs": 2}}
    assert budgets(tuned_group(methods=[longer])) == ({"epochs": 2.0}, {"epochs": 2.0})
    both = tuned_group(methods=[longer], tuning={"budget": own})
    assert budgets(both) == (own, {"epochs": 2.0})


def test_only_one_seed_does_not_change_what_is_chosen() -> None:
    what = experiment(methods=[TUNED], tuning={"seeds": [0, 5]}, seeds=[0, 1, 2])
    (group,), _ = groups(what, Machine(), ["seed=2"])
    assert [cell.seed for cell in group.final(CHOICES[0])] == [2]
    assert tuning_identities(group) == tuning_identities(GROUP)


def tuning_identities(group: Group) -> list[str]:
    return [cell.identity for _, cells in group.tuning for cell in cells]


# The test part stays out of every choice


def parts(cell: Cell) -> tuple[Dataset, Counter[bytes], Counter[bytes]]:
    """The data of a cell; its samples to learn from, and to be judged by."""
    data = cell.source.load()

    def samples(part: str) -> Counter[bytes]:
        split = data.parts[part]
        return Counter(
            inputs.numpy().tobytes() + bytes([int(target)])
            for inputs, target in zip(split.inputs, split.targets, strict=True)
        )

    return data, samples("train"), samples("test")


@pytest.mark.parametrize("name", ["mnist", "digits"])
@pytest.mark.parametrize("split", [0, 3, "seed"])
def test_a_tuning_cell_is_judged_by_the_validation_part(
    data_dir: Path, name: str, split: int | str
) -> None:
    """Also where the test part is drawn, as it is with digits."""
    what = experiment(data=name, methods=[TUNED], split=split, validation=0.25)
    (group,), _ = groups(what, Machine(data_dir=data_dir))
    data, train, judged = parts(group.tuning[0][1][0])
    final, whole, test = parts(group.final(CHOICES[0])[0])
    assert list(data.parts) == list(final.parts) == ["train", "test"]
    assert train + judged == whole  # the cells that count learn from both
    assert judged.total() == pytest.approx(0.25 * whole.total(), abs=1)
    assert not (train | judged) & test
    assert whole.total() + test.total() == {"mnist": 96 + 40, "digits": 1797}[name]


def write_table(path: Path, numbers: Sequence[float]) -> None:
    rows = "".join(f"{number},{-2 * number},{3 * number}\n" for number in numbers)
    path.write_text(f"a,b,y\n{rows}")


def test_no_number_of_the_test_part_reaches_a_tuning_cell(tmp_path: Path) -> None:
    """Not by way of a scaler either: changing a sample of it changes nothing."""
    path = tmp_path / "own.csv"
    tuning, final = (Source(str(path), None, 0, share) for share in (0.2, 0.0))
    numbers = list(np.random.default_rng(0).normal(size=30))
    write_table(path, numbers)
    before = tuning.load().fingerprint, final.load().fingerprint
    changed = {"tuning": 0, "final": 0}
    for index in range(30):
        write_table(path, [*numbers[:index], numbers[index] + 1, *numbers[index + 1 :]])
        changed["tuning"] += tuning.load().fingerprint != before[0]
        changed["final"] += final.load().fingerprint != before[1]
    assert changed == {"tuning": 24, "final": 30}


def test_split_takes_a_number_or_that_of_the_seed() -> None:
    what = experiment(methods=["sgd"], seeds=[0, 4], split="seed")
    (plain,), _ = groups(what, Machine())
    assert [cell.source.split_seed for cell in plain.final({})] == [0, 4]
    assert len({cell.data_sha256 for cell in plain.final({})}) == 2
    (fixed,), _ = groups(experiment(seeds=[0, 4], split=3), Machine())
    assert [cell.source.split_seed for cell in fixed.final({})] == [3, 3]
    assert len({cell.data_sha256 for cell in fixed.final({})}) == 1


def test_with_a_split_for_each_seed_none_chooses_by_the_data_of_another() -> None:
    what = experiment(methods=[TUNED], seeds=[0, 4], tuning={"seeds": [2]}, split="seed")
    one, other = groups(what, Machine())[0]
    for seed, group in ((0, one), (4, other)):
        for options, cells in group.tuning:
            assert [(cell.seed, cell.source.split_seed) for cell in cells] == [(seed, seed)]
            (final,) = group.final(options)
            assert (final.seed, final.source.split_seed) == (seed, seed)
            # No test sample of the split is among those that choose or learn.
            (tuning,) = cells
            data, seen = final.source.load(), tuning.source.load()
            test = {sample.tobytes() for sample in data.test.inputs.numpy()}
            for part in (seen.train, seen.test):
                assert not test & {sample.tobytes() for sample in part.inputs.numpy()}


def test_the_data_are_read_once_for_all_cells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_images(tmp_path / "mnist")
    loaded: list[Source] = []
    load = Source.load

    def counting(source: Source) -> Dataset:
        loaded.append(source)
        return load(source)

    monkeypatch.setattr(Source, "load", counting)
    what = experiment(data="mnist", methods=["adam", TUNED], width=[[8], [9]], seeds=3)
    there, _ = groups(what, Machine(data_dir=tmp_path))
    for group in there:
        group.final(CHOICES[0] if group.tuning else {})
    assert sorted(source.validation for source in loaded) == [0.0, 0.1]


@settings(deadline=None, max_examples=25)
@given(
    seeds=st.lists(st.integers(0, 2**40), min_size=1, max_size=3, unique=True),
    widths=st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, unique_by=tuple),
    methods=st.lists(st.sampled_from(["sgd", "adam", "samt", "bcd"]), min_size=1, unique=True),
)
def test_every_cell_of_a_grid_is_another_one(
    seeds: list[int], widths: list[list[int]], methods: list[str]
) -> None:
    what = experiment(data="diabetes", seeds=seeds, width=widths, methods=methods)
    cells = [cell for group in groups(what, Machine())[0] for cell in group.final({})]
    assert len(cells) == len(seeds) * len(widths) * len(methods)
    assert len({cell.identity for cell in cells}) == len(cells)
