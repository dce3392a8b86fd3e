"""Models that the searches for a wrong number train."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .models import Convolutional, Shared


class Odd(nn.Module):
    """Weights may look like these: no dimension, one element, none, shared, not used."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.tensor(0.8))
        self.one = nn.Parameter(torch.full((1, 1), 0.3))
        self.none = nn.Parameter(torch.empty(0, 3))
        self.again = nn.Linear(4, 4, bias=False)
        self.again.weight = self.first.weight
        self.last = nn.Linear(4, 3)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.again(torch.tanh(self.first(x)) * self.scale) + self.one)
        return self.last(x) + self.none.sum()


class Striped(Convolutional):
    """A model whose batch norm does not make a bias ahead of it mere rounding: there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution.bias = None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _dense(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in zip((4, *widths), (*widths, 3), strict=True):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "one layer": _dense,
    "narrow": lambda: _dense(1, 2),
    "dense": lambda: _dense(6, 5),
    "dropout": lambda: nn.Sequential(_dense(5), nn.Dropout(0.3)),
    "convolutional": Striped,
    "shared": Shared,
    "odd": Odd,
}
