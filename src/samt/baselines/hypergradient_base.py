"""What the methods of hypergradient descent share: learning α, and refusing what overflows."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from samt.auto.finite import is_read_late
from samt.baselines.hypergradient_rule import (
    RULES,
    Group,
    Tensors,
    learned_lr,
    next_lr,
    squared_norm,
)
from samt.errors import OptionError, UnsupportedGradientError, suggestion
from samt.tensors.finite import refuse_unless_finite

State: TypeAlias = dict[str, Any]


class _Prepared(NamedTuple):
    """A step on a group."""

    gradients: Tensors  # of the parameters that have one, weight decay included
    lr: Tensor  # the new α
    cannot_overflow: bool = True  # or nobody looks


class HypergradientDescent(torch.optim.Optimizer, ABC):
    """What `SGDHD`, `SGDNesterovHD` and `AdamHD` share: learning α, one for each param group.

    `lr` of a group is the learned α, a tensor without dimensions on the group's device, which no
    step reads on the host; `float(group["lr"])` shows it. LR schedulers of torch write into it:
    those that multiply (ExponentialLR, StepLR, CosineAnnealingLR, ReduceLROnPlateau) anneal what
    was learned, those that assign (LambdaLR, OneCycleLR) replace it.

    What the multiplicative rule learns from is a cosine. Where ‖g‖ or ‖u‖ is so short that its
    square vanishes (3e-16 in float32), there is none, and α stays.

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
        learned_lr(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Learn every group's α from its gradients, then step with it.

        Args:
            closure: as in torch: evaluates the loss once, with `zero_grad` and `backward`.

        Returns:
            What the closure returns.

        Raises:
            UnsupportedGradientError: a gradient is sparse; nothing was changed.
            NonFiniteLossError: a gradient, a learned α, or a weight or moment that the step would
                make is NaN or infinite; nothing was changed. An accelerator is not waited for,
                and to take a step back there would be another pass over memory: nothing is
                refused, and as in torch.optim such numbers go on into weights and state. With
                `AdamHD` an element of the gradient whose square overflows stops its weight.
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
        prepared = [self._prepared(group, index) for index, group in enumerate(self.param_groups)]
        if all(ready.cannot_overflow for ready in prepared):
            self._step_groups(prepared)
        else:
            self._step_groups_or_take_back(prepared)
        return loss

    def _prepared(self, group: Group, index: int) -> _Prepared:
        """What a step on a group needs; nothing of the group has changed yet."""
        parameters = [p for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not parameters:
            return _Prepared([], learned_lr(group))
        if group["weight_decay"] != 0:
            decay = group["weight_decay"]
            gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
        late = is_read_late(gradients[0].device)
        square = math.nan if late else float(squared_norm(gradients))
        if not late:
            _refuse("the squared norm of the gradient", square, group, index)
        states = [self.state.get(p, {}) for p in parameters]
        known = [
            state["previous_update"] if "previous_update" in state else torch.zeros_like(p)
            for state, p in zip(states, parameters, strict=True)
        ]
        lr = next_lr(group, gradients, known)
        if late:
            return _Prepared(gradients, lr)
        _refuse("the learned lr", lr, group, index)
        types = [torch.finfo(p.dtype) for p in parameters]
        most, rounding = min(t.max for t in types), min(t.max * t.eps for t in types)
        moment, update = self._bounds(group, states, math.sqrt(square))
        # A weight is finite, and so it stays if what is added is less than its rounding error.
        fine = max(square, moment) < most and abs(float(lr)) * update < rounding / 4
        return _Prepared(gradients, lr, fine)

    def _step_groups(self, prepared: Sequence[_Prepared]) -> None:
        for group, ready in zip(self.param_groups, prepared, strict=True):
            group["calls"] = group.get("calls", 0) + 1
            self._step_group(group, ready.gradients, ready.lr)

    def _step_groups_or_take_back(self, prepared: Sequence[_Prepared]) -> None:
        """A step at numbers so large, or an eps so small, that something may overflow."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        weights = [p.clone() for p in parameters]
        states = {p: copy.deepcopy(self.state[p]) for p in parameters if p in self.state}
        groups = [{**group, "lr": learned_lr(group).clone()} for group in self.param_groups]
        self._step_groups(prepared)
        found = [self._not_finite(group) for group in self.param_groups]
        if all(number is None for number in found):
            return
        torch._foreach_copy_(parameters, weights)
        for parameter in parameters:
            self.state.pop(parameter, None)
        self.state.update(states)
        for group, before in zip(self.param_groups, groups, strict=True):
            group.clear()
            group.update(before)
        for index, (group, number) in enumerate(zip(self.param_groups, found, strict=True)):
            if number is not None:
                _refuse("a weight or moment after the step", number, group, index)

    def _not_finite(self, group: Group) -> float | None:
        """One of a group's numbers that is none."""
        for parameter in group["params"]:
            for tensor in (parameter, *self.state.get(parameter, {}).values()):
                if isinstance(tensor, Tensor) and not bool(tensor.isfinite().all()):
                    return float(tensor[~tensor.isfinite()][0])
        return None

    def _step_group(self, group: Group, gradients: Tensors, new_lr: Tensor) -> None:
        idle = [self.state[p] for p in group["params"] if p.grad is None and p in self.state]
        if idle:  # α does not act through a parameter that is not moved
            torch._foreach_zero_([state["previous_update"] for state in idle])
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        for parameter in parameters:
            self._complete(self.state[parameter], parameter, group)
        states = [self.state[p] for p in parameters]
        updates = [state["previous_update"] for state in states]
        lr = learned_lr(group).copy_(new_lr)
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
    def _bounds(self, group: Group, states: list[State], length: float) -> tuple[float, float]:
        """What no element of the new moments, and none of u_t, is above.

        Args:
            group: the options.
            states: of the parameters that have a gradient, as they are before the step.
            length: ‖g_t‖.
        """

    @abstractmethod
    def _update(self, group: Group, states: list[State], g: Tensors, u: Tensors) -> None:
        """Write u_t over u_{t−1}, and bring the state up to date.

        Args:
            group: the options.
            states: of the parameters that have a gradient.
            g: g_t, weight decay included.
            u: what is written to.
        """


def _refuse(what: str, number: Tensor | float, group: Group, index: int) -> None:
    block, step = group.get("name", index), group.get("calls", 0)
    cure = "lower lr or hypergrad_lr, or look for bad values in the batch"
    refuse_unless_finite(number, what, block, step, cure)


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
