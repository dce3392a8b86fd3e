"""What the factor lr of a group says about how much the group learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def learns(group: dict[str, Any]) -> float | Tensor:
    """How much of its usual lesson a group learns, from 0 to 1.

    Where lr is smaller than it was, or than the one that a scheduler of torch is warming up to,
    steps are small on purpose: as much less is learned, or else the learning would make up for it.

    Args:
        group: the param group.
    """
    if not group["learning"]:
        return 0.0
    rate, full = group["lr"], larger(group["largest_lr"], group.get("initial_lr", 0.0))
    if isinstance(full, Tensor):
        return (rate / full).nan_to_num(1.0, 1.0, 1.0)
    return rate / full if full > 0 else 1.0


def larger(one: float | Tensor, other: float | Tensor) -> float | Tensor:
    """The larger of two rates; a tensor if one of them is, and nobody looks at it here.

    Args:
        one: a rate, a number or a tensor of one element.
        other: another one.
    """
    if isinstance(one, Tensor):
        return (
            one.detach().clamp(min=other)
            if isinstance(other, float | int)
            else torch.maximum(one.detach(), other.detach().to(one))
        )
    return larger(other, one) if isinstance(other, Tensor) else max(one, other)
