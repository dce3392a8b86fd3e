"""The networks of the published experiments: an MLP and a small convolutional network."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from samt.bench.data import Dataset
from samt.bench.errors import SettingsError
from samt.errors import suggestion

MODELS = ("mlp", "cnn")
_CHANNELS = (16, 32)


def build(name: str, data: Dataset, hidden: Sequence[int], dropout: float) -> nn.Module:
    """Build a network that fits a data set; weights are drawn from torch's global generator.

    Args:
        name: one of `MODELS`.
        data: decides the size of input and output.
        hidden: widths of the fully connected hidden layers.
        dropout: probability of dropping a hidden unit.

    Returns:
        The network, on the CPU.

    Raises:
        SettingsError: the name is unknown, or the network does not fit the data.
    """
    if name not in MODELS:
        raise SettingsError(f"unknown model '{name}': {suggestion(name, MODELS)}")
    if name == "mlp":
        return mlp([math.prod(data.sample_shape), *hidden, data.outputs], dropout)
    if len(data.sample_shape) != 3 or min(data.sample_shape[1:]) < 4:
        raise SettingsError(
            f"model 'cnn' needs images of 4 x 4 pixels or more, but {data.name} has inputs of "
            f"shape {data.sample_shape}: use --model mlp"
        )
    return cnn(data.sample_shape, [*hidden, data.outputs], dropout)


def mlp(widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """A multilayer perceptron with LeakyReLU.

    Args:
        widths: number of inputs, of units of each hidden layer, of outputs.
        dropout: probability of dropping a hidden unit.

    Returns:
        Modules `hidden1`, `hidden2`, …, `output`, each of which becomes a block.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    layers.update(_fully_connected(widths, dropout))
    return nn.Sequential(layers)


def cnn(sample_shape: Sequence[int], widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Two convolutions of 3 x 3, each with max-pooling of 2 x 2, then fully connected layers.

    Args:
        sample_shape: channels, height and width of the images.
        widths: units of each fully connected hidden layer, and number of outputs.
        dropout: probability of dropping a hidden unit of the fully connected layers.

    Returns:
        Modules `conv1`, `conv2`, `hidden1`, …, `output`, each of which becomes a block.
    """
    channels, height, width = sample_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, maps in enumerate(_CHANNELS, start=1):
        layers[f"conv{index}"] = nn.Conv2d(channels, maps, kernel_size=3, padding=1)
        layers[f"conv{index}_activation"] = nn.LeakyReLU()
        layers[f"conv{index}_pooling"] = nn.MaxPool2d(2)
        channels, height, width = maps, height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers.update(_fully_connected([channels * height * width, *widths], dropout))
    return nn.Sequential(layers)


def _fully_connected(widths: Sequence[int], dropout: float) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (inputs, outputs) in enumerate(pairwise(widths[:-1]), start=1):
        layers[f"hidden{index}"] = nn.Linear(inputs, outputs)
        layers[f"hidden{index}_activation"] = nn.LeakyReLU()
        if dropout:
            layers[f"hidden{index}_dropout"] = nn.Dropout(dropout)
    layers["output"] = nn.Linear(widths[-2], widths[-1])
    return layers
