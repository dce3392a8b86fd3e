"""From a method spec and a model to something that trains it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import samt
from samt.bench.errors import SettingsError
from samt.bench.method_specs import MethodSpec

Batch: TypeAlias = tuple[Tensor, Tensor]
LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# How often step sizes are read within an epoch: enough for a mean, too rarely to cost time.
_READINGS = 16


class Method(ABC):
    """An optimizer with its model, and what the benchmark wants to know about both.

    Args:
        model: the network.
        loss_fn: maps (outputs, targets) to a scalar loss.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFunction) -> None:
        self.model = model
        self.loss_fn = loss_fn

    @abstractmethod
    def step(self, batch: Batch, following: Callable[[], Batch]) -> Tensor | float:
        """Take one step.

        Args:
            batch: inputs and targets.
            following: gives another mini-batch of the same epoch.

        Returns:
            The loss before the step, detached.
        """

    @property
    @abstractmethod
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes so far."""

    @abstractmethod
    def start_epoch(self, steps: int) -> None:
        """Forget the step sizes of the epoch before.

        Args:
            steps: number of steps that the new epoch has.
        """

    @abstractmethod
    def latest_step_sizes(self) -> dict[str, float]:
        """Mean step size of each block, in its most recent reading."""

    @abstractmethod
    def epoch_step_sizes(self) -> dict[str, float]:
        """Mean step size of each block over the epoch."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing needs, besides the model's own state."""

    @abstractmethod
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""


class SamtMethod(Method):
    """SAMT."""

    def __init__(
        self, model: nn.Module, loss_fn: LossFunction, spec: MethodSpec, seed: int
    ) -> None:
        super().__init__(model, loss_fn)
        options: dict[str, Any] = dict(spec.options)
        self._fresh = options["meta_batch"] == "fresh"
        groups = samt.blocks(model, options.pop("blocks"))
        self._names = [str(group["name"]) for group in groups]
        self.optimizer = samt.SAMT(groups, **options, seed=seed)
        self._history = samt.History(self.optimizer)

    def step(self, batch: Batch, following: Callable[[], Batch]) -> Tensor | float:
        closure = samt.closure(self.model, self.loss_fn, *batch)
        # The optimizer itself takes every second sample of the other mini-batch.
        other = samt.closure(self.model, self.loss_fn, *following()) if self._fresh else None
        loss = self.optimizer.step(closure, other)
        assert loss is not None  # it is None only without a closure
        return loss

    @property
    def passes(self) -> tuple[int, int]:
        return self.optimizer.passes.forward, self.optimizer.passes.backward

    def start_epoch(self, steps: int) -> None:
        self._history.clear()
        every = max(1, steps // _READINGS)
        # With order="cyclic" a step updates one block: a common factor would skip some.
        while math.gcd(every, len(self._names)) > 1:
            every -= 1
        self._history.every = every

    def latest_step_sizes(self) -> dict[str, float]:
        return self._history.latest()

    def epoch_step_sizes(self) -> dict[str, float]:
        readings: dict[str, list[float]] = {name: [] for name in self._names}
        for row in self._history.rows:
            readings[row["block"]].append(row["step_size"])
        return {
            name: math.fsum(values) / len(values) if values else math.nan
            for name, values in readings.items()
        }

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict)


class GradientMethod(Method):
    """An optimizer of torch that needs one forward and one backward pass for each step."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    ) -> None:
        super().__init__(model, loss_fn)
        # Groups of one module each change no number; their names appear in tables and plots.
        self.optimizer = make(samt.blocks(model))
        self._steps = 0

    def step(self, batch: Batch, following: Callable[[], Batch]) -> Tensor:
        inputs, targets = batch
        self.optimizer.zero_grad()
        loss = self.loss_fn(self.model(inputs), targets)
        loss.backward()
        self.optimizer.step()
        self._steps += 1
        return loss.detach()

    @property
    def passes(self) -> tuple[int, int]:
        return self._steps, self._steps

    def start_epoch(self, steps: int) -> None:
        pass

    def latest_step_sizes(self) -> dict[str, float]:
        return {group["name"]: float(group["lr"]) for group in self.optimizer.param_groups}

    def epoch_step_sizes(self) -> dict[str, float]:
        return self.latest_step_sizes()

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self._steps = state_dict["steps"]


def build(spec: MethodSpec, model: nn.Module, loss_fn: LossFunction, seed: int) -> Method:
    """Make a method ready to train a model.

    Args:
        spec: name and options.
        model: the network, already on its device.
        loss_fn: maps (outputs, targets) to a scalar loss.
        seed: seed of the optimizer's own randomness.

    Returns:
        The method, before its first step.

    Raises:
        SettingsError: options that do not go together.
    """
    options: dict[str, Any] = dict(spec.options)
    if spec.name == "samt":
        return SamtMethod(model, loss_fn, spec, seed)
    if spec.name == "adam":
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
        return GradientMethod(model, loss_fn, lambda groups: torch.optim.Adam(groups, **options))
    if options["nesterov"] and not options["momentum"]:
        raise SettingsError("nesterov=true needs momentum: add momentum=0.9")
    return GradientMethod(model, loss_fn, lambda groups: torch.optim.SGD(groups, **options))
