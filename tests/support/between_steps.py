"""Optimizers of each kind, and a small network that they train for some steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.baselines import Dante

LOSS = nn.functional.cross_entropy
Make = Callable[[Any], Any]
KINDS: dict[str, Make] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, 1e-2),
    "auto-samt": samt.AutoSAMT,
    "samt": samt.SAMT,
    "samt, row, ball": lambda groups: samt.SAMT(groups, step_size="row", radius=10.0),
    "samt, next": lambda groups: samt.SAMT(groups, step_size="element", meta_batch="next"),
    "samt, fixed": lambda groups: samt.SAMT(groups, parts="fixed"),
    "dante": lambda groups: Dante(groups, 1e-2),
}
OURS = [kind for kind in KINDS if kind != "adamw"]
every_kind = pytest.mark.parametrize("kind", KINDS)
ours = pytest.mark.parametrize("kind", OURS)


def data(dtype: torch.dtype = torch.float32, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, 6, generator=generator)
    return inputs.to(dtype), torch.randint(0, classes, (32,), generator=generator)


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def steps(model: nn.Module, optimizer: Any, count: int) -> None:
    """Train for some steps."""
    inputs, targets = data(next(p for p in model.parameters() if p.is_floating_point()).dtype)
    for _ in range(count):
        if isinstance(optimizer, torch.optim.AdamW):
            optimizer.zero_grad()
            LOSS(model(inputs), targets).backward()
            optimizer.step()
        else:
            optimizer.step(samt.closure(model, LOSS, inputs, targets))


def start(kind: str, count: int = 5) -> tuple[Any, Any]:
    model = network()
    optimizer = KINDS[kind](samt.blocks(model))
    steps(model, optimizer, count)
    return model, optimizer
