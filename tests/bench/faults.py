"""Commands in which one system call that writes is disturbed: killed, failing, cut short."""

from __future__ import annotations

import errno
import json
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import ENVIRONMENT, Outcome

_HERE = Path(__file__).parent
_MOST, _NAME = 8192, 120  # as in faults.c
_PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Fault:
    """What happens at one system call.

    Args:
        mode: "count" (nothing), "before" and "after" (kill -9 around the call), "fail" (it fails
            once), "short" (half of it is written), "full" (from then on all that needs room fails),
            "dead" (from then on everything fails), "clock" (from then on it is another time).
        at: number of the call, from 1.
        value: the errno, or the seconds by which the clock jumps.
    """

    mode: str = "count"
    at: int = 0
    value: int = errno.EIO

    @property
    def kills(self) -> bool:
        return self.mode in ("before", "after")


NONE = Fault()


@dataclass(frozen=True)
class Disturbed(Outcome):
    """What a command left behind, and which calls it made."""

    calls: tuple[str, ...]


class Victims:
    """Runs commands in processes that are forked from one that has imported everything."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._folder = folder
        environment = {**ENVIRONMENT, "LD_PRELOAD": str(library)}
        command = [sys.executable, "-W", "error", str(_HERE / "fault_processes.py")]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, folder: Path, arguments: Sequence[object], fault: Fault = NONE) -> Disturbed:
        """Run one command to its end, and wait for all that it started.

        Args:
            folder: calls that write below it count.
            arguments: as `fault_processes` takes them.
            fault: what happens.
        """
        state, out, err = (self._folder / name for name in ("state", "out", "err"))
        with state.open("wb") as file:
            file.truncate(8 + _MOST * _NAME)
        order = {
            "arguments": [one if isinstance(one, int) else str(one) for one in arguments],
            "out": str(out),
            "err": str(err),
            "environment": {
                "SAMT_CACHE_DIR": str(folder / "cache"),
                "SAMT_FAULT_STATE": str(state),
                "SAMT_FAULT_FOLDER": str(folder),
                "SAMT_FAULT_MODE": fault.mode,
                "SAMT_FAULT_AT": str(fault.at),
                "SAMT_FAULT_VALUE": str(fault.value),
            },
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        watchdog = threading.Timer(_PATIENCE, self._process.kill)
        watchdog.start()
        try:
            answer = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        assert answer, f"{fault}: it hangs"
        return Disturbed(int(answer), out.read_text(), err.read_text(), _calls(state))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _calls(state: Path) -> tuple[str, ...]:
    content = state.read_bytes()
    (count,) = struct.unpack_from("q", content)
    assert count <= _MOST
    names = (content[8 + _NAME * number :][:_NAME] for number in range(count))
    return tuple(name.split(b"\0")[0].decode() for name in names)


@contextmanager
def victims(folder: Path) -> Iterator[Victims]:
    """Build the library that disturbs, and start the process; where that cannot be, say so."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("disturbing system calls needs Linux and a C compiler")
    library = folder / "faults.so"
    warnings = ("-Wall", "-Wextra", "-Werror")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", *warnings, "-o", library, _HERE / "faults.c", "-ldl"],
        check=True,
    )
    running = Victims(library, folder)
    try:
        yield running
    finally:
        running.close()
