"""Where SAMT degenerates to a known method, it is that method; and it finds known minimisers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt

from .support.batches import batch
from .support.models import MODELS, mlp

LOSS = nn.functional.cross_entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_closure", [True, False])
def test_fixed_steps_on_the_whole_model_are_sgd_bit_for_bit(
    dtype: torch.dtype, with_closure: bool
) -> None:
    results = []
    for method in ("sgd", "samt"):
        torch.manual_seed(0)
        model = MODELS["convolutional"]().to(dtype)
        optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(model.parameters(), lr=0.3)
            if method == "sgd"
            else samt.SAMT(samt.blocks(model, 1), lr=0.3, parts="fixed")
        )
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        for step in range(6):
            inputs, targets = batch("convolutional", step)
            inputs = inputs.to(dtype)
            if isinstance(optimizer, samt.SAMT) and with_closure:
                optimizer.step(samt.closure(model, LOSS, inputs, targets))
            else:
                optimizer.zero_grad()
                LOSS(model(inputs), targets).backward()
                optimizer.step()
            schedule.step()
        results.append(list(model.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_fixed_steps_on_layers_are_alternating_sgd() -> None:
    model, by_hand = mlp(), mlp()
    by_hand.load_state_dict(model.state_dict())
    optimizer = samt.SAMT(samt.blocks(model), lr=0.3, parts="fixed")
    assert isinstance(by_hand, nn.Sequential)
    for step in range(5):
        data = batch("mlp", step)
        optimizer.step(samt.closure(model, LOSS, *data))
        for layer in (by_hand[0], by_hand[2], by_hand[4]):
            by_hand.zero_grad()
            LOSS(by_hand(data[0]), data[1]).backward()
            with torch.no_grad():
                for parameter in layer.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(0.3 * parameter.grad)
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict(), rtol=1e-12, atol=1e-14)


def test_whole_model_update_differs_from_alternating_updates() -> None:
    results = []
    for partition in (None, 1):
        torch.manual_seed(0)
        model = mlp()
        optimizer = samt.SAMT(samt.blocks(model, partition), lr=0.3, parts="fixed")
        optimizer.step(samt.closure(model, LOSS, *batch("mlp", 0)))
        results.append(nn.utils.parameters_to_vector(model.parameters()))
    assert (results[0] - results[1]).abs().max() > 1e-6


class TwoBlocks(nn.Module):
    """½ wᵀ A w − bᵀ w over two coupled blocks, A positive definite with known minimiser."""

    def __init__(self) -> None:
        super().__init__()
        basis, _ = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))
        self.matrix = basis @ torch.diag(torch.linspace(0.3, 0.9, 12).double()) @ basis.T
        self.vector = torch.randn(12, dtype=torch.float64)
        self.first = nn.Parameter(torch.randn(2, 3, dtype=torch.float64))
        self.second = nn.Parameter(torch.randn(6, dtype=torch.float64))

    def flat(self) -> Tensor:
        return torch.cat((self.first.flatten(), self.second))

    def forward(self) -> Tensor:
        w = self.flat()
        return w @ self.matrix @ w / 2 - self.vector @ w

    def minimiser(self) -> Tensor:
        return torch.linalg.solve(self.matrix, self.vector)


@pytest.mark.parametrize("step_size", ["scalar", "row", "column", "element"])
@pytest.mark.parametrize(
    "options",
    [
        {"meta_batch": "same"},
        {"meta_batch": "next"},
        {"meta_batch": "same", "inner_steps": 3},
        {"meta_batch": "same", "radius": 50.0},
        {"meta_batch": "next", "order": "random"},
        {"parts": "fixed", "lr": 0.5},
        {"meta_batch": "same", "relative": True, "order": "reverse"},
    ],
    ids=str,
)
def test_it_reaches_the_known_minimiser_of_a_strongly_convex_block_problem(
    step_size: Any, options: dict[str, Any]
) -> None:
    model = TwoBlocks()
    groups = samt.blocks(model, ["first", "second"])
    optimizer = samt.SAMT(groups, step_size=step_size, **options)
    distance = (model.flat() - model.minimiser()).norm()
    for _ in range(400):
        optimizer.step(model)
    assert (model.flat() - model.minimiser()).norm() < 1e-8 * distance


def test_a_small_ball_stops_at_its_boundary() -> None:
    model = TwoBlocks()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = samt.SAMT(samt.blocks(model, ["first", "second"]), meta_batch="same", radius=0.25)
    for _ in range(200):
        optimizer.step(model)
    for name, parameter in model.named_parameters():
        assert (parameter - start[name]).norm().item() == pytest.approx(0.25, rel=1e-12)
