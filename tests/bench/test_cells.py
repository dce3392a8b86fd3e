"""Cells: what their identity depends on, and their way to another process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samt.bench.experiments import cells
from samt.bench.experiments.cells import Cell, Source
from samt.bench.experiments.grid import Machine, groups
from samt.bench.experiments.spec import Experiment
from samt.bench.method_specs import METHOD_OPTIONS, MethodSpec, parse_spec

SOURCE = Source("digits", None, split_seed=0, validation=0.0)
CELL = Cell(
    label="SAMT",
    spec=parse_spec("samt:step_size=row,lr=0.05"),
    source=SOURCE,
    data_sha256="ab" * 32,
    model="mlp",
    hidden=(300,),
    dropout=0.0,
    batch_size=64,
    seed=0,
    device="cpu",
    threads=1,
    budget={"epochs": 3.0},
    evaluate=1.0,
)


def fresh(cell: Cell) -> Cell:
    """The same cell, whose record is worked out again."""
    return replace(cell)


# Another value for every field that makes the result what it is.
CHANGES: dict[str, list[Any]] = {
    "spec": [parse_spec(text) for text in ("sgd", "samt", "samt:step_size=row,lr=0.06")],
    "source": [
        replace(SOURCE, name="mnist"),
        replace(SOURCE, split_seed=1),
        replace(SOURCE, validation=0.1),
        replace(SOURCE, validation=0.2),
    ],
    "data_sha256": ["cd" * 32],
    "model": ["cnn", "cnn:8"],
    "hidden": [(), (30,), (300, 300), (3, 0, 0)],
    "dropout": [0.5],
    "batch_size": [65],
    "seed": [1],
    "device": ["cuda"],
    "threads": [2],
    "budget": [{"epochs": 3.5}, {"passes": 3}, {"seconds": 3.0}],
    "evaluate": [0.5],
}
WITHOUT_EFFECT: dict[str, list[Any]] = {
    "label": ["another name", ""],
    "tuned": [{"lr": 0.05}, {}],
}


def test_the_identity_depends_on_everything_that_makes_the_result_what_it_is() -> None:
    assert CHANGES.keys() | WITHOUT_EFFECT.keys() == {field.name for field in fields(Cell)}
    variants = [replace(CELL, **{name: one}) for name in CHANGES for one in CHANGES[name]]
    identities = [CELL.identity, *(cell.identity for cell in variants)]
    assert len(set(identities)) == len(identities)


def test_the_identity_depends_on_nothing_else(tmp_path: Path) -> None:
    for name, values in WITHOUT_EFFECT.items():
        for value in values:
            assert replace(CELL, **{name: value}).identity == CELL.identity
    elsewhere = replace(SOURCE, data_dir=tmp_path)
    assert replace(CELL, source=elsewhere).identity == CELL.identity
    one, two = (
        replace(CELL, source=replace(SOURCE, name=str(folder / "own.csv")))
        for folder in (tmp_path, tmp_path / "deeper")
    )
    assert one.identity == two.identity  # the checksum tells data apart


def test_code_and_torch_are_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fresh(CELL).identity
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "0.0")
        assert fresh(CELL).identity != before
    monkeypatch.setattr(cells, "code_version", lambda method: "0" * 12)
    assert fresh(CELL).identity != before


def test_an_identity_is_16_digits_of_what_the_record_says() -> None:
    assert len(CELL.identity) == 16
    assert set(CELL.identity) <= set("0123456789abcdef")
    assert json.loads(json.dumps(CELL.record)) == CELL.record
    assert CELL.record["role"] == "final"
    assert replace(CELL, source=replace(SOURCE, validation=0.1)).record["role"] == "tuning"


@pytest.mark.parametrize(
    "spellings",
    [
        ["sgd", "sgd:lr=0.1", "sgd:lr=0.10", "sgd:lr=1e-1", "sgd: lr = .1", "sgd:nesterov=False"],
        ["samt:lr=0.2,step_size=row", "samt:step-size=row,lr=0.2", "samt:step_size=row,lr=2e-1"],
        ["samt", "samt:radius=none", "samt:blocks=NONE,relative=false", "samt:inner_steps=01"],
        ["adam:eps=1e-8", "adam", "adam:beta2=0.999,beta1=0.90"],
        ["bcd"],
    ],
)
def test_the_spelling_of_a_method_changes_nothing(spellings: list[str]) -> None:
    found = {replace(CELL, spec=parse_spec(text)).identity for text in spellings}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"budget": {"epochs": 1}}, {"budget": {"epochs": 1.0}}),
        ({"evaluate": 2, "dropout": 0}, {"evaluate": 2.0, "dropout": 0.0}),
        ({"width": 8}, {"width": [[8]]}),
        ({"seeds": 1}, {"seeds": [0]}),
        (
            {"methods": [{"method": "samt", "options": {"lr": 0.1, "radius": None}}]},
            {"methods": [{"method": "samt:radius=none", "label": "S", "options": {"lr": "0.10"}}]},
        ),
    ],
)
def test_the_spelling_of_an_experiment_changes_nothing(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    small = {"name": "t", "data": "digits", "methods": ["sgd"], "budget": {"epochs": 1}}

    def identity(more: dict[str, Any], name: str) -> str:
        what = Experiment.model_validate({**small, **more, "name": name, "timeout": len(name)})
        (group,), _ = groups(what, Machine())
        return group.final({})[0].identity

    assert identity(one, "one") == identity(other, "another")


def test_the_identity_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Whatever the hash seed and the folder are."""
    program = (
        "import dataclasses, json, sys\n"
        "from samt.bench.experiments.cells import Cell\n"
        "for job in json.load(sys.stdin):\n"
        "    print(dataclasses.replace(Cell.from_job(job)).identity)\n"
    )
    specs = ("samt:step_size=row,lr=0.05", "bcd", "adam-hd:rule=multiplicative")
    several = [replace(CELL, spec=parse_spec(text)) for text in specs]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for seed in ("1", "2")
    ]
    for process in processes:
        out, _ = process.communicate(json.dumps([cell.as_job() for cell in several]), timeout=300)
        assert out.split() == [cell.identity for cell in several]


