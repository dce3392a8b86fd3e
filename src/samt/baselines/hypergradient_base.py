"""What the methods of hypergradient descent share: the life cycle of a step, and learning α.

Whatever somebody does to groups, state or parameters between two steps is found at the next step:
what can follow follows, and the rest is a named error, before anything moves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import ParamsT

from samt.block_optimizer import never_compiled
from samt.checkpoint import in_order, refuse_other_optimizer
from samt.errors import CheckpointMismatchError, StateMismatchError, UnsupportedGradientError
from samt.options import (
    NOT_NEGATIVE,
    NOTES,
    RATE,
    Option,
    Options,
    check,
    make_plain,
    refuse_unknown,
    word,
)
from samt.partition import Places, follow_names, places, without_duplicates
from samt.tensors.finite import refuse_unless_finite
from samt.tensors.refusals import refuse_several_devices, refuse_sparse, refuse_unreal

Tensors: TypeAlias = list[Tensor]
Group: TypeAlias = dict[str, Any]
State: TypeAlias = dict[str, Any]

RULES = ("additive", "multiplicative")
SHARED_OPTIONS: Options = {
    "lr": RATE,
    "hypergrad_lr": NOT_NEGATIVE,
    "rule": word(*RULES),
    "weight_decay": NOT_NEGATIVE,
}
# The additive rule may learn a negative α. A tensor that is not finite shows in the next α.
_LEARNED = Option("one number", lambda value: value.numel() == 1 and not value.is_complex())
_NOTES = NOTES | {"calls"}  # what a group may hold beside its options
_CURE = "lower lr or hypergrad_lr, or look for bad values in the batch"


class _Prepared(NamedTuple):
    """What a step on a group needs; nothing has moved yet."""

    parameters: Tensors  # those that have a gradient
    gradients: Tensors  # weight decay included
    lr: Tensor  # the new α


class HypergradientDescent(torch.optim.Optimizer, ABC):
    """What `SGDHD`, `SGDNesterovHD` and `AdamHD` share: learning α, one for each param group.

    `lr` of a group is the learned α, a tensor without dimensions on the group's device;
    `float(group["lr"])` shows it. LR schedulers of torch write into it: those that multiply
    (ExponentialLR, StepLR, CosineAnnealingLR, ReduceLROnPlateau) anneal what was learned, those
    that assign (LambdaLR, OneCycleLR) replace it.

    The multiplicative rule learns from a cosine. Where ‖g‖ or ‖u‖ is so short that its square
    vanishes (3e-16 in float32), there is none, and α stays as it is.

    A parameter without a gradient is neither moved nor part of the dot products of this step and
    the next. The α of the additive rule may become negative, as in the paper; that of the
    multiplicative one cannot while `hypergrad_lr` is below 1.

    Args:
        params: the parameters or param groups.
        defaults: the options and their values.
    """

    options: ClassVar[Options]
    counters: ClassVar[tuple[str, ...]] = ()  # what a parameter's state holds beside tensors
    switched: ClassVar[tuple[str, ...]] = ()  # the moments that an option switches on and off

    def __init__(self, params: ParamsT, defaults: Group) -> None:
        self._places: Places = {}
        self._moments_kept: dict[Tensor, list[str]] = {}  # after the last step
        make_plain(defaults, self.options)
        check(defaults, self.options)
        super().__init__(params, defaults)

    @abstractmethod
    def _moments(self, group: Group) -> tuple[str, ...]:
        """Return the names of the tensors that a parameter's state holds beside its last update."""

    @abstractmethod
    def _update(self, group: Group, states: list[State], g: Tensors, u: Tensors) -> None:
        """Write u_t over u_{t−1}, and bring the moments up to date.

        Args:
            group: the options.
            states: the states of the parameters that have a gradient.
            g: the gradients g_t, weight decay included.
            u: the tensors u_{t−1} of the states, which become u_t.
        """

    def __getstate__(self) -> dict[str, Any]:
        self._places = follow_names(self.param_groups, self._places)
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # after unpickling, and in the middle of load_state_dict
        self._places = places(self.param_groups)
        self._note_moments()

    def add_param_group(self, param_group: Group) -> None:
        """Add a group with an α of its own.

        Args:
            param_group: `params`, and optionally any option.

        Raises:
            SAMTError: an option is unknown or has an impossible value, the group lies on several
                devices, or a parameter is complex or in a group already; the optimizer is then
                what it was before.
        """
        refuse_unknown(param_group, self.options, type(self).__name__, notes=_NOTES)
        self._places = follow_names(self.param_groups, self._places)
        super().add_param_group(without_duplicates(param_group, self.param_groups))
        group = self.param_groups[-1]
        try:
            make_plain(group, self.options)
            check(group, self.options)
            if isinstance(group["lr"], Tensor):
                group["lr"] = group["lr"].detach().clone()  # groups and caller do not share one
            self._prepare_group(group, len(self.param_groups) - 1)
        except Exception:
            self.param_groups.pop()
            raise
        self._places = places(self.param_groups)

    @never_compiled
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Learn every group's α from its gradients, then step with it.

        Args:
            closure: a function that evaluates the loss once, with `zero_grad` and `backward`, as
                in torch; without it the gradients that are there count.

        Returns:
            What the closure returns, or None.

        Raises:
            NonFiniteLossError: the squared norm of a group's gradient (weight decay included) or
                the α that the group learns is NaN or infinite.
            SAMTError: a gradient is sparse, or somebody has edited a group, the state or a
                parameter in a way that does not fit. In all cases nothing has moved.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._places = follow_names(self.param_groups, self._places)
        # State that is made in inference mode could not be stepped outside of it.
        with torch.inference_mode(False), torch.no_grad():
            for index, group in enumerate(self.param_groups):
                self._check_group(group, index)
            prepared = [self._prepare(group, i) for i, group in enumerate(self.param_groups)]
            for group, ready in zip(self.param_groups, prepared, strict=True):
                group["calls"] = group.get("calls", 0) + 1
                self._step_group(group, ready)
        self._note_moments()
        return loss

    def _check_group(self, group: Group, index: int) -> None:
        """Refuse what no step can work with, and let state and α follow their parameters."""
        make_plain(group, self.options)
        is_learned = isinstance(group.get("lr"), Tensor)
        check(group, {**self.options, "lr": _LEARNED} if is_learned else self.options)
        self._prepare_group(group, index)
        for parameter in group["params"]:
            gradient = parameter.grad
            refuse_sparse(gradient)
            if gradient is not None and gradient.shape != parameter.shape:
                raise UnsupportedGradientError(
                    f"a gradient of shape {tuple(gradient.shape)} is left of a parameter in block "
                    f"{_title(group, index)!r} that has shape {tuple(parameter.shape)} now: call "
                    "optimizer.zero_grad() and compute it again"
                )
            if self.state.get(parameter):
                self._refuse_state_in_part(parameter, group, _title(group, index))
                self._adapt_state(parameter, group, _title(group, index))

    def _prepare_group(self, group: Group, index: int) -> None:
        """Refuse parameters that cannot be trained, and put α where the others are."""
        trained = [p for p in group["params"] if self._takes_part(p)]
        for parameter in trained:
            refuse_unreal(parameter, _title(group, index))
        refuse_several_devices(trained, _title(group, index))
        _place_lr(group, trained or group["params"])

    def _takes_part(self, parameter: Tensor) -> bool:
        """Return whether a parameter is trained, or has been."""
        if parameter.requires_grad or bool(self.state.get(parameter)):
            return True
        return not is_lazy(parameter) and parameter.grad is not None

    def _refuse_state_in_part(self, parameter: Tensor, group: Group, block: str) -> None:
        """Raise StateMismatchError if only some of what a state must hold together is there."""
        state, wanted = self.state[parameter], (*self._tensors(group), *self.counters)
        optional = {*self.switched} - {*self._moments_kept.get(parameter, ())}
        missing = [key for key in wanted if key not in state and key not in optional]
        there = [key for key in (*wanted, *self.switched) if key in state]
        if missing and there:
            raise StateMismatchError(
                f"the state of a parameter in block {block!r} has {there[0]!r} and no "
                f"{missing[0]!r}, which belong together: put it back, or delete "
                "optimizer.state[parameter], so that it starts anew"
            )

    def _note_moments(self) -> None:
        """Note which moments are in use: one that is missing later was taken away."""
        self._moments_kept = {
            p: [key for key in self._moments(group) if key in self.state.get(p, ())]
            for group in self.param_groups
            for p in group["params"]
        }

    def _adapt_state(self, parameter: Tensor, group: Group, block: str) -> None:
        """Bring state to the precision and device of its parameter.

        Raises:
            StateMismatchError: the state has another shape.
        """
        state = self.state[parameter]
        for key in filter(state.__contains__, self._tensors(group)):
            value = state[key]
            if value.shape != parameter.shape:
                raise StateMismatchError(
                    f"{key!r} of a parameter in block {block!r} has shape {tuple(value.shape)}, "
                    f"the parameter has {tuple(parameter.shape)}: to start it anew, delete "
                    "optimizer.state[parameter]"
                )
            if value.dtype != parameter.dtype or value.device != parameter.device:
                state[key] = value.to(parameter.device, parameter.dtype)

    def _prepare(self, group: Group, index: int) -> _Prepared:
        """Learn α; raise NonFiniteLossError if the gradient or α is not finite."""
        parameters = [p for p in group["params"] if p.grad is not None]
        gradients = [p.grad.to(p.dtype) for p in parameters if p.grad is not None]
        if not parameters:
            return _Prepared([], [], group["lr"])
        if group["weight_decay"] != 0:
            decay = group["weight_decay"]
            gradients = list(torch._foreach_add(gradients, parameters, alpha=decay))
        states = [self.state.get(p, {}) for p in parameters]
        known = [
            state["previous_update"] if "previous_update" in state else torch.zeros_like(p)
            for state, p in zip(states, parameters, strict=True)
        ]
        lr = next_lr(group, gradients, known)
        where = group.get("name", index), group.get("calls", 0), _CURE
        refuse_unless_finite(_squared_norm(gradients), "the squared norm of the gradient", *where)
        refuse_unless_finite(lr, "the learned lr", *where)
        return _Prepared(parameters, gradients, lr)

    def _step_group(self, group: Group, ready: _Prepared) -> None:
        for parameter in group["params"]:
            if parameter.grad is None and "previous_update" in self.state.get(parameter, {}):
                # α does not act through a parameter that is not moved.
                self.state[parameter]["previous_update"].zero_()
        if not ready.parameters:
            return
        states = [self._complete_state(p, group) for p in ready.parameters]
        updates = [state["previous_update"] for state in states]
        lr = group["lr"] = ready.lr  # a new tensor: somebody may hold the last one
        self._update(group, states, ready.gradients, updates)
        weights = [p.to(lr.dtype) for p in ready.parameters]  # themselves, but for low precision
        # Not alpha=-lr, which would read lr on the host; on a CPU it is what SGD computes.
        torch._foreach_addcmul_(weights, updates, [lr] * len(updates), value=-1)
        for parameter, weight in zip(ready.parameters, weights, strict=True):
            if weight is not parameter:
                parameter.copy_(weight)

    def _tensors(self, group: Group) -> tuple[str, ...]:
        """Return the names of those tensors in a parameter's state that have its shape."""
        return ("previous_update", *self._moments(group))

    def _complete_state(self, parameter: Tensor, group: Group) -> State:
        """Return the state of a parameter, with zeros for what was not there yet."""
        state: State = self.state.get(parameter, {})
        for key in self._tensors(group):
            if key not in state:
                state[key] = torch.zeros_like(parameter)
        self.state[parameter] = state
        return state

    def state_dict(self) -> dict[str, Any]:
        """As in torch; parameters that were moved by hand keep their names."""
        self._places = follow_names(self.param_groups, self._places)
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load as torch does, but by the names of the parameters where both sides have the same.

        Args:
            state_dict: what `state_dict` returned.

        Raises:
            CheckpointMismatchError: it was written by another method, or for other parameters;
                the optimizer is what it was before.
        """
        self._places = follow_names(self.param_groups, self._places)
        hook = self.register_load_state_dict_pre_hook(_matched)  # after all others
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()


def next_lr(group: Group, gradients: Tensors, updates: Tensors) -> Tensor:
    """Return the α of a group, after one step of α by the rule.

    Args:
        group: the options; `lr` is a tensor.
        gradients: the gradients g_t, weight decay included.
        updates: the updates u_{t−1} of the same parameters.
    """
    lr, beta = group["lr"], group["hypergrad_lr"]
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


def _place_lr(group: Group, parameters: Tensors) -> None:
    """Make `lr` a tensor where, and as precise as, the parameters need it."""
    device = parameters[0].device if parameters else torch.device("cpu")
    wide = any(parameter.dtype == torch.float64 for parameter in parameters)
    dtype = torch.float64 if wide else torch.float32
    lr = group["lr"]
    # Whoever builds an optimizer in inference mode may step it outside.
    with torch.inference_mode(False), torch.no_grad():
        if not isinstance(lr, Tensor):
            group["lr"] = torch.full((), lr, device=device, dtype=dtype)
        else:
            lr = lr.clone() if lr.is_inference() else lr.detach()
            group["lr"] = lr.to(device, dtype).reshape(())


def _title(group: Group, index: int) -> str:
    """Return the name of a group, or its number."""
    return str(group.get("name", index))


def _squared_norm(gradients: Tensors) -> Tensor:
    """Return ‖g‖² of one or more tensors, taken as one vector."""
    dtype = torch.promote_types(gradients[0].dtype, torch.float32)  # a float16 norm overflows
    return torch.stack(list(torch._foreach_norm(gradients, dtype=dtype))).square().sum()


def _dot(ones: Tensors, others: Tensors, dtype: torch.dtype) -> Tensor:
    """Return the dot product of two lists of tensors, each taken as one vector."""
    products = [
        torch.dot(one.flatten().to(dtype), other.flatten().to(dtype))
        for one, other in zip(ones, others, strict=True)
    ]
    return torch.stack(products).sum()


def _matched(optimizer: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict in the optimizer's order, or raise CheckpointMismatchError."""
    refuse_other_optimizer(optimizer, state_dict, (*optimizer.options, "params"))
    groups, saved, state = optimizer.param_groups, state_dict["param_groups"], state_dict["state"]
    sizes, saved_sizes = ([len(group["params"]) for group in gs] for gs in (groups, saved))
    if sorted(sizes) != sorted(saved_sizes):
        raise CheckpointMismatchError(
            f"the state dict has groups of {saved_sizes} parameters, the optimizer of {sizes}: "
            "build it with the groups that the state dict was saved with"
        )
    saved = in_order(saved, groups)
    for group, other in zip(groups, saved, strict=True):
        for parameter, index in zip(group["params"], other["params"], strict=True):
            tensors = {} if is_lazy(parameter) else state.get(index, {})
            for key in filter(tensors.__contains__, optimizer._tensors(other)):
                if tensors[key].shape != parameter.shape:
                    raise CheckpointMismatchError(
                        f"{key!r} in the state dict has shape {tuple(tensors[key].shape)}, its "
                        f"parameter {tuple(parameter.shape)}: build the model it was saved with"
                    )
    return {**state_dict, "param_groups": saved}
