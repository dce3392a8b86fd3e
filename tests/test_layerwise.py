"""What the four layer-wise solvers share: closed forms, the way to drive them, saved states."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from samt.baselines.bcd import BCD
from samt.baselines.dladmm import DLADMM
from samt.baselines.layerwise import LayerwiseSolver
from samt.baselines.mdlam import MDLAM
from samt.baselines.proximal import (
    activation_prox,
    backtracked,
    cross_entropy_prox,
    fit_activation,
    output_prox,
    solve_positive,
)
from samt.baselines.scaled_admm import ScaledADMM
from samt.errors import CheckpointMismatchError, OptionError, UnknownOptionError

SOLVERS: dict[str, Callable[..., LayerwiseSolver]] = {
    "dladmm": DLADMM,
    "mdlam": MDLAM,
    "bcd": BCD,
    "scaled_admm": ScaledADMM,
}
# Penalties with which the tiny problems below are not trivial.
OPTIONS: dict[str, dict[str, Any]] = {
    "dladmm": {"rho": 0.1},
    "mdlam": {"rho": 0.5, "epsilon": 1.0, "min_epsilon": 0.1},
    "bcd": {"alpha": 0.5, "weight_std": 0.5},
    "scaled_admm": {"warm_start": 2},
}
NETWORKS = [
    ([], "relu"),
    ([7], "relu"),
    ([7], "leaky_relu"),
    ([6, 5], "relu"),
    ([6, 5], "leaky_relu"),
    ([5, 6, 4], "leaky_relu"),
]


def data(
    samples: int = 30, features: int = 4, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Random inputs and three classes that depend on them, not linearly."""
    generator = torch.Generator().manual_seed(samples)
    inputs = torch.randn(samples, features, generator=generator, dtype=torch.float64)
    return inputs.to(dtype), (inputs[:, :3] * inputs[:, 1:4]).argmax(1)


def solver(name: str, hidden: Sequence[int] = (6, 5), **options: Any) -> Any:
    """A solver on `data()`, a few iterations away from its start."""
    made = SOLVERS[name](*data(), hidden, **(OPTIONS[name] | {"negative_slope": 0.2} | options))
    for _ in range(3):
        made.step()
    return made


def minimiser(objective: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Of a smooth convex function, by scipy."""

    def value_and_gradient(flat: Any) -> Any:
        x = torch.from_numpy(flat).view(start.shape).requires_grad_()
        value = objective(x)
        (gradient,) = torch.autograd.grad(value, x)
        return value.item(), gradient.numpy().ravel()

    found = minimize(
        value_and_gradient,
        start.numpy().ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 40000, "ftol": 0, "gtol": 1e-11},
    )
    return torch.from_numpy(found.x).view(start.shape)


def gradient(objective: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """By autograd."""
    at = at.clone().requires_grad_()
    return torch.autograd.grad(objective(at), at)[0]


def loss_of(name: str, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Σ loss, differentiable; `targets` are labels for cross-entropy and values otherwise."""
    if name == "cross_entropy":
        return lambda z: nn.functional.cross_entropy(z, targets, reduction="sum")
    return lambda z: (z - targets).square().sum() / 2


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.4])
@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (3.0, 0.5), (0.2, 2.0)])
def test_activation_prox_is_the_best_of_a_fine_grid(slope: float, p: float, q: float) -> None:
    a, m = 2 * torch.randn(2, 400, 3, dtype=torch.float64)
    z = activation_prox(a, m, p, q, slope, out=torch.empty_like(a))

    def objective(z: Tensor) -> Tensor:
        return p * (a - nn.functional.leaky_relu(z, slope)).square() + q * (z - m).square()

    grid = torch.linspace(-8, 8, 3201, dtype=torch.float64)
    best = torch.stack([objective(point.expand_as(a)) for point in grid]).amin(0)
    assert (objective(z) <= best + 1e-12).all()
    assert (z > 0).any()
    assert (z < 0).any()
    assert (slope > 0) or (z[m < 0] <= 0).any()


