"""What people wrap a model in: `torch.compile` and `DistributedDataParallel`."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def inner_model(model: nn.Module) -> nn.Module:
    """The model inside, whose parameters have the names that its author gave them.

    Args:
        model: a network, or what `torch.compile` or `DistributedDataParallel` made of one.
    """
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def is_data_parallel(model: nn.Module) -> bool:
    """Whether there is a `DistributedDataParallel` around the model."""
    if isinstance(model, DistributedDataParallel):
        return True
    inner = getattr(model, "_orig_mod", None)
    return isinstance(inner, nn.Module) and is_data_parallel(inner)
