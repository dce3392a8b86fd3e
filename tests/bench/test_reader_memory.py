"""Memory of the readers, whatever lies in the place of a file: the limits of SECURITY.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from samt.bench.data.packed import allowed

from .attacks import ATTACKS
from .conftest import ENVIRONMENT

_ROOT = Path(__file__).parents[2]
_BESIDE = 64 << 20  # what a command takes whatever the file is; most of it is a report's page
# Times the size: in JSON and in tables a byte or two of text become an object or a number.
_TIMES = {".json": 30, ".yaml": 30, ".csv": 12, ".tsv": 12}
_PACKED = (".gz", ".zip", ".npz", ".pt", ".png", ".jpg", ".parquet")
_UNPACKED_TIMES = {".csv.gz": 12}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, int, int]]]:
    """Of each format: the kind of a file, growth of the largest resident size, and its size."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux")
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.reader_memory", tmp_path_factory.mktemp("memory")],
        cwd=_ROOT,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[tuple[str, int, int]]] = {}
    for line in done.stdout.splitlines():
        name, *row = json.loads(line)
        found.setdefault(name, []).append(tuple(row))
    return found


def most(path: str, size: int) -> int:
    """Bytes that reading a file may take."""
    ending = Path(path).suffix
    if ending in _PACKED:
        times = next((n for end, n in _UNPACKED_TIMES.items() if path.endswith(end)), 3)
        return times * allowed(size) + _BESIDE
    return _TIMES.get(ending, 3) * size + _BESIDE


@pytest.mark.parametrize("name", ATTACKS)
def test_a_reader_takes_no_more_memory_than_is_said(
    name: str, measured: dict[str, list[tuple[str, int, int]]]
) -> None:
    assert len(measured[name]) >= 2
    for kind, grown, size in measured[name]:
        assert grown <= most(ATTACKS[name].path, size), (kind, grown, size)


def test_something_was_measured(measured: dict[str, list[tuple[str, int, int]]]) -> None:
    """JSON of empty lists does take many times its size."""
    grown = {kind: grown / size for kind, grown, size in measured["cell"]}
    assert grown["empty lists"] > 5


def test_security_says_these_limits() -> None:
    text = " ".join((_ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
    for number, what in ((3, "its size"), (12, "a table"), (30, "JSON")):
        assert re.search(rf"\b{number} times", text), what
    assert "64 MiB more" in text
