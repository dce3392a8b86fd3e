"""The state of a parameter under AutoSAMT: which keys there are, and what they begin with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from samt.auto.step import NUMBERS
from samt.errors import StateMismatchError
from samt.tensors.precision import state_dtype
from samt.tensors.shards import Shards, local

# The keys that have the shape of the parameter.
OF_SHAPE = ("exp_avg_sq", "lead", "lag")
# y of a parameter that holds something else.
TRAINING_WEIGHTS = "training_weights"
SCALE = 0.1  # of a vector before any matrix, such as the weights of a first norm layer


def complete_state(
    state: dict[str, Tensor], group: dict[str, Any], parameter: Tensor, last_scale: Tensor | None
) -> None:
    """Add to a parameter's state what it does not hold yet, and move what lies elsewhere.

    The keys of a state are

    - `exp_avg_sq`, the shape of the parameter: v, the average of the squared gradient,
    - `lead`, the shape of the parameter: q, the way from the x before the last step to z,
    - `lag`, the shape of the parameter: s, the average of these ways, along x − x̄,

    and numbers, each a tensor of shape ():

    - `step`, in float32: the number of steps that the parameter has made,
    - `scale`: √3 times the root mean square of the first weights,
    - `step_size`: η of the last step,
    - `log_step`: m, the logarithm of the learned factor in the step size,
    - `weight_sum`, `weight`: the sum of the averaging weights, and c, the last one's part in it,
    - `ahead`: (1 − β)(1 − c), so that x is y − ahead · q,
    - `lag_sum`: what x − x̄ is in parts of s,
    - `trend`, `trend_square`: the averages of the cosine and of its square,
    - `dot`, `turn`: ⟨g, s⟩ of the last step, and the average of the cosine of these numbers of all
      tensors with those that they had last,
    - `level`, `peak`: the average of the mean squared gradient, and the largest that its root was,

    and, while a parameter does not hold y because it shows x, or because its precision is lower
    than that of the state,

    - `training_weights`, the shape of the parameter: y.

    Args:
        state: `optimizer.state[parameter]`, filled in place.
        group: the param group, that is, the block with its options.
        parameter: the tensor that is stepped.
        last_scale: the scale of the matrix before this tensor; None where there is none.

    Raises:
        StateMismatchError: the state belongs to a tensor of another shape.
    """
    dtype = state_dtype(parameter)
    for key, value in list(state.items()):
        if value.dim() and value.shape != parameter.shape:
            raise StateMismatchError(
                f"the state {key!r} of a parameter of block {group['name']!r} has the shape "
                f"{tuple(value.shape)}, which is not that of a parameter of shape "
                f"{tuple(parameter.shape)}: delete optimizer.state[parameter], so that it starts "
                "anew"
            )
        wanted = torch.float32 if key == "step" else dtype
        if value.dtype != wanted or value.device != parameter.device:
            state[key] = value.to(parameter.device, wanted)
    if not all(key in state for key in (*OF_SHAPE, "step", "scale", *NUMBERS)):
        state |= _initial_state(group, parameter, last_scale)
    if parameter.dtype != dtype and TRAINING_WEIGHTS not in state:
        state[TRAINING_WEIGHTS] = parameter.detach().to(dtype, copy=True)


def _initial_state(
    group: dict[str, Any], parameter: Tensor, last_scale: Tensor | None
) -> dict[str, Tensor]:
    dtype = state_dtype(parameter)
    like = torch.zeros((), dtype=dtype, device=parameter.device)
    if parameter.ndim > 1:
        scale = _scale_of_matrix(parameter, like)
    elif last_scale is None:
        scale = like + SCALE
    else:
        scale = last_scale.to(like, copy=True)
    whole = parameter.detach()
    return {
        **{key: torch.zeros_like(whole, dtype=dtype) for key in OF_SHAPE},
        **{key: like.clone() for key in NUMBERS},
        "weight": like + 1,  # nothing is ahead of x
        "step": like.to(torch.float32, copy=True),
        "scale": scale,
    }


def _scale_of_matrix(parameter: Tensor, like: Tensor) -> Tensor:
    """√3 · RMS, which is 1/√fan-in for torch's own initial weights; that, too, of zeros."""
    shards, part = Shards(parameter), local(parameter.detach()).to(like.dtype)
    largest = part.abs().amax() if part.numel() else like.clone()
    shards.maximum(largest)
    # Of weights in tiny or huge units the squares would not be numbers.
    unit = torch.where(largest > 0, largest, 1)
    total = shards.sum((part / unit).square().sum())
    rms = unit * (total / max(parameter.numel(), 1)).sqrt()
    fan_in = max(parameter[0].numel() if len(parameter) else 1, 1)
    return torch.where(rms > 0, math.sqrt(3) * rms, fan_in**-0.5)
