"""Real processes that talk to each other, started once and given one function after the other."""

from __future__ import annotations

import datetime
import multiprocessing
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_PATIENCE = 300.0  # seconds


class World:
    """The ranks of one gloo process group.

    Args:
        size: the number of ranks.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._ranks: list[tuple[Any, Connection]] = []
        self._folder = Path(tempfile.mkdtemp())

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder.mkdir(exist_ok=True)
        meeting = self._folder / "meeting"
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            arguments = rank, self.size, str(meeting), theirs
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._ranks.append((process, ours))

    def run(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
        """Call `function(rank, size, ...)` on every rank at once.

        Returns:
            What it returned on each of them.
        """
        if not self._ranks:
            self._start()
        for _, connection in self._ranks:
            connection.send_bytes(pickle.dumps((function, arguments, options)))
        results = []
        for rank, (_, connection) in enumerate(self._ranks):
            answer = connection.poll(_PATIENCE)
            done, result = pickle.loads(connection.recv_bytes()) if answer else (False, "no answer")
            if not done:
                self.stop()  # the others may wait for this one
                raise AssertionError(f"on rank {rank}: {result}")
            results.append(result)
        return results

    def stop(self) -> None:
        """End the processes."""
        for process, connection in self._ranks:
            connection.close()
            process.terminate()
            process.join()
        self._ranks.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


def _serve(rank: int, size: int, meeting: str, connection: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        *("gloo", f"file://{meeting}"),
        timeout=datetime.timedelta(seconds=_PATIENCE / 2),
        rank=rank,
        world_size=size,
    )
    while True:
        try:
            function, arguments, options = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            answer = True, function(rank, size, *arguments, **options)
        except Exception:
            answer = False, traceback.format_exc()
        connection.send_bytes(pickle.dumps(answer))
