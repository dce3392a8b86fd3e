"""One run: from settings to an outcome."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import nn

from samt.bench.suite.method import Method
from samt.bench.suite.methods import method_named
from samt.bench.suite.problem import Part, Problem, Task
from samt.bench.suite.record import Outcome, Settings
from samt.bench.suite.stepper import Stepper, trained

_EARLY = (1, 2, 5, 10, 20, 50)
POINTS: dict[Part, int] = {"test": 26, "validation": 6}
_NORM_BATCHES = 50


def points(steps: int, part: Part) -> list[int]:
    """The numbers of steps after which a run is evaluated.

    Args:
        steps: the number of steps of the run; it is the last point.
        part: the part that the run is judged on; a run on the validation part, of which there
            are many, has fewer points.

    Returns:
        Numbers in order, dense at the beginning.

    Examples:
        >>> points(600, "validation")
        [1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500, 600]
    """
    count = POINTS[part]
    evenly = {round(steps * one / count) for one in range(1, count + 1)}
    return sorted(one for one in {*_EARLY, *evenly} if 1 <= one <= steps)


def train(settings: Settings, problem: Problem, data_dir: Path | None) -> Outcome:
    """Run one training.

    Args:
        settings: what is to be run.
        problem: the problem that the settings name.
        data_dir: the folder of the data sets.

    Returns:
        What came out; a run that diverges ends there and is an outcome as well.

    Raises:
        SettingsError: the method is unknown, lacks its package or refuses its options.
    """
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    task = problem.make(settings.seed, data_dir)
    # What follows must not depend on how many numbers the making of the task drew.
    torch.manual_seed(settings.seed)
    steps = max(1, round(settings.horizon * task.steps))
    method = method_named(settings.method)
    return _Run(task, method, method.stepper(task.model, steps, settings.options), settings).to(
        steps
    )


class _Run:
    """A training under way."""

    def __init__(self, task: Task, method: Method, stepper: Stepper, settings: Settings) -> None:
        self._task, self._stepper, self._part = task, stepper, settings.part
        normed = any(
            isinstance(one, nn.modules.batchnorm._BatchNorm) for one in task.model.modules()
        )
        self._stale_norms = normed and method.averages
        self._seconds, self._done = 0.0, 0
        self._bytes = 0

    def to(self, steps: int) -> Outcome:
        """Train to the end."""
        self._task.model.train()
        curve: list[tuple[int, float | None]] = [(0, self._task.evaluate(self._part))]
        diverged = False
        for point in points(steps, self._part):
            value = self._judged() if self._advance(point) else None
            curve.append((self._done, value))
            if diverged := value is None or not math.isfinite(value):
                break
        parameters = sum(one.numel() for one in trained(self._task.model))
        return Outcome(
            final=None if diverged else curve[-1][1],
            diverged=diverged,
            steps=self._done,
            seconds=self._seconds,
            curve=tuple(curve),
            state_bytes=self._bytes / max(1, parameters),
        )

    def _advance(self, point: int) -> bool:
        """Take steps up to a point; say whether all losses were finite."""
        began = time.process_time()
        try:
            while self._done < point:
                loss = self._task.loss(self._done)
                if not math.isfinite(loss.item()):
                    return False
                self._stepper.step(loss)
                self._done += 1
        except (ArithmeticError, AssertionError, RuntimeError, ValueError):
            if self._is_finite():
                raise
            return False  # an optimizer that looks for itself, or a model that does
        finally:
            self._seconds += time.process_time() - began
        self._bytes = max(self._bytes, self._stepper.state_bytes())
        return True

    def _is_finite(self) -> bool:
        """Whether weights and gradients are finite numbers."""
        every = trained(self._task.model)
        tensors = [*every, *(one.grad for one in every if one.grad is not None)]
        return all(bool(torch.isfinite(one).all()) for one in tensors)

    def _judged(self) -> float | None:
        """Evaluate the weights that the method is judged by."""
        self._stepper.eval()
        try:
            weights = trained(self._task.model)
            if not all(bool(torch.isfinite(one).all()) for one in weights):
                return None
            if self._stale_norms:
                self._renew_norms()
            return self._task.evaluate(self._part)
        finally:
            self._stepper.train()
            self._task.model.train()

    def _renew_norms(self) -> None:
        """Give batch norm the statistics of the weights that are judged, from past batches."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for step in range(max(0, self._done - _NORM_BATCHES), self._done):
                self._task.loss(step)
