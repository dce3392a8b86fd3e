"""State dicts of SAMT: portable, exact, matched by parameter name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from samt.errors import CheckpointMismatchError

CALLABLE = "callable"  # stands for a step_size that only code can say


def portable(state_dict: dict[str, Any]) -> dict[str, Any]:
    """The same state dict without what `weights_only=True` cannot load.

    Args:
        state_dict: of `torch.optim.Optimizer.state_dict`.
    """
    groups = [
        {**group, "step_size": CALLABLE} if callable(group["step_size"]) else group
        for group in state_dict["param_groups"]
    ]
    return {**state_dict, "param_groups": groups}


def load(
    optimizer: Optimizer,
    torch_load: Callable[[dict[str, Any]], None],
    state_dict: dict[str, Any],
    mark: str = "step_size",
) -> None:
    """Load in torch's way, then copy the tensors once more in their own precision.

    torch casts floating-point state to the parameter's dtype, which would round the eta models
    of a bfloat16 model. The two hooks stand after the user's own pre-hooks and before the
    user's own post-hooks.

    Args:
        optimizer: takes the state.
        torch_load: `torch.optim.Optimizer.load_state_dict`, bound to it.
        state_dict: what to load.
        mark: an option that its groups have, and those of other optimizers have not.

    Raises:
        CheckpointMismatchError: see `SAMT.load_state_dict`.
    """
    own_state = {p: dict(optimizer.state[p]) for g in optimizer.param_groups for p in g["params"]}
    own_groups = [dict(group) for group in optimizer.param_groups]
    matched: dict[str, Any] = {}

    def match(_: Any, loaded: dict[str, Any]) -> dict[str, Any]:
        matched.update(_matched(optimizer, loaded, mark))
        return matched

    def copy_exactly(_: Any) -> None:
        for group, saved in zip(optimizer.param_groups, matched["param_groups"], strict=True):
            for parameter, index in zip(group["params"], saved["params"], strict=True):
                tensors = own_state[parameter]
                for key, value in matched["state"].get(index, {}).items():
                    tensors[key].copy_(value)
                optimizer.state[parameter] = tensors
        for group, before in zip(optimizer.param_groups, own_groups, strict=True):
            if group.get("step_size") == CALLABLE:
                group["step_size"] = before["step_size"]
            for key, value in before.items():
                group.setdefault(key, value)  # an option that the saving version did not have

    hooks = (
        optimizer.register_load_state_dict_pre_hook(match),
        optimizer.register_load_state_dict_post_hook(copy_exactly, prepend=True),
    )
    try:
        torch_load(state_dict)
    finally:
        for hook in hooks:
            hook.remove()


def _matched(optimizer: Optimizer, state_dict: dict[str, Any], mark: str) -> dict[str, Any]:
    """The saved groups and their parameters in the optimizer's order, checked."""
    saved = state_dict.get("param_groups")
    groups = optimizer.param_groups
    if (
        not isinstance(saved, list)
        or not isinstance(state_dict.get("state"), dict)
        or any(mark not in group for group in saved)
    ):
        raise CheckpointMismatchError(
            "this is no state dict of SAMT: give what its optimizer.state_dict() returned"
        )
    if len(saved) != len(groups):
        raise CheckpointMismatchError(
            f"the state dict has {len(saved)} blocks, the optimizer {len(groups)}: split the "
            "model into the blocks it was saved with"
        )
    if all("param_names" in group for group in (*saved, *groups)):
        saved = _by_name(saved, groups)
    elif [len(g["params"]) for g in saved] != [len(g["params"]) for g in groups]:
        raise CheckpointMismatchError(
            "the state dict has other numbers of blocks or parameters than the optimizer: split "
            "the model into the blocks it was saved with"
        )
    for group, saved_group in zip(groups, saved, strict=True):
        for parameter, index in zip(group["params"], saved_group["params"], strict=True):
            _check_tensors(group, optimizer.state[parameter], state_dict["state"].get(index, {}))
    return {**state_dict, "param_groups": saved}


def _by_name(saved: list[dict[str, Any]], groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    left = list(saved)
    matched = []
    for group in groups:
        names = group["param_names"]
        same = next((s for s in left if sorted(s["param_names"]) == sorted(names)), None)
        if same is None:
            raise CheckpointMismatchError(
                f"the state dict has no block with the parameters of block {group['name']!r}: "
                "split the model into the blocks it was saved with"
            )
        left = [other for other in left if other is not same]
        matched.append(_in_order(same, names))
    return matched


def _in_order(group: dict[str, Any], names: list[str]) -> dict[str, Any]:
    indices = dict(zip(group["param_names"], group["params"], strict=True))
    return {**group, "params": [indices[name] for name in names], "param_names": list(names)}


def _check_tensors(group: dict[str, Any], own: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    own_shapes = {key: tuple(value.shape) for key, value in own.items()}
    saved_shapes = {
        key: tuple(value.shape) if isinstance(value, Tensor) else None
        for key, value in saved.items()
    }
    if own_shapes != saved_shapes:
        differing = sorted(
            key
            for key in own_shapes.keys() | saved_shapes.keys()
            if own_shapes.get(key) != saved_shapes.get(key)
        )
        raise CheckpointMismatchError(
            f"the state of block {group['name']!r} has another form ({', '.join(differing)}): "
            "build SAMT with the step_size, head, parts, meta_batch, eta_hidden and radius that "
            "the state dict was saved with"
        )
