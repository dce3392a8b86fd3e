"""AutoSAMT gets over what would stop it: a bad batch, a change of scale, a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, StepLR

import samt

Factor = Callable[[int], float]


def samples(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Five classes, with noise."""
    chance = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 12, generator=chance)
    scores = 2 * (x @ torch.linspace(-40, 40, 60).view(12, 5).sin()).tanh()
    return x, (scores + torch.randn(count, 5, generator=chance)).argmax(dim=1)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 5)
    )


def train(
    model: nn.Module, optimizer: Any, steps: range, factor: Factor = lambda step: 1.0
) -> None:
    for step in steps:
        x, y = samples(step, 64)
        optimizer.zero_grad()
        (factor(step) * cross_entropy(model(x), y)).backward()
        optimizer.step()


def loss(model: nn.Module) -> float:
    x, y = samples(10**6, 4_000)
    model.eval()
    with torch.no_grad():
        found = float(cross_entropy(model(x), y))
    model.train()
    return found


@pytest.mark.parametrize("factor", [1e3, 1e6, 1e12])
def test_one_bad_batch_is_got_over(factor: float) -> None:
    found = []
    for bad in (1.0, factor):
        model = network()
        optimizer = samt.AutoSAMT(model)
        train(model, optimizer, range(300))
        train(model, optimizer, range(300, 301), lambda step, bad=bad: bad)  # type: ignore[misc]
        train(model, optimizer, range(301, 600))
        found.append(loss(model))
    assert found[1] < found[0] + 0.02


def test_gradients_that_were_zero_say_nothing_of_those_that_come() -> None:
    model = network()
    optimizer = samt.AutoSAMT(model)
    begin = loss(model)
    train(model, optimizer, range(100), lambda step: 0.0)
    train(model, optimizer, range(100, 600))
    assert loss(model) < begin - 0.2


def test_a_smaller_loss_from_some_step_on_does_not_end_the_training() -> None:
    model = network()
    optimizer = samt.AutoSAMT(model)
    train(model, optimizer, range(300))
    before = loss(model)
    train(model, optimizer, range(300, 3_000), lambda step: 1e-3)
    assert loss(model) < before + 0.01
    assert all(group["step_size"] > 1e-6 for group in optimizer.param_groups)


def step_sizes(schedule: Callable[[Any], Any] | None, steps: int) -> list[float]:
    model = network()
    optimizer = samt.AutoSAMT(model)
    scheduler = schedule(optimizer) if schedule else None
    for step in range(steps):
        train(model, optimizer, range(step, step + 1))
        if scheduler:
            scheduler.step()
    return [float(group["step_size"]) for group in optimizer.param_groups]


def test_the_learning_does_not_make_up_for_a_schedule() -> None:
    """A tenth stays about a tenth, for hundreds of steps."""
    plain = step_sizes(None, 700)
    scheduled = step_sizes(lambda optimizer: StepLR(optimizer, 300, gamma=0.1), 590)
    assert all(0.04 < one / other < 0.25 for one, other in zip(scheduled, plain, strict=True))


def test_a_warm_up_delays_the_learning() -> None:
    plain = step_sizes(None, 25)
    warmed = step_sizes(lambda o: LambdaLR(o, lambda step: min(1.0, (step + 1) / 200)), 25)
    # In step 25 lr is an eighth; the learning has not made up for that, and not begun much.
    assert all(one < other / 8 for one, other in zip(warmed, plain, strict=True))


def test_a_smaller_lr_set_by_hand_is_not_made_up_for_either() -> None:
    found = []
    for learning in (True, False):
        model = network()
        optimizer = samt.AutoSAMT(model)
        train(model, optimizer, range(200))
        for group in optimizer.param_groups:
            group["lr"] *= 1e-3
            group["learning"] = learning
        train(model, optimizer, range(200, 500))
        found.append([float(state["log_step"]) for state in optimizer.state.values()])
    assert all(abs(one - other) < 0.05 for one, other in zip(*found, strict=True))
