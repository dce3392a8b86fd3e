"""BCD: each block against its own sub-problem, and its descent."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from samt.baselines.bcd import BCD

from .support.layerwise import NETWORKS, data, gradient, loss_of, solver

NETS = pytest.mark.parametrize(("hidden", "activation"), NETWORKS)


def objective(made: BCD, **changed: tuple[int, Tensor]) -> Tensor:
    """The penalised objective from its definition, with one tensor replaced."""
    lists: dict[str, list[Tensor]] = {
        name: list(getattr(made, name)) for name in ("weights", "biases", "z", "a")
    }
    for name, (index, tensor) in changed.items():
        lists[name][index] = tensor
    w, b, u, v = lists.values()
    total = loss_of(made.loss, made.targets)(v[-1])
    for i in range(made.depth):
        h = u[i] if i + 1 == made.depth else nn.functional.leaky_relu(u[i], made.slope)
        total = total + made.gamma / 2 * (v[i + 1] - h).square().sum()
        total = total + made.rho / 2 * (u[i] - v[i] @ w[i].T - b[i]).square().sum()
    return total


def proximal(made: BCD, name: str, index: int, old: Tensor) -> Callable[[Tensor], Tensor]:
    """The objective as a function of one tensor, with its proximal term."""
    return lambda x: (
        objective(made, **{name: (index, x)}) + made.alpha / 2 * (x - old).square().sum()
    )


@NETS
def test_weights_and_biases_are_minimisers(hidden: list[int], activation: str) -> None:
    made = solver("bcd", hidden, activation=activation)
    for layer in range(made.depth):
        old, bias = made.weights[layer].clone(), made.biases[layer].clone()
        made._update_weight_and_bias(layer)
        weight, after = made.weights[layer].clone(), made.biases[layer].clone()
        assert gradient(proximal(made, "biases", layer, bias), after).abs().max() < 1e-10
        made.biases[layer].copy_(bias)  # the weights were updated ahead of it
        assert gradient(proximal(made, "weights", layer, old), weight).abs().max() < 1e-10
        assert (weight - old).norm() > 1e-6
        assert (after - bias).norm() > 1e-6
        made._multiply(layer)


@pytest.mark.parametrize(("hidden", "activation"), NETWORKS[1:])
def test_activations_are_minimisers(hidden: list[int], activation: str) -> None:
    made = solver("bcd", hidden, activation=activation)
    for layer in range(1, made.depth):
        made.z[layer].add_(1)
        made._update_activation(layer)
        g = gradient(lambda v, i=layer: objective(made, a=(i, v)), made.a[layer])  # type: ignore[misc]
        assert g.abs().max() < 1e-10


@NETS
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_the_output_pair_is_minimised_in_turn(
    hidden: list[int], activation: str, loss: str
) -> None:
    made = solver("bcd", hidden, activation=activation, loss=loss, tolerance=1e-14)
    old, u = made.a[-1].clone(), made.z[-1].clone()
    made._update_output()
    v, after = made.a[-1].clone(), made.z[-1].clone()
    last = made.depth - 1
    assert gradient(lambda z: objective(made, z=(last, z)), after).abs().max() < 1e-10
    made.z[-1].copy_(u)
    assert gradient(proximal(made, "a", last + 1, old), v).abs().max() < 1e-5
    assert (v - old).norm() > 1e-6


@pytest.mark.parametrize(("hidden", "activation"), NETWORKS[1:])
def test_hidden_pre_activations_are_the_best_of_a_fine_grid(
    hidden: list[int], activation: str
) -> None:
    made = solver("bcd", hidden, activation=activation)
    for layer in range(made.depth - 1):
        old = made.z[layer].clone()
        made._update_z(layer)
        v, m = made.a[layer + 1], made.m[layer]

        def entries(u: Tensor, v: Tensor = v, m: Tensor = m, old: Tensor = old) -> Tensor:
            gap = v - nn.functional.leaky_relu(u, made.slope)
            near = made.rho * (u - m).square() + made.alpha * (u - old).square()
            return made.gamma * gap.square() + near

        grid = torch.linspace(-10, 10, 2001, dtype=torch.float64)
        best = torch.stack([entries(point.expand_as(v)) for point in grid]).amin(0)
        assert (entries(made.z[layer]) <= best + 1e-12).all()


@NETS
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("alpha", [1e-3, 5.0])
def test_the_objective_never_rises(
    hidden: list[int], activation: str, loss: str, alpha: float
) -> None:
    made = BCD(
        *data(), hidden, activation=activation, loss=loss, alpha=alpha, weight_std=0.5, seed=3
    )
    values = [objective(made).item()]
    for _ in range(40):
        values.append(made.step().objective)
        assert values[-1] == pytest.approx(objective(made).item(), rel=1e-9)
    assert all(b <= a + 1e-11 * values[0] for a, b in itertools.pairwise(values))
    assert values[-1] < 0.95 * values[0]


def test_the_objective_never_rises_in_single_precision_with_large_gram_matrices() -> None:
    """The official code inverts in float32 and rises."""
    inputs, targets = data(2000, 40, torch.float32)
    inputs = inputs.abs() + 3  # nearly collinear, as images are
    made = BCD(inputs, targets, [30, 30], alpha=1.0)
    values = [made.step().objective for _ in range(60)]
    assert all(b <= a * (1 + 1e-5) for a, b in itertools.pairwise(values))


def test_the_start() -> None:
    made = BCD(*data(), [6, 5])
    assert all(bool((bias == 0.1).all()) for bias in made.biases)
    assert made.weights[0].std().item() == pytest.approx(0.01, rel=0.5)
    assert torch.equal(made.a[-1], made.z[-1])
    assert torch.equal(made.z[-1], made.m[-1])
    assert made.step().gaps[-1] == pytest.approx((made.a[-1] - made.z[-1]).square().sum().item())