def test_activation_prox_passes_nan_on() -> None:
    nan = torch.full((2, 2), math.nan)
    for a, m in ((nan, torch.zeros(2, 2)), (torch.ones(2, 2), nan)):
        assert activation_prox(a, m, 1.0, 1.0, 0.1, out=torch.empty(2, 2)).isnan().all()


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("rho", [0.02, 1.0, 30.0])
def test_output_prox_is_what_scipy_finds(loss: str, rho: float) -> None:
    center, start = 3 * torch.randn(2, 12, 4, dtype=torch.float64)
    labels = torch.arange(12) % 4
    targets = labels if loss == "cross_entropy" else torch.randn_like(center)
    z = output_prox(loss, center, targets, rho, start, 1e-13)
    value = loss_of(loss, targets)
    expected = minimiser(lambda z: value(z) + rho / 2 * (z - center).square().sum(), start)
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rho", [0.3, 5.0])
def test_hinge_prox_is_the_best_of_a_fine_grid(rho: float) -> None:
    center = 4 * torch.randn(40, 3, dtype=torch.float64)
    targets = nn.functional.one_hot(torch.arange(40) % 3, 3).double()
    z = output_prox("hinge", center, targets, rho, center, 0.0)

    def objective(z: Tensor) -> Tensor:
        hinge = torch.where(targets == 1, 1 - z, z).clamp_min(0)
        return hinge + rho / 2 * (z - center).square()

    grid = torch.linspace(-15, 15, 6001, dtype=torch.float64)
    best = torch.stack([objective(point.expand_as(z)) for point in grid]).amin(0)
    assert (objective(z) <= best + 1e-12).all()
    assert ((z - center).abs() > 0.01).any()


@pytest.mark.parametrize("rho", [1e-6, 0.1, 10.0])
def test_newton_descends_at_every_step_and_stops_at_nan(rho: float) -> None:
    center, start = 5 * torch.randn(2, 40, 5, dtype=torch.float64)
    labels = torch.arange(40) % 5

    def objective(z: Tensor) -> Tensor:
        """Of each sample."""
        loss = nn.functional.cross_entropy(z, labels, reduction="none")
        return loss + rho / 2 * (z - center).square().sum(1)

    values = [
        objective(cross_entropy_prox(center, labels, rho, start, 0.0, iterations))
        for iterations in range(40)
    ]
    for before, after in itertools.pairwise(values):
        assert (after <= before + 1e-12).all()
    assert (values[1] < values[0]).all()
    end = cross_entropy_prox(center, labels, rho, start, 1e-12)
    g = gradient(lambda z: objective(z).sum(), end)
    assert g.abs().max() < 1e-9
    assert cross_entropy_prox(center * math.nan, labels, rho, start, 0.0).isnan().all()
    assert cross_entropy_prox(center, labels, rho, start * math.nan, 0.0).isnan().all()


@pytest.mark.parametrize(("outputs", "inputs"), [(3, 5), (5, 3), (4, 4)])
def test_fit_activation_is_a_ridge_regression(outputs: int, inputs: int) -> None:
    weight, bias = torch.randn(outputs, inputs).double(), torch.randn(outputs).double()
    z, h = torch.randn(7, outputs).double(), torch.randn(7, inputs).double()
    a, image, scratch = torch.empty_like(h), torch.empty_like(z), torch.empty_like(z)
    fit_activation(weight, bias, z, h, 0.7, out=a, image=image, scratch=scratch)
    stacked = torch.cat((weight, math.sqrt(0.7) * torch.eye(inputs).double()))
    right = torch.cat(((z - bias).T, math.sqrt(0.7) * h.T))
    torch.testing.assert_close(a, torch.linalg.lstsq(stacked, right).solution.T)
    torch.testing.assert_close(image, a @ weight.T + bias)


