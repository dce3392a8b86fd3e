"""The problems that differ in little from others: images to classify, tables to predict from."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from torch import nn

from samt.bench.models import mlp
from samt.bench.suite.problem import Task
from samt.bench.suite.samples import EVALUATED, Parts, loaded
from samt.bench.suite.tasks import classification, drawn_from, regression

Make = Callable[[int, "Path | None"], Task]
Network = Callable[[], nn.Module]
Change = Callable[[Parts], Parts]

PIXELS, CLASSES = 28 * 28, 10


def _unchanged(parts: Parts) -> Parts:
    return parts


def small() -> nn.Module:
    """The multilayer perceptron of most problems with images: one hidden layer of 100."""
    return mlp([PIXELS, 100, CLASSES])


def images(
    data: str,
    network: Network = small,
    *,
    steps: int,
    batch_size: int = 64,
    train: int = 60_000,
    evaluated: int = EVALUATED,
    change: Change = _unchanged,
) -> Make:
    """The classification of a data set of the bench.

    Args:
        data: the name of the data set.
        network: a function that builds the network; its weights come from the global generator.
        steps: the number of training steps.
        batch_size: the samples in a mini-batch.
        train: the largest number of training samples.
        evaluated: the largest number of samples of the validation part, and of the test part.
        change: a function from the parts of the data set to those of the problem.

    Returns:
        What a problem has as `make`.
    """

    def make(seed: int, data_dir: Path | None) -> Task:
        parts = change(loaded(data, data_dir).at_most(train, evaluated))
        with drawn_from(seed):
            model = network()
        return classification(model, parts, seed, steps=steps, batch_size=batch_size)

    return make


@lru_cache(maxsize=8)
def _rows(data: str, data_dir: Path | None) -> Parts:
    """A table; many of KEGG's rows stand there several times."""
    return loaded(data, data_dir).without_repeats()


def table(
    data: str,
    *,
    steps: int,
    widths: tuple[int, ...] = (100, 100),
    batch_size: int = 64,
    change: Change = _unchanged,
) -> Make:
    """The prediction of the last column of a table from the others, by a multilayer perceptron.

    Args:
        data: the name of the data set.
        steps: the number of training steps.
        widths: the units of each hidden layer.
        batch_size: the samples in a mini-batch.
        change: a function from the parts of the data set, inputs and targets standardised, to
            those of the problem.

    Returns:
        What a problem has as `make`.
    """

    def make(seed: int, data_dir: Path | None) -> Task:
        parts = change(_rows(data, data_dir))
        with drawn_from(seed):
            model = mlp([parts.train.inputs.shape[1], *widths, 1])
        return regression(model, parts, seed, steps=steps, batch_size=batch_size)

    return make
