"""What is released is whole, and needs torch alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import samt

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sdist and wheel: one that was built before, or built here."""
    if built := os.environ.get("SAMT_DIST"):
        return ROOT / built
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    run = subprocess.run(build, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def test_the_wheel_is_whole(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*.py")}
    assert sources <= names
    assert "samt/py.typed" in names
    assert "samt/bench/suite/templates/suite.html" in names
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "paper").rglob("*.yaml")}
    assert files
    assert {f"samt/bench/{file}" for file in files} <= names
    assert {name.partition("/")[0] for name in names} == {
        "samt",
        f"samt-{samt.__version__}.dist-info",
    }


def test_the_sdist_has_what_the_tests_need(dist: Path) -> None:
    (found,) = dist.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "tests/test_auto_samt.py",
        "paper/table2.yaml",
    ):
        assert name in names
    assert "examples/plain_loop.py" in names


# Of this Python, and of those that SAMT_PYTHONS names: environments that have torch.
PYTHONS = [sys.executable, *filter(None, os.environ.get("SAMT_PYTHONS", "").split(os.pathsep))]
LINK_TORCH_ALONE = """
import sys
from importlib import metadata
from pathlib import Path
from pip._vendor.packaging.requirements import Requirement
folder, needed = Path(sys.argv[1]), ["torch"]
for name in needed:
    distribution = metadata.distribution(name)
    for requirement in map(Requirement, distribution.requires or []):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in needed:
            needed.append(requirement.name)
    for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
        if not (folder / top).exists():
            (folder / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
"""
PROGRAM = """
import importlib.util, sys, warnings
warnings.simplefilter("ignore")  # torch misses numpy
assert importlib.util.find_spec("numpy") is None
assert importlib.util.find_spec("pytest") is None
import torch
torch.manual_seed(0)
inputs = torch.randn(64, 3)
loader = [(inputs, inputs.sum(1, keepdim=True))] * 50
loss_fn = torch.nn.MSELoss()
for block in {blocks!r}:
    model = torch.nn.Linear(3, 1)
    before = float(loss_fn(model(inputs), loader[0][1]))
    exec(block)
    after = float(loss_fn(model(inputs), loader[0][1]))
    assert after < before / 2, (before, after)
print(samt.__file__)
"""


@pytest.mark.parametrize("python", PYTHONS)
def test_the_quick_start_runs_from_the_wheel_beside_torch_alone(
    python: str, wheel: Path, tmp_path: Path
) -> None:
    installed, torch_alone = tmp_path / "installed", tmp_path / "torch"
    torch_alone.mkdir()
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", installed, wheel], check=True, capture_output=True)
    subprocess.run([python, "-c", LINK_TORCH_ALONE, torch_alone], check=True)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    assert len(blocks) == 2
    run = subprocess.run(
        [python, "-S", "-c", PROGRAM.format(blocks=blocks)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{torch_alone}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(installed / "samt" / "__init__.py")


def read(name: str) -> dict[Any, Any]:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_citation_names_this_version() -> None:
    citation = read("CITATION.cff")
    assert citation["version"] == samt.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_a_release_is_built_and_checked_before_it_is_published() -> None:
    workflow = read(".github/workflows/release.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    commands = "\n".join(step.get("run", "") for step in build["steps"])
    for command in ("build", "twine check --strict", "pytest tests/test_release.py"):
        assert command in commands
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"id-token": "write"}
    line = f'__version__ = "{samt.__version__}"'
    assert line in (ROOT / "src/samt/__init__.py").read_text().splitlines()  # what `grep -x` finds


def test_the_oldest_versions_that_are_declared_are_tested() -> None:
    project = (ROOT / "pyproject.toml").read_text().splitlines()
    matrix = read(".github/workflows/test.yml")["jobs"]["core"]["strategy"]["matrix"]["include"]
    torch = matrix[0]["torch"].replace("==", ">=").removesuffix(".0")
    assert f'requires-python = ">={matrix[0]["python"]}"' in project
    assert f'dependencies = ["{torch}"]' in project
