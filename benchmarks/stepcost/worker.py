"""A process for each method: nothing of one method can slow, break or feed another.

All workers are built first and then wait; the parent gives one after the other a turn.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from . import memory
from .methods import METHODS
from .models import ALL_MODELS
from .steppers import Stepper, stepper

_SETTLING = 5  # steps until a compiled method has traced, compiled and captured
_SHORT = 0.2  # seconds; below, the first step of a turn is not counted: it finds cold caches


@dataclass(frozen=True)
class Settings:
    """What is the same for all methods of a run.

    Args:
        device: name of a torch device.
        threads: of torch, on a CPU.
        batch_size: None for the model's own.
    """

    device: str
    threads: int
    batch_size: int | None


@dataclass(frozen=True)
class Ready:
    """A worker's answer once its method is warm.

    Args:
        first: seconds of the first step, or of the first after compiling.
        seconds: of a step, roughly, to plan with.
        settling: seconds of the first steps of a compiled method, less that many later ones.
        memory: of a step.
        passes: forward and backward in one step.
        notes: warnings of samt.
    """

    first: float
    seconds: float
    settling: float | None
    memory: memory.Memory
    passes: tuple[float, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """A worker's answer if its method cannot run."""

    why: str


class Worker:
    """The parent's side of a worker."""

    def __init__(self, model: str, method: str, settings: Settings) -> None:
        context = multiprocessing.get_context("forkserver")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, model, method, settings))
        self._process.start()
        theirs.close()

    def ready(self, limit: float) -> Ready | Failed:
        """Wait until the method is warm.

        Args:
            limit: seconds; after them the worker is stopped, with all that it has started.
        """
        if not self._pipe.poll(limit):
            self.stop()
            return Failed(f"not ready after {limit:.0f} s")
        answer: Ready | Failed = self._answer()
        return answer

    def turn(self, steps: int) -> float | Failed:
        """Seconds per step of a few steps."""
        self._pipe.send(steps)
        answer: float | Failed = self._answer()
        return answer

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return Failed(f"its process ended with status {self._process.exitcode}")

    def stop(self) -> None:
        """End the process, and the compilers that it may have started."""
        self._pipe.close()
        if self._process.is_alive() and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()  # where it had no time to make its group
        self._process.join()


def start_early() -> None:
    """Let one process import torch; the workers are forked from it in no time."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["torch._dynamo", "samt.reference", "samt.bench.models"]
    )


def _serve(pipe: Connection, model: str, method: str, settings: Settings) -> None:
    """The worker's side."""
    os.setpgrp()  # a group of its own, to be ended as a whole
    torch.empty(31 * 2**20, dtype=torch.uint8)  # so that glibc keeps what a step frees
    try:
        torch.set_num_threads(settings.threads)
        device = torch.device(settings.device)
        made, ready = _warm(model, method, settings, device)
        pipe.send(ready)
        while True:
            memory.give_back(device)
            pipe.send(_timed(made, pipe.recv(), device))
    except (EOFError, BrokenPipeError):
        pass  # the parent has closed its end
    except Exception as error:  # whatever it is, the page says it
        text = str(error).strip().partition("\n")[0][:160]
        pipe.send(Failed(f"{type(error).__name__}: {text}"))


def _warm(
    model_name: str, method_name: str, settings: Settings, device: torch.device
) -> tuple[Stepper, Ready]:
    model, method = ALL_MODELS[model_name], METHODS[method_name]
    torch.manual_seed(0)
    batch = model.batch(settings.batch_size, device)
    network = model.build().to(device)
    made = stepper(method, network, batch)
    del network  # GDTUO replaces its tensors
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        # The others make their state in the first step; samt has it from the beginning.
        settling = _seconds(made, _SETTLING if method.compiled else not method.engine, device)
        before = made.passes
        taken: list[float] = []

        def two_steps() -> None:
            taken.append(_seconds(made, 1, device))
            if taken[0] < 5:
                taken.append(_seconds(made, 1, device))

        used = memory.measured(two_steps, device)
        after = made.passes
        seconds = taken[0] if len(taken) == 1 else _timed(made, 1, device)
    forward, backward = ((now - then) / len(taken) for now, then in zip(after, before, strict=True))
    notes = dict.fromkeys(str(w.message) for w in caught if w.category is RuntimeWarning)
    waited = max(0.0, settling - _SETTLING * seconds) if method.compiled else None
    return made, Ready(taken[0], seconds, waited, used, (forward, backward), tuple(notes))


def _timed(made: Stepper, steps: int, device: torch.device) -> float:
    first = _seconds(made, 1, device)
    if first < _SHORT:
        return _seconds(made, steps, device) / steps
    if steps == 1:
        return first
    return (first + _seconds(made, steps - 1, device)) / steps


def _seconds(made: Stepper, steps: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        made.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
