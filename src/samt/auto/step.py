"""The mathematics of AutoSAMT: what is learned, and what moves, of many tensors at once.

Everything that somebody may want to change about the method stands in this file, and its twin in
`samt.reference.auto_samt`. Two things are said twice. The numbers of a tensor are Python numbers
in host memory and vectors on an accelerator, at which nobody looks; and tensors in host memory are
moved by torch's fused kernel, without memory for what is between. There, too, a step may have to be
skipped without a look: `fine` is then 1 or 0 on the device, and 0 leaves every tensor as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

START = 0.02  # the step of a tensor at first, in parts of its scale
WARMUP = 20  # steps over which the step grows to its full size
POWER = 2  # the averaging weight of step k is k to this power
MEMORY = 0.98  # the decay of the lag, for one step
LESSON, EARLY_LESSON, EARLY = 0.02, 0.3, 60  # how fast m is learned, at the end and at first
FIRST_LESSON = 3  # before this step the average has gone nowhere
BOUND = 9.0  # of m


class Learned(NamedTuple):
    """What is learned and counted, of one tensor in Python numbers or of many in vectors.

    Attributes:
        log_step: m, the logarithm of the step size.
        weight_sum: the sum of the averaging weights.
        weight: c, the weight of the newest z in the average x.
        eta: η, the step along d.
    """

    log_step: float
    weight_sum: float
    weight: float
    eta: float


def learn(
    k: float, log_step: float, weight_sum: float, scale: float, cosine: float, learns: bool
) -> Learned:
    """The numbers of one tensor in its next step.

    Args:
        k: the number of the step, from 1.
        log_step: m before this step.
        weight_sum: the sum of the averaging weights before this step.
        scale: lr times the scale of the tensor.
        cosine: cos(g, s).
        learns: whether m is learned.
    """
    warm = min(1.0, k / WARMUP)
    if learns and k >= FIRST_LESSON:
        lesson = LESSON + EARLY_LESSON * math.exp(-k / EARLY)
        log_step = max(-BOUND, min(BOUND, log_step - lesson * cosine))
    weight = k**POWER * warm**2
    weight_sum += weight
    return Learned(log_step, weight_sum, weight / weight_sum, eta_of(k, log_step, scale))


def eta_of(k: float, log_step: float, scale: float) -> float:
    """η of one tensor; arguments as of `learn`."""
    return START * min(1.0, k / WARMUP) * scale * math.exp(log_step)


class LearnedVectors(NamedTuple):
    """`Learned` of many tensors, and the number of their step."""

    step: Tensor
    log_step: Tensor
    weight_sum: Tensor
    weight: Tensor
    eta: Tensor


def learn_on_device(
    step: Tensor,
    log_step: Tensor,
    weight_sum: Tensor,
    scale: Tensor,
    cosine: Tensor,
    learns: Tensor,
    fine: Tensor,
) -> LearnedVectors:
    """The same as `learn`, in vectors with one entry for each tensor.

    Args:
        step: the number of steps before this one.
        log_step: m before this step.
        weight_sum: the sum of the averaging weights before this step.
        scale: lr times the scale of each tensor.
        cosine: cos(g, s).
        learns: 1 where m is learned, 0 where it is not.
        fine: 1, or 0 if nothing is to change.
    """
    count = step + fine
    k = count.to(log_step.dtype).clamp_min(1)
    lesson = (LESSON + EARLY_LESSON * (k / -EARLY).exp()) * (k >= FIRST_LESSON)
    learned = (log_step - lesson * cosine * learns * fine).clamp(-BOUND, BOUND)
    weight = k**POWER * (k / WARMUP).clamp_max(1.0) ** 2 * fine
    total = weight_sum + weight
    weight /= total.clamp_min(1e-30)
    return LearnedVectors(count, learned, total, weight, eta_on_device(k, learned, scale))


def eta_on_device(k: Tensor, log_step: Tensor, scale: Tensor) -> Tensor:
    """η of many tensors; arguments as of `learn`, in vectors."""
    return START * (k / WARMUP).clamp_max(1.0) * scale * log_step.exp()


@dataclass
class Moved:
    """The tensors that a step moves, in lists of one length.

    Attributes:
        weights: y.
        gradients: g.
        squares: v.
        leads: u = z − x.
        lags: s = x − x̄.
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
            and y.stride() == g.stride() == v.stride() == u.stride()
            for y, g, v, u in zip(
                self.weights, self.gradients, self.squares, self.leads, strict=True
            )
        )


