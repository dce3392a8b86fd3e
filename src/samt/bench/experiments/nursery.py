"""Processes for cells, forked from one that has imported everything and holds the data.

Importing torch takes seconds, reading MNIST one more; a fork takes a hundredth. Yet each cell has a
process of its own: it can crash, be killed or leave memory behind, and harms no other.

The nursery is a process that reads orders, JSON in lines, from its standard input, and writes what
became of them to its standard output. When its standard input ends, so do its children.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import Future
from typing import IO, Any

_GRACE = 10.0  # seconds that children have to end when the nursery must
_TAIL = 2000  # characters of what a child printed
# Elsewhere a fork of a process that holds frameworks of the system is not safe.
_FORKS = sys.platform == "linux"


class Child:
    """The process of one cell, seen by who ordered it.

    Attributes:
        exit: gets the exit code (minus the signal that ended it), and what the process printed
            last.
    """

    def __init__(self, nursery: Nursery, number: int) -> None:
        self._nursery, self._number = nursery, number
        self.exit: Future[tuple[int, str]] = Future()

    def stop(self) -> None:
        """Ask it to end when it can go on later (SIGTERM)."""
        self._nursery.send({"signal": int(signal.SIGTERM), "number": self._number})

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._nursery.send({"signal": int(signal.SIGKILL), "number": self._number})


class Nursery:
    """Starts the process when it is first needed, and again if it dies. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._children: dict[int, Child] = {}
        self._number = 0

    def warm(self) -> None:
        """Start the process before it is needed: it takes seconds to import everything."""
        with self._lock:
            self._opened()

    def start(self, job: Mapping[str, Any]) -> Child:
        """Start the process of a cell.

        Args:
            job: as `worker.main` takes it.
        """
        with self._lock:
            self._opened()
            self._number += 1
            child = self._children[self._number] = Child(self, self._number)
        self.send({"job": job, "number": child._number})
        return child

    def send(self, order: Mapping[str, Any]) -> None:
        """Hand an order to the process; one that died has no more children to order."""
        with self._lock, contextlib.suppress(BrokenPipeError):
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End the process and all of its children, and wait for that."""
        with self._lock:
            process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()

    def _opened(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "samt.bench.experiments.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal is for the runner
        )
        # Of its own: those of a process that died must not be mixed up with the next one's.
        children = self._children = {}
        threading.Thread(target=self._listen, args=(process, children), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str], children: dict[int, Child]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            with self._lock:
                child = children.pop(message["number"])
            child.exit.set_result((message["code"], message["printed"]))
        code = process.wait()
        with self._lock:
            orphans = list(children.values())
        for child in orphans:
            child.exit.set_result((code or 1, "the process that starts cells ended"))


def main() -> None:
    """The nursery's own process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch
    import torch._dynamo  # a second that the first step of any optimizer would take

    # A process with threads of OpenMP could not be forked.
    torch.set_num_threads(1)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _Process(wake).serve()


class _Process:
    def __init__(self, wake: int) -> None:
        self._wake = wake
        self._children: dict[int, tuple[int, IO[bytes]]] = {}  # by process

    def serve(self) -> None:
        orders = b""
        while True:
            ready, _, _ = select.select([0, self._wake], [], [])
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 1 << 16)
                self._bury()
            if 0 in ready:
                content = os.read(0, 1 << 16)
                if not content:
                    break
                *lines, orders = (orders + content).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
        self._end_all()

    def _obey(self, order: Mapping[str, Any]) -> None:
        number = order["number"]
        if "job" in order:
            printed = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the child is buried)
            self._children[self._start(order["job"], printed)] = (number, printed)
            return
        for process, (one, _) in self._children.items():
            if one == number:
                os.kill(process, order["signal"])  # not buried yet, so the number is still its own

    def _start(self, job: Mapping[str, Any], printed: IO[bytes]) -> int:
        """Returns the number of the new process."""
        if not _FORKS:
            command = [sys.executable, "-m", "samt.bench.experiments.worker"]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=printed, stderr=printed
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps(job).encode())
            process.stdin.close()
            return process.pid
        _preload(job)
        child = os.fork()
        if child == 0:
            _live(job, printed)
        return child

    def _bury(self) -> None:
        """Say what became of the children that ended."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            number, printed = self._children.pop(process)
            with printed:
                printed.seek(0)
                text = printed.read().decode(errors="replace")[-_TAIL:]
            code = os.waitstatus_to_exitcode(status)
            line = json.dumps({"number": number, "code": code, "printed": text})
            with contextlib.suppress(BrokenPipeError), open(1, "wb", closefd=False) as out:
                out.write(line.encode() + b"\n")  # all of it, where os.write may write a part

    def _end_all(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self._children:
                os.kill(process, number)
            deadline = time.monotonic() + _GRACE
            while self._children and time.monotonic() < deadline:
                time.sleep(0.01)
                self._bury()


def _preload(job: Mapping[str, Any]) -> None:
    """Read the data here, so that the cells share them; their own mistakes are theirs."""
    from samt.bench.experiments import worker
    from samt.bench.experiments.cells import Cell

    with contextlib.suppress(Exception):
        worker.load(Cell.from_job(job).source)


def _live(job: Mapping[str, Any], printed: IO[bytes]) -> None:
    """The life of a child; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        from samt.bench.experiments import worker

        code = worker.main(job)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
