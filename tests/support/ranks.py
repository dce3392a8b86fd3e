"""What each process of a data-parallel training does."""

from __future__ import annotations

import torch
from torch import nn

from .batches import Batch

LOSS = nn.functional.cross_entropy


def part(data: Batch, rank: int, size: int) -> Batch:
    """A rank's samples: it takes every size-th pair of two.

    Every second sample of its part is then every second sample of the whole batch, as the
    meta batch `subset` wants it.
    """
    pairs = torch.arange(len(data[0])).view(-1, 2)[rank::size].flatten()
    return data[0][pairs], data[1][pairs]
