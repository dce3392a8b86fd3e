"""The methods of hypergradient descent with torch's AdamW as a control, and steps of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from samt.baselines import SGDHD, AdamHD, SGDNesterovHD

from .comparisons import assert_same

Make = Callable[..., Optimizer]
METHODS: dict[str, Make] = {
    "sgd-hd": lambda p, **o: SGDHD(p, **{"lr": 0.1, "momentum": 0.5, **o}),
    "sgdn-hd": lambda p, **o: SGDNesterovHD(p, **{"lr": 0.1, **o}),
    "adam-hd": lambda p, **o: AdamHD(p, **{"lr": 0.01, **o}),
}
WITH_CONTROL: dict[str, Make] = {
    **METHODS,
    "torch": lambda p, **o: torch.optim.AdamW(p, **{"lr": 0.01, **o}),
}
every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
with_control = pytest.mark.parametrize("make", WITH_CONTROL.values(), ids=WITH_CONTROL)


def network(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)


def data(number: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
    return inputs.to(dtype), inputs[:, :3].argmax(1)


def loss_of(model: nn.Module, number: int) -> Tensor:
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    inputs, targets = data(number, dtype)
    return nn.functional.cross_entropy(model(inputs), targets)


def train(model: nn.Module, optimizer: Optimizer, *numbers: int) -> None:
    for number in numbers:
        model.zero_grad()
        loss_of(model, number).backward()
        optimizer.step()


def everything(model: nn.Module, optimizer: Optimizer) -> Any:
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    return copy.deepcopy((model.state_dict(), [*optimizer.state.values()], groups))


def refused(
    model: nn.Module, optimizer: Optimizer, error: type[Exception], words: str
) -> pytest.ExceptionInfo[Exception]:
    """A step raises an error of one line, and leaves everything as it was."""
    before = everything(model, optimizer)
    with pytest.raises(error, match=words) as caught:
        train(model, optimizer, 9)
    assert "\n" not in str(caught.value)
    assert_same(everything(model, optimizer)[:2], before[:2])
    return caught


def alphas(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]
