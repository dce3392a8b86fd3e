"""What people wrap a model in: `torch.compile` and `DistributedDataParallel`."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def inner_model(model: nn.Module) -> nn.Module:
    """The model inside, whose parameters have the names that its author gave them.

    Args:
        model: a network, or what `torch.compile` or `DistributedDataParallel` made of one.
    """
    *_, inner = _from_outside(model)
    return inner


def is_data_parallel(model: nn.Module) -> bool:
    """Whether there is a `DistributedDataParallel` around the model."""
    return any(isinstance(one, DistributedDataParallel) for one in _from_outside(model))


def _from_outside(model: nn.Module) -> Iterator[nn.Module]:
    """The model, what it wraps, and so on."""
    inner: object = model
    while isinstance(inner, nn.Module):
        yield inner
        is_parallel = isinstance(inner, DistributedDataParallel)
        inner = inner.module if is_parallel else getattr(inner, "_orig_mod", None)
