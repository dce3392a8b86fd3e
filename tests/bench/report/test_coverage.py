"""How much of an experiment's file was run, and the commands that run it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from samt.bench.commands.run import _plans
from samt.bench.experiments.grid import Machine
from samt.bench.experiments.store import Store
from samt.bench.report.coverage import beside, coverage
from samt.bench.report.findings import gather
from samt.bench.report.page import page
from samt.bench.settings import width_text

from .conftest import Grid, save_grid, write

ORDER = {
    "data": ["digits", "mnist", "kmnist"],
    "model": ["mlp"],
    "width": ["16", "64", "128"],
    "label": ["SAMT", "sgd", "[a]*"],
}


def _cells(*places: tuple[str, str, str]) -> pd.DataFrame:
    rows = [
        {"role": "final", "data": data, "model": "mlp", "width": width, "label": label}
        for data, width, label in places
    ]
    return pd.DataFrame(rows)


def test_what_has_no_cell_and_what_lacks_some() -> None:
    cells = _cells(
        *(("digits", width, label) for width in ("16", "64") for label in ORDER["label"]),
        ("mnist", "16", "SAMT"),
    )
    found = coverage({"order": ORDER, "file": "f.yaml", "absent": {"kmnist": "no file"}}, cells)
    assert found is not None
    assert (found.places, found.run) == (27, 7)
    assert list(found.left) == [
        "width 128",
        "mnist, mlp, width 16: sgd and [a]*",
        "mnist, mlp, width 64",
    ]
    assert [shlex.split(one)[3:] for one in found.commands] == [
        ["--only", "data=digits", "--only", "width=16", "--only", "width=64"],
        ["--only", "data=mnist", "--only", "width=16", "--only", "method=SAMT"],
    ]


def test_a_name_in_a_command_is_no_pattern() -> None:
    cells = _cells(("digits", "16", "[a]*"))
    found = coverage({"order": ORDER, "file": "f.yaml", "profile": "smoke"}, cells)
    assert found is not None
    assert list(found.left)[:3] == ["mnist and kmnist", "widths 64 and 128", "SAMT and sgd"]
    assert shlex.split(found.commands[0])[-1] == "method=[[]a][*]"
    assert found.commands[0].startswith("samt run f.yaml --profile smoke --only data=digits ")


def test_a_command_runs_what_is_there(tmp_path: Path) -> None:
    file = write(
        tmp_path / "some.yaml",
        "name: some\ndata: [digits, diabetes]\nmodel: [mlp, resnet18]\nwidth: [8, 16]\n"
        "budget: {epochs: 1}\nmethods: [{method: sgd}, {method: adam}]\n",
    )
    machine = Machine("cpu", 1, tmp_path)

    def places(*only: str) -> set[tuple[str, str, str, str]]:
        (plan,) = _plans([str(file)], None, machine, only)
        cells = [cell for group in plan.groups for cell in group.final({})]
        return {
            (cell.record["data"], cell.model, width_text(cell.hidden), cell.label) for cell in cells
        }

    wanted = {one for one in places() if one[0] == "digits" or one[2] == "16"}
    order = {
        "data": ["digits", "diabetes"],
        "model": ["mlp", "resnet18"],
        "width": ["8", "16"],
        "label": ["sgd", "adam"],
    }
    rows: Any = [
        dict(zip(("data", "model", "width", "label"), one, strict=True), role="final")
        for one in wanted
    ]
    found = coverage({"order": order, "file": str(file)}, pd.DataFrame(rows))
    assert found is not None
    assert (found.places, found.run) == (12, 8)
    run = set()
    for command in found.commands:
        words = shlex.split(command)
        assert words[:3] == ["samt", "run", str(file)]
        run |= places(*words[4::2])
    assert run == wanted


@pytest.mark.parametrize(
    "order",
    [
        None,
        [],
        {"data": ["digits"]},
        {**ORDER, "width": 3},
        {axis: [str(number) for number in range(100)] for axis in ORDER},
    ],
)
def test_records_that_say_nothing_or_too_much(order: object) -> None:
    cells = _cells(("digits", "16", "SAMT"))
    assert coverage({"order": order, "file": "f.yaml"}, cells) is None


def test_the_page_says_what_was_not_run(store: Store, tmp_path: Path) -> None:
    rest = "data: digits\nbudget: {epochs: 1}\nmethods: [{method: sgd}]\n"
    for name in ("table", "other", "third"):
        write(tmp_path / f"{name}.yaml", f"name: {name}\ntitle: The {name}\n{rest}")
    write(tmp_path / "broken.yaml", "methods: 3\n")
    values: Grid = {"SAMT": {(16,): [0.9]}}
    save_grid(store, "table", values, file=str(tmp_path / "table.yaml"), order=ORDER)
    assert beside(str(tmp_path / "table.yaml"), "", ["table"]) == ["The other", "The third"]
    written = page(gather(store), "here", {})
    assert "1 of 27 combinations of data, network, width and method were run; not these:" in written
    assert "<li>mnist and kmnist</li>" in written
    assert '<td class="num">1 of 27</td>' in written
    assert "Not run here at all: The other; The third." in written
    command = (
        f"samt run {tmp_path}/table.yaml --only data=digits --only width=16 --only method=SAMT"
    )
    assert command in written
