"""Adam's direction of one tensor, and the step along it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def direction(state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    """d: the average gradient over the root of its average square, both without their bias."""
    done = state["step"].to(state["exp_avg"].dtype).clamp_min(1)  # before the first: zero
    first, second = (1 - beta**done for beta in group["betas"])
    # The biases of both on the root: a pass over memory less.
    root = state["exp_avg_sq"].sqrt().mul_(first / second.sqrt()).add_(group["eps"] * first)
    return torch.div(state["exp_avg"], root, out=root)


def update_and_move(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    group: dict[str, Any],
    step: Tensor,
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


def _move(parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any], step: Tensor) -> None:
    d = direction(state, group)
    weight = parameter.to(d.dtype)
    if group["weight_decay"]:
        weight.mul_(1 - step * group["weight_decay"])
    weight.addcmul_(d, step, value=-1)
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
