"""Networks of other kinds: recurrent, attention, embeddings, graphs, sines."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from samt.bench.data import Split
from samt.bench.models import mlp
from samt.bench.suite import graphs, networks, texts, words
from samt.bench.suite.problem import Problem, Task
from samt.bench.suite.samples import divided, generator, loaded
from samt.bench.suite.tasks import classification, drawn_from, language, regression
from samt.bench.suite.usual import PIXELS, images
from samt.bench.transformer import Transformer

_USERS, _ITEMS, _TASTES, _RATINGS = 400, 300, 8, 40_000
_SIDE = 96  # of the picture, in pixels


def _code(seed: int, data_dir: Path | None) -> Task:
    """A transformer on source code, with small first weights, as GPT-2 has them."""
    with drawn_from(seed):
        model = Transformer(texts.CHARACTERS, texts.LENGTH, features=64, layers=3)
        networks.draw_small(model)
    return language(model, texts.continued(texts.standard_library()), seed, steps=500)


def _english(seed: int, data_dir: Path | None) -> Task:
    """A transformer on English, with the first weights that PyTorch gives it."""
    with drawn_from(seed):
        model = Transformer(texts.CHARACTERS, texts.LENGTH, features=64, layers=2)
    return language(model, texts.continued(texts.topics()), seed, steps=600)


def _words(seed: int, data_dir: Path | None) -> Task:
    """From which module does this line of code come? Most words are in few lines."""
    parts = words.lines_of_code()
    with drawn_from(seed):
        model = nn.Sequential()
        model.words = nn.EmbeddingBag(words.WORDS, 32, padding_idx=words.NO_WORD)
        model.output = nn.Linear(32, words.MODULES)
    return classification(model, parts, seed, steps=2_000)


def _factorisation(seed: int, data_dir: Path | None) -> Task:
    """Ratings that are the product of two tables, with noise; each step sees a few of the rows."""
    chance = generator(5)
    users = torch.randn(_USERS, _TASTES, generator=chance)
    items = torch.randn(_ITEMS, _TASTES, generator=chance)
    who = torch.randint(0, _USERS, (_RATINGS,), generator=chance)
    what = torch.randint(0, _ITEMS, (_RATINGS,), generator=chance)
    noise = 0.3 * torch.randn(_RATINGS, generator=chance)
    ratings = (users[who] * items[what]).sum(dim=1) / _TASTES**0.5 + noise
    parts = divided(torch.stack([who, what], dim=1), ratings, 4_000, 4_000)
    with drawn_from(seed):
        model = networks.Factorisation(_USERS, _ITEMS, features=10)
    return regression(model, parts, seed, steps=3_000, batch_size=256)


def _autoencoder(seed: int, data_dir: Path | None) -> Task:
    """Images through a layer of 16, and back."""
    pictures = loaded("fashion-mnist", data_dir).with_inputs(lambda pixels: pixels.flatten(1))
    parts = pictures.changed(lambda part: Split(part.inputs, part.inputs))
    with drawn_from(seed):
        model = mlp([PIXELS, 128, 16, 128, PIXELS])
    return regression(model, parts, seed, steps=1_200)


def _picture(seed: int, data_dir: Path | None) -> Task:
    """A network of sines that paints a picture: from the place of a pixel to its brightness."""
    line = torch.linspace(-1, 1, _SIDE)
    places = torch.cartesian_prod(line, line)
    x, y = places[:, :1], places[:, 1:]
    brightness = (6 * x).sin() * (9 * y).cos() + 0.5 * (14 * x * y).sin()
    with drawn_from(seed):
        model = networks.sines(width=64)
    parts = divided(places, brightness, 2_000, 2_000)
    return regression(model, parts, seed, steps=1_500, batch_size=512)


def _graph(seed: int, data_dir: Path | None) -> Task:
    """Communities of a network of acquaintances, of which few members are known."""
    community = graphs.drawn()
    with drawn_from(seed):
        model = graphs.Convolutions(community.neighbours, community.features, 32, graphs.CLASSES)
    return classification(model, community.parts, seed, steps=300, batch_size=graphs.NODES)


def _recurrent() -> nn.Module:
    return networks.Rows(features=48)


def _vision_transformer() -> nn.Module:
    return networks.Patches(features=32, layers=2)


_problem = partial(Problem, family="architectures")
_error = partial(_problem, metric="error in %")
_rmse = partial(_problem, metric="RMSE")
_loss = partial(_problem, metric="loss", seeds=5)

PROBLEMS: tuple[Problem, ...] = (
    _error(
        name="lstm",
        seeds=5,
        chosen_on=True,
        make=images("mnist", _recurrent, steps=600, evaluated=2_000),
    ),
    _loss(name="gpt-code", chosen_on=True, make=_code),
    _loss(name="gpt-english", chosen_on=False, make=_english),
    _rmse(name="factorisation", seeds=10, chosen_on=False, make=_factorisation),
    _error(name="words", seeds=10, chosen_on=True, make=_words),
    _rmse(name="autoencoder", seeds=5, chosen_on=False, make=_autoencoder),
    _rmse(name="sines", seeds=10, chosen_on=True, make=_picture),
    _error(name="graph", seeds=10, chosen_on=False, make=_graph),
    _error(
        name="vision-transformer",
        seeds=5,
        chosen_on=False,
        make=images("fashion-mnist", _vision_transformer, steps=800, evaluated=2_000),
    ),
)
