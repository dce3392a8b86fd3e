"""What the tests of unusual closures share: seeds, data, and two small networks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

LOSS = nn.functional.cross_entropy


def seeded() -> Iterator[None]:
    """Set the seed; afterwards, see that no step has left a switch of torch turned off."""
    torch.manual_seed(0)
    yield
    assert torch.backends.mha.get_fastpath_enabled()


def data(size: int = 32, width: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(size, width, generator=generator)
    return inputs, torch.randint(0, 3, (size,), generator=generator)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.dropout(torch.tanh(self.first(x)))))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
