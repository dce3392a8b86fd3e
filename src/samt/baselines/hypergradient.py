"""Hypergradient descent: the step size learned by gradient descent while training goes on.

Baydin, Cornish, Martínez Rubio, Schmidt, Wood: Online Learning Rate Adaptation with
Hypergradient Descent, ICLR 2018. With θ_t = θ_{t−1} − α u_{t−1}, u the update direction, the loss
at θ_t has the derivative −⟨g_t, u_{t−1}⟩ with respect to α, so that one dot product with the
previous update is all that learning α takes:

    additive         α ← α + β ⟨g_t, u_{t−1}⟩
    multiplicative   α ← α (1 + β ⟨g_t, u_{t−1}⟩ / (‖g_t‖ ‖u_{t−1}‖))
    then             θ ← θ − α u_t

The authors' own Adam increments α inside the loop over the parameters: tensor k is stepped with
the dot products of the tensors 1 to k alone, so that the result depends on their order. Here α is
complete before anything is stepped, as in the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from samt.baselines.hypergradient_base import (
    SHARED_OPTIONS,
    Group,
    HypergradientDescent,
    State,
    Tensors,
)
from samt.options import BETAS, NOT_NEGATIVE, SHARE, Options, only

_SGD_OPTIONS: Options = {**SHARED_OPTIONS, "momentum": SHARE}
_ADAM_OPTIONS: Options = {**SHARED_OPTIONS, "betas": BETAS, "eps": NOT_NEGATIVE}


class SGDHD(HypergradientDescent):
    """SGD with hypergradient descent (SGD-HD of Baydin et al. 2018).

    Without momentum u = g. With momentum u = m and m ← momentum · m + g, as in
    `torch.optim.SGD`: `hypergrad_lr=0` makes the two optimizers equal.

    Args:
        params: the parameters or param groups; each group learns an α of its own.
        lr: the initial α, a number or a tensor of one element (default 0.001).
        hypergrad_lr: β, the step size with which α is learned (default 0.001). With the additive
            rule the step in α grows with ‖g‖²: the paper uses 1e-3 for networks with
            cross-entropy; losses with large gradients need far less.
        rule: the rule by which α is learned: `additive` (default), or `multiplicative`, in which
            β does not depend on the scale of the loss.
        momentum: the factor of the momentum, at least 0 and below 1 (default 0: no momentum).
        weight_decay: the factor of the L2 penalty, which is added to the gradient and so counts
            in the dot product too (default 0).

    Raises:
        SAMTError: an option is unknown or has an impossible value.

    Examples:
        >>> import torch
        >>> from samt.baselines import SGDHD
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = SGDHD([weight], lr=0.1, hypergrad_lr=0.01)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     (weight**2).sum().backward()
        ...     optimizer.step()
        >>> optimizer.param_groups[0]["lr"]  # 0.1 + 0.01 · 1.6 · 2
        tensor(0.1320)
    """

    options = _SGD_OPTIONS
    switched = ("momentum_buffer",)

    @only("params", *_SGD_OPTIONS)
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        hypergrad_lr: float = 1e-3,
        *,
        rule: str = "additive",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "hypergrad_lr": hypergrad_lr,
            "rule": rule,
            "momentum": momentum,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    def _moments(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] != 0 else ()

    def _update(self, group: Group, states: list[State], g: Tensors, u: Tensors) -> None:
        if group["momentum"] == 0:
            torch._foreach_copy_(u, g)
            return
        m = [state["momentum_buffer"] for state in states]
        torch._foreach_mul_(m, group["momentum"])
        torch._foreach_add_(m, g)
        self._direction(group, g, m, u)

    def _direction(self, group: Group, g: Tensors, m: Tensors, u: Tensors) -> None:
        """Write u, made from the momentum m."""
        torch._foreach_copy_(u, m)


class SGDNesterovHD(SGDHD):
    """SGD with Nesterov momentum and hypergradient descent (SGDN-HD of Baydin et al. 2018).

    Here u = g + momentum · m and m ← momentum · m + g, as in `torch.optim.SGD(nesterov=True)`:
    `hypergrad_lr=0` makes the two optimizers equal.

    Args:
        params: the parameters or param groups; each group learns an α of its own.
        lr: the initial α, a number or a tensor of one element (default 0.001).
        hypergrad_lr: β, the step size with which α is learned (default 0.001); `SGDHD` says how
            large it may be.
        rule: the rule by which α is learned: `additive` (default), or `multiplicative`, in which
            β does not depend on the scale of the loss.
        momentum: the factor of the momentum, at least 0 and below 1 (default 0.9).
        weight_decay: the factor of the L2 penalty, which is added to the gradient and so counts
            in the dot product too (default 0).

    Raises:
        SAMTError: an option is unknown or has an impossible value.

    Examples:
        >>> import torch
        >>> from samt.baselines import SGDNesterovHD
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = SGDNesterovHD([weight], lr=0.1, momentum=0.5)
        >>> (weight**2).sum().backward()
        >>> optimizer.step()
        >>> weight.data  # 1 − 0.1 · (2 + 0.5 · 2)
        tensor([0.7000])
    """

    @only("params", *_SGD_OPTIONS)
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        hypergrad_lr: float = 1e-3,
        *,
        rule: str = "additive",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, lr, hypergrad_lr, rule=rule, momentum=momentum, weight_decay=weight_decay
        )

    def _direction(self, group: Group, g: Tensors, m: Tensors, u: Tensors) -> None:
        torch._foreach_copy_(u, g)
        torch._foreach_add_(u, m, alpha=group["momentum"])


class AdamHD(HypergradientDescent):
    """Adam with hypergradient descent (Adam-HD of Baydin et al. 2018).

    Here u = m̂ / (√v̂ + eps) with the bias-corrected moments of `torch.optim.Adam`:
    `hypergrad_lr=0` makes the two optimizers equal, up to rounding. There is one buffer more than
    in Adam, because u is kept for the next step. An element of the gradient whose square
    overflows stops its weight.

    Args:
        params: the parameters or param groups; each group learns an α of its own.
        lr: the initial α, a number or a tensor of one element (default 0.001).
        hypergrad_lr: β, the step size with which α is learned (default 1e-7); the paper uses 1e-7
            for MLPs and 1e-8 for VGG.
        rule: the rule by which α is learned: `additive` (default), or `multiplicative`, in which
            β does not depend on the scale of the loss.
        betas: the decay factors of the first and of the second moment, each at least 0 and
            below 1 (default (0.9, 0.999)).
        eps: the number that is added to √v̂, 0 or more (default 1e-8). With 0 a weight whose
            gradients have all been zero becomes NaN, as in torch.
        weight_decay: the factor of the L2 penalty, which is added to the gradient and so counts
            in the dot product too (default 0).

    Raises:
        SAMTError: an option is unknown or has an impossible value.

    Examples:
        >>> import torch
        >>> from samt.baselines import AdamHD
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdamHD([weight], lr=0.1)
        >>> (weight**2).sum().backward()
        >>> optimizer.step()
        >>> weight.data
        tensor([0.9000])
    """

    options = _ADAM_OPTIONS
    counters = ("step",)

    @only("params", *_ADAM_OPTIONS)
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        hypergrad_lr: float = 1e-7,
        *,
        rule: str = "additive",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "hypergrad_lr": hypergrad_lr,
            "rule": rule,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    def _moments(self, group: Group) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    def _update(self, group: Group, states: list[State], g: Tensors, u: Tensors) -> None:
        beta1, beta2 = group["betas"]
        for state in states:
            state["step"] = int(state.get("step", 0)) + 1
        m = [state["exp_avg"] for state in states]
        v = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(m, g, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        # u = m / (√v · c₁/√c₂ + eps · c₁), c the bias corrections, without a temporary.
        corrections1 = [1 - beta1 ** state["step"] for state in states]
        corrections2 = [1 - beta2 ** state["step"] for state in states]
        ratios = [a / math.sqrt(b) for a, b in zip(corrections1, corrections2, strict=True)]
        torch._foreach_copy_(u, v)
        torch._foreach_sqrt_(u)
        torch._foreach_mul_(u, ratios)
        torch._foreach_add_(u, [group["eps"] * correction for correction in corrections1])
        torch._foreach_reciprocal_(u)
        torch._foreach_mul_(u, m)
