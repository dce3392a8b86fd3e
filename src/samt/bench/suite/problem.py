"""What a problem of the suite is: a network, its mini-batches, a number of steps, a measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

Part = Literal["validation", "test"]
Metric = Literal["error in %", "RMSE", "loss"]


@dataclass(frozen=True)
class Task:
    """One training: everything but the optimizer.

    Args:
        model: the network with its initial weights; parameters that are not to be trained have
            `requires_grad` off.
        steps: the number of training steps of the whole horizon.
        loss: a function from the number of a step (0, 1, …, also beyond `steps`) to the loss of
            that step's mini-batch, ready for `backward`.
        evaluate: a function from the name of a part, "validation" or "test", to the problem's
            metric on it (lower is better). It evaluates in eval mode without gradients, and puts
            the model back into training mode.
    """

    model: nn.Module
    steps: int
    loss: Callable[[int], Tensor]
    evaluate: Callable[[Part], float]


@dataclass(frozen=True)
class Problem:
    """A problem of the suite.

    Args:
        name: its name on the command line and in tables.
        family: its family: one file of `samt.bench.suite.problems`.
        metric: what `Task.evaluate` returns; lower is better.
        seeds: the number of seeds of the final comparison.
        chosen_on: whether settings of our own methods may be chosen on its validation part.
        make: a function from a seed and a data folder to a task.
    """

    name: str
    family: str
    metric: Metric
    seeds: int
    chosen_on: bool
    make: Callable[[int, Path | None], Task]
