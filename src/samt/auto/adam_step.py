"""Adam's direction, and the step along it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from samt.auto.finite import is_read_late


def directions(
    states: Sequence[dict[str, Tensor]], groups: Sequence[dict[str, Any]], done: Tensor
) -> list[Tensor]:
    """d of every tensor: Adam's, the average gradient over the root of its average square.

    Both without their bias, 1 − β^k after k steps.

    Args:
        states: of the tensors.
        groups: their blocks.
        done: k of each, shape (tensors,).
    """
    steps = done.to(states[0]["exp_avg"].dtype).clamp_min(1)  # before the first: zero
    counts = steps.unbind() if is_read_late(steps.device) else steps.tolist()
    found = []
    for state, group, k in zip(states, groups, counts, strict=True):
        first, second = (1 - beta**k for beta in group["betas"])
        # The biases of both on the root: a pass over memory less.
        root = state["exp_avg_sq"].sqrt().mul_(first / second**0.5).add_(group["eps"] * first)
        found.append(torch.div(state["exp_avg"], root, out=root))
    return found


def update_and_move(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    group: dict[str, Any],
    step: float | Tensor,
    fine: Tensor | None = None,
) -> None:
    """The averages of the gradient and of its square, and a step along d.

    w ← (1 − step · weight_decay) w − step · d, in one pass over memory where that can be had.
    `state["step"]` counts this step already.

    Args:
        parameter: the tensor.
        gradient: of this step.
        state: of the tensor.
        group: its block.
        step: a · η; 0 where nothing is to change.
        fine: one bool on a device, at which nobody looks here: whether to change anything.
    """
    if not _is_fusible(parameter, gradient, state):
        _update_moments(state, gradient, group["betas"], fine)
        _move(parameter, state, group, step)
        return
    torch._fused_adamw_(
        *([parameter], [gradient], [state["exp_avg"]], [state["exp_avg_sq"]], []),
        [state["step"]],
        lr=step,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
        found_inf=None if fine is None else (~fine).float(),
    )


def _update_moments(
    state: dict[str, Tensor], gradient: Tensor, betas: tuple[float, float], fine: Tensor | None
) -> None:
    moments = state["exp_avg"], state["exp_avg_sq"]
    before = [] if fine is None else [(moment, moment.clone()) for moment in moments]
    gradient = gradient.to(state["exp_avg"].dtype)
    state["exp_avg"].lerp_(gradient, 1 - betas[0])
    state["exp_avg_sq"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    for moment, copy in before:
        moment.copy_(torch.where(fine, moment, copy))  # type: ignore[arg-type]


def _move(
    parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any], step: float | Tensor
) -> None:
    (d,) = directions([state], [group], state["step"].unsqueeze(0))
    weight = parameter.to(d.dtype)
    if group["weight_decay"]:
        weight.mul_(1 - step * group["weight_decay"])
    weight.sub_(d.mul_(step))
    if weight is not parameter:
        parameter.copy_(weight)


def _is_fusible(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> bool:
    """Whether torch's fused kernel is right: it checks nothing and walks along all in step."""
    first, second = state["exp_avg"], state["exp_avg_sq"]
    return (
        parameter.dtype == gradient.dtype == first.dtype
        # On an accelerator it reads its lr as float32.
        and (parameter.dtype == torch.float32 or parameter.device.type == "cpu")
        # The moments have no gaps, so that none has them.
        and parameter.stride() == gradient.stride() == first.stride() == second.stride()
    )
