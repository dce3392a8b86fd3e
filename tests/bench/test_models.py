"""The networks: their sizes, their names, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import samt
from samt.bench import models
from samt.bench.data import Dataset, Split
from samt.bench.errors import SettingsError


def images(channels: int = 3, side: int = 32, *, regression: bool = False) -> Dataset:
    inputs = torch.rand(4, channels, side, side)
    targets = torch.rand(4, 1) if regression else torch.arange(4)
    part = Split(inputs, targets)
    task, outputs = ("regression", 1) if regression else ("classification", 10)
    return Dataset("images", task, outputs, part, part)  # type: ignore[arg-type]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Of the published networks for images of 32 x 32, with a last layer of 10 outputs.
        ("resnet18", 11_173_962),
        ("vgg11", 9_225_610),
        ("cnn", 3 * 16 * 9 + 16 + 16 * 32 * 9 + 32 + 2048 * 300 + 300 + 3010),
        ("mlp", 3072 * 300 + 300 + 3010),
    ],
)
def test_number_of_parameters(name: str, parameters: int) -> None:
    assert count(models.build(name, images(), (300,), 0.0)) == parameters


@pytest.mark.parametrize("name", ["mlp", "cnn", "cnn:3,5,7", "resnet18:4", "vgg11:4"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_every_network_learns(name: str, dropout: float) -> None:
    data = images(channels=1)
    model = models.build(name, data, (8,), dropout)
    assert any(isinstance(module, nn.Dropout) for module in model.modules()) == bool(dropout)
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())
    optimizer = samt.PaperSAMT(samt.blocks(model), lr=0.01)
    inputs, targets = data.train.tensors()
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer.step(samt.closure(model, nn.functional.cross_entropy, inputs, targets))
    assert model(inputs).shape == (4, 10)
    changed = [
        not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)
    ]
    assert all(changed)


def test_regression_heads_have_one_output() -> None:
    data = images(regression=True)
    for name in ("mlp", "cnn", "resnet18:2", "vgg11:2"):
        assert models.build(name, data, (8,), 0.0)(data.train.inputs).shape == (4, 1)


def test_channels_are_what_varies() -> None:
    model = models.build("cnn:5,6,7", images(1, 28), (8,), 0.0)
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [5, 6, 7]
    narrow = models.build("resnet18:8", images(), (), 0.0)
    assert next(group["name"] for group in samt.blocks(narrow)) == "conv"


def test_the_written_default_is_the_default() -> None:
    for name, written in (("cnn", "cnn:16,32"), ("resnet18", "resnet18:64")):
        both = []
        for spec in (name, written):
            torch.manual_seed(3)
            both.append(models.build(spec, images(), (10,), 0.0).state_dict())
        assert list(both[0]) == list(both[1])
        assert all(torch.equal(both[0][key], both[1][key]) for key in both[0])


def test_relu_for_the_networks_of_the_benchmark() -> None:
    for build in (models.resnet18, models.vgg11):
        model = build(10, activation="relu")
        kinds = {type(module) for module in model.modules()}
        assert nn.ReLU in kinds
        assert nn.LeakyReLU not in kinds


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("resnet", images(), "did you mean 'resnet18'"),
        ("cnn:", images(), "write channels as"),
        ("cnn:0", images(), "write channels as"),
        ("cnn:3,,4", images(), "write channels as"),
        ("cnn:-3", images(), "write channels as"),
        ("cnn:²", images(), "write channels as"),
        ("mlp:30", images(), "no channels"),
        ("vgg11:3,4", images(), "one number"),
        ("vgg11", images(side=28), "32 x 32 pixels or more.*--model mlp"),
        ("cnn:2,2,2,2,2", images(1, 28), "32 x 32 pixels"),
        ("resnet18", images(side=4), "8 x 8 pixels"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, data: Dataset, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        models.build(name, data, (8,), 0.0)
