"""The state of a parameter under the published method: which keys there are, and when."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from samt.errors import OptionError, StateMismatchError
from samt.eta_model import STATISTICS, eta_model_shapes, initial_eta_model
from samt.step_size import step_size_shape
from samt.tensors.precision import state_dtype

# What `learn` needs of the last `descend` where h comes with the next step.
PREVIOUS = ("previous_gradient", "previous_features", "previous_lr")
# The options after whose change everything is built anew.
STRUCTURAL = (
    *("step_size", "head", "projection", "parts", "meta_batch", "eta_hidden", "radius"),
    "inner_steps",  # it decides no state, but how a block is updated
)


def complete_state(
    state: dict[str, Tensor], group: dict[str, Any], parameter: Tensor, index: int
) -> None:
    """Add to a parameter's state what its group's options need and it does not hold yet.

    The keys of a state are, unless `parts` is `fixed`,

    - `eta_model`, a vector: the weights and biases of φ, layer after layer,
    - `offset`, (2, *shape of the step size), for the offset head of a step size with more than one
      entry: what is added to the two shared logits,
    - `head_weight`, (2, entries, eta_hidden), and `head_bias`, (2, entries), for the dense head:
      the last layer of φ,

    for `meta_batch="next"`

    - `previous_gradient`, the shape of the parameter: g of the last step,
    - `previous_features`, (5,): its statistics,
    - `previous_lr`, (): η⁰ of the last step,

    and with a `radius`

    - `center`, the shape of the parameter: the middle of the ball, the initial weights,
    - `ball_scale`, (): by how much the last step was shortened to stay in the ball; 1 inside.

    Args:
        state: `optimizer.state[parameter]`, filled in place.
        group: the param group, that is, the block with its options.
        parameter: the tensor that is stepped.
        index: the position of the tensor among all parameters; seeds its eta model.

    Raises:
        OptionError: `step_size`, `head` or `eta_hidden` are others than when the state was made.
        StateMismatchError: the state belongs to a tensor of another shape.
    """
    form = step_size_shape(group["step_size"], parameter), group["head"], group["eta_hidden"]
    learns, has_ball = group["parts"] != "fixed", group["radius"] is not None
    wanted: dict[str, tuple[int, ...]] = {}
    if learns and "eta_model" in state:
        _refuse_another_eta_model(state, group, parameter, eta_model_shapes(*form))
    if learns and group["meta_batch"] == "next":
        wanted |= zip(PREVIOUS, (tuple(parameter.shape), (len(STATISTICS),), ()), strict=True)
        if any(key not in state for key in PREVIOUS):
            for key in PREVIOUS:  # they belong together
                state.pop(key, None)
    if has_ball:
        wanted |= {"center": tuple(parameter.shape), "ball_scale": ()}
    for key, shape in wanted.items():
        if key in state and tuple(state[key].shape) != shape:
            raise _mismatch(group, parameter, key, state[key])
    like = torch.zeros((), dtype=state_dtype(parameter), device=parameter.device)
    if learns and "eta_model" not in state:
        state |= initial_eta_model(*form, group["seed"], index, like)
    state |= {key: _fresh(key, parameter, like) for key in wanted if key not in state}


def _fresh(key: str, parameter: Tensor, like: Tensor) -> Tensor:
    """What a key of the state begins with: a zero gradient leaves φ alone in the first `learn`."""
    if key == "center":
        return parameter.detach().to(like.dtype, copy=True)
    if key == "ball_scale":
        return torch.ones_like(like)
    if key == "previous_gradient":
        return torch.zeros_like(parameter, dtype=like.dtype)
    return like.new_zeros(len(STATISTICS)) if key == "previous_features" else like.clone()


def _refuse_another_eta_model(
    state: dict[str, Tensor],
    group: dict[str, Any],
    parameter: Tensor,
    wanted: dict[str, tuple[int, ...]],
) -> None:
    found = {key: tuple(state[key].shape) for key in _OF_ETA_MODEL if key in state}
    if found == wanted:
        return
    if found.get("eta_model") == wanted["eta_model"] and found.keys() == wanted.keys():
        key = next(key for key in wanted if found[key] != wanted[key])
        raise _mismatch(group, parameter, key, state[key])
    raise OptionError(
        f"step_size, head and eta_hidden of block {group['name']!r} cannot change once its "
        "eta models are made: build a new optimizer"
    )


_OF_ETA_MODEL = ("eta_model", "offset", "head_weight", "head_bias")


def _mismatch(
    group: dict[str, Any], parameter: Tensor, key: str, found: Tensor
) -> StateMismatchError:
    return StateMismatchError(
        f"the state {key!r} of a parameter of block {group['name']!r} has the shape "
        f"{tuple(found.shape)}, which is not that of a parameter of shape "
        f"{tuple(parameter.shape)}: delete optimizer.state[parameter], so that it starts anew"
    )
