"""Every example runs as it stands, learns, and resumes where it says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
# What an example prints, and the least (accuracy) or the most (loss) that is good enough. A model
# that learns nothing has an accuracy of 0.1, and a loss of log(32) = 3.47.
REACHED = {
    "plain_loop": {"test accuracy": 0.93},
    "lightning_automatic": {"test accuracy": 0.93},
    "lightning_manual": {"test accuracy": 0.9},
    "accelerate_loop": {"test accuracy": 0.93},
    "hf_trainer": {"training loss": 0.3},
    "compiled_model": {"test accuracy": 0.93},
    "swa_and_ema": {
        "weights test accuracy": 0.93,
        "swa test accuracy": 0.93,
        "ema test accuracy": 0.93,
    },
}
RESUMES = {"plain_loop", "lightning_automatic", "accelerate_loop", "hf_trainer"}
NEEDS = {
    "lightning_automatic": "lightning",
    "lightning_manual": "lightning",
    "accelerate_loop": "accelerate",
    "hf_trainer": "transformers",
}


def test_every_example_has_a_test() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(REACHED)


@pytest.mark.parametrize("name", REACHED)
def test_example(name: str, tmp_path: Path) -> None:
    package = NEEDS.get(name)
    if package and find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install 'samt[examples]'")
    if name == "compiled_model" and shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    run = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    printed = dict(line.split(": ", 1) for line in run.stdout.splitlines() if ": " in line)
    for what, enough in REACHED[name].items():
        value = float(printed[what])
        assert value < enough if what.endswith("loss") else value > enough, printed
    assert ("same weights after resuming" in printed) == (name in RESUMES)
    assert printed.get("same weights after resuming", "True") == "True"
    if name not in RESUMES | {"compiled_model"}:
        assert list(tmp_path.iterdir()) == []
