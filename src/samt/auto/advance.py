"""How a step of AutoSAMT moves tensors.

They are moved by torch's fused kernel in host memory, without memory for what is between, and by
`torch._foreach` functions elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Moved:
    """The tensors that a step moves, in lists of one length.

    Attributes:
        weights: y.
        gradients: g.
        squares: v.
        leads: q, the way from the x before to z.
        lags: s, the average of the ways q.
    """

    weights: list[Tensor]
    gradients: list[Tensor]
    squares: list[Tensor]
    leads: list[Tensor]
    lags: list[Tensor]

    def some(self, indices: Sequence[int]) -> Moved:
        """Some of the tensors."""
        lists = (self.weights, self.gradients, self.squares, self.leads, self.lags)
        return Moved(*([tensors[i] for i in indices] for tensors in lists))

    def are_fusible(self) -> bool:
        """Whether torch's fused kernel is right: it checks nothing and walks along all in step."""
        return all(
            y.dtype == g.dtype == v.dtype
            # v has no gaps, so that none has them.
            and y.stride() == g.stride() == v.stride() == q.stride()
            for y, g, v, q in zip(
                self.weights, self.gradients, self.squares, self.leads, strict=True
            )
        )


@dataclass
class Amounts:
    """By how much tensors move that are at the same step and have the same β and β₂.

    All are numbers on the host, and tensors of one element on a device.

    Attributes:
        eta: η of each tensor, 0 if nothing is to change.
        eps: what is added to the root of v, for each tensor.
        parts: the part of each gradient that is left, 1 but for outliers.
        weight_decay: λ′ of each tensor; None where there is no decay.
        correction: 1 − β₂^k.
        lag_weight: the weight of q in the lag.
        weight: c of this step.
        ahead: (1 − β)(1 − c) of this step.
        weight_before: c of the step before.
        ahead_before: (1 − β)(1 − c) of the step before.
        decay: 1 − β₂.
        counts: k of each tensor, in float32 tensors in host memory; None on a device.
        fine: 1, or 0 if nothing is to change; None where that is known.
    """

    eta: list[Any]
    eps: list[Any]
    parts: list[Any]
    weight_decay: list[Any] | None
    correction: Any
    lag_weight: Any
    weight: Any
    ahead: Any
    weight_before: Any
    ahead_before: Any
    decay: Any
    counts: list[Tensor] | None
    fine: Tensor | None


def advance(moved: Moved, by: Amounts) -> None:
    """One step of some tensors, in place.

        g ← part · g
        v ← β₂ v + (1 − β₂) g²,   d = g / (√(v / (1 − β₂^k)) + ε)
        x = y − ahead q                       the x of the step before
        q ← (1 − c) q − η (d + λ′ y)          from there to the new z; c is of the step before
        s ← s + w (q − s)                     along x − x̄, up to a positive factor
        y = x + (c + ahead) q                 with c and ahead of this step

    Args:
        moved: the tensors.
        by: the amounts.
    """
    if by.counts is not None and by.fine is None and moved.are_fusible():
        for index in range(len(moved.weights)):
            _advance_fused(index, moved, by)
        return
    g, v, q, s = moved.gradients, moved.squares, moved.leads, moved.lags
    fine = 1 if by.fine is None else by.fine  # every factor below is then 1, every summand 0
    g = list(torch._foreach_mul(g, by.parts))
    squares = torch._foreach_mul(g, g)
    torch._foreach_mul_(squares, by.decay * fine)
    torch._foreach_mul_(v, 1 - by.decay * fine)
    torch._foreach_add_(v, squares)
    roots = torch._foreach_div(v, by.correction)
    torch._foreach_sqrt_(roots)
    torch._foreach_add_(roots, by.eps)
    d = torch._foreach_div(g, roots)
    if by.weight_decay is not None:
        torch._foreach_add_(d, torch._foreach_mul(moved.weights, by.weight_decay))
    torch._foreach_mul_(d, by.eta)
    # y moves by the difference of two small things, and not through x.
    back = torch._foreach_mul(q, by.ahead_before * fine)
    torch._foreach_mul_(q, 1 - by.weight_before * fine)
    torch._foreach_sub_(q, d)
    torch._foreach_mul_(s, 1 - by.lag_weight * fine)
    torch._foreach_add_(s, torch._foreach_mul(q, by.lag_weight * fine))
    way = torch._foreach_mul(q, (by.weight + by.ahead) * fine)
    torch._foreach_sub_(way, back)
    torch._foreach_add_(moved.weights, way)


def _advance_fused(i: int, moved: Moved, by: Amounts) -> None:
    """The same of one tensor, without memory for what is between, which a host is slow to give.

    Adam's kernel without a first moment moves what it takes for weights, here q, by −η d, and its
    weight decay takes c of q off.
    """
    assert by.counts is not None
    y, g, q = moved.weights[i], moved.gradients[i], moved.leads[i]
    if by.parts[i] < 1:
        g = g * by.parts[i]
    eta, ahead, left = by.eta[i], by.ahead_before, 1 - by.weight_before
    y.add_(q, alpha=-ahead)
    part = 0.0 if by.weight_decay is None else eta * by.weight_decay[i]
    left -= part * ahead  # y is x + ahead q
    if not eta:
        q.mul_(left)
    torch._fused_adamw_(
        *([q], [g], [g], [moved.squares[i]], [], [by.counts[i]]),
        lr=eta,
        beta1=0.0,
        beta2=1 - by.decay,
        weight_decay=(1 - left) / eta if eta else 0.0,
        eps=by.eps[i],
        amsgrad=False,
        maximize=False,
    )
    if part:
        q.add_(y, alpha=-part)
    moved.lags[i].lerp_(q, by.lag_weight)
    y.add_(q, alpha=by.weight + by.ahead)


def without_faults(gradients: list[Tensor], fine: Tensor) -> list[Tensor]:
    """The gradients, or zeros if something is not finite, without a look at the device.

    Args:
        gradients: the gradients.
        fine: one bool on their device: whether everything is finite.
    """
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    flat.masked_fill_(~fine, 0)
    parts = flat.split([gradient.numel() for gradient in gradients])
    return [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)]