# Cells of all kinds

_TEXTS = (
    *("0", "0.0", "0.1", "0.10", "1e-1", "1", "2", "0.9", "5", "true", "FALSE", "none"),
    *("scalar", "row", "element", "dense", "sigmoid", "left", "same", "fresh", "next", "reverse"),
    *("random", "multiplicative", "squared", "cross_entropy", "cosine"),
)


def _valid(method: str, option: str) -> list[str]:
    def is_valid(text: str) -> bool:
        try:
            METHOD_OPTIONS[method][option].parse(text)
        except ValueError:
            return False
        return True

    return [text for text in _TEXTS if is_valid(text)]


VALID = {
    method: {option: _valid(method, option) for option in options}
    for method, options in METHOD_OPTIONS.items()
    if options
}


@st.composite
def specs(draw: st.DrawFn) -> MethodSpec:
    method = draw(st.sampled_from([*VALID]))
    names = draw(st.lists(st.sampled_from([*VALID[method]]), max_size=3, unique=True))
    return parse_spec(method, {name: draw(st.sampled_from(VALID[method][name])) for name in names})


BUDGETS = (
    st.fixed_dictionaries({"epochs": st.floats(0, 3)})
    | st.fixed_dictionaries({"seconds": st.floats(1, 3)})
    | st.fixed_dictionaries({"passes": st.integers(1, 3)})
)
SOURCES = st.builds(
    Source,
    name=st.sampled_from(["digits", "mnist", "/data/own.csv", "/other/own.csv"]),
    data_dir=st.none() | st.just(Path("/data")),
    split_seed=st.integers(0, 2),
    validation=st.just(0.0) | st.floats(0.1, 0.3),
)
CELLS = st.builds(
    Cell,
    label=st.text(max_size=5),
    spec=specs(),
    source=SOURCES,
    data_sha256=st.sampled_from(["ab" * 32, "cd" * 32]),
    model=st.sampled_from(["mlp", "cnn:4"]),
    hidden=st.lists(st.integers(1, 2), max_size=2).map(tuple),
    dropout=st.sampled_from([0.0, 0.1 + 0.2]),
    batch_size=st.integers(1, 2),
    seed=st.sampled_from([0, 2**40]),
    device=st.sampled_from(["cpu", "cuda"]),
    threads=st.integers(1, 2),
    budget=BUDGETS,
    evaluate=st.sampled_from([1.0, 1 / 3]),
    tuned=st.none() | st.dictionaries(st.sampled_from(["lr"]), st.floats(0, 1) | st.booleans()),
)