def test_backtracking_ends_whatever_the_curvature() -> None:
    for curvature in (0.0, 0.3, 1.0, 1.1, 900.0, 1e300):
        alpha = backtracked(1.0, curvature)
        assert alpha >= curvature
        assert alpha == 1.0 or alpha / 2 < curvature
    assert math.isnan(backtracked(1.0, math.nan))
    assert backtracked(1.0, math.inf) == math.inf


def test_solving_with_a_diverged_matrix_gives_nan() -> None:
    assert solve_positive(torch.full((2, 2), math.nan), torch.ones(2, 1)).isnan().all()


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(("hidden", "activation"), NETWORKS)
def test_kept_products_are_the_products(name: str, hidden: list[int], activation: str) -> None:
    made = solver(name, hidden, activation=activation)
    for layer, m in enumerate(made.m):
        expected = made.a[layer] @ made.weights[layer].T + made.biases[layer]
        torch.testing.assert_close(m, expected, rtol=1e-10, atol=1e-10)
    progress = made.step()
    assert len(progress.residuals) == len(hidden) + 1
    for layer, residual in enumerate(progress.residuals):
        expected = (made.z[layer] - made.m[layer]).square().sum().item()
        assert residual == pytest.approx(expected, rel=1e-9, abs=1e-20)
    hidden_gaps = [
        (a - nn.functional.leaky_relu(z, made.slope)).square().sum().item()
        for z, a in zip(made.z[:-1], made.a[1:], strict=False)
    ]
    assert progress.gaps[: len(hidden)] == pytest.approx(hidden_gaps, rel=1e-9, abs=1e-20)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(("hidden", "activation"), NETWORKS)
def test_predict_is_the_sequential_model(name: str, hidden: list[int], activation: str) -> None:
    made = solver(name, hidden, activation=activation)
    inputs, _ = data(11)
    kind = nn.ReLU() if activation == "relu" else nn.LeakyReLU(0.2)
    model = made.model
    assert [type(module) for module in model[1::2]] == [type(kind)] * len(hidden)
    by_hand = inputs
    for layer, (weight, bias) in enumerate(zip(made.weights, made.biases, strict=True)):
        by_hand = by_hand @ weight.T + bias
        by_hand = kind(by_hand) if layer < len(hidden) else by_hand
    torch.testing.assert_close(made.predict(inputs), by_hand)
    assert torch.equal(model(inputs), made.predict(inputs))
    made.step()
    assert torch.equal(model(inputs), made.predict(inputs))  # a view, not a copy


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saved_state_continues_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    def fresh() -> LayerwiseSolver:
        return SOLVERS[name](*data(dtype=dtype), [6, 5], **OPTIONS[name])

    first, second = fresh(), fresh()
    for _ in range(4):
        first.step()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(4):
        assert first.step() == second.step()
    assert first.iteration == second.iteration == 8
    for a, b in zip(first.weights, second.weights, strict=True):
        assert a.dtype == dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", SOLVERS)
def test_another_networks_state_is_refused(name: str) -> None:
    made = SOLVERS[name](*data(), [6, 5])
    others = [SOLVERS[name](*data(), [6, 4]), SOLVERS[name](*data(29), [6, 5])]
    others += [SOLVERS[other](*data(), [6, 5]) for other in SOLVERS if other != name]
    for other in others:
        with pytest.raises(CheckpointMismatchError, match="build it with"):
            made.load_state_dict(other.state_dict())


@pytest.mark.parametrize("name", SOLVERS)
def test_the_seed_decides_and_the_global_generator_rests(name: str) -> None:
    before = torch.get_rng_state()
    runs = [SOLVERS[name](*data(), [6], seed=seed, **OPTIONS[name]) for seed in (1, 1, 2)]
    objectives = [run.step().objective for run in runs]
    assert torch.equal(before, torch.get_rng_state())
    assert objectives[0] == objectives[1] != objectives[2]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_inputs(name: str, dtype: torch.dtype) -> None:
    """A feature that is always 0, one that is constant, two that are equal; N smaller than d."""
    inputs, targets = data(6, 12, dtype)
    inputs[:, 3], inputs[:, 4], inputs[:, 5] = 0, 1, inputs[:, 6]
    made = SOLVERS[name](inputs, targets, [7, 5], **OPTIONS[name])
    for _ in range(8):
        progress = made.step()
    assert np.isfinite([progress.objective, *progress.residuals, *progress.gaps]).all()
    assert made.predict(inputs).isfinite().all()


