"""Output that nobody reads, or that cannot be written: no traceback, and the files are whole."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ENVIRONMENT, checkpoint

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
_SAMT = f"{shlex.quote(sys.executable)} -W error -m samt.bench.cli"
_TRAIN = "train --data digits --hidden 4 --epochs 2 --threads 1 --device cpu --run-dir run"
LOST = {
    "one line is read": (_TRAIN, "| head -1", (141, 0)),
    "nobody reads": (_TRAIN, "| true", (141,)),
    "nobody reads help": ("--help", "| true", (1, 141)),
    "closed": (_TRAIN, ">&-", (0,)),
    "closed for a mistake": ("train --lr nan", "2>&- >&-", (2,)),
    "full": (_TRAIN, ">/dev/full", (2,)),
    "full for help": ("--help", ">/dev/full", (2,)),
    "full for a table": ("data list", ">/dev/full", (2,)),
    "full for a mistake": ("train --lr nan", "2>/dev/full", (2,)),
    "full, both": (_TRAIN, ">/dev/full 2>/dev/full", (2,)),
    "no input": (_TRAIN, "<&-", (0,)),
}


@pytest.mark.parametrize("name", LOST)
def test_output_that_is_lost_costs_no_file_and_makes_no_traceback(
    name: str, tmp_path: Path
) -> None:
    words, redirected, expected = LOST[name]
    done = subprocess.run(
        ["bash", "-c", f"{_SAMT} {words} {redirected}; echo ${{PIPESTATUS[0]}} > code"],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    code = int((tmp_path / "code").read_text())
    assert code in expected, (code, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) <= 1
    assert all(line.startswith("samt: error: the output cannot be written") for line in lines)
    run = tmp_path / "run"
    if run.exists():
        assert not list(run.glob(".*.tmp"))
        epochs = [row["epoch"] for row in checkpoint(run)["metrics"]]
        table = (run / "metrics.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in table[1:]] == [str(epoch) for epoch in epochs]
        assert epochs == list(range(3)) or code != 0


@pytest.mark.parametrize("letters", ["ascii", "utf-8"])
def test_letters_that_a_terminal_lacks_are_question_marks(letters: str, tmp_path: Path) -> None:
    compare = "compare --data digits --hidden 4 --epochs 1 --threads 1 --device cpu sgd"
    done = subprocess.run(
        ["bash", "-c", f"{_SAMT} {compare}"],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT, "PYTHONIOENCODING": letters},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    between = "?" if letters == "ascii" else "·"
    assert f"digits {between} mlp 4" in done.stdout.decode(letters)
