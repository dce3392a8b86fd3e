"""`samt run smoke`: every method and every kind of step size, by the command itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from samt.bench.experiments.files import load_experiment, locate
from samt.bench.experiments.store import Store
from samt.bench.method_specs import METHOD_OPTIONS

from .conftest import samt_process


def test_every_method_and_step_size_finishes_on_digits(tmp_path: Path) -> None:
    outcome = samt_process("run", "smoke", "--results", tmp_path, timeout=300)
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    cells = list(Store(str(tmp_path)).summaries().values())
    assert {cell["status"] for cell in cells} == {"finished"}
    assert {cell["cell"]["method"] for cell in cells} == METHOD_OPTIONS.keys()
    sizes = {cell["cell"]["options"].get("step_size") for cell in cells} - {None}
    assert sizes == {"scalar", "row", "column", "element"}
    # It must be able to see a method that does not learn.
    final = {cell["label"]: cell["test_metric"] for cell in cells if cell["role"] == "final"}
    assert final["samt:step_size=row"] > 0.8
    assert final["adam"] > 0.6
    again = samt_process("run", "smoke", "--results", tmp_path, "--dry-run")
    assert f"{len(cells)} cells, 0 to run" in again.out


@pytest.mark.parametrize("profile", ["paper", "smoke"])
def test_the_experiments_of_the_paper_are_well_formed(profile: str) -> None:
    paths = locate("paper")
    assert len(paths) >= 10
    for path in paths:
        experiment = load_experiment(path, profile)
        suffix = "" if profile == "paper" or path.stem == "smoke" else "-smoke"
        assert experiment.name == path.stem + suffix
        assert experiment.title
