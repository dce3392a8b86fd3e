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


def text() -> Dataset:
    part = Split(torch.randint(0, 7, (4, 9)).float(), torch.randint(0, 7, (4, 9)))
    return Dataset("text", "classification", 7, part, part)


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
    optimizer = samt.SAMT(samt.blocks(model), lr=0.01)
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


def test_the_transformer_does_not_look_ahead() -> None:
    model = models.build("transformer:8", text(), (), 0.0).eval()
    x = torch.randint(0, 7, (2, 9)).float()
    changed = x.clone()
    changed[:, 5] = (x[:, 5] + 1) % 7
    before, after = model(x), model(changed)
    assert before.shape == (2, 7, 9)
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert not torch.isclose(before[:, :, 5:], after[:, :, 5:]).all(dim=1).any()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_transformer_learns_to_repeat(dropout: float) -> None:
    """The next character is the one before last: attention has to find it."""
    torch.manual_seed(0)
    data = text()
    model = models.build("transformer:32", data, (), dropout)
    assert sum(isinstance(module, nn.Dropout) and bool(module.p) for module in model.modules()) == (
        2 if dropout else 0
    )
    optimizer = samt.AutoSAMT(samt.blocks(model))
    assert len(optimizer.param_groups) == 16  # each linear map, norm and embedding
    for _ in range(200):
        pairs = torch.randint(0, 7, (32, 2)).repeat(1, 5)
        optimizer.step(
            samt.closure(model, nn.functional.cross_entropy, pairs[:, :9].float(), pairs[:, 1:])
        )
    model.eval()
    pairs = torch.randint(0, 7, (64, 2)).repeat(1, 5)
    hits = model(pairs[:, :9].float()).argmax(1) == pairs[:, 1:]
    assert hits[:, 1:].float().mean() > 0.9


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
        ("transformer", images(), "does not fit images.*--model mlp"),
        ("mlp", text(), "does not fit text.*--model transformer"),
        ("transformer:30", text(), "choose a multiple of 4"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, data: Dataset, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        models.build(name, data, (8,), 0.0)