@dataclass
class Numbers:
    """The numbers of a step of some tensors that have the same options and the same count.

    Attributes:
        beta: β, the weight of x in y.
        beta_before: β of the step before.
        beta2: the decay of v.
        eps: what is added to the root of v.
        weight_decay: λ.
        etas: η of each tensor.
        weight: c.
        correction: 1 − β₂^k.
        fine: 1 or 0 on a device; None where the step is taken in any case.
        counts: k of each tensor, in float32 tensors in host memory; None on a device.
    """

    beta: float
    beta_before: float
    beta2: float
    eps: float
    weight_decay: float
    etas: list[float] | list[Tensor]
    weight: float | Tensor
    correction: float | Tensor
    fine: Tensor | None
    counts: list[Tensor] | None


def advance(moved: Moved, by: Numbers) -> None:
    """One step of some tensors, in place.

        v ← β₂ v + (1 − β₂) g²,  d = g / (√(v / (1 − β₂^k)) + ε) + λ y
        q = u − η d,  x ← x + c q,  u ← (1 − c) q,  s ← MEMORY (s + c q),  y = x + (1 − β) u

    q is the way from x to the new z. The parameters hold y, so that x is y − (1 − β) u.

    Args:
        moved: the tensors.
        by: the numbers.
    """
    if by.counts is not None and by.fine is None and moved.are_fusible():
        _advance_fused(moved, by)
        return
    u, c, toward = moved.leads, by.weight, 1 - by.beta
    d = _directions(moved, by)
    torch._foreach_mul_(d, by.etas)
    q = torch._foreach_sub(u, d)
    # y moves by the difference of two small things, and not through x, so that a skipped step
    # leaves it as it is.
    way = torch._foreach_mul(q, c + toward * (1 - c))
    torch._foreach_add_(way, u, alpha=by.beta_before - 1)
    if by.fine is not None:
        torch._foreach_mul_(way, by.fine)
    torch._foreach_add_(moved.weights, way)
    of_x = torch._foreach_mul(q, c)
    torch._foreach_add_(moved.lags, of_x)
    torch._foreach_mul_(moved.lags, MEMORY if by.fine is None else 1 - (1 - MEMORY) * by.fine)
    torch._foreach_sub_(q, of_x)
    torch._foreach_copy_(u, q)


def _directions(moved: Moved, by: Numbers) -> list[Tensor]:
    """d of every tensor, after v took the gradient."""
    g, v = moved.gradients, moved.squares
    if by.fine is None:
        torch._foreach_mul_(v, by.beta2)
        torch._foreach_addcmul_(v, g, g, 1 - by.beta2)
    else:
        new = by.fine * (1 - by.beta2)
        squares = torch._foreach_mul(g, g)
        torch._foreach_mul_(squares, new)
        torch._foreach_mul_(v, 1 - new)
        torch._foreach_add_(v, squares)
    roots = torch._foreach_div(v, by.correction)
    torch._foreach_sqrt_(roots)
    torch._foreach_add_(roots, by.eps)
    d = torch._foreach_div(g, roots)
    if by.weight_decay:
        torch._foreach_add_(d, moved.weights, alpha=by.weight_decay)
        if by.fine is not None:
            torch._foreach_mul_(d, by.fine)
    return list(d)


def _advance_fused(moved: Moved, by: Numbers) -> None:
    """The same without a tensor for what is between, which the host is slow to give memory for.

    Adam's kernel without a first moment moves what it takes for weights by −η d: here u, which
    becomes q.
    """
    assert isinstance(by.weight, float)
    y, u, s, c = moved.weights, moved.leads, moved.lags, by.weight
    before, toward = 1 - by.beta_before, 1 - by.beta
    torch._foreach_add_(y, u, alpha=-before)  # x
    lists = (moved.gradients, moved.squares, by.counts, by.etas)
    for x, own, g, v, count, eta in zip(y, u, *lists, strict=True):  # type: ignore[arg-type]
        if by.weight_decay:  # u −= η λ y
            part = eta * by.weight_decay
            own.mul_(1 - part * before).add_(x, alpha=-part)
        torch._fused_adamw_(
            *([own], [g], [g], [v], [], [count]),
            lr=eta,
            beta1=0.0,
            beta2=by.beta2,
            weight_decay=0.0,
            eps=by.eps,
            amsgrad=False,
            maximize=False,
        )
    torch._foreach_mul_(s, MEMORY)
    torch._foreach_add_(s, u, alpha=MEMORY * c)
    torch._foreach_add_(y, u, alpha=c + toward * (1 - c))
    torch._foreach_mul_(u, 1 - c)