@pytest.mark.parametrize("name", SOLVERS)
def test_the_network_learns(name: str) -> None:
    inputs, _ = data(60)
    targets = inputs[:, :3].argmax(1)
    options = {"bcd": {"alpha": 0.1}, "dladmm": {"rho": 1.0}, "mdlam": {"mu": 1e-3}}
    made = SOLVERS[name](inputs, targets, [20], **(OPTIONS[name] | options.get(name, {})))
    for _ in range(100):
        made.step()
    accuracy = (made.predict(inputs).argmax(1) == targets).double().mean()
    assert accuracy > 0.8


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("loss", ["cross_entropy", "squared", "hinge"])
def test_losses(name: str, loss: str) -> None:
    inputs, targets = data()
    if loss == "hinge" and name != "scaled_admm":
        with pytest.raises(OptionError, match="choose from 'cross_entropy', 'squared'"):
            SOLVERS[name](inputs, targets, [6], loss=loss)
        return
    made = SOLVERS[name](inputs, targets, [6], loss=loss, outputs=5)
    made.step()
    assert made.predict(inputs).shape == (30, 5)


@pytest.mark.parametrize("name", SOLVERS)
def test_values_are_fitted_too(name: str) -> None:
    inputs, _ = data()
    made = SOLVERS[name](inputs, inputs[:, :2] ** 2, [9], loss="squared", **OPTIONS[name])
    first = made.step().objective
    for _ in range(30):
        last = made.step().objective
    assert last < first
    assert made.predict(inputs).shape == (30, 2)


@pytest.mark.parametrize("name", SOLVERS)
def test_divergence_is_reported_not_raised(name: str) -> None:
    made = SOLVERS[name](*data(), [6, 5], **OPTIONS[name])
    made.step()
    made.z[0][0, 0] = math.nan
    for _ in range(3):
        progress = made.step()
    assert math.isnan(progress.objective)


def test_images_are_flattened() -> None:
    inputs, targets = data()
    flat, square = MDLAM(inputs, targets, [6]), MDLAM(inputs.view(30, 1, 2, 2), targets, [6])
    assert flat.step() == square.step()
    assert torch.equal(flat.predict(inputs), square.predict(inputs.view(30, 1, 2, 2)))


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"activation": "tanh"}, "choose from 'relu', 'leaky_relu'"),
        ({"negative_slope": 1.0}, "must lie in"),
        ({"hidden": [3, 0]}, "widths of 1 or more"),
        ({"rho": 0.0}, "rho must be a positive number"),
        ({"rho": math.nan}, "rho must be a positive number"),
        ({"inputs": torch.ones(30, 4, dtype=torch.float16)}, r"inputs\.float\(\)"),
        ({"inputs": torch.ones(29, 4)}, "do not fit"),
        ({"targets": torch.ones(30, 3)}, "loss='squared'"),
        ({"targets": torch.arange(30) - 3}, "leave it out"),
        ({"outputs": 2}, "leave it out"),
    ],
    ids=str,
)
def test_wrong_use_is_answered_with_the_cure(options: dict[str, Any], cure: str) -> None:
    inputs, targets = data()
    arguments: dict[str, Any] = {"inputs": inputs, "targets": targets, "hidden": [5]} | options
    with pytest.raises(OptionError, match=cure):
        DLADMM(**arguments)


def test_a_misspelled_option_is_named() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'gamma'"):
        BCD(*data(), [5], gama=1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", SOLVERS)
def test_data_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    inputs, targets = data()
    inputs[3, 1] = bad
    with pytest.raises(OptionError, match="inputs hold NaN or infinity"):
        SOLVERS[name](inputs, targets, [4])
