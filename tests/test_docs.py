"""The documentation builds, names every public name, and shows code that runs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import samt
from samt import baselines, errors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PUBLIC = {
    **{f"samt.{name}": getattr(samt, name) for name in samt.__all__},
    **{f"samt.baselines.{name}": getattr(baselines, name) for name in baselines.__all__},
}


def code(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs mkdocs: pip install 'samt[docs]'")
def test_the_site_builds_without_a_warning_and_has_every_name(tmp_path: Path) -> None:
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    page = (tmp_path / "api" / "index.html").read_text()
    shown = set(re.findall(r'id="([\w.]+)"', page))
    names = {f"samt.errors.{name}" for name in errors.__all__}
    assert {*PUBLIC, *names} <= shown
    # Nothing that is not for users.
    assert {name for name in shown if name.startswith("samt.errors.")} == names
    assert {name for name in shown if name.startswith("samt.blocks.")} == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented(name: str) -> None:
    assert f"::: {name}\n" in (DOCS / "api.md").read_text()
    assert inspect.getdoc(PUBLIC[name])


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_says_what_it_is(name: str) -> None:
    assert getattr(errors, name).__doc__


def test_every_module_has_its_place_in_contributing() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## What goes where")[2]
    source = ROOT / "src" / "samt"
    modules = [path.name for path in source.glob("*.py") if path.name != "__init__.py"]
    folders = [f"{path.parent.name}/" for path in source.glob("*/__init__.py")]
    assert [name for name in (*modules, *folders) if f"`{name}`" not in table] == []


def test_the_lines_of_the_integrations_stand_in_the_examples() -> None:
    examples = "\n".join(path.read_text() for path in (ROOT / "examples").glob("*.py"))
    known = {line.strip() for line in examples.splitlines()}
    shown = [line.strip() for block in code("integrations.md") for line in block.splitlines()]
    assert len(shown) > 20
    assert [line for line in shown if line and line not in known] == []


def test_the_first_steps_run_each_on_a_fresh_model() -> None:
    names: dict[str, Any] = {"loader": [(torch.randn(8, 784), torch.randint(10, (8,)))] * 2}
    default, _, published = code("index.md")
    exec(default, names)
    with pytest.raises(errors.LeftoverGradientsError):
        exec(published, names)
    names["model"].zero_grad()
    exec(published, names)
    assert type(names["optimizer"]) is samt.SAMT


def test_the_page_on_shapes_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in code("step-size-shapes.md"):
        exec(block, names)
    low, high = map(float, capsys.readouterr().out.split())
    assert low < high  # a step size for each of the nine taps
    assert names["optimizer"].param_groups[1]["step_size"] == "row"
