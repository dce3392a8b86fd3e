"""The constants and the bound of the convergence experiment, against what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samt.bench import data as datasets
from samt.bench.convergence import bound, constants, rate
from samt.bench.data import least_squares as problem
from samt.bench.models import Additive, build


def test_the_test_loss_is_the_squared_distance_to_the_solution() -> None:
    data = datasets.load("least-squares", None, split_seed=3)
    torch.manual_seed(0)
    model = build("additive", data, (), 0.0)
    assert isinstance(model, Additive)
    weights = torch.cat([weight.flatten() for weight in model.parameters()])
    distance = (weights - torch.from_numpy(problem.solution())).square().sum()
    loss = torch.nn.functional.mse_loss(model(data.test.inputs), data.test.targets)
    torch.testing.assert_close(loss * problem.DIMENSION, distance.float())
    assert data.target_scale == 1.0


def test_the_samples_have_the_covariance_and_the_noise_that_are_stated() -> None:
    draws = [problem.draw(seed).train for seed in range(10)]
    inputs = np.concatenate([part.inputs for part in draws])
    targets = np.concatenate([part.targets[:, 0] for part in draws])
    np.testing.assert_allclose(np.cov(inputs.T), problem.covariance(), atol=0.06)
    noise = targets - inputs @ problem.solution()
    assert noise.std() == pytest.approx(problem.NOISE, rel=0.02)
    assert not np.array_equal(draws[0].inputs, draws[1].inputs)


def test_the_constants_are_those_of_the_covariance() -> None:
    known = constants()
    assert known.convexity == pytest.approx(2.0)
    assert known.smoothness == pytest.approx(3.0)
    assert known.stability == pytest.approx(2 * problem.COUPLING)
    assert known.noise == pytest.approx(4 * 0.25 * 5)
    assert known.variance == 0.25


def test_the_constants_are_listed_for_people() -> None:
    known = constants()
    values = {one.symbol: one.value for one in known.listed()}
    assert list(values) == ["L", "λ", "μ", "γ", "σ²", "a", "b"]
    assert (values["L"], values["a"], values["b"]) == (2, known.slope, known.noise)
    *_, last = known.listed(distance=4.0)
    assert (last.symbol, last.value) == ("G²", known.largest_gradient(4.0))


def test_the_gradient_is_bounded_as_the_constants_say() -> None:
    known = constants()
    part = problem.draw(0).train
    for seed in range(20):
        delta = np.random.default_rng(seed).standard_normal(problem.DIMENSION)
        residual = part.inputs @ (problem.solution() + delta) - part.targets[:, 0]
        squares = ((2 * residual[:, None] * part.inputs) ** 2).sum(axis=1)
        assert squares.mean() <= known.slope * (delta @ delta) + known.noise


def test_alternating_gradient_descent_with_a_fixed_schedule_stays_under_the_bound() -> None:
    """The theorem itself, by a loop that has nothing of SAMT: mean over 100 seeds."""
    known, rounds, count = constants(), 100, 1000
    steps = 0.012 / (1 + np.arange(count) / 40)
    chance = np.random.default_rng(0)
    factor = np.linalg.cholesky(problem.covariance())
    errors = np.empty((rounds, count + 1))
    for row in errors:
        delta = -problem.solution()
        row[0] = delta @ delta
        for k, step in enumerate(steps):
            x = factor @ chance.standard_normal(problem.DIMENSION)
            noise = problem.NOISE * chance.standard_normal()
            for start in range(0, problem.DIMENSION, problem.SIZE):
                block = slice(start, start + problem.SIZE)
                delta[block] -= step * 2 * (x @ delta - noise) * x[block]
            row[k + 1] = delta @ delta
    limit = bound(errors[0, 0], steps, steps, known)
    assert (
        errors.mean(axis=0) <= limit * (1 + 1e-12)
    ).all()  # equal at the start, but for rounding
    assert limit[-1] < 20 * errors.mean(axis=0)[-1]  # a bound that says something
    assert (limit <= bound(errors[0, 0], steps, steps, known, distance=3.0)).all()


def test_the_start_is_forgotten_faster_than_the_noise_but_not_within_one_pass() -> None:
    """Why the experiment's slope is steeper than −1, as its note says."""
    rounds, count = 1000, 4000
    chance = np.random.default_rng(0)
    factor = np.linalg.cholesky(problem.covariance())
    # Of the same samples: the whole, without noise, from the solution.
    begun = chance.uniform(-1, 1, (rounds, problem.DIMENSION)) / np.sqrt(2) - problem.solution()
    parts = np.stack([begun, begun, np.zeros_like(begun)])
    noisy = np.array([[1.0], [0.0], [1.0]])
    errors = np.empty((3, count))
    for k in range(count):
        x = chance.standard_normal((rounds, problem.DIMENSION)) @ factor.T
        noise = problem.NOISE * noisy * chance.standard_normal(rounds)
        for start in range(0, problem.DIMENSION, problem.SIZE):
            block = slice(start, start + problem.SIZE)
            residual = (parts * x).sum(axis=2) - noise
            parts[:, :, block] -= 0.024 / (1 + k / 40) * residual[:, :, None] * x[:, block]
        errors[:, k] = (parts**2).sum(axis=2).mean(axis=1)
    whole, forgotten, settled = errors
    sweeps = np.arange(1.0, count + 1)
    assert rate(sweeps, forgotten) < -1.73
    assert rate(sweeps, settled, tail=0.5) == pytest.approx(-1, abs=0.1)
    assert rate(sweeps, whole) == pytest.approx(-1.55, abs=0.1)
    assert forgotten[-1] / whole[-1] == pytest.approx(0.4, abs=0.05)


def test_the_bound_falls_as_one_over_k_and_says_where_it_cannot_hold() -> None:
    known = constants()
    k = np.arange(200_000, dtype=np.float64)
    steps = 2.0 / (known.convexity * (k + 400))
    limit = bound(1.0, steps, steps, known)
    assert rate(k[1:], limit[2:]) == pytest.approx(-1, abs=0.15)
    assert bound(1.0, [1.0], [1.0], known)[-1] == np.inf


def test_the_rate_is_the_slope() -> None:
    k = np.arange(1.0, 1000.0)
    assert rate(k, 5 / k) == pytest.approx(-1)
    assert rate(k, 5 / np.sqrt(k)) == pytest.approx(-0.5)
