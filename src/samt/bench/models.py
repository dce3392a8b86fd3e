"""The networks of the published experiments: MLP, CNN, ResNet-18, VGG-11; a sum of blocks.

And a small transformer, for problems that nobody published.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from samt.bench.data import Dataset
from samt.bench.errors import SettingsError
from samt.bench.transformer import Transformer
from samt.errors import suggestion

# Default channels: of each convolution of the CNN; of the first convolution of the deep two; inputs
# of each block of the sum; features of a position of the transformer.
_CHANNELS: dict[str, tuple[int, ...]] = {
    "mlp": (),
    "cnn": (16, 32),
    "resnet18": (64,),
    "vgg11": (64,),
    "additive": (2,),
    "transformer": (64,),
}
MODELS = tuple(_CHANNELS)
# Output channels in multiples of the first; M is max-pooling of 2 x 2.
_VGG11: tuple[int | Literal["M"], ...] = (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M")

Activation = Literal["leaky_relu", "relu"]
_ACTIVATIONS: dict[Activation, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "leaky_relu": (nn.LeakyReLU, leaky_relu),
    "relu": (nn.ReLU, relu),
}


def build(name: str, data: Dataset, hidden: Sequence[int], dropout: float) -> nn.Module:
    """Build a network that fits a data set; weights are drawn from torch's global generator.

    Args:
        name: one of `MODELS`. Channels may follow: `cnn:32,64` has these in its convolutions,
            `resnet18:16` and `vgg11:16` start with as many and keep their proportions, `additive:2`
            has blocks of two inputs, `transformer:64` has that many features.
        data: decides the size of input and output.
        hidden: widths of the fully connected hidden layers of `mlp` and `cnn`; the other two have
            none.
        dropout: probability of dropping a hidden unit, or an input of the last layer of the two
            that have none.

    Returns:
        The network, on the CPU.

    Raises:
        SettingsError: the name is unknown, or the network does not fit the data.
    """
    name, channels = parse(name)
    is_sequence = data.task == "classification" and data.train.targets.ndim > 1
    if is_sequence != (name == "transformer"):
        raise SettingsError(
            f"model '{name}' does not fit {data.name}: a transformer continues text, character by "
            f"character, and nothing else does: use "
            f"{'--model transformer' if is_sequence else '--model mlp'}"
        )
    if name == "transformer":
        return Transformer(data.outputs, data.sample_shape[0], channels[0], dropout=dropout)
    if name == "mlp":
        return mlp([math.prod(data.sample_shape), *hidden, data.outputs], dropout)
    if name == "additive":
        return Additive(math.prod(data.sample_shape), data.outputs, channels[0])
    # Each pooling halves the image.
    smallest = {"cnn": 2 ** len(channels), "resnet18": 8, "vgg11": 32}[name]
    if len(data.sample_shape) != 3 or min(data.sample_shape[1:]) < smallest:
        raise SettingsError(
            f"model '{name}' needs images of {smallest} x {smallest} pixels or more, but "
            f"{data.name} has inputs of shape {data.sample_shape}: use --model mlp"
        )
    if name == "cnn":
        return cnn(data.sample_shape, [*hidden, data.outputs], dropout, channels)
    deep = resnet18 if name == "resnet18" else vgg11
    return deep(data.outputs, data.sample_shape, channels[0], dropout=dropout)


def parse(text: str) -> tuple[str, tuple[int, ...]]:
    """Split a model's spec into its name and the channels of its convolutions.

    Args:
        text: such as "mlp", "cnn" or "cnn:32,64".

    Returns:
        The name, and the channels that were written or the model's own.

    Raises:
        SettingsError: there is no such model, or the channels cannot be read.

    >>> parse("cnn:8,16"), parse("resnet18")
    (('cnn', (8, 16)), ('resnet18', (64,)))
    """
    name, colon, written = text.partition(":")
    if name not in MODELS:
        raise SettingsError(f"unknown model '{name}': {suggestion(name, MODELS)}")
    if not colon:
        return name, _CHANNELS[name]
    if name == "mlp":
        raise SettingsError(f"model '{text}': an MLP has no channels; its widths go into --hidden")
    numbers = written.split(",")
    if not all(number.isascii() and number.isdigit() and int(number) for number in numbers):
        raise SettingsError(f"model '{text}' cannot be read: write channels as in cnn:32,64")
    if name != "cnn" and len(numbers) > 1:
        raise SettingsError(
            f"model '{text}' takes one number, the channels of its first convolution: {name}:32"
        )
    return name, tuple(map(int, numbers))


def normal(text: str) -> str:
    """A model's spec without channels that are its own anyway.

    >>> normal("cnn:16,32"), normal("cnn:8")
    ('cnn', 'cnn:8')
    """
    name, channels = parse(text)
    return name if channels == _CHANNELS[name] else f"{name}:{','.join(map(str, channels))}"


class Additive(nn.Module):
    """A sum of linear maps, each of its own inputs: the blocks of the convergence analysis.

    Args:
        inputs: number of all inputs.
        outputs: number of predicted values.
        size: inputs of each block; the last one may have fewer.
    """

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.sizes = [min(size, inputs - start) for start in range(0, inputs, size)]
        for index, one in enumerate(self.sizes, start=1):
            self.add_module(f"block{index}", nn.Linear(one, outputs, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes (samples, inputs) to (samples, outputs)."""
        parts = x.flatten(1).split(self.sizes, dim=1)
        maps = zip(self.children(), parts, strict=True)
        return torch.stack([linear(part) for linear, part in maps]).sum(dim=0)


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


