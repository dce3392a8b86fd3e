"""dlADMM: each of its updates against its own sub-problem, its order and its schedule."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from samt.baselines.dladmm import DLADMM

from .support.layerwise import NETWORKS, data, gradient, loss_of, minimiser, solver


def lagrangian(made: DLADMM, **changed: tuple[int, Tensor]) -> Tensor:
    """The augmented Lagrangian from its definition, with one tensor replaced."""
    lists: dict[str, list[Tensor]] = {
        name: list(getattr(made, name)) for name in ("weights", "biases", "z", "a")
    }
    for name, (index, tensor) in changed.items():
        lists[name][index] = tensor
    w, b, z, a = lists.values()
    m = [a[i] @ w[i].T + b[i] for i in range(made.depth)]
    total = loss_of(made.loss, made.targets)(z[-1]) + (made.u * (z[-1] - m[-1])).sum()
    for i in range(made.depth):
        total = total + made.rho / 2 * (z[i] - m[i]).square().sum()
        if i + 1 < made.depth:
            h = nn.functional.leaky_relu(z[i], made.slope)
            total = total + made.rho / 2 * (a[i + 1] - h).square().sum()
    return total


def along(made: DLADMM, name: str, index: int) -> Callable[[Tensor], Tensor]:
    """The augmented Lagrangian as a function of one tensor."""
    return lambda x: lagrangian(made, **{name: (index, x)})


def restored(made: DLADMM, hidden: Sequence[int], **options: Any) -> DLADMM:
    """A copy of a solver."""
    copy = DLADMM(*data(), hidden, **options)
    copy.load_state_dict(made.state_dict())
    return copy


def majorised_step(objective: Callable[[Tensor], Tensor], old: Tensor, start: float) -> Tensor:
    """old − g/α for the first α = start · 2^k that passes the test of the paper, by trial."""
    g = gradient(objective, old)
    alpha = start
    while objective(old - g / alpha) > objective(old) - g.square().sum() / (2 * alpha):
        alpha *= 2
    return old - g / alpha


def assert_majorised_step(
    objective: Callable[[Tensor], Tensor], old: Tensor, new: Tensor, start: float
) -> None:
    torch.testing.assert_close(new, majorised_step(objective, old, start), rtol=1e-9, atol=1e-12)
    assert (new - old).norm() > 1e-8


@pytest.mark.parametrize(("hidden", "activation"), NETWORKS)
def test_weights_take_a_majorised_gradient_step(hidden: list[int], activation: str) -> None:
    for start in (1e-3, 1.0):
        made = solver("dladmm", hidden, activation=activation, theta=start)
        for layer in range(1, made.depth):
            old = made.weights[layer].clone()
            made._update_weight(layer)
            assert_majorised_step(
                along(made, "weights", layer),
                old,
                made.weights[layer],
                start,
            )


@pytest.mark.parametrize(("hidden", "activation"), NETWORKS)
def test_the_first_weights_take_two_such_steps(hidden: list[int], activation: str) -> None:
    for start in (1e-3, 1.0):
        made = solver("dladmm", hidden, activation=activation, theta=start)
        old = made.weights[0].clone()
        made._update_first_weight()
        twice = made.weights[0].clone()
        torch.testing.assert_close(made.m[0], made.a[0] @ twice.T + made.biases[0])
        objective = along(made, "weights", 0)
        between = majorised_step(objective, old, start)
        assert_majorised_step(objective, between, twice, start)


@pytest.mark.parametrize(("hidden", "activation"), NETWORKS[1:])
def test_activations_take_a_majorised_gradient_step(hidden: list[int], activation: str) -> None:
    for start in (1e-3, 1.0):
        made = solver("dladmm", hidden, activation=activation, tau=start)
        for layer in range(1, made.depth):
            old = made.a[layer].clone()
            made._update_activation(layer)
            assert_majorised_step(along(made, "a", layer), old, made.a[layer], start)


@pytest.mark.parametrize(("hidden", "activation"), NETWORKS)
def test_biases_are_minimisers(hidden: list[int], activation: str) -> None:
    made = solver("dladmm", hidden, activation=activation)
    for layer in range(made.depth):
        made.biases[layer].add_(1)
        made._multiply(layer)
        made._update_bias(layer)
        g = gradient(along(made, "biases", layer), made.biases[layer])
        assert g.abs().max() < 1e-11


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize(("hidden", "activation"), NETWORKS)
def test_pre_activations_are_minimisers(hidden: list[int], activation: str, loss: str) -> None:
    made = solver("dladmm", hidden, activation=activation, loss=loss, tolerance=1e-13)
    last = made.depth - 1
    made._update_z(last)
    expected = minimiser(along(made, "z", last), made.m[-1])
    torch.testing.assert_close(made.z[-1], expected, rtol=0, atol=1e-4)
    for layer in range(last):
        made._update_z(layer)
        best = lagrangian(made)
        for _ in range(50):
            z = made.z[layer] + 10 ** (-3 * torch.rand(())) * torch.randn_like(made.z[layer])
            # Entry by entry, so that one good move cannot hide among many bad ones.
            single = torch.where(torch.rand_like(z) < 1 / z.numel(), z, made.z[layer])
            assert lagrangian(made, z=(layer, single)) >= best - 1e-12


def test_the_order_of_one_iteration() -> None:
    """Backward from the output, forward to it, then the multiplier: section 3 by hand."""
    hidden = [6, 5]
    made = solver("dladmm", hidden, scheduled=False)
    by_hand = restored(made, hidden, rho=0.1, negative_slope=0.2, scheduled=False)
    for layer in (2, 1):
        by_hand._update_z(layer)
        by_hand._update_bias(layer)
        by_hand._update_weight(layer)
        by_hand._update_activation(layer)
    by_hand._update_z(0)
    by_hand._update_bias(0)
    by_hand._update_first_weight()
    by_hand._update_bias(0)
    by_hand._update_z(0)
    for layer in (1, 2):
        by_hand._update_activation(layer)
        by_hand._update_weight(layer)
        by_hand._update_bias(layer)
        by_hand._update_z(layer)
    by_hand.u += by_hand.rho * (by_hand.z[-1] - by_hand.m[-1])
    progress = made.step()
    for a, b in zip(made.state_dict()["z"], by_hand.state_dict()["z"], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(made.u, by_hand.u)
    assert progress.objective == pytest.approx(lagrangian(made).item(), rel=1e-10)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_the_lagrangian_falls_while_the_multiplier_rests(loss: str) -> None:
    made = DLADMM(*data(), [6, 5], rho=0.1, loss=loss, scheduled=False, tolerance=1e-10)
    values = []
    for _ in range(30):
        made.step()
        made.u.zero_()
        values.append(lagrangian(made).item())
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(values))
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize(("width", "factor"), [(99, 1), (100, 10)])
def test_penalties_grow_when_the_training_loss_has_risen_three_times(
    width: int, factor: int
) -> None:
    made = DLADMM(*data(), [width])
    made.recent_losses = [0.1, 0.2, 0.3]
    made.weights[-1].mul_(100)  # a training loss far above
    made._follow_schedule()
    assert made.rho == pytest.approx(1e-5)
    assert (made.tau, made.theta) == (factor, factor)
    made.recent_losses = [0.1, 0.3, 0.2]
    made._follow_schedule()
    assert made.rho == pytest.approx(1e-5)
    for _ in range(9):
        made.recent_losses = [0.1, 0.2, 0.3]
        made._follow_schedule()
    assert made.rho == 0.1
    expected = nn.functional.cross_entropy(made.predict(made.a[0]), made.targets).item()
    assert made.recent_losses[-1] == pytest.approx(expected)


def test_a_vanishing_gradient_does_not_hang() -> None:
    """The official line search doubles until its step size overflows."""
    inputs = torch.zeros(5, 3)
    made = DLADMM(inputs, torch.arange(5) % 2, [4])
    for _ in range(3):
        progress = made.step()
    assert progress.objective < float("inf")


def test_official_accuracy_on_mnist(request: pytest.FixtureRequest) -> None:
    """10,000 images, h = 100: the official code has 53.7 % after 10 iterations."""
    folder = Path(request.config.rootpath).parent / "shared" / "data"
    if not (folder / "mnist").exists():
        pytest.skip(f"no MNIST in {folder}")
    from samt.bench.data import load

    mnist = load("mnist", folder)
    made = DLADMM(mnist.train.inputs[:10000], mnist.train.targets[:10000], [100, 100])
    for _ in range(10):
        made.step()
    hits = made.predict(mnist.test.inputs).argmax(1) == mnist.test.targets
    assert hits.double().mean() == pytest.approx(0.537, abs=0.04)  # another random start
