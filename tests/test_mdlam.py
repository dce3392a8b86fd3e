"""mDLAM: each of its updates against its own sub-problem, its acceleration and its descent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from samt.baselines.mdlam import MDLAM

from .support.layerwise import NETWORKS, data, gradient, loss_of, minimiser, solver

FORMS = pytest.mark.parametrize("accelerated", [True, False])
NETS = pytest.mark.parametrize(("hidden", "activation"), NETWORKS)


def objective(made: MDLAM, **changed: tuple[int, Tensor]) -> Tensor:
    """F from its definition, with one tensor replaced."""
    lists: dict[str, list[Tensor]] = {
        name: list(getattr(made, name)) for name in ("weights", "biases", "z", "a")
    }
    for name, (index, tensor) in changed.items():
        lists[name][index] = tensor
    w, b, z, a = lists.values()
    total = loss_of(made.loss, made.targets)(z[-1])
    for i in range(made.depth):
        residual = z[i] - a[i] @ w[i].T - b[i]
        total = total + made.rho / 2 * residual.square().sum() + made.mu / 2 * w[i].square().sum()
    return total


def along(made: MDLAM, name: str, index: int) -> Callable[[Tensor], Tensor]:
    """F as a function of one tensor."""
    return lambda x: objective(made, **{name: (index, x)})


def majorised_step(
    function: Callable[[Tensor], Tensor],
    start: Tensor,
    project: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """The first step of length 2^-k that the quadratic model bounds, by trial."""
    g = gradient(function, start)
    alpha = 1.0
    while True:
        new = project(start - g / alpha)
        step = new - start
        model = function(start) + (g * step).sum() + alpha / 2 * step.square().sum()
        if function(new) <= model:
            return new
        alpha *= 2


def accelerated_step(
    function: Callable[[Tensor], Tensor],
    old: Tensor,
    ahead: Tensor,
    project: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """From the extrapolated point, and again from the old one where F would rise."""
    new = majorised_step(function, old + ahead, project)
    return new if function(new) <= function(old) else majorised_step(function, old, project)


@NETS
@pytest.mark.parametrize("omega", [0.0, 0.4, 5.0])
def test_weights_take_a_majorised_step(hidden: list[int], activation: str, omega: float) -> None:
    made = solver("mdlam", hidden, activation=activation)
    for layer in range(made.depth):
        old, ahead = made.weights[layer].clone(), omega * made.weight_changes[layer]
        assert ahead.norm() > 0 or omega == 0
        made._update_weight(layer, omega)
        expected = accelerated_step(along(made, "weights", layer), old, ahead)
        torch.testing.assert_close(made.weights[layer], expected, rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(
            made.weight_changes[layer], expected - old, rtol=1e-7, atol=1e-10
        )
        assert (expected - old).norm() > 1e-6


@pytest.mark.parametrize(("hidden", "activation"), NETWORKS[1:])
@pytest.mark.parametrize("omega", [0.0, 0.4, 5.0])
@pytest.mark.parametrize("epsilon", [0.05, 10.0])
def test_activations_take_a_projected_majorised_step(
    hidden: list[int], activation: str, omega: float, epsilon: float
) -> None:
    made = solver("mdlam", hidden, activation=activation, epsilon=epsilon, min_epsilon=epsilon)
    for layer in range(1, made.depth):
        made.weights[layer].mul_(5)  # a curvature above 1, so that the doubling has work
        made._multiply(layer)
        old = made.a[layer].clone()
        ahead = omega * (old - made.previous_a[layer - 1])
        h = nn.functional.leaky_relu(made.z[layer - 1], made.slope)
        made._update_activation(layer, omega)
        function = along(made, "a", layer)
        expected = accelerated_step(
            function,
            old,
            ahead,
            lambda a, h=h: a.clamp(h - epsilon, h + epsilon),  # type: ignore[misc]
        )
        torch.testing.assert_close(made.a[layer], expected, rtol=1e-8, atol=1e-10)
        assert torch.equal(made.previous_a[layer - 1], old)
        assert (expected - old).norm() > 1e-6


@NETS
def test_biases_are_minimisers(hidden: list[int], activation: str) -> None:
    made = solver("mdlam", hidden, activation=activation)
    for layer in range(made.depth):
        made.biases[layer].add_(1)
        made._multiply(layer)
        made._update_bias(layer)
        assert gradient(along(made, "biases", layer), made.biases[layer]).abs().max() < 1e-11


@pytest.mark.parametrize(("hidden", "activation"), NETWORKS[1:])
def test_hidden_pre_activations_are_the_best_feasible_ones(
    hidden: list[int], activation: str
) -> None:
    made = solver("mdlam", hidden, activation=activation, epsilon=0.3, min_epsilon=0.3)
    grid = torch.linspace(-12, 12, 48001, dtype=torch.float64)
    h = nn.functional.leaky_relu(grid, made.slope)
    bound = 0
    for layer in range(made.depth - 1):
        m = made.m[layer].add_(torch.randn_like(made.m[layer]))
        made._update_z(layer)
        for z, m_, a in zip(
            *(x.flatten() for x in (made.z[layer], m, made.a[layer + 1])), strict=True
        ):
            feasible = grid[(h - a).abs() <= 0.3 + 1e-9]
            best = feasible[(feasible - m_).abs().argmin()]
            assert abs(z - best) < 6e-4 / max(made.slope, 1)
            bound += abs(z - m_) > 1e-3
    assert bound > 0


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_output_pre_activations_are_minimisers(loss: str) -> None:
    made = solver("mdlam", [5], loss=loss, tolerance=1e-13)
    made._update_z(1)
    expected = minimiser(along(made, "z", 1), made.m[-1])
    torch.testing.assert_close(made.z[-1], expected, rtol=0, atol=1e-5)


@NETS
@FORMS
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_the_objective_never_rises_while_epsilon_is_constant(
    hidden: list[int], activation: str, accelerated: bool, loss: str
) -> None:
    options = {"activation": activation, "loss": loss, "accelerated": accelerated}
    made = MDLAM(*data(), hidden, rho=0.5, epsilon=0.3, min_epsilon=0.3, **options)  # type: ignore[arg-type]
    values = []
    for _ in range(40):
        progress = made.step()
        values.append(progress.objective)
        assert values[-1] == pytest.approx(objective(made).item(), rel=1e-9)
        for z, a in zip(made.z, made.a[1:], strict=False):
            gap = (a - nn.functional.leaky_relu(z, made.slope)).abs().max()
            assert gap <= 0.3 + 1e-12
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(values))
    assert values[-1] < 0.97 * values[0]


def test_acceleration_descends_faster() -> None:
    ends = {}
    for accelerated in (True, False):
        made = MDLAM(*data(200, 12), [20], rho=0.01, accelerated=accelerated)
        for _ in range(40):
            ends[accelerated] = made.step().objective
    assert ends[True] < 0.8 * ends[False]


def test_the_extrapolation_follows_nesterovs_sequence() -> None:
    made = MDLAM(*data(), [5])
    omegas = []
    update = made._update_weight

    def recorded(layer: int, omega: float) -> None:
        omegas.append(omega)
        update(layer, omega)

    made._update_weight = recorded  # type: ignore[method-assign]
    for _ in range(4):
        made.step()
    assert omegas[::2] == pytest.approx([0.0, 0.2817535, 0.4340428, 0.5310638], abs=1e-7)


def test_epsilon_is_halved_to_its_floor() -> None:
    made = MDLAM(*data(), [5])
    seen = []
    for _ in range(18):
        seen.append(made.epsilon)
        made.step()
    assert seen[:3] == [100.0, 50.0, 25.0]
    assert seen[-2:] == [100 / 2**16, 1e-3]


def test_a_cap_on_the_doublings_freezes_what_is_too_steep() -> None:
    inputs, targets = data()
    for cap, moves in ((1024.0, False), (math.inf, True)):
        made = MDLAM(1e3 * inputs, targets, [5], accelerated=False, max_curvature=cap, rho=1.0)
        first, last = made.weights[0].clone(), made.weights[1].clone()
        made.z[0].add_(1e3)
        made.step()
        assert bool((made.weights[0] != first).any()) == moves
        assert cap < math.inf or bool((made.weights[1] != last).any())


def test_plain_official_accuracy_on_mnist(request: pytest.FixtureRequest) -> None:
    """10,000 images, h = 100: the official code has 68.51 % after 25 iterations."""
    folder = Path(request.config.rootpath).parent / "shared" / "data"
    if not (folder / "mnist").exists():
        pytest.skip(f"no MNIST in {folder}")
    from samt.bench.data import load

    mnist = load("mnist", folder)
    images, labels = mnist.train.inputs[:10000], mnist.train.targets[:10000]
    made = MDLAM(images, labels, [100, 100], accelerated=False, max_curvature=1024.0)
    for _ in range(25):
        made.step()
    hits = made.predict(mnist.test.inputs).argmax(1) == mnist.test.targets
    assert hits.double().mean() == pytest.approx(0.6851, abs=0.03)  # another random start
