"""Two small problems for the tests of the suite's engine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from torch import Tensor, nn

from samt.bench.suite.problem import Part, Problem, Task

STEPS = 40


def lines(seed: int, folder: Path | None) -> Task:
    """A small regression that any optimizer can do."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(96, 4, generator=generator)
    targets = inputs.sum(1, keepdim=True).tanh()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
    parts: dict[Part, slice] = {"validation": slice(64, 80), "test": slice(80, 96)}
    _note(folder)

    def loss(step: int) -> Tensor:
        first = 8 * (step % 8)
        chosen = slice(first, first + 8)
        return (model(inputs[chosen]) - targets[chosen]).square().mean()

    def evaluate(part: Part) -> float:
        model.eval()
        with torch.no_grad():
            error = (model(inputs[parts[part]]) - targets[parts[part]]).square().mean()
        model.train()
        return float(error.sqrt())

    return Task(model, STEPS, loss, evaluate)


def exploding(seed: int, folder: Path | None) -> Task:
    """A training whose loss is no number from the tenth step on."""
    task = lines(seed, folder)

    def loss(step: int) -> Tensor:
        return task.loss(step) * (float("nan") if step == 10 else 1.0)

    return Task(task.model, task.steps, loss, task.evaluate)


def broken(seed: int, folder: Path | None) -> Task:
    """A problem that cannot be made."""
    raise OSError("the data are on another disk")


def _note(folder: Path | None) -> None:
    """Write down that a run began; behind some of them, kill the runner if a test asks for it."""
    if folder is None:
        return
    log, fatal = folder / "runs.log", folder / "kill-the-runner-at"
    with log.open("a") as file:
        file.write(f"{os.getpid()}\n")
    try:
        if len(log.read_text().splitlines()) >= int(fatal.read_text()):
            fatal.unlink()
            os.kill(os.getppid(), signal.SIGKILL)
    except FileNotFoundError:
        return


LINES = Problem("lines", "small", "RMSE", 2, True, lines)
EXPLODING = Problem("exploding", "small", "RMSE", 2, False, exploding)
BROKEN = Problem("broken", "small", "RMSE", 1, False, broken)
PROBLEMS = {one.name: one for one in (LINES, EXPLODING, BROKEN)}
