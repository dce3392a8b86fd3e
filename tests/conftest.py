"""Models and data that several test files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from .processes import World

torch.set_num_threads(1)  # the tensors are tiny, and two threads would only wait for each other

Batch = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(1234)


@pytest.fixture(scope="session")
def worlds() -> Iterator[Callable[[int], World]]:
    """From a number of ranks to as many processes, which start when they are first needed."""
    made: dict[int, World] = {}
    yield lambda size: made.setdefault(size, World(size))
    for world in made.values():
        world.stop()


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
INPUT_SIZES = {"mlp": 4, "convolutional": 16, "shared": 4}


def batch(model: str, seed: int, size: int = 8) -> Batch:
    """Random inputs with labels that depend on them."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, INPUT_SIZES[model], generator=generator, dtype=torch.float64)
    return inputs, inputs[:, :3].argmax(1)
