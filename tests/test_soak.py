"""A short soak; benchmarks/soak.py has the long ones, and looks at times too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"


def test_nothing_grows_in_a_few_thousand_steps() -> None:
    command = [sys.executable, str(SOAK), "steps", "--steps", "800"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:1]] == ["800 steps, AutoSAMT"], done.stderr
    assert sum(line.startswith("800 steps, ") for line in lines) == 2
    wrong = [line for line in lines if line.startswith("WRONG") and not line.endswith(": time")]
    assert not wrong, done.stdout
