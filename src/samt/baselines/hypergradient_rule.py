"""The step size α of hypergradient descent: what it is, and one step of its own."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

Tensors: TypeAlias = list[Tensor]
Group: TypeAlias = dict[str, Any]

RULES = ("additive", "multiplicative")


def next_lr(group: Group, gradients: Tensors, updates: Tensors) -> Tensor:
    """The group's α, after one step of its own by the rule.

    Args:
        group: its options.
        gradients: g_t, weight decay included.
        updates: u_{t−1} of the same parameters.
    """
    lr, beta = learned_lr(group), group["hypergrad_lr"]
    descent = _dot(gradients, updates, lr.dtype)  # −∂f/∂α
    if group["rule"] == "additive":
        return lr.add(descent, alpha=beta)
    squares = [_dot(tensors, tensors, lr.dtype) for tensors in (gradients, updates)]
    limits = torch.finfo(lr.dtype)
    # Below, the squares are rounded to nothing, and what is left of them is no direction.
    lasting = torch.minimum(*squares) > limits.tiny / limits.eps
    lengths = squares[0].sqrt() * squares[1].sqrt()
    overflow = lengths - lengths  # is 0, or NaN, so that no infinite length makes a cosine of 0
    return lr.mul(1 + beta * torch.where(lasting, (descent + overflow) / lengths, 0))


def learned_lr(group: Group) -> Tensor:
    """α where and as precise as the parameters need it, also after somebody has assigned `lr`.

    Args:
        group: whose `lr` becomes that tensor.
    """
    lr, parameters = group["lr"], group["params"]
    device = parameters[0].device if parameters else torch.device("cpu")
    wide = any(parameter.dtype == torch.float64 for parameter in parameters)
    dtype = torch.float64 if wide else torch.float32
    if isinstance(lr, Tensor):
        group["lr"] = lr.detach().to(device, dtype).reshape(())
    else:
        group["lr"] = torch.full((), lr, device=device, dtype=dtype)
    return group["lr"]


def squared_norm(gradients: Tensors) -> Tensor:
    """‖g‖² of a list of tensors, taken as one vector.

    Args:
        gradients: at least one.
    """
    dtype = torch.promote_types(gradients[0].dtype, torch.float32)  # a float16 norm overflows
    return torch.stack(list(torch._foreach_norm(gradients, dtype=dtype))).square().sum()


def _dot(ones: Tensors, others: Tensors, dtype: torch.dtype) -> Tensor:
    """Dot product of two lists of tensors, each taken as one vector."""
    products = [
        torch.dot(one.flatten().to(dtype), other.flatten().to(dtype))
        for one, other in zip(ones, others, strict=True)
    ]
    return torch.stack(products).sum()
