"""Whatever lies in the place of a file: no crash, no hang, no traceback, one line."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .attacks import ATTACKS, mutated

# A thousand by hand: SAMT_TEST_ATTACKS=1000 pytest tests/bench/test_attacked_files.py
_ATTACKS = int(os.environ.get("SAMT_TEST_ATTACKS", "4"))
_SECONDS = 30  # a hang is far longer
_names = pytest.mark.parametrize("name", ATTACKS)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SAMT_DATA_DIR", raising=False)
    monkeypatch.setenv("SAMT_CACHE_DIR", str(tmp_path / "cache"))


@contextmanager
def in_time() -> Iterator[None]:
    """Fail instead of hanging."""

    def late(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@_names
def test_every_file_is_read_as_it_should_be(name: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    attack.prepare(tmp_path)
    for number in range(len(attack.commands)):
        said = attack.run(tmp_path, number)
        assert "error:" not in said
        assert "left out" not in said


@_names
@settings(
    max_examples=_ATTACKS,
    deadline=None,
    derandomize=_ATTACKS < 100,
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**48))
def test_any_change_of_a_file_is_survived(name: str, seed: int, tmp_path: Path) -> None:
    attack, chance = ATTACKS[name], random.Random(seed)
    attack.prepare(tmp_path).write_bytes(mutated(attack.whole, chance))
    with in_time():
        attack.run(tmp_path, chance.randrange(100))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


_OTHER: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "link to endless zeros": lambda path: path.symlink_to("/dev/zero"),
    "nested": lambda path: _write(path, b"[" * 200_000),
}


@_names
@pytest.mark.parametrize("other", _OTHER)
def test_something_else_in_the_place_of_a_file(name: str, other: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    path = attack.prepare(tmp_path)
    path.unlink()
    _OTHER[other](path)
    with in_time():
        attack.run(tmp_path, 1)
