"""What a run drives: an optimizer with its schedule, one call for a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Schedule = Callable[[int], float]


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of a model that are to be trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def constant(steps: int, warmup: float = 0.0) -> Schedule:
    """A schedule that rises in a straight line and then stays.

    Args:
        steps: the number of steps of the training.
        warmup: the share of these steps in which the rate rises.

    Returns:
        A function from the number of a step, from 0, to a factor of the rate.
    """
    rise = round(warmup * steps)
    return lambda step: min(1.0, (step + 1) / (rise + 1))


def cosine(steps: int, warmup: float = 0.0) -> Schedule:
    """A schedule that rises in a straight line and then falls to zero along a cosine.

    Args:
        steps: the number of steps of the training; the rate is zero behind them.
        warmup: the share of these steps in which the rate rises.

    Returns:
        A function from the number of a step, from 0, to a factor of the rate.

    Examples:
        >>> factor = cosine(100)
        >>> round(factor(0), 3), round(factor(50), 3), round(factor(100), 3)
        (1.0, 0.5, 0.0)
    """
    rise = round(warmup * steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        share = min(1.0, (step - rise) / max(1, steps - rise))
        return 0.5 * (1 + math.cos(math.pi * share))

    return factor


class Stepper:
    """A training step, whatever the optimizer asks for.

    Args:
        optimizers: the optimizers that share the parameters among them. One that has methods
            `eval` and `train` gets these calls before and after an evaluation.
        schedule: a function from the number of a step to a factor of each optimizer's rate;
            without it the rates stay.
    """

    def __init__(self, *optimizers: Optimizer, schedule: Schedule | None = None) -> None:
        self.optimizers = optimizers
        self._schedulers = [LambdaLR(one, schedule) for one in optimizers] if schedule else []

    def step(self, loss: Tensor) -> None:
        """Take one step.

        Args:
            loss: the loss of a mini-batch with its graph; the step runs the backward pass.
        """
        for one in self.optimizers:
            one.zero_grad()
        loss.backward()
        self._move(loss)
        for scheduler in self._schedulers:
            scheduler.step()

    def _move(self, loss: Tensor) -> None:
        for one in self.optimizers:
            one.step()

    def eval(self) -> None:
        """Put the weights that are to be judged into the model."""
        self._switch("eval")

    def train(self) -> None:
        """Put the weights that training goes on from back into the model."""
        self._switch("train")

    def _switch(self, mode: str) -> None:
        for one in self.optimizers:
            if (method := getattr(one, mode, None)) is not None:
                method()

    def state_bytes(self) -> int:
        """The memory of everything that is kept beside weights and gradients, in bytes."""
        kept = [part for one in self.optimizers for part in (one.state, self._extras(one))]
        return _bytes([*kept, self._kept()], but=self._parameters())

    def _kept(self) -> Any:
        """What is kept outside the optimizers."""
        return ()

    def _parameters(self) -> set[int]:
        groups = (group for one in self.optimizers for group in one.param_groups)
        return {parameter.data_ptr() for group in groups for parameter in group["params"]}

    @staticmethod
    def _extras(optimizer: Optimizer) -> list[Any]:
        return [
            value
            for group in optimizer.param_groups
            for name, value in group.items()
            if name != "params"
        ]


class LossStepper(Stepper):
    """A stepper for an optimizer whose `step` asks for the value of the loss.

    Args:
        optimizer: the optimizer.
        move: its method `step`.
    """

    def __init__(self, optimizer: Optimizer, move: Callable[..., object]) -> None:
        super().__init__(optimizer)
        self._step = move

    def _move(self, loss: Tensor) -> None:
        self._step(loss=loss.detach())


class AveragedStepper(Stepper):
    """A stepper that is judged by an average of the weights that is kept outside the optimizer.

    Args:
        optimizer: the optimizer.
        model: the model whose parameters the optimizer moves.
        average: a function that takes the average one step further.
        averaged: the model that holds the average.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        average: Callable[[], None],
        averaged: nn.Module,
    ) -> None:
        super().__init__(optimizer)
        self._model, self._average, self._averaged = model, average, averaged
        self._last: dict[str, Tensor] | None = None

    def _move(self, loss: Tensor) -> None:
        super()._move(loss)
        with torch.no_grad():
            self._average()

    def eval(self) -> None:
        """Put the average into the model."""
        self._last = {name: one.clone() for name, one in self._model.state_dict().items()}
        self._model.load_state_dict(self._averaged.state_dict())

    def train(self) -> None:
        """Put the last weights back into the model."""
        if self._last is not None:
            self._model.load_state_dict(self._last)
            self._last = None

    def _kept(self) -> Any:
        return list(self._averaged.parameters())


def _bytes(kept: Iterable[Any], but: set[int]) -> int:
    storages = {
        one.untyped_storage().data_ptr(): one.untyped_storage()
        for one in _tensors(kept)
        if one.data_ptr() not in but
    }
    return sum(storage.nbytes() for storage in storages.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
