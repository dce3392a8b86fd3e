"""From a method spec and a model to something that trains it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from prodigyopt import Prodigy
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

import samt
from samt.baselines import SGDHD, AdamHD, Dante, SGDNesterovHD
from samt.bench.errors import SettingsError
from samt.bench.method_specs import SOLVERS, MethodSpec
from samt.bench.schedules import SCHEDULES
from samt.block_optimizer import BlockOptimizer

Batch: TypeAlias = tuple[Tensor, Tensor]
LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# How often step sizes are read within an epoch: enough for a mean, too rarely to cost time.
_READINGS = 16


class Method(ABC):
    """An optimizer with its model, and what the benchmark wants to know about both.

    Args:
        model: the network.
        loss_fn: maps (outputs, targets) to a scalar loss.

    Attributes:
        full_batch: whether a step takes the whole training part, so that it is an epoch.
        updates_per_step: how often a step changes each parameter, on average over the blocks.
    """

    full_batch = False
    updates_per_step = 1.0

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

    @abstractmethod
    def anneal(self, share: float) -> None:
        """Set the step size for a moment of the budget.

        Args:
            share: of the budget that is used up, from 0 to 1.
        """

    def plan(self, steps: int) -> None:  # noqa: B027, most methods need not know
        """Hear how many steps there will be, where that is known before the first.

        Args:
            steps: of the whole training.
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

    def end_epoch(self) -> None:  # noqa: B027, most methods train the weights that they evaluate
        """Put the weights that are to be evaluated into the model."""

    @abstractmethod
    def latest_step_sizes(self) -> dict[str, float]:
        """Mean step size of each block, in its most recent reading."""

    @abstractmethod
    def epoch_step_sizes(self) -> dict[str, float]:
        """Step size of each block: mean since `start_epoch`, or as it is, if it hardly moves."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that continuing needs, besides the model's own state."""

    @abstractmethod
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""