def cnn(
    sample_shape: Sequence[int],
    widths: Sequence[int],
    dropout: float = 0.0,
    maps: Sequence[int] = _CHANNELS["cnn"],
) -> nn.Sequential:
    """Convolutions of 3 x 3, each with max-pooling of 2 x 2, then fully connected layers.

    Args:
        sample_shape: channels, height and width of the images.
        widths: units of each fully connected hidden layer, and number of outputs.
        dropout: probability of dropping a hidden unit of the fully connected layers.
        maps: output channels of each convolution.

    Returns:
        Modules `conv1`, `conv2`, …, `hidden1`, …, `output`, each of which becomes a block.
    """
    channels, height, width = sample_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, outputs in enumerate(maps, start=1):
        layers[f"conv{index}"] = nn.Conv2d(channels, outputs, kernel_size=3, padding=1)
        layers[f"conv{index}_activation"] = nn.LeakyReLU()
        layers[f"conv{index}_pooling"] = nn.MaxPool2d(2)
        channels, height, width = outputs, height // 2, width // 2
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


class Residual(nn.Module):
    """Two convolutions of 3 x 3 and a shortcut: the basic block of ResNet-18."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, activation: Activation = "leaky_relu"
    ) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[activation][1]
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in `nn.Conv2d`."""
        y = self.activation(self.norm1(self.conv1(x)))
        return self.activation(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet18(
    outputs: int = 10,
    sample_shape: Sequence[int] = (3, 32, 32),
    channels: int = 64,
    *,
    activation: Activation = "leaky_relu",
    dropout: float = 0.0,
) -> nn.Sequential:
    """ResNet-18 for images of 32 x 32: a first convolution of 3 x 3 and no pooling after it.

    Args:
        outputs: number of classes, or of predicted values.
        sample_shape: channels, height and width of the images.
        channels: of the first stage; the other three have 2, 4 and 8 times as many.
        activation: after each normalisation.
        dropout: probability of dropping an input of the last layer.

    Returns:
        Modules `conv`, `norm`, `stage1_1`, …, `stage4_2`, `output`.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(sample_shape[0], channels, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(channels),
        activation=_ACTIVATIONS[activation][0](),
    )
    inputs = channels
    for stage in range(4):
        maps = channels << stage
        for index, stride in enumerate((2 if stage else 1, 1), start=1):
            layers[f"stage{stage + 1}_{index}"] = Residual(inputs, maps, stride, activation)
            inputs = maps
    layers["pooling"] = nn.AdaptiveAvgPool2d(1)
    layers.update(_head(inputs, outputs, dropout))
    return nn.Sequential(layers)


def vgg11(
    outputs: int = 10,
    sample_shape: Sequence[int] = (3, 32, 32),
    channels: int = 64,
    *,
    activation: Activation = "leaky_relu",
    dropout: float = 0.0,
) -> nn.Sequential:
    """VGG-11 for images of 32 x 32, without batch norm, with one linear layer at the end.

    Args:
        outputs: number of classes, or of predicted values.
        sample_shape: channels, height and width of the images.
        channels: of the first convolution; the others have up to 8 times as many.
        activation: after each convolution.
        dropout: probability of dropping an input of the last layer.

    Returns:
        Modules `conv1`, …, `conv8`, `output`, each of which becomes a block.
    """
    inputs, height, width = sample_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    index = 0
    for factor in _VGG11:
        if factor == "M":
            layers[f"conv{index}_pooling"] = nn.MaxPool2d(2)
            height, width = height // 2, width // 2
            continue
        index += 1
        layers[f"conv{index}"] = nn.Conv2d(inputs, factor * channels, 3, padding=1)
        layers[f"conv{index}_activation"] = _ACTIVATIONS[activation][0]()
        inputs = factor * channels
    layers.update(_head(inputs * height * width, outputs, dropout))
    return nn.Sequential(layers)


def _head(inputs: int, outputs: int, dropout: float) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["output"] = nn.Linear(inputs, outputs)
    return layers
