"""How each method takes a step on a model of its own."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import samt
from samt.reference import SAMTReference

from .methods import Method

LOSS = nn.functional.cross_entropy
Batch = tuple[Tensor, Tensor]
# Small steps in proportion to `lr`: every model stays finite, and the cost is that of any others.
_SMALL_STEPS = {"lr": 1e-3, "relative": True}


class Stepper(Protocol):
    """One method on one model."""

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes so far."""

    def step(self) -> None:
        """Take one step on the batch."""


def stepper(method: Method, model: nn.Module, batch: Batch) -> Stepper:
    """Build an optimizer for a model.

    Args:
        method: what to build.
        model: belongs to the stepper from now on.
        batch: inputs and targets of every step.
    """
    if method.engine == "reference":
        return _Reference(model, batch, _samt_optimizer(method, model))
    if method.engine:
        return _Samt(model, batch, _samt_optimizer(method, model))
    if method.key.startswith("gdtuo"):
        return _Gdtuo(model, batch, method.key)
    return _Plain(model, batch, _OPTIMIZERS[method.key](list(model.parameters())))


def _samt_optimizer(method: Method, model: nn.Module) -> samt.SAMT:
    blocks = samt.blocks(model, 1 if method.mode == "whole" else None)
    options: dict[str, Any] = {**_SMALL_STEPS, "step_size": method.granularity}
    options["meta_batch"] = "next" if method.mode == "whole" else method.mode
    if method.compiled:
        options["compile"] = True
    return samt.SAMT(blocks, **options)


class _Plain:
    """The loop that everyone writes."""

    def __init__(self, model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        self._model, self._batch, self._optimizer = model, batch, optimizer
        self._count = 0

    @property
    def passes(self) -> tuple[int, int]:
        return self._count, self._count

    def step(self) -> None:
        inputs, targets = self._batch
        self._optimizer.zero_grad()
        LOSS(self._model(inputs), targets).backward()
        self._optimizer.step()
        self._count += 1


class _Samt:
    def __init__(self, model: nn.Module, batch: Batch, optimizer: samt.SAMT) -> None:
        self._model, self._batch, self._optimizer = model, batch, optimizer

    @property
    def passes(self) -> tuple[int, int]:
        return self._optimizer.passes

    def step(self) -> None:
        self._optimizer.step(samt.closure(self._model, LOSS, *self._batch))


class _Reference:
    """The algorithm line by line: a whole forward pass for every gradient."""

    def __init__(self, model: nn.Module, batch: Batch, optimizer: samt.SAMT) -> None:
        self._count = 0
        self._batch = batch
        self._reference = SAMTReference(model, self._loss, optimizer.param_groups)

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self._count += 1
        return LOSS(outputs, targets)

    @property
    def passes(self) -> tuple[int, int]:
        return self._count, self._count

    def step(self) -> None:
        self._reference.step(self._batch)


class _Gdtuo:
    """As in its README, with Adam or SGD whose hyperparameters are learned by SGD."""

    def __init__(self, model: nn.Module, batch: Batch, name: str) -> None:
        # Its README: "This is normal and to be expected."
        warnings.filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True")
        package = "gradient_descent_the_ultimate_optimizer"
        gdtuo: Any = importlib.import_module(f"{package}.gdtuo")
        self._batch = batch
        lower = gdtuo.Adam if name == "gdtuo-adam" else gdtuo.SGD
        optimizer = lower(1e-3, optimizer=gdtuo.SGD(1e-5))
        self._wrapper = gdtuo.ModuleWrapper(model, optimizer=optimizer)
        self._wrapper.initialize()
        self._count = 0

    @property
    def passes(self) -> tuple[int, int]:
        return self._count, self._count

    def step(self) -> None:
        inputs, targets = self._batch
        self._wrapper.begin()
        loss = LOSS(self._wrapper.forward(inputs), targets)
        self._wrapper.zero_grad()
        loss.backward(create_graph=True)
        self._wrapper.step()
        self._count += 1


def _auto_samt(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    optimizer = samt.AutoSAMT(parameters)
    optimizer.param_groups[0]["calls"] = 1000  # it learns from step 500 on, and learning costs
    return optimizer


def _prodigy(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = importlib.import_module("prodigyopt").Prodigy(parameters)
    return optimizer


def _schedule_free(name: str, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    package: Any = importlib.import_module("schedulefree")
    optimizer: Any = getattr(package, name)(parameters, lr=lr)
    optimizer.train()  # without it, its step refuses to run
    result: torch.optim.Optimizer = optimizer
    return result


_OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-3),
    "sgd-momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
    "auto-samt": _auto_samt,
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-4),
    "adam-foreach": lambda parameters: torch.optim.Adam(parameters, lr=1e-4, foreach=True),
    "adam-fused": lambda parameters: torch.optim.Adam(parameters, lr=1e-4, fused=True),
    "prodigy": _prodigy,
    "schedulefree-sgd": lambda parameters: _schedule_free("SGDScheduleFree", parameters, 1e-3),
    "schedulefree-adamw": lambda parameters: _schedule_free("AdamWScheduleFree", parameters, 1e-4),
}
