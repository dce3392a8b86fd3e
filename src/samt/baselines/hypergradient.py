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

from samt.baselines.hypergradient_base import HypergradientDescent, State
from samt.baselines.hypergradient_rule import Group, Tensors, squared_norm


class SGDHD(HypergradientDescent):
    """SGD with hypergradient descent (SGD-HD of Baydin et al. 2018).

    Without momentum u = g; with it u = m, m ← momentum · m + g, as in `torch.optim.SGD`, which
    `hypergrad_lr=0` is.

    Args:
        params: parameters or param groups; each group learns an α of its own.
        lr: initial α.
        hypergrad_lr: β. With the additive rule the step in α grows with ‖g‖²: the paper uses
            1e-3 for networks with cross-entropy; losses with large gradients need far less.
        rule: `additive`, or `multiplicative`, in which β does not depend on the loss's scale.
        momentum: factor of the momentum, 0 for none.
        weight_decay: L2 penalty, added to the gradient, in the dot product too.

    Raises:
        OptionError: an option has an impossible value.

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

    def _complete(self, state: State, parameter: Tensor, group: Group) -> None:
        super()._complete(state, parameter, group)
        if group["momentum"] != 0 and "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)

    def _bounds(self, group: Group, states: list[State], length: float) -> tuple[float, float]:
        known = group["momentum"] * _length(states, "momentum_buffer") if group["momentum"] else 0
        return known + length, known + 2 * length  # Nesterov's u has g twice

    def _update(self, group: Group, states: list[State], g: Tensors, u: Tensors) -> None:
        if group["momentum"] == 0:
            torch._foreach_copy_(u, g)
            return
        m = [state["momentum_buffer"] for state in states]
        torch._foreach_mul_(m, group["momentum"])
        torch._foreach_add_(m, g)
        self._direction(group, g, m, u)

    def _direction(self, group: Group, g: Tensors, m: Tensors, u: Tensors) -> None:
        """u from the momentum m."""
        torch._foreach_copy_(u, m)


class SGDNesterovHD(SGDHD):
    """SGD with Nesterov momentum and hypergradient descent (SGDN-HD of Baydin et al. 2018).

    u = g + momentum · m with m ← momentum · m + g: `torch.optim.SGD(nesterov=True)`, which
    `hypergrad_lr=0` is.

    Args:
        params: parameters or param groups; each group learns an α of its own.
        lr: initial α.
        hypergrad_lr: β, as in `SGDHD`.
        rule: `additive` or `multiplicative`.
        momentum: factor of the momentum.
        weight_decay: L2 penalty, added to the gradient.

    Raises:
        OptionError: an option has an impossible value.

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

    u = m̂ / (√v̂ + eps) with the bias-corrected moments of `torch.optim.Adam`, which
    `hypergrad_lr=0` is, to rounding. One buffer more than Adam: u lives where Adam has a
    temporary.

    Args:
        params: parameters or param groups; each group learns an α of its own.
        lr: initial α.
        hypergrad_lr: β; the paper uses 1e-7 for MLPs and 1e-8 for VGG.
        rule: `additive` or `multiplicative`.
        betas: decay of the first and of the second moment.
        eps: added to √v̂.
        weight_decay: L2 penalty, added to the gradient, in the dot product too.

    Raises:
        OptionError: an option has an impossible value.

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

    def _complete(self, state: State, parameter: Tensor, group: Group) -> None:
        super()._complete(state, parameter, group)
        if "step" not in state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)

    def _bounds(self, group: Group, states: list[State], length: float) -> tuple[float, float]:
        moment = _length(states, "exp_avg") + length
        smallest = group["eps"] * (1 - group["betas"][0])  # u's denominator, where v is zero
        return moment, moment / smallest if smallest else math.inf

    def _update(self, group: Group, states: list[State], g: Tensors, u: Tensors) -> None:
        beta1, beta2 = group["betas"]
        for state in states:
            state["step"] += 1
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


def _length(states: list[State], moment: str) -> float:
    """Of a moment, of as many tensors as have one."""
    known = [state[moment] for state in states if moment in state]
    return math.sqrt(squared_norm(known)) if known else 0.0
