"""What can be trained: real floating-point parameters with dense gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from samt.errors import LeftoverGradientsError, UnsupportedGradientError
from samt.shards import is_sharded


def state_dtype(parameter: Tensor) -> torch.dtype:
    """float32, or float64 for a float64 parameter: never less, whatever the model is kept in."""
    return torch.promote_types(parameter.dtype, torch.float32)


def refuse_unreal(group: dict[str, Any]) -> None:
    """Raise UnsupportedGradientError for a parameter of integers or complex numbers."""
    for parameter in group["params"]:
        if not parameter.is_floating_point():
            raise UnsupportedGradientError(
                f"block {group['name']!r} has a parameter of {parameter.dtype}: SAMT needs "
                "real floating-point parameters"
            )


def refuse_sparse(gradient: Tensor | None) -> None:
    """Raise UnsupportedGradientError for a sparse gradient."""
    if gradient is not None and gradient.layout != torch.strided:
        raise UnsupportedGradientError(
            "SAMT does not support sparse gradients: build the embedding with sparse=False"
        )


def refuse_sharded(group: dict[str, Any]) -> None:
    """Raise UnsupportedGradientError for a parameter of which every process has a part."""
    if any(map(is_sharded, group["params"])):
        raise UnsupportedGradientError(
            f"block {group['name']!r} has a parameter that fully_shard has spread over processes, "
            "whose modules cannot be evaluated block by block: use preset='auto', or "
            "DistributedDataParallel and process_group"
        )


def refuse_gradients(groups: Iterable[dict[str, Any]]) -> None:
    """Raise LeftoverGradientsError if a parameter has a gradient before a closure is evaluated."""
    if any(p.grad is not None for group in groups for p in group["params"]):
        raise LeftoverGradientsError(
            "there are gradients from outside the closure: call optimizer.zero_grad() before "
            "step, and accumulate over micro-batches inside the closure"
        )
