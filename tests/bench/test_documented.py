"""The pages on the command line name everything that it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from samt.bench.commands import results
from samt.bench.experiments.spec import Experiment, option_text
from samt.bench.method_specs import METHOD_OPTIONS, Option
from samt.bench.models import MODELS
from samt.bench.suite.families import FAMILIES

from .conftest import Samt


def page(name: str) -> str:
    return (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")


def _shown(name: str, option: Option) -> str:
    text = f"`{name}={option_text(option.default)}`"
    try:
        option.parse("?")
    except ValueError as error:
        choices = re.match(r"one of (.*);", str(error))
        others = [one for one in choices[1].split(", ") if one != option.default] if choices else []
        text += f" (or {', '.join(others)})" if others else ""
    return text


def test_the_documentation_lists_every_option() -> None:
    rows = [
        f"| `{method}` | {', '.join(_shown(*item) for item in options.items())} |"
        for method, options in METHOD_OPTIONS.items()
    ]
    table = "\n".join(["| method | options, with their defaults |", "| --- | --- |", *rows])
    assert table in page("experiments.md"), f"put this into docs/experiments.md:\n\n{table}"


@pytest.mark.parametrize("model", MODELS)
def test_every_network_is_named(model: str) -> None:
    [line] = [one for one in page("experiments.md").splitlines() if one.startswith("model: ")]
    assert model in re.findall(r"\w+", line.partition("#")[2])


@pytest.mark.parametrize("field", [*Experiment.model_fields, "profiles"])
def test_every_field_of_an_experiment_is_explained(field: str) -> None:
    table = page("experiments.md").partition("| field |")[2].partition("\n\n")[0]
    assert any(f"`{field}`" in row.split("|")[1] for row in table.splitlines()[2:])


def test_every_command_on_results_is_shown(samt_here: Samt) -> None:
    names = re.findall(r"│ (\w+) ", samt_here("results", "--help").out.partition("Commands")[2])
    assert len(names) == len(results.app.registered_commands)
    section = page("results.md").partition("## Commands")[2].partition("\n## ")[0]
    assert [name for name in names if f"samt results {name} " not in section] == []


def test_every_problem_of_the_suite_is_explained() -> None:
    table = page("how-to-choose.md").partition("| family |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    found, family = [], ""
    for name, problem, half, _ in rows:
        family = name or family
        found.append((family, problem, half))
    assert found == [
        (f"`{family}`", f"`{one.name}`", "chosen on" if one.chosen_on else "held out")
        for family, problems in FAMILIES.items()
        for one in problems
    ]
