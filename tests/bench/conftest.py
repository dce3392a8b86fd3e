"""Running the command, in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from samt.bench.cli import main

from .idx_files import write_images

COMMAND = (sys.executable, "-W", "error", "-m", "samt.bench.cli")
# Without a data directory of its own, so that tests decide.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "SAMT_DATA_DIR"},
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own, here and in the processes that they start."""
    folder = tmp_path_factory.mktemp("cache")
    ENVIRONMENT["SAMT_CACHE_DIR"] = str(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMT_CACHE_DIR", str(folder))
        yield folder


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def is_user_error(self, *words: str) -> None:
        """Assert exit code 2 and a single line on standard error that holds the words."""
        assert self.code == 2, self
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("samt: error: ")
        assert "Traceback" not in self.err + self.out
        for word in words:
            assert word in lines[0]


Samt = Callable[..., Outcome]


@pytest.fixture
def samt_here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Samt:
    """`samt` in this process: the same entry point, without seconds of imports."""
    monkeypatch.delenv("SAMT_DATA_DIR", raising=False)

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(stopped.value.code, int)
        return Outcome(stopped.value.code, out, err)

    return run


def samt_process(*arguments: str | Path, timeout: float = 300, **more: Any) -> Outcome:
    """`samt` in a process of its own."""
    command = [*COMMAND, *(str(argument) for argument in arguments)]
    done = subprocess.run(
        command,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **more,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny data set under the name of MNIST."""
    folder = tmp_path_factory.mktemp("data")
    write_images(folder / "mnist")
    return folder


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder with the real files."""
    folder = os.environ.get("SAMT_DATA_DIR")
    if not folder:
        pytest.skip("SAMT_DATA_DIR is not set: no real MNIST and Fashion-MNIST here")
    return Path(folder)


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What makes this a machine whose memory is one page."""

    def make() -> None:
        monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1}.__getitem__)

    return make


def checkpoint(folder: Path) -> dict[str, Any]:
    """A run's checkpoint."""
    payload = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert isinstance(payload, dict)
    return payload


def assert_same_run(first: Path, second: Path) -> None:
    """Two run folders hold the same numbers, bit for bit; seconds and versions may differ."""
    one, two = checkpoint(first), checkpoint(second)
    for payload in (one, two):
        del payload["settings"]
        for row in payload["metrics"]:
            del row["seconds"]
    assert_equal(one, two, "checkpoint")
    assert _without_seconds(first) == _without_seconds(second)


def assert_equal(one: Any, two: Any, where: str) -> None:
    """Equal bit for bit, with NaN equal to itself."""
    assert type(one) is type(two), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype, where
        assert one.shape == two.shape, where
        assert torch.equal(one.reshape(-1).view(torch.uint8), two.reshape(-1).view(torch.uint8)), (
            where
        )
    elif isinstance(one, dict):
        assert list(one) == list(two), where
        for key in one:
            assert_equal(one[key], two[key], f"{where}[{key!r}]")
    elif isinstance(one, Sequence) and not isinstance(one, str):
        assert len(one) == len(two), where
        for index, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_equal(a, b, f"{where}[{index}]")
    else:
        assert repr(one) == repr(two), where


def _without_seconds(folder: Path) -> list[list[str]]:
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    column = rows[0].index("seconds")
    return [row[:column] + row[column + 1 :] for row in rows]
