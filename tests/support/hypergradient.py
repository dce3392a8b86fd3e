"""The methods of hypergradient descent, and a training with each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import samt
from samt.baselines import SGDHD, AdamHD, SGDNesterovHD
from samt.baselines.hypergradient_base import HypergradientDescent

from .batches import batch
from .models import MODELS

LOSS = nn.functional.cross_entropy
METHODS: dict[str, tuple[Callable[..., HypergradientDescent], dict[str, Any]]] = {
    "sgd": (SGDHD, {"lr": 0.1, "hypergrad_lr": 1e-3}),
    "sgd, momentum": (SGDHD, {"lr": 0.05, "hypergrad_lr": 1e-3, "momentum": 0.8}),
    "nesterov": (SGDNesterovHD, {"lr": 0.05, "hypergrad_lr": 1e-3, "momentum": 0.7}),
    "adam": (AdamHD, {"lr": 0.01, "hypergrad_lr": 1e-3, "betas": (0.8, 0.95), "eps": 1e-3}),
}
RULES = {"additive": 1.0, "multiplicative": 100.0}  # and what makes its β as effective


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of a batch."""
    return LOSS(model(inputs), targets)


def descend(model: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Take one step, as in everybody's loop."""
    optimizer.zero_grad()
    model().backward()
    optimizer.step()


def alpha_of(optimizer: torch.optim.Optimizer, group: int = 0) -> float:
    """The learning rate of a group, as a number."""
    return float(optimizer.param_groups[group]["lr"])


def build(kind: str, seed: int, **more: Any) -> tuple[nn.Module, HypergradientDescent]:
    """A model and an optimizer of one of METHODS."""
    make, options = METHODS[kind]
    torch.manual_seed(seed)
    model = MODELS["mlp"]()
    return model, make(samt.blocks(model), **{**options, "hypergrad_lr": 1e-2, **more})


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Take steps on batches that are chosen by their numbers."""
    for step in steps:
        inputs, targets = batch("mlp", step)
        descend(partial(loss_of, model, inputs, targets), optimizer)
