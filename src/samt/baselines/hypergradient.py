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
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from samt.errors import OptionError, UnsupportedGradientError, explain_unknown_options, suggestion
from samt.finite import is_read_late, refuse_unless_finite
from samt.options import check_spelling

Tensors: TypeAlias = list[Tensor]
Group: TypeAlias = dict[str, Any]
State: TypeAlias = dict[str, Any]

RULES = ("additive", "multiplicative")


class HypergradientDescent(torch.optim.Optimizer, ABC):
    """What `SGDHD`, `SGDNesterovHD` and `AdamHD` share: learning α, one for each param group.

    `lr` of a group is the learned α, a tensor without dimensions on the group's device, which no
    step reads on the host; `float(group["lr"])` shows it. LR schedulers of torch write into it:
    those that multiply (ExponentialLR, StepLR, CosineAnnealingLR, ReduceLROnPlateau) anneal what
    was learned, those that assign (LambdaLR, OneCycleLR) replace it.

    A parameter without a gradient is neither moved nor part of the dot products of this step and
    the next. The α of the additive rule may become negative, as in the paper; that of the
    multiplicative one cannot while `hypergrad_lr` is below 1.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group with an α of its own.

        Args:
            param_group: `params`, and optionally any option.

        Raises:
            OptionError: an option has an impossible value.
            UnsupportedGradientError: a parameter is complex or not floating-point.
        """
        check_spelling(param_group, self.defaults)
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            for parameter in group["params"]:
                if not parameter.is_floating_point():
                    raise UnsupportedGradientError(
                        f"{type(self).__name__} needs real floating-point parameters, not "
                        f"{parameter.dtype}: give the others to another optimizer"
                    )
            if len({parameter.device for parameter in group["params"]}) > 1:
                raise OptionError("a group lies on several devices: make one group per device")
        except Exception:
            self.param_groups.pop()
            raise
        if isinstance(group["lr"], Tensor):
            group["lr"] = group["lr"].detach().clone()  # groups and caller do not share one
        _learned_lr(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Learn every group's α from its gradients, then step with it.

        Args:
            closure: as in torch: evaluates the loss once, with `zero_grad` and `backward`.

        Returns:
            What the closure returns.

        Raises:
            UnsupportedGradientError: a gradient is sparse; nothing was changed.
            NonFiniteLossError: a gradient or a learned α is NaN or infinite; nothing was changed.
                An accelerator is not waited for, and nothing is refused there.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if any(p.grad is not None and p.grad.layout != torch.strided for p in group["params"]):
                raise UnsupportedGradientError(
                    f"{type(self).__name__} does not support sparse gradients: build the "
                    "embedding with sparse=False"
                )
        for index, group in enumerate(self.param_groups):
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if gradients and not is_read_late(gradients[0].device):
                square = _squared_norm(gradients)
                _refuse("the squared norm of the gradient", square, group, index)
        learned = [self._prepared(group, index) for index, group in enumerate(self.param_groups)]
        for group, (gradients, lr) in zip(self.param_groups, learned, strict=True):
            group["calls"] = group.get("calls", 0) + 1
            self._step_group(group, gradients, lr)
        return loss

    def _prepared(self, group: Group, index: int) -> tuple[Tensors, Tensor]:
        """The gradients of the parameters that have one, weight decay included, and the new α."""
        parameters = [p for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not parameters:
            return [], _learned_lr(group)
        if group["weight_decay"] != 0:
            decay = group["weight_decay"]
            gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
        for parameter in parameters:
            self._complete(self.state[parameter], parameter, group)
        lr = _next_lr(group, gradients, [self.state[p]["previous_update"] for p in parameters])
        if not is_read_late(lr.device):
            _refuse("the learned lr", lr, group, index)
        return gradients, lr

    def _step_group(self, group: Group, gradients: Tensors, new_lr: Tensor) -> None:
        idle = [self.state[p] for p in group["params"] if p.grad is None and p in self.state]
        if idle:  # α does not act through a parameter that is not moved
            torch._foreach_zero_([state["previous_update"] for state in idle])
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        states = [self.state[p] for p in parameters]
        updates = [state["previous_update"] for state in states]
        lr = _learned_lr(group).copy_(new_lr)
        self._update(group, states, gradients, updates)
        weights = [p.to(lr.dtype) for p in parameters]  # themselves, but for low precision
        # Not alpha=-lr, which would read lr on the host; on a CPU it is what SGD computes.
        torch._foreach_addcmul_(weights, updates, [lr] * len(updates), value=-1)
        for parameter, weight in zip(parameters, weights, strict=True):
            if weight is not parameter:
                parameter.copy_(weight)

    def _complete(self, state: State, parameter: Tensor, group: Group) -> None:
        """Add what a parameter's state does not hold yet."""
        if "previous_update" not in state:
            state["previous_update"] = torch.zeros_like(parameter)

    @abstractmethod
    def _update(self, group: Group, states: list[State], g: Tensors, u: Tensors) -> None:
        """Write u_t over u_{t−1}, and bring the state up to date.

        Args:
            group: the options.
            states: of the parameters that have a gradient.
            g: g_t, weight decay included.
            u: what is written to.
        """


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

    @explain_unknown_options
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

    @explain_unknown_options
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

    @explain_unknown_options
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


def _squared_norm(gradients: Tensors) -> Tensor:
    dtype = torch.promote_types(gradients[0].dtype, torch.float32)  # a float16 norm overflows
    return torch.stack(list(torch._foreach_norm(gradients, dtype=dtype))).square().sum()


def _refuse(what: str, number: Tensor, group: Group, index: int) -> None:
    block, step = group.get("name", index), group.get("calls", 0)
    cure = "lower lr or hypergrad_lr, or look for bad values in the batch"
    refuse_unless_finite(number, what, block, step, cure)


def _next_lr(group: Group, gradients: Tensors, updates: Tensors) -> Tensor:
    """The group's α, after one step of its own by the rule."""
    lr, beta = _learned_lr(group), group["hypergrad_lr"]
    descent = _dot(gradients, updates, lr.dtype)  # −∂f/∂α
    if group["rule"] == "additive":
        return lr.add(descent, alpha=beta)
    lengths = _dot(gradients, gradients, lr.dtype).sqrt() * _dot(updates, updates, lr.dtype).sqrt()
    return lr.mul(1 + beta * torch.where(lengths > 0, descent / lengths, 0))


def _dot(ones: Tensors, others: Tensors, dtype: torch.dtype) -> Tensor:
    """Dot product of two lists of tensors, each taken as one vector."""
    products = [
        torch.dot(one.flatten().to(dtype), other.flatten().to(dtype))
        for one, other in zip(ones, others, strict=True)
    ]
    return torch.stack(products).sum()


def _learned_lr(group: Group) -> Tensor:
    """α where and as precise as the parameters need it, also after somebody has assigned `lr`."""
    lr, parameters = group["lr"], group["params"]
    device = parameters[0].device if parameters else torch.device("cpu")
    wide = any(parameter.dtype == torch.float64 for parameter in parameters)
    dtype = torch.float64 if wide else torch.float32
    if isinstance(lr, Tensor):
        group["lr"] = lr.detach().to(device, dtype).reshape(())
    else:
        group["lr"] = torch.full((), lr, device=device, dtype=dtype)
    return group["lr"]


def _check(group: Group) -> None:
    """Raise OptionError for an option with an impossible value."""
    for name in ("lr", "hypergrad_lr", "weight_decay", "eps"):
        value = group.get(name, 0)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if not (_is_number(value) and 0 <= value < math.inf):
            raise OptionError(f"{name} must be a finite number, 0 or more, not {value!r}")
    betas = group.get("betas", (0, 0))
    if not (isinstance(betas, tuple | list) and len(betas) == 2 and all(map(_is_share, betas))):
        raise OptionError(f"betas must be two numbers, at least 0 and below 1, not {betas!r}")
    if not _is_share(group.get("momentum", 0)):
        raise OptionError(f"momentum must be at least 0 and below 1, not {group['momentum']!r}")
    if group["rule"] not in RULES:
        cure = suggestion(str(group["rule"]), RULES)
        raise OptionError(f"unknown rule {group['rule']!r}: {cure}")


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
