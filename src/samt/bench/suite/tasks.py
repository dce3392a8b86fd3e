"""Tasks of supervised learning: mini-batches of a training part, and a measure on the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from samt.bench.data import Split
from samt.bench.suite.problem import Part, Task
from samt.bench.suite.samples import Parts, generator

# From outputs and targets to a mean over them.
Mean = Callable[[Tensor, Tensor], Tensor]
_CHUNK = 250


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draw initial weights from a seed, and leave the global generator as it was.

    Args:
        seed: the seed of the CPU's global generator inside.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class Batches:
    """The mini-batches of a training: each step's follows from its number and the seed alone.

    Each epoch goes through the samples in an order of its own, and leaves out the last few where
    they are no whole mini-batch.

    Args:
        samples: the training part.
        size: the samples in a mini-batch; all samples, in their own order, if there are no more.
        seed: the seed of all orders.
    """

    def __init__(self, samples: Split, size: int, seed: int) -> None:
        self._samples = samples
        self._size = size
        self._seed = seed
        self._epoch = -1
        self._order: tuple[Tensor, ...] = ()

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step's mini-batch.

        Args:
            step: the number of the step, from 0.
        """
        count = len(self._samples)
        if count <= self._size:
            return self._samples.inputs, self._samples.targets
        epoch, index = divmod(step, count // self._size)
        if epoch != self._epoch:
            order = torch.randperm(count, generator=generator(self._seed, epoch))
            self._epoch, self._order = epoch, order.split(self._size)
        return self._samples.take(self._order[index])


def classification(
    model: nn.Module,
    parts: Parts,
    seed: int,
    *,
    steps: int,
    batch_size: int = 64,
) -> Task:
    """Learn classes by cross entropy, measured by the share of wrong ones in per cent.

    Args:
        model: the network with its initial weights; its outputs have the classes in dimension 1.
        parts: inputs and class numbers.
        seed: the seed of the mini-batches.
        steps: the number of training steps.
        batch_size: the samples in a mini-batch.

    Returns:
        The task.
    """

    def wrong(outputs: Tensor, targets: Tensor) -> Tensor:
        return 100 * (outputs.argmax(dim=1) != targets).float().mean()

    batches = Batches(parts.train, batch_size, seed)
    return supervised(model, parts, batches, steps, cross_entropy, wrong)


def language(model: nn.Module, parts: Parts, seed: int, *, steps: int, batch_size: int = 8) -> Task:
    """Learn to continue text by cross entropy, measured by the same.

    Args:
        model: the network with its initial weights, from (samples, length) to (samples,
            characters, length).
        parts: texts as numbers of characters, and the character that follows each.
        seed: the seed of the mini-batches.
        steps: the number of training steps.
        batch_size: the texts in a mini-batch.

    Returns:
        The task.
    """
    batches = Batches(parts.train, batch_size, seed)
    return supervised(model, parts, batches, steps, cross_entropy, cross_entropy)


def regression(
    model: nn.Module, parts: Parts, seed: int, *, steps: int, batch_size: int = 64
) -> Task:
    """Learn values by the mean squared error, measured by its root in units of the targets.

    Args:
        model: the network with its initial weights.
        parts: inputs and values, and the unit of these.
        seed: the seed of the mini-batches.
        steps: the number of training steps.
        batch_size: the samples in a mini-batch.

    Returns:
        The task.
    """

    def root(mean: float) -> float:
        return math.sqrt(mean) / parts.unit

    batches = Batches(parts.train, batch_size, seed)
    return supervised(model, parts, batches, steps, mse_loss, mse_loss, root)


def supervised(
    model: nn.Module,
    parts: Parts,
    batches: Batches,
    steps: int,
    loss: Mean,
    measure: Mean,
    finish: Callable[[float], float] = float,
) -> Task:
    """Put a task together.

    Args:
        model: the network with its initial weights.
        parts: the samples; the training part is not looked at.
        batches: the mini-batches of the training part.
        steps: the number of training steps.
        loss: what is minimised, a mean over a mini-batch.
        measure: what is reported, a mean over the samples of a part.
        finish: a function from the mean over a whole part to the number that is reported.

    Returns:
        The task.
    """

    def batch_loss(step: int) -> Tensor:
        inputs, targets = batches(step)
        return loss(model(inputs), targets)

    def evaluate(part: Part) -> float:
        samples = parts.validation if part == "validation" else parts.test
        return finish(_mean(model, samples, measure))

    return Task(model, steps, batch_loss, evaluate)


def _mean(model: nn.Module, samples: Split, measure: Mean) -> float:
    """The measure over all samples, without gradients, in eval mode."""
    total = 0.0
    model.eval()
    with torch.no_grad():
        chunks = (tensor.split(_CHUNK) for tensor in samples.tensors())
        for inputs, targets in zip(*chunks, strict=True):
            total += float(measure(model(inputs), targets)) * len(inputs)
    model.train()
    return total / len(samples)
