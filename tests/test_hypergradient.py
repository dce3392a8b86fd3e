"""Hypergradient descent: the published rule, and torch's optimizers at β = 0."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.baselines import SGDHD, AdamHD, SGDNesterovHD

from .support.batches import batch
from .support.comparisons import assert_same
from .support.hypergradient import LOSS, METHODS, RULES, alpha_of, build, descend, loss_of, train
from .support.models import MODELS


class Quadratic(nn.Module):
    """½ θᵀ A θ − bᵀ θ, θ in tensors of several shapes."""

    def __init__(self) -> None:
        super().__init__()
        root = torch.randn(11, 11, dtype=torch.float64)
        self.matrix = root @ root.T / 11 + torch.eye(11)
        self.vector = torch.randn(11, dtype=torch.float64)
        shapes = ((3, 2), (4,), ())
        self.parts = nn.ParameterList(torch.randn(s, dtype=torch.float64) for s in shapes)

    def flat(self) -> Tensor:
        return torch.cat([part.flatten() for part in self.parts])

    def forward(self) -> Tensor:
        theta = self.flat()
        return theta @ self.matrix @ theta / 2 - self.vector @ theta


def by_hand(kind: str, rule: str, model: Quadratic, steps: int, o: dict[str, Any]) -> list[Any]:
    """(α, θ) after each step, as the paper writes it, on one vector."""
    theta = model.flat().detach()
    alpha, beta, mu = o["lr"], o["hypergrad_lr"], o.get("momentum", 0.0)
    beta1, beta2 = o.get("betas", (0.0, 0.0))
    u, m, v = (torch.zeros_like(theta) for _ in range(3))
    trace = []
    for t in range(1, steps + 1):
        g = model.matrix @ theta - model.vector + o["weight_decay"] * theta
        if rule == "additive":
            alpha = alpha + beta * float(g @ u)
        elif t > 1:
            alpha = alpha * (1 + beta * float(g @ u) / float(g.norm() * u.norm()))
        if kind == "adam":
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            u = m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + o["eps"])
        else:
            m = mu * m + g
            u = g + mu * m if kind == "nesterov" else m
        theta = theta - alpha * u
        trace.append((alpha, theta))
    return trace


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", METHODS)
def test_steps_are_those_computed_by_hand(kind: str, rule: str, weight_decay: float) -> None:
    make, options = METHODS[kind]
    beta = options["hypergrad_lr"] * RULES[rule]
    options = {**options, "hypergrad_lr": beta, "weight_decay": weight_decay}
    model = Quadratic()
    expected = by_hand(kind, rule, model, 8, options)
    optimizer = make(model.parameters(), rule=rule, **options)
    for alpha, theta in expected:
        descend(model, optimizer)
        assert alpha_of(optimizer) == pytest.approx(alpha, rel=1e-12)
        torch.testing.assert_close(model.flat(), theta, rtol=1e-11, atol=1e-13)
    assert abs(alpha / options["lr"] - 1) > 0.02  # it did learn


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("kind", METHODS)
def test_the_change_of_alpha_is_the_slope_of_the_loss_along_the_last_update(
    kind: str, weight_decay: float
) -> None:
    make, options = METHODS[kind]
    torch.manual_seed(0)
    model = MODELS["mlp"]()
    inputs, targets = batch("mlp", 0)

    def loss() -> Tensor:
        penalty = sum((p**2).sum() for p in model.parameters())
        return LOSS(model(inputs), targets) + weight_decay / 2 * penalty

    optimizer = make(model.parameters(), **options, weight_decay=weight_decay)
    for _ in range(3):
        optimizer.zero_grad()
        LOSS(model(inputs), targets).backward()
        before = nn.utils.parameters_to_vector(model.parameters()).detach()
        optimizer.step()
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    alpha = alpha_of(optimizer)
    losses = []
    for shift in (1e-5, -1e-5):  # what the loss would be, had the last step been longer or shorter
        vector = before + (after - before) * (alpha + shift) / alpha
        nn.utils.vector_to_parameters(vector, model.parameters())
        losses.append(float(loss().detach()))
    nn.utils.vector_to_parameters(after, model.parameters())
    optimizer.zero_grad()
    LOSS(model(inputs), targets).backward()
    optimizer.step()
    change = (alpha_of(optimizer) - alpha) / options["hypergrad_lr"]
    assert change == pytest.approx(-(losses[0] - losses[1]) / 2e-5, rel=1e-6)
    assert abs(change) > 1e-3


TWINS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sgd": (SGDHD, torch.optim.SGD, {}),
    "sgd, momentum": (SGDHD, torch.optim.SGD, {"momentum": 0.9}),
    "sgd, decay": (SGDHD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "nesterov": (SGDNesterovHD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "adam": (AdamHD, torch.optim.Adam, {"betas": (0.8, 0.99), "eps": 1e-4}),
    "adam, decay": (AdamHD, torch.optim.Adam, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("what", TWINS)
def test_with_hypergrad_lr_0_it_is_the_optimizer_of_torch(
    what: str, dtype: torch.dtype, rule: str
) -> None:
    ours, theirs, options = TWINS[what]
    more: dict[str, Any] = {"nesterov": True} if what == "nesterov" else {}
    # Ahead of batch norm a bias has rounding errors for a gradient, which Adam magnifies.
    kind = "mlp" if "adam" in what else "convolutional"
    results = []
    for mine in (True, False):
        torch.manual_seed(0)
        model = MODELS[kind]().to(dtype)
        optimizer = (
            ours(model.parameters(), lr=0.03, hypergrad_lr=0, rule=rule, **options)
            if mine
            else theirs(model.parameters(), lr=0.03, **options, **more)
        )
        for step in range(6):
            inputs, targets = batch(kind, step)
            descend(partial(loss_of, model, inputs.to(dtype), targets), optimizer)
        results.append(list(model.parameters()))
    # Adam's factors are multiplied in another order.
    rounding = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype] if "adam" in what else 0.0
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("kind", METHODS)
def test_every_group_learns_an_alpha_of_its_own(kind: str) -> None:
    """As if each group had an optimizer of its own."""
    make, options = METHODS[kind]
    together, optimizer = build(kind, 0)
    train(together, optimizer, range(5))
    torch.manual_seed(0)
    alone = MODELS["mlp"]()
    optimizers = [make([g], **{**options, "hypergrad_lr": 1e-2}) for g in samt.blocks(alone)]
    for step in range(5):
        inputs, targets = batch("mlp", step)
        alone.zero_grad()
        LOSS(alone(inputs), targets).backward()
        for each in optimizers:
            each.step()
    assert_same(dict(together.state_dict()), dict(alone.state_dict()))
    alphas = [alpha_of(optimizer, i) for i in range(3)]
    assert alphas == [alpha_of(each) for each in optimizers]
    assert len(set(alphas)) == 3


@pytest.mark.parametrize("kind", METHODS)
def test_the_order_of_the_parameters_does_not_matter(kind: str) -> None:
    """In the authors' AdamHD it does."""
    make, options = METHODS[kind]
    runs = []
    for direction in (1, -1):
        torch.manual_seed(0)
        model = Quadratic()
        optimizer = make(list(model.parameters())[::direction], **options)
        for _ in range(5):
            descend(model, optimizer)
        runs.append((alpha_of(optimizer), model.flat()))
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-13)
    torch.testing.assert_close(runs[0][1], runs[1][1], rtol=1e-12, atol=1e-14)
