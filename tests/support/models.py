"""Models that several test files train."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def mlp() -> nn.Module:
    """4-6-5-3, float64."""
    return nn.Sequential(
        nn.Linear(4, 6), nn.LeakyReLU(), nn.Linear(6, 5), nn.LeakyReLU(), nn.Linear(5, 3)
    ).double()


class Convolutional(nn.Module):
    """Convolution, batch norm, pooling, dropout, linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.4)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.convolution(x.view(-1, 1, 4, 4)))
        x = nn.functional.max_pool2d(nn.functional.leaky_relu(x), 2)
        return self.head(self.dropout(x.flatten(1)))


class Shared(nn.Module):
    """One module used twice, a residual connection, and a parameter that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.shared = nn.Linear(5, 5)
        self.last = nn.Linear(5, 3)
        self.unused = nn.Parameter(torch.ones(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + torch.tanh(self.shared(torch.tanh(self.shared(x))))
        return self.last(x)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "convolutional": lambda: Convolutional().double(),
    "shared": lambda: Shared().double(),
}


class TwoRoutes(nn.Module):
    """One route of two, chosen by hand; in each, something that evaluation changes."""

    def __init__(self) -> None:
        super().__init__()
        self.routes = nn.ModuleList([nn.Linear(4, 6), nn.Linear(4, 6)])
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(0.3)
        self.last = nn.Linear(6, 3)
        self.route = 1

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.norm(self.routes[self.route](x)))
        return self.last(hidden)


def with_layer(layer: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), layer, nn.Dropout(0.3), nn.Linear(6, 3)
    ).double()
