"""Networks and data as they come, and what is varied of them one at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import nn
from torch.nn.functional import avg_pool2d

from samt.bench.models import cnn, mlp, resnet18
from samt.bench.suite.problem import Problem, Task
from samt.bench.suite.samples import Parts, loaded
from samt.bench.suite.tasks import drawn_from, language
from samt.bench.suite.usual import CLASSES, PIXELS, images, table
from samt.bench.transformer import Transformer

_CHARACTERS, _LENGTH = 29, 64


def _deep() -> nn.Module:
    return mlp([PIXELS, *(8 * [32]), CLASSES])


def _with_dropout() -> nn.Module:
    return mlp([PIXELS, 100, CLASSES], dropout=0.5)


def _digits() -> nn.Module:
    return mlp([64, 64, CLASSES])


def _convolutions() -> nn.Module:
    return cnn((3, 16, 16), [64, CLASSES], maps=(16, 32))


def _residual() -> nn.Module:
    return resnet18(CLASSES, (3, 16, 16), channels=4)


def _halved(parts: Parts) -> Parts:
    """Photographs of half the height and width, so that a run takes seconds."""
    return parts.with_inputs(lambda images: avg_pool2d(images, 2))


def _characters(seed: int, data_dir: Path | None) -> Task:
    """Sums and products in English words, to be continued character by character."""
    parts = loaded("characters", data_dir).with_inputs(lambda numbers: numbers.long())
    with drawn_from(seed):
        model = Transformer(_CHARACTERS, _LENGTH, features=32)
    return language(model, parts, seed, steps=800)


_error = partial(Problem, family="classic", metric="error in %")
_rmse = partial(Problem, family="classic", metric="RMSE")

PROBLEMS: tuple[Problem, ...] = (
    _error(
        name="fashion",
        seeds=10,
        chosen_on=True,
        make=images("fashion-mnist", steps=1_600),
    ),
    _error(name="mnist", seeds=10, chosen_on=False, make=images("mnist", steps=1_600)),
    _error(
        name="digits",
        seeds=10,
        chosen_on=False,
        make=images("digits", _digits, steps=1_600, batch_size=32),
    ),
    _error(name="deep", seeds=10, chosen_on=True, make=images("fashion-mnist", _deep, steps=1_600)),
    _error(
        name="dropout",
        seeds=10,
        chosen_on=False,
        make=images("fashion-mnist", _with_dropout, steps=1_600),
    ),
    _error(
        name="scaled",
        seeds=10,
        chosen_on=True,
        make=images("fashion-mnist-uneven", steps=1_600),
    ),
    _error(
        name="large-batch",
        seeds=5,
        chosen_on=False,
        make=images("fashion-mnist", steps=300, batch_size=1024),
    ),
    _error(
        name="tiny-batch",
        seeds=10,
        chosen_on=True,
        make=images("fashion-mnist", steps=3_000, batch_size=4),
    ),
    _rmse(name="bike", seeds=10, chosen_on=True, make=table("bike", steps=2_500)),
    _rmse(name="pol", seeds=10, chosen_on=False, make=table("pol", steps=2_500)),
    _rmse(name="kegg", seeds=10, chosen_on=False, make=table("keggdirected", steps=2_500)),
    _error(
        name="cnn",
        seeds=5,
        chosen_on=True,
        make=images("cifar10", _convolutions, steps=700, evaluated=2_000, change=_halved),
    ),
    _error(
        name="resnet",
        seeds=5,
        chosen_on=False,
        make=images("cifar10", _residual, steps=300, evaluated=2_000, change=_halved),
    ),
    Problem(
        name="characters",
        family="classic",
        metric="loss",
        seeds=5,
        chosen_on=True,
        make=_characters,
    ),
)
