"""What a step knows of all tensors together, whichever device and precision they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from samt.auto.step import Arithmetic

# Eight sums over tensors: of ⟨g, s⟩, and of ‖g‖² and ‖s‖² in units of the scales; of the elements;
# of the products of ⟨g, s⟩ with what it was last, and of the squares of both; and of the squares
# of η √n ‖g‖, by which a tensor moves the loss.
Totals: TypeAlias = list[float] | Tensor
COUNT = 8


class Common(NamedTuple):
    """What all tensors share in a step.

    Attributes:
        cosine: cos(g, s) of all tensors.
        usual: the root mean square of the gradient, in units of the scales.
        turn: the cosine of the ⟨g, s⟩ of all tensors with those that they had last.
        effect: the root of the sum of (η √n ‖g‖)² over all tensors, with n elements each and η of
            the last step.
    """

    cosine: Any
    usual: Any
    turn: Any
    effect: Any


def common(totals: Sequence[Any], of: Arithmetic) -> Common:
    """What follows from the totals.

    Args:
        totals: the eight sums.
        of: the arithmetic of the sums, which are numbers or tensors.
    """
    dot, square, lag, count, product, dots, dots_before, effects = totals
    return Common(
        cosine=of.cosine(dot, square, lag),
        usual=of.sqrt(square / of.clamp(count, 1.0)),
        turn=of.cosine(product, dots, dots_before),
        effect=of.sqrt(effects),
    )


def sum_of(several: list[Totals]) -> Totals:
    """The sum of totals, some of which may lie on devices."""
    if len(several) == 1:
        return several[0]
    on_device = [totals for totals in several if isinstance(totals, Tensor)]
    on_host = [totals for totals in several if not isinstance(totals, Tensor)]
    found: Totals = list(map(sum, zip(*on_host, strict=True))) if on_host else [0.0] * COUNT
    for totals in on_device:
        like = on_device[0]
        found = sent_totals(found, like) + totals.to(like)
    return found


def sent_totals(totals: Totals, like: Tensor) -> Tensor:
    """Totals where a tensor lies, in its precision."""
    if isinstance(totals, Tensor):
        return totals.to(like.device, like.dtype, non_blocking=True)
    return sent(totals, like.dtype, like.device)


def sent(values: list[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of the host in a tensor on a device, without waiting for what the device does."""
    return torch.tensor(values, dtype=dtype, device="cpu").to(device, non_blocking=True)