@settings(deadline=None)
@given(cell=CELLS)
def test_a_cell_reaches_another_process_as_it_is(cell: Cell) -> None:
    there = Cell.from_job(json.loads(json.dumps(cell.as_job())))
    assert there == cell
    assert (there.identity, there.record) == (cell.identity, cell.record)
    assert fresh(there).identity == cell.identity
    assert (there.role, there.name, there.settings) == (cell.role, cell.name, cell.settings)


@settings(deadline=None)
@given(cell=CELLS, other=CELLS, data=st.data())
def test_identities_are_equal_if_and_only_if_all_that_counts_is(
    cell: Cell, other: Cell, data: st.DataObject
) -> None:
    names = data.draw(st.sets(st.sampled_from([*CHANGES])))
    mixed = replace(cell, **{name: getattr(other, name) for name in names}, label=other.label)

    def counts(one: Cell) -> tuple[Any, ...]:
        source, options = one.source, dict(one.spec.options)
        if "loss" not in one.spec.given:
            options.pop("loss", None)
        name = source.name.rsplit("/", 1)[-1]
        return (
            *(one.spec.name, sorted(map(repr, options.items()))),
            *(name, source.split_seed, source.validation),
            *(getattr(one, field) for field in CHANGES if field not in ("spec", "source")),
        )

    assert (mixed.identity == cell.identity) == (counts(mixed) == counts(cell))


def test_a_cell_keeps_its_identity_while_somebody_works_on_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its process may start later, with the code that was loaded before."""
    job = CELL.as_job()
    monkeypatch.setattr(cells, "code_version", lambda method: "0" * 12)
    assert Cell.from_job(job).identity == CELL.identity


def test_paths_are_absolute_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = replace(CELL, source=Source("./own.csv", Path("data"), 0, 0.0))
    source = Cell.from_job(here.as_job()).source
    assert (source.name, source.data_dir) == (str(tmp_path / "own.csv"), tmp_path / "data")
    assert Cell.from_job(here.as_job()).identity == here.identity


@settings(deadline=None)
@given(label=st.text(), model=st.sampled_from(["mlp", "cnn:8,16"]))
def test_a_name_can_be_that_of_a_file(label: str, model: str) -> None:
    cell = replace(CELL, label=label, model=model, hidden=(8,) * 100)
    assert 0 < len(cell.file_name) <= 150
    assert cell.file_name == Path(cell.file_name).name
    assert cell.file_name.isascii()
    assert not cell.file_name.startswith((".", "-"))


def test_the_loss_of_a_solver_is_that_of_the_data_unless_it_is_written() -> None:
    plain = replace(CELL, spec=parse_spec("mdlam"))
    assert "loss" not in plain.record["options"]
    other = replace(CELL, spec=parse_spec("mdlam:loss=squared"))
    assert other.record["options"]["loss"] == "squared"
    assert plain.identity != other.identity


def test_a_cell_that_learns_with_other_numbers_is_another_cell() -> None:
    """A float that differs in its last digit, too."""
    nearly = math.nextafter(0.05, 1)
    spec = parse_spec("samt:step_size=row", {"lr": repr(nearly)})
    assert replace(CELL, spec=spec).identity != CELL.identity
    assert Cell.from_job(json.loads(json.dumps(replace(CELL, spec=spec).as_job()))).spec == spec


def test_a_network_has_one_identity_however_it_is_written() -> None:
    assert replace(CELL, model="cnn").identity == replace(CELL, model="cnn:16,32").identity
    assert replace(CELL, model="cnn").identity != replace(CELL, model="cnn:16").identity
