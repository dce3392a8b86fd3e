"""What people wrap a model in: `torch.compile` and `DistributedDataParallel`."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside, whose parameters have the names that its author gave them.

    Args:
        model: a network, or what `torch.compile` or `DistributedDataParallel` made of one.

    Examples:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> unwrapped(torch.compile(model)) is model
        True
    """
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model
