"""Scaled ADMM: each update against its own sub-problem, warm start and multiplier."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from samt.baselines.scaled_admm import ScaledADMM

from .support.layerwise import NETWORKS, data, gradient, minimiser, solver

NETS = pytest.mark.parametrize(("hidden", "activation"), NETWORKS)
LOSSES = pytest.mark.parametrize("loss", ["hinge", "squared", "cross_entropy"])


def output_term(made: ScaledADMM, z: Tensor) -> Tensor:
    """Σ loss(z) + ⟨u, z⟩ from its definition."""
    if made.loss == "cross_entropy":
        loss = nn.functional.cross_entropy(z, made.targets, reduction="sum")
    elif made.loss == "squared":
        loss = (z - made.targets).square().sum() / 2
    else:
        loss = torch.where(made.targets == 1, 1 - z, z).clamp_min(0).sum()
    return loss + (made.u * z).sum()


def objective(made: ScaledADMM, **changed: tuple[int, Tensor]) -> Tensor:
    """The objective from its definition, with one tensor replaced."""
    lists: dict[str, list[Tensor]] = {
        name: list(getattr(made, name)) for name in ("weights", "z", "a")
    }
    for name, (index, tensor) in changed.items():
        lists[name][index] = tensor
    w, z, a = lists.values()
    total = output_term(made, z[-1])
    for i in range(made.depth):
        total = total + made.beta * (z[i] - a[i] @ w[i].T).square().sum()
        if i + 1 < made.depth:
            gap = a[i + 1] - nn.functional.leaky_relu(z[i], made.slope)
            total = total + made.gamma * gap.square().sum()
    return total


@NETS
def test_weights_are_the_smallest_least_squares_solution(
    hidden: list[int], activation: str
) -> None:
    made = solver("scaled_admm", hidden, activation=activation)
    for layer in range(made.depth):
        made.z[layer].add_(torch.randn_like(made.z[layer]))
        made._update_weight(layer)
        # gelsd gives the solution of smallest norm where there are many
        expected = torch.linalg.lstsq(made.a[layer], made.z[layer], driver="gelsd").solution.T
        torch.testing.assert_close(made.weights[layer], expected, rtol=1e-6, atol=1e-8)


def test_pixels_that_are_always_black_get_no_weight() -> None:
    inputs, targets = data(40, 8)
    inputs[:, 2] = 0
    inputs[:, 5] = inputs[:, 6]
    made = ScaledADMM(inputs, targets, [5])
    made.step()
    assert made.weights[0][:, 2].abs().max() < 1e-12
    torch.testing.assert_close(made.weights[0][:, 5], made.weights[0][:, 6])
    assert made.weights[0][:, 5].abs().min() > 1e-6


@pytest.mark.parametrize(("hidden", "activation"), NETWORKS[1:])
def test_activations_are_minimisers(hidden: list[int], activation: str) -> None:
    made = solver("scaled_admm", hidden, activation=activation)
    for layer in range(1, made.depth):
        made.z[layer].add_(1)
        made._update_activation(layer)
        g = gradient(lambda a, i=layer: objective(made, a=(i, a)), made.a[layer])  # type: ignore[misc]
        assert g.abs().max() < 1e-9


@LOSSES
@pytest.mark.parametrize("beta", [0.4, 3.0])
def test_output_pre_activations_are_minimisers(loss: str, beta: float) -> None:
    made = solver("scaled_admm", [5], loss=loss, beta=beta, warm_start=0, tolerance=1e-14)
    assert made.u.norm() > 0.1
    made._update_output()
    if loss == "hinge":  # not smooth: entry by entry on a grid, the sum being separable
        grid = torch.linspace(-8, 8, 16001, dtype=torch.float64)
        y, u, m = made.targets, made.u, made.m[-1]

        def entries(z: Tensor) -> Tensor:
            return torch.where(y == 1, 1 - z, z).clamp_min(0) + u * z + beta * (z - m).square()

        best = torch.stack([entries(point.expand_as(m)) for point in grid]).amin(0)
        assert (entries(made.z[-1]) <= best + 1e-12).all()
        return
    expected = minimiser(lambda z: objective(made, z=(1, z)), made.m[-1])
    torch.testing.assert_close(made.z[-1], expected, rtol=0, atol=1e-5)


@NETS
@LOSSES
def test_the_objective_never_rises_during_the_warm_start(
    hidden: list[int], activation: str, loss: str
) -> None:
    made = ScaledADMM(*data(), hidden, activation=activation, loss=loss, warm_start=40)
    values = []
    for _ in range(40):
        values.append(made.step().objective)
        assert values[-1] == pytest.approx(objective(made).item(), rel=1e-9)
    assert all(b <= a + 1e-10 * values[0] for a, b in itertools.pairwise(values))
    assert made.u.abs().max() == 0
    assert not hidden or values[-1] < 0.9 * values[0]


@LOSSES
def test_the_multiplier_closes_the_output_residual(loss: str) -> None:
    made = ScaledADMM(*data(), [20], loss=loss, warm_start=3)
    for _ in range(3):
        made.step()
    assert made.u.abs().max() == 0
    before = made.step()
    expected = made.beta * (made.z[-1] - made.m[-1])
    torch.testing.assert_close(made.u, expected)
    for _ in range(200):
        after = made.step()
    assert after.residuals[-1] < 0.1 * before.residuals[-1]


def test_the_order_of_one_iteration() -> None:
    """W, a, z of each hidden layer, then the output, by the published formulas."""
    made = ScaledADMM(*data(), [6], loss="squared", warm_start=0)
    (x, a), (z1, z2) = (t.clone() for t in made.a), (t.clone() for t in made.z)
    w2, eye = made.weights[1].clone(), torch.eye(6, dtype=torch.float64)
    made.step()
    w1 = z1.T @ torch.linalg.pinv(x.T)
    a = torch.linalg.solve(w2.T @ w2 + 10 * eye, w2.T @ z2.T + 10 * z1.T.clamp_min(0)).T
    torch.testing.assert_close(made.weights[0], w1)
    torch.testing.assert_close(made.a[1], a)
    w2 = z2.T @ torch.linalg.pinv(a.T)
    z2 = (made.targets + 2 * a @ w2.T) / 3
    torch.testing.assert_close(made.z[-1], z2)
    torch.testing.assert_close(made.u, z2 - a @ w2.T)


def test_there_are_no_biases() -> None:
    made = solver("scaled_admm")
    assert all(bool((bias == 0).all()) for bias in made.biases)
