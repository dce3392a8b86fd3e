"""Training that starts from trained weights: of all layers, of the last one, of adapters.

Steps that are right for drawn weights are too large here: a method can lose what was learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from samt.bench.data import Split
from samt.bench.models import mlp
from samt.bench.suite import texts
from samt.bench.suite.pretraining import Weights, pretrained
from samt.bench.suite.problem import Problem, Task
from samt.bench.suite.samples import Parts, loaded
from samt.bench.suite.tasks import classification, drawn_from, language
from samt.bench.suite.usual import CLASSES, PIXELS, Change, Make
from samt.bench.transformer import Transformer

_SEED = 77  # of all pretraining
_PRETRAINED_ON, _TUNED_ON = 20_000, 500
_RANK = 4


class Adapted(nn.Module):
    """A linear layer that stays as it is, plus the product of two small ones that learn.

    Args:
        layer: the linear layer with its trained weights, which are not trained any more.
        rank: the outputs of the first and the inputs of the second small layer.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in `nn.Linear`."""
        change: Tensor = linear(linear(x, self.down), self.up)
        return self.layer(x) + change


def _network() -> nn.Sequential:
    return mlp([PIXELS, 200, CLASSES])


def _classifier(data: str, samples: int) -> Callable[[Path | None], tuple[Task, Split]]:
    """The training on the first samples of a data set, whose weights the problems start from.

    Args:
        data: the name of the data set.
        samples: how many samples there are; fewer of them are seen more often.
    """

    def make(data_dir: Path | None) -> tuple[Task, Split]:
        parts = loaded(data, data_dir).at_most(samples)
        with drawn_from(_SEED):
            model = _network()
        return classification(model, parts, _SEED, steps=500 + samples // 20), parts.train

    return make


def _writer(data_dir: Path | None) -> tuple[Task, Split]:
    """The training of a transformer on the source of the standard library."""
    parts = texts.continued(texts.standard_library())
    with drawn_from(_SEED):
        model = Transformer(texts.CHARACTERS, texts.LENGTH, features=48)
    return language(model, parts, _SEED, steps=600), parts.train


# Each function once, so that the cache of this process knows it again.
_CLASSIFIERS = {
    "mnist": _classifier("mnist", 20_000),
    "kmnist": _classifier("kmnist", 20_000),
}


def _some(parts: Parts, count: int, after: int) -> Parts:
    """Training samples behind the first ones; the pretraining saw `_PRETRAINED_ON` of them."""
    rows = slice(after, after + count)
    return replace(parts, train=Split(parts.train.inputs[rows], parts.train.targets[rows]))


def _shifted(parts: Parts) -> Parts:
    """Images that are moved down by three pixels and to the right by two."""
    return parts.with_inputs(lambda images: images.roll((3, 2), dims=(-2, -1)))


def _all_layers(model: nn.Sequential) -> None:
    """Leave the network as it is: everything is trained."""


def _last_layer(model: nn.Sequential) -> None:
    """Put a new last layer in place, and train it alone."""
    model.requires_grad_(False)
    model.output = nn.Linear(200, CLASSES)


def _adapters(model: nn.Sequential) -> None:
    """Train small layers beside those that there are."""
    for name in ("hidden1", "output"):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        model.set_submodule(name, Adapted(layer, _RANK))


def _images(
    start: str,
    data: str,
    prepare: Callable[[nn.Sequential], None] = _all_layers,
    *,
    steps: int,
    train: int = _TUNED_ON,
    after: int = _PRETRAINED_ON,
    change: Change = lambda parts: parts,
) -> Make:
    """Fine-tuning of a classifier of images.

    Args:
        start: the pretraining, a key of `_CLASSIFIERS`.
        data: the data set of the fine-tuning.
        prepare: what is done to the network in between.
        steps: the number of training steps.
        train: the number of training samples.
        after: the number of samples that are left out before the training samples; 0 takes
            samples that the pretraining saw.
        change: a function from the parts of the data set to those of the problem.
    """

    def make(seed: int, data_dir: Path | None) -> Task:
        weights: Weights = pretrained(start, _CLASSIFIERS[start], data_dir)
        parts = change(_some(loaded(data, data_dir), train, after))
        with drawn_from(seed):
            model = _network()
            model.load_state_dict(weights)
            prepare(model)
        return classification(model, parts, seed, steps=steps, batch_size=32)

    return make


def _other_text(seed: int, data_dir: Path | None) -> Task:
    """A transformer that knows the standard library reads about Python in English."""
    model, _ = _writer(data_dir)
    model.model.load_state_dict(pretrained("standard-library", _writer, data_dir))
    return language(model.model, texts.continued(texts.topics()), seed, steps=300)


_problem = partial(Problem, family="finetuning")
_error = partial(_problem, metric="error in %", seeds=10)

PROBLEMS: tuple[Problem, ...] = (
    _error(
        name="finetune-same",
        chosen_on=True,
        make=_images("mnist", "mnist", steps=100, after=0),
    ),
    _error(
        name="finetune-shifted",
        chosen_on=False,
        make=_images("mnist", "mnist", steps=300, change=_shifted),
    ),
    _error(
        name="finetune-other",
        chosen_on=True,
        make=_images("mnist", "kmnist", steps=1_000, train=10_000),
    ),
    _error(
        name="finetune-head",
        chosen_on=False,
        make=_images("kmnist", "mnist", _last_layer, steps=1_000, train=5_000),
    ),
    _error(
        name="finetune-lora",
        chosen_on=False,
        make=_images("kmnist", "fashion-mnist", _adapters, steps=1_500, train=10_000),
    ),
    _problem(name="finetune-text", metric="loss", seeds=5, chosen_on=True, make=_other_text),
)
