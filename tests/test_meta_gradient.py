"""The closed-form meta gradient against finite differences and automatic differentiation."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import samt
from samt.alternating.oagd import SubProblem, clipped, norm_of_all
from samt.eta_model import EtaModels, gradient_statistics, initial_eta_model
from samt.step_size import combine, combine_backward, step_size_shape
from samt.tensors.finite import FiniteNumbers

from .support.batches import batch
from .support.models import mlp

SHAPES = ["scalar", "row", "column", "element", lambda tensor: tensor.shape[-1:]]
LOSS = nn.functional.cross_entropy


def gradient(loss: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, parameters))


def seen(g: list[Tensor | None], max_grad_norm: float | None) -> list[Tensor]:
    """The gradients that the eta models see."""
    gradients = [gradient for gradient in g if gradient is not None]
    if max_grad_norm is None:
        return gradients
    return clipped(gradients, max_grad_norm, norm_of_all(gradients))


@pytest.mark.parametrize(
    ("step_size", "head"), list(itertools.product(SHAPES, ["offset", "dense"]))
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"projection": "sigmoid"},
        {"parts": "left"},
        {"parts": "right"},
        {"relative": 4.0},
        {"weight_decay": 0.3, "max_grad_norm": 0.1},
        {"radius": 0.02},
    ],
    ids=str,
)
def test_it_equals_finite_differences(step_size: Any, head: str, options: dict[str, Any]) -> None:
    model = mlp()
    optimizer = samt.SAMT(
        samt.blocks(model, 1), step_size=step_size, head=head, eta_hidden=7, meta_lr=1.0, **options
    )
    (group,) = optimizer.param_groups
    parameters: list[Tensor] = group["params"]
    start = [p.detach().clone() for p in parameters]
    states = [optimizer.state[p] for p in parameters]
    members = list(zip(group["param_names"], parameters, strict=True))
    subproblem = SubProblem(0, group, members, states)
    check_finite = FiniteNumbers("there is no cure").check
    # Any weights of φ will do; the initial offsets, all zero, would hide mistakes.
    for state in states:
        for key in state.keys() - {"center", "ball_scale"}:
            state[key].add_(0.3 * torch.randn_like(state[key]))
    g: list[Tensor | None] = list(
        gradient(LOSS(model(batch("mlp", 0)[0]), batch("mlp", 0)[1]), parameters)
    )
    inputs, targets = batch("mlp", 1)

    def meta_loss() -> Tensor:
        with torch.no_grad():
            for parameter, weight in zip(parameters, start, strict=True):
                parameter.copy_(weight)
            subproblem.descend(g, check_finite)
        return LOSS(model(inputs), targets)

    before = [{key: value.clone() for key, value in state.items()} for state in states]
    h: list[Tensor | None] = list(gradient(meta_loss(), parameters))
    assert subproblem.eta is not None
    with torch.no_grad():
        features = gradient_statistics(seen(g, options.get("max_grad_norm")))
        norms = subproblem.eta.forward(features).hidden2.square().sum((1, 2))
        subproblem.learn(h, check_finite)
    exact = []
    for state, old, norm in zip(states, before, norms, strict=True):
        changes = {k: old[k] - state[k] for k in state if k not in ("center", "ball_scale")}
        if "offset" in changes:
            changes["offset"] /= norm + 1
        exact.append(changes)
    for _ in range(3):
        directions = [{k: torch.randn_like(v) for k, v in c.items()} for c in exact]
        values = []
        for shift in (1e-5, -1e-5):
            for state, old, direction in zip(states, before, directions, strict=True):
                for key, value in direction.items():
                    state[key].copy_(old[key] + shift * value)
            values.append(meta_loss().item())
        slope = sum(
            (c[k] * d[k]).sum().item() for c, d in zip(exact, directions, strict=True) for k in c
        )
        assert abs(slope) > 1e-6  # else any wrong gradient would pass
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("step_size", SHAPES)
def test_it_equals_differentiation_through_the_trial_weights(step_size: Any) -> None:
    """Autograd gives ∂ℓ(w − η ⊙ g)/∂(α, η̃), equations (9) and (10), with g constant."""
    model = mlp()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    inputs, targets = batch("mlp", 0)
    g = dict(
        zip(weights, gradient(LOSS(model(inputs), targets), list(model.parameters())), strict=True)
    )
    shapes = {name: step_size_shape(step_size, w) for name, w in weights.items()}
    alpha = {n: torch.rand(s, dtype=torch.float64).requires_grad_() for n, s in shapes.items()}
    tilde = {n: torch.rand(s, dtype=torch.float64).requires_grad_() for n, s in shapes.items()}
    trial = {n: weights[n] - combine(alpha[n], tilde[n], 0.2, 1.5) * g[n] for n in weights}
    loss = LOSS(functional_call(model, trial, inputs), targets)
    h = dict(
        zip(trial, torch.autograd.grad(loss, list(trial.values()), retain_graph=True), strict=True)
    )
    for name, shape in shapes.items():
        expected = torch.autograd.grad(loss, [alpha[name], tilde[name]], retain_graph=True)
        eta_gradient = -(g[name] * h[name]).sum_to_size(shape)
        actual = combine_backward(
            eta_gradient, alpha[name].detach(), tilde[name].detach(), 0.2, 1.5
        )
        torch.testing.assert_close(tuple(actual), expected, rtol=1e-10, atol=1e-12)


def test_offset_and_dense_heads_move_the_logits_alike_while_z_stands_still() -> None:
    """The dense head moves a logit by −meta_lr δ (‖z‖² + 1): the offset's own update."""
    shape, hidden, like = torch.Size([6, 1]), 16, torch.zeros((), dtype=torch.float64)
    states = {
        head: initial_eta_model(shape, head, hidden, seed=3, index=0, like=like)
        for head in ("offset", "dense")
    }
    dense, offset = states["dense"], states["offset"]
    offset["offset"].copy_(torch.randn(2, 6, 1))
    # The same function: every row of the dense head is the shared head, its bias has the offset.
    trunk_size = dense["eta_model"].numel()
    weight, bias = offset["eta_model"][trunk_size:].split([2 * hidden, 2])
    dense["eta_model"].copy_(offset["eta_model"][:trunk_size])
    dense["head_weight"].copy_(weight.view(2, 1, hidden).expand(2, 6, hidden))
    dense["head_bias"].copy_(bias.view(2, 1) + offset["offset"].view(2, 6))
    features, grad = torch.randn(1, 5, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    before = {head: {k: v.clone() for k, v in state.items()} for head, state in states.items()}
    traces = {}
    for head, state in states.items():
        models = EtaModels([state], hidden, "tanh")
        traces[head] = models.forward(features)
        models.descend(traces[head], [grad.clone()], meta_lr=0.1)
    torch.testing.assert_close(traces["dense"].projected, traces["offset"].projected)
    z = traces["dense"].hidden2[0, 0]
    dense_change = (dense["head_weight"] - before["dense"]["head_weight"]) @ z
    dense_change += dense["head_bias"] - before["dense"]["head_bias"]
    offset_change = (offset["offset"] - before["offset"]["offset"]).view(2, 6)
    assert offset_change.abs().min() > 1e-4
    torch.testing.assert_close(offset_change, dense_change, rtol=1e-10, atol=1e-12)


def test_scalar_steps_are_the_same_with_both_heads() -> None:
    weights = []
    for head in ("offset", "dense"):
        torch.manual_seed(0)
        model = mlp()
        optimizer = samt.SAMT(samt.blocks(model), head=head, meta_lr=0.5)
        for step in range(5):
            optimizer.step(samt.closure(model, LOSS, *batch("mlp", step)))
        weights.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    torch.testing.assert_close(*weights, rtol=1e-13, atol=1e-14)
