"""Training under other conditions: convex, ill-conditioned, short, long, noisy, little data."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from samt.bench.data import Split
from samt.bench.models import mlp
from samt.bench.suite.networks import tanh, with_batch_norm
from samt.bench.suite.problem import Part, Problem, Task
from samt.bench.suite.samples import Parts, divided, generator
from samt.bench.suite.tasks import drawn_from, regression
from samt.bench.suite.usual import CLASSES, PIXELS, images, table

_NOISY = 0.3  # the share of wrong labels
_UNKNOWNS, _CONDITION = 50, 100.0
_POINTS, _EVALUATED = 128, 500
_BOUNDARY = 10.0  # the weight of the boundary's squared error


def _logistic() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES))


def _little() -> nn.Module:
    return mlp([PIXELS, 50, CLASSES])


def _normalised() -> nn.Module:
    return with_batch_norm([PIXELS, 100, 100, CLASSES])


def _mislabelled(parts: Parts) -> Parts:
    """Three in ten labels of the training part are drawn anew; a tenth of these stays right."""
    chance = generator(7)
    labels = parts.train.targets
    drawn = torch.randint(0, CLASSES, labels.shape, generator=chance)
    noisy = torch.rand(labels.shape, generator=chance) < _NOISY
    return replace(parts, train=Split(parts.train.inputs, torch.where(noisy, drawn, labels)))


def _least_squares(seed: int, data_dir: Path | None) -> Task:
    """Linear regression by whole passes; its Hessian has a condition number of ten thousand.

    Each of its directions, steep or flat, explains as much of the targets as any other, and none
    is an axis of the weights.
    """
    chance = generator(3)
    rotation, _ = torch.linalg.qr(torch.randn(_UNKNOWNS, _UNKNOWNS, generator=chance))
    scales = torch.logspace(0, -math.log10(_CONDITION), _UNKNOWNS)
    independent = torch.randn(2_000, _UNKNOWNS, generator=chance)
    weights = torch.ones(_UNKNOWNS, 1) / _UNKNOWNS**0.5
    noise = 0.01 * torch.randn(2_000, 1, generator=chance)
    parts = divided((independent * scales) @ rotation, independent @ weights + noise, 500, 500)
    with drawn_from(seed):
        model = nn.Linear(_UNKNOWNS, 1)
    return regression(model, parts, seed, steps=2_000, batch_size=1_000)


def _wave(x: Tensor) -> Tensor:
    return (5 * x).sin() + 0.3 * x.square()


def _between(number: int) -> Tensor:
    """Places between -1 and 1 to evaluate a function at."""
    return 2 * torch.rand(_EVALUATED, 1, generator=generator(number)) - 1


def _smooth(seed: int, data_dir: Path | None) -> Task:
    """A smooth function without noise, by whole passes: every digit counts."""
    places = (torch.linspace(-1, 1, _POINTS)[:, None], _between(1), _between(2))
    train, validation, test = (Split(x, _wave(x)) for x in places)
    parts = Parts(train, validation, test)
    with drawn_from(seed):
        model = tanh([1, 32, 32, 1])
    return regression(model, parts, seed, steps=1_500, batch_size=_POINTS)


def _solution(x: Tensor) -> Tensor:
    return (math.pi * x).sin() + 0.25 * (2 * math.pi * x).sin() + 0.5 * x


def _force(x: Tensor) -> Tensor:
    """The second derivative of the solution."""
    return -(math.pi**2) * ((math.pi * x).sin() + (2 * math.pi * x).sin())


def _physics(seed: int, data_dir: Path | None) -> Task:
    """A differential equation, u'' = f with u known at both ends: no value inside is known.

    The loss is the mean square of what the equation leaves, over that of f, and the squared error
    at both ends.
    """
    inside = torch.linspace(-1, 1, _POINTS)[:, None]
    ends = torch.tensor([[-1.0], [1.0]])
    force, known = _force(inside), _solution(ends)
    size = force.square().mean()
    with drawn_from(seed):
        model = tanh([1, 32, 32, 1])
    places = {"validation": _between(1), "test": _between(2)}

    def loss(step: int) -> Tensor:
        x = inside.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        left = (bend - force).square().mean() / size
        return left + _BOUNDARY * (model(ends) - known).square().mean()

    def evaluate(part: Part) -> float:
        x = places[part]
        model.eval()
        with torch.no_grad():
            error = (model(x) - _solution(x)).square().mean().sqrt()
        model.train()
        return float(error)

    return Task(model, 1_500, loss, evaluate)


_problem = partial(Problem, family="regimes", metric="error in %")
_error = partial(_problem, seeds=10)
_rmse = partial(Problem, family="regimes", metric="RMSE", seeds=10)

PROBLEMS: tuple[Problem, ...] = (
    _error(name="convex", chosen_on=True, make=images("fashion-mnist", _logistic, steps=2_500)),
    _rmse(name="least-squares", chosen_on=False, make=_least_squares),
    _error(name="short", chosen_on=False, make=images("mnist", steps=200)),
    _error(
        name="long",
        chosen_on=True,
        make=images("fashion-mnist", _little, steps=3_120, train=10_000),
    ),
    _error(
        name="label-noise",
        chosen_on=True,
        make=images("fashion-mnist", steps=1_600, change=_mislabelled),
    ),
    _error(
        name="little-data",
        chosen_on=False,
        make=images("mnist", steps=600, batch_size=32, train=300),
    ),
    _rmse(name="smooth", chosen_on=True, make=_smooth),
    _rmse(name="physics", chosen_on=False, make=_physics),
    _error(name="batch-norm", chosen_on=False, make=images("kmnist", _normalised, steps=1_200)),
    _rmse(name="batch-4", chosen_on=False, make=table("pol", steps=4_000, batch_size=4)),
    _problem(
        name="batch-1024",
        seeds=5,
        chosen_on=True,
        make=images("kmnist", steps=400, batch_size=1024),
    ),
)
