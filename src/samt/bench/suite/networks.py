"""Networks of the suite that the bench has nowhere else."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn

_SIDE, _PATCH, _HEADS = 28, 7, 4
_CLASSES = 10
_FREQUENCY = 30.0


class Rows(nn.Module):
    """A recurrent network that reads an image row by row, and names its class at the end.

    Args:
        features: the size of its memory.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.memory = nn.LSTM(_SIDE, features, batch_first=True)
        self.output = nn.Linear(features, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (samples, 1, height, width) to (samples, classes)."""
        states, _ = self.memory(x.squeeze(1))
        logits: Tensor = self.output(states[:, -1])
        return logits


class Patches(nn.Module):
    """A small vision transformer: attention among 16 patches of an image.

    Args:
        features: the numbers that describe a patch; a multiple of four.
        layers: the number of attention layers.
    """

    def __init__(self, features: int, layers: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, features, _PATCH, stride=_PATCH)
        self.position = nn.Parameter(0.02 * torch.randn((_SIDE // _PATCH) ** 2, features))
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    features,
                    _HEADS,
                    2 * features,
                    dropout=0.0,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(layers)
            )
        )
        self.norm = nn.LayerNorm(features)
        self.output = nn.Linear(features, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (samples, 1, height, width) to (samples, classes)."""
        described = self.patch(x).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.output(self.norm(self.layers(described)).mean(dim=1))
        return logits


class Factorisation(nn.Module):
    """A matrix as the product of two narrow ones, whose rows are embeddings.

    Args:
        rows: the rows of the matrix.
        columns: its columns.
        features: the size of an embedding.
    """

    def __init__(self, rows: int, columns: int, features: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(rows, features)
        self.columns = nn.Embedding(columns, features)
        for table in (self.rows, self.columns):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (samples, 2), row and column of each, to (samples,)."""
        return (self.rows(x[:, 0]) * self.columns(x[:, 1])).sum(dim=1)


class Sine(nn.Module):
    """The sine of thirty times its input, as networks that represent signals have it."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return (_FREQUENCY * x).sin()


def sines(width: int) -> nn.Sequential:
    """A network of sines from two numbers to one, with three hidden layers.

    Args:
        width: the units of a hidden layer.

    Returns:
        The network; its weights are drawn so that each layer's outputs vary as much as the next
        one's.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (inputs, outputs) in enumerate(pairwise([2, width, width, width]), start=1):
        layers[f"hidden{index}"] = _uniform(inputs, outputs, first=index == 1)
        layers[f"hidden{index}_sine"] = Sine()
    layers["output"] = _uniform(width, 1, first=False)
    return nn.Sequential(layers)


def _uniform(inputs: int, outputs: int, *, first: bool) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    bound = 1 / inputs if first else math.sqrt(6 / inputs) / _FREQUENCY
    nn.init.uniform_(layer.weight, -bound, bound)
    return layer


def draw_small(model: nn.Module) -> None:
    """Draw all matrices anew with deviation 0.02 and set all biases to zero, as GPT-2 does.

    Args:
        model: any network; its norms stay as they are.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def with_batch_norm(widths: list[int]) -> nn.Sequential:
    """A multilayer perceptron with batch normalisation after each hidden layer.

    Args:
        widths: the number of inputs, of units of each hidden layer, of outputs.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for index, (inputs, outputs) in enumerate(pairwise(widths[:-1]), start=1):
        layers[f"hidden{index}"] = nn.Linear(inputs, outputs)
        layers[f"hidden{index}_norm"] = nn.BatchNorm1d(outputs)
        layers[f"hidden{index}_activation"] = nn.ReLU()
    layers["output"] = nn.Linear(widths[-2], widths[-1])
    return nn.Sequential(layers)


def tanh(widths: list[int]) -> nn.Sequential:
    """A multilayer perceptron with the hyperbolic tangent, which is smooth.

    Args:
        widths: the number of inputs, of units of each hidden layer, of outputs.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (inputs, outputs) in enumerate(pairwise(widths[:-1]), start=1):
        layers[f"hidden{index}"] = nn.Linear(inputs, outputs)
        layers[f"hidden{index}_activation"] = nn.Tanh()
    layers["output"] = nn.Linear(widths[-2], widths[-1])
    return nn.Sequential(layers)
