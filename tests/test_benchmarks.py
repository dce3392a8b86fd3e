"""`make bench`: the command runs, resumes, and writes a page, a table and pictures."""

from __future__ import annotations

import csv
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPETITORS = {
    "prodigy": "prodigyopt",
    "schedulefree-adamw": "schedulefree",
    "gdtuo-sgd": "gradient_descent_the_ultimate_optimizer",
}


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    command = [sys.executable, ROOT / "benchmarks" / "run.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def measure(output: Path, *methods: str) -> str:
    """Measure on the smallest models for as short as possible, and return what stderr says."""
    done = bench(
        *("--models", "mlp-100", "depth-2", "--methods", *methods, "--seconds", "0.02"),
        *("--batch-size", "8", "--threads", "1", "--output", output),
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def rows(table: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of a CSV file, by model and method."""
    with table.open(encoding="utf-8", newline="") as file:
        return {(row["model"], row["method"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bench") / "cost.md"
    measure(output, "adam", "reference-subset-scalar", "eager-subset-scalar", *COMPETITORS)
    return output


def test_page_and_table_have_every_method(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for title in ("torch SGD", "torch Adam", "SAMT reference, exact `subset`, scalar"):
        assert f"| {title} |" in text
    assert "--models mlp-100" in text
    found = rows(page.with_suffix(".csv"))
    for method in ("sgd", "adam", "reference-subset-scalar", "eager-subset-scalar"):
        row = found["mlp-100", method]
        assert float(row["low"]) <= float(row["ratio"]) <= float(row["high"])
        assert int(row["rounds"]) >= 3
        assert float(row["kept_mib"]) > 0.3  # the weights: 79510 of 4 bytes
        assert float(row["step_mib"]) > 0.3  # their gradients
        assert row["note"] == ""
        assert 0 <= float(row["busy"] or 0) <= 1
    assert found["mlp-100", "sgd"]["forward"] == found["mlp-100", "adam"]["backward"] == "1"
    assert found["mlp-100", "reference-subset-scalar"]["forward"] == "4"


@pytest.mark.parametrize("method", COMPETITORS)
def test_competitor(method: str, page: Path) -> None:
    row = rows(page.with_suffix(".csv"))["mlp-100", method]
    if find_spec(COMPETITORS[method]) is None:
        assert row["note"] == f"{COMPETITORS[method]} is not installed"
        pytest.skip(f"{COMPETITORS[method]} is not installed: pip install 'samt[benchmark]'")
    assert row["ratio"], row["note"]


def test_what_is_measured_is_not_measured_again(page: Path) -> None:
    before = page.with_suffix(".csv").read_bytes()
    assert "warming up" not in measure(page, "adam", "eager-subset-scalar")
    assert page.with_suffix(".csv").read_bytes() == before


def test_picture_of_depth(page: Path) -> None:
    picture = page.parent / "images" / "cost-depth.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "(images/cost-depth.png)" in page.read_text(encoding="utf-8")


def test_wrong_names_are_explained(tmp_path: Path) -> None:
    done = bench("--models", "resnet8", "--output", tmp_path / "cost.md")
    assert done.returncode == 2
    assert "resnet18" in done.stderr
    assert not list(tmp_path.iterdir())