class OptimizerMethod(Method):
    """A method with an optimizer, whose `lr` may follow a schedule.

    Args:
        model: the network.
        loss_fn: maps (outputs, targets) to a scalar loss.
        optimizer: of the model's parameters.
        schedule: a key of `SCHEDULES`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        optimizer: torch.optim.Optimizer,
        schedule: str = "constant",
    ) -> None:
        super().__init__(model, loss_fn)
        self._schedule = schedule
        self.optimizer = optimizer
        self._lr = [group["lr"] for group in optimizer.param_groups]

    def anneal(self, share: float) -> None:
        if self._schedule == "constant":
            return  # the method may change it, or a state that was loaded
        for group, lr in zip(self.optimizer.param_groups, self._lr, strict=True):
            group["lr"] = lr * SCHEDULES[self._schedule](share)


class WatchedMethod(OptimizerMethod):
    """An optimizer with a history of its step sizes; arguments as of `OptimizerMethod`."""

    optimizer: BlockOptimizer

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        optimizer: BlockOptimizer,
        schedule: str = "constant",
    ) -> None:
        super().__init__(model, loss_fn, optimizer, schedule)
        self._names = [str(group["name"]) for group in optimizer.param_groups]
        self._history = samt.History(optimizer)

    @property
    def passes(self) -> tuple[int, int]:
        return self.optimizer.passes

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
            readings[row["block"]].append(row["eta"])
        return {
            name: math.fsum(values) / len(values) if values else math.nan
            for name, values in readings.items()
        }

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict)


class SamtMethod(WatchedMethod):
    """SAMT; arguments as of `OptimizerMethod`."""

    optimizer: samt.SAMT

    def __init__(
        self, model: nn.Module, loss_fn: LossFunction, optimizer: samt.SAMT, schedule: str
    ) -> None:
        super().__init__(model, loss_fn, optimizer, schedule)
        defaults = optimizer.defaults
        self._fresh = defaults["meta_batch"] == "fresh"
        self.updates_per_step = float(defaults["inner_steps"])
        if defaults["order"] == "cyclic":
            self.updates_per_step /= len(self._names)

    def step(self, batch: Batch, following: Callable[[], Batch]) -> Tensor | float:
        closure = samt.closure(self.model, self.loss_fn, *batch)
        # The optimizer itself takes every second sample of the other mini-batch.
        other = samt.closure(self.model, self.loss_fn, *following()) if self._fresh else None
        loss = self.optimizer.step(closure, other)
        assert loss is not None  # it is None only without a closure
        return loss


class DanteMethod(WatchedMethod):
    """Dante; arguments as of `OptimizerMethod`."""

    optimizer: Dante

    def __init__(
        self, model: nn.Module, loss_fn: LossFunction, optimizer: Dante, schedule: str
    ) -> None:
        super().__init__(model, loss_fn, optimizer, schedule)
        if optimizer.defaults["fresh_batches"]:  # a step is one iteration on one layer
            self.updates_per_step = 1 / len(self._names)
        else:
            self.updates_per_step = float(optimizer.defaults["inner_iterations"])

    def step(self, batch: Batch, following: Callable[[], Batch]) -> Tensor | float:
        loss = self.optimizer.step(samt.closure(self.model, self.loss_fn, *batch))
        assert loss is not None  # it is None only without a closure
        return loss


class GradientMethod(OptimizerMethod):
    """An optimizer of torch that needs one forward and one backward pass for each step."""

    _steps = 0

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


class ScheduleFreeMethod(GradientMethod):
    """An optimizer that trains other weights than it evaluates; arguments as of its parent."""

    optimizer: AdamWScheduleFree

    def start_epoch(self, steps: int) -> None:
        self.optimizer.train()

    def end_epoch(self) -> None:
        self.optimizer.eval()


class AutoMethod(WatchedMethod):
    """AutoSAMT; arguments as of `OptimizerMethod`."""

    optimizer: samt.AutoSAMT

    def step(self, batch: Batch, following: Callable[[], Batch]) -> Tensor:
        inputs, targets = batch
        loss: Tensor = self.optimizer.step(lambda: self.loss_fn(self.model(inputs), targets))
        return loss


class SolverMethod(Method):
    """A full-batch solver of a fully connected network, which keeps weights of its own.

    They are copied into the model, also before the first step: the solver draws them in the way
    of its paper. It takes no passes through the model and has no step sizes.
    """

    full_batch = True

    def __init__(
        self, model: nn.Module, loss_fn: LossFunction, spec: MethodSpec, seed: int, train: Batch
    ) -> None:
        super().__init__(model, loss_fn)
        modules = list(model.children())
        if not all(isinstance(m, nn.Flatten | nn.Linear | nn.LeakyReLU) for m in modules):
            raise SettingsError(
                f"method '{spec.name}' solves fully connected networks without dropout: use "
                "--model mlp and --dropout 0"
            )
        self._layers = [module for module in modules if isinstance(module, nn.Linear)]
        slopes = [module.negative_slope for module in modules if isinstance(module, nn.LeakyReLU)]
        inputs, targets = train
        options: dict[str, Any] = dict(spec.options)
        if targets.is_floating_point() and "loss" not in spec.given:
            options["loss"] = "squared"
        self.solver = SOLVERS[spec.name](
            *(inputs, targets, [layer.out_features for layer in self._layers[:-1]]),
            activation="leaky_relu",
            negative_slope=slopes[0] if slopes else 0.0,
            outputs=self._layers[-1].out_features,
            seed=seed,
            **options,
        )
        self._copy_weights()

    def step(self, batch: Batch, following: Callable[[], Batch]) -> float:
        """One iteration; returns the solver's own objective, after it, for each sample."""
        objective = self.solver.step().objective
        self._copy_weights()
        return objective / len(batch[0])

    @torch.no_grad()
    def _copy_weights(self) -> None:
        solved = zip(self.solver.weights, self.solver.biases, strict=True)
        for layer, (weight, bias) in zip(self._layers, solved, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)

    def anneal(self, share: float) -> None:
        pass

    @property
    def passes(self) -> tuple[int, int]:
        return 0, 0

    def start_epoch(self, steps: int) -> None:
        pass

    def latest_step_sizes(self) -> dict[str, float]:
        return {}

    def epoch_step_sizes(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return self.solver.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.solver.load_state_dict(state_dict)


def build(
    spec: MethodSpec, model: nn.Module, loss_fn: LossFunction, seed: int, train: Batch
) -> Method:
    """Make a method ready to train a model.

    Args:
        spec: name and options.
        model: the network, already on its device.
        loss_fn: maps (outputs, targets) to a scalar loss.
        seed: seed of the method's own randomness.
        train: all inputs and targets of the training part, for the full-batch solvers.

    Returns:
        The method, before its first step.

    Raises:
        SettingsError: options that do not go together.
    """
    options: dict[str, Any] = dict(spec.options)
    if spec.name in SOLVERS:
        return SolverMethod(model, loss_fn, spec, seed, train)
    if "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    if spec.name == "sgd" and options["nesterov"] and not options["momentum"]:
        raise SettingsError("nesterov=true needs momentum: add momentum=0.9")
    # For SGD and Adam groups of one module each change no number; tables and plots name them.
    if spec.name == "auto-samt":
        return AutoMethod(model, loss_fn, samt.AutoSAMT(model))
    groups = samt.blocks(model, options.pop("blocks", None))
    schedule = options.pop("schedule", "constant")
    if spec.name == "samt":
        return SamtMethod(model, loss_fn, samt.SAMT(groups, **options, seed=seed), schedule)
    if spec.name == "dante":
        return DanteMethod(model, loss_fn, Dante(groups, **options), schedule)
    if spec.name == "schedule-free":
        return ScheduleFreeMethod(model, loss_fn, AdamWScheduleFree(groups, **options))
    return GradientMethod(model, loss_fn, _OPTIMIZERS[spec.name](groups, **options), schedule)


_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "sgd-hd": SGDHD,
    "sgdn-hd": SGDNesterovHD,
    "adam-hd": AdamHD,
    "prodigy": Prodigy,
}
