"""State dicts: portable, exact, matched by parameter name or else by order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from samt.errors import CheckpointMismatchError, listed
from samt.partition import plain_name

CALLABLE = "callable"  # stands for a step_size that only code can say
# Options that earlier versions wrote, and that no longer exist.
_GONE = ("preset",)


def portable(state_dict: dict[str, Any]) -> dict[str, Any]:
    """The same state dict without what `weights_only=True` cannot load.

    Args:
        state_dict: what `torch.optim.Optimizer.state_dict` returned.
    """
    groups = [
        {**group, "step_size": CALLABLE} if callable(group.get("step_size")) else group
        for group in state_dict["param_groups"]
    ]
    return {**state_dict, "param_groups": groups}


def load(
    optimizer: Optimizer,
    torch_load: Callable[[dict[str, Any]], None],
    state_dict: dict[str, Any],
    mark: str,
    temporary: Collection[str] = (),
) -> None:
    """Load in torch's way, then copy the tensors once more in their own precision.

    torch casts floating-point state to the parameter's dtype, which would round the eta models
    of a bfloat16 model. The two hooks stand after the user's own pre-hooks and before the
    user's own post-hooks.

    Args:
        optimizer: the optimizer that takes the state; its own state is complete.
        torch_load: `torch.optim.Optimizer.load_state_dict`, bound to the optimizer.
        state_dict: what to load.
        mark: an option that the optimizer's groups have, and those of other optimizers have not.
        temporary: the keys that a parameter's state has at some times and not at others (default:
            none).

    Raises:
        CheckpointMismatchError: the state dict belongs to other parameters or other options.
    """
    own_state = {p: dict(state) for p, state in optimizer.state.items()}
    own_groups = [dict(group) for group in optimizer.param_groups]
    matched: dict[str, Any] = {}

    def match(_: Any, loaded: dict[str, Any]) -> dict[str, Any]:
        matched.update(_matched(optimizer, loaded, mark, temporary))
        return matched

    def copy_exactly(_: Any) -> None:
        for group, saved in zip(optimizer.param_groups, matched["param_groups"], strict=True):
            for parameter, index in zip(group["params"], saved["params"], strict=True):
                tensors = own_state.get(parameter, {})
                for key, value in matched["state"].get(index, {}).items():
                    if key in tensors:
                        tensors[key].copy_(value)
                    else:  # of a parameter that was trained there and is frozen here
                        tensors[key] = value.detach().clone()
                if tensors:
                    optimizer.state[parameter] = tensors
        for group, before in zip(optimizer.param_groups, own_groups, strict=True):
            if group.get("step_size") == CALLABLE:
                group["step_size"] = before["step_size"]
            for key, value in before.items():
                group.setdefault(key, value)  # an option that the saving version did not have
            for key in _GONE:
                group.pop(key, None)

    hooks = (
        optimizer.register_load_state_dict_pre_hook(match),
        optimizer.register_load_state_dict_post_hook(copy_exactly, prepend=True),
    )
    try:
        torch_load(state_dict)
    finally:
        for hook in hooks:
            hook.remove()


def _matched(
    optimizer: Optimizer, state_dict: dict[str, Any], mark: str, temporary: Collection[str]
) -> dict[str, Any]:
    """The saved groups and their parameters in the optimizer's order, checked."""
    refuse_other_optimizer(optimizer, state_dict, (mark,))
    saved, groups = state_dict["param_groups"], optimizer.param_groups
    if len(saved) != len(groups):
        raise CheckpointMismatchError(
            f"the state dict has {len(saved)} blocks ({_titles(saved)}), the optimizer "
            f"{len(groups)} ({_titles(groups)}): split the model into the blocks it was saved with"
        )
    saved = in_order(saved, groups)
    states, has_own = state_dict["state"], False
    for group, saved_group in zip(groups, saved, strict=True):
        for parameter, index in zip(group["params"], saved_group["params"], strict=True):
            own = optimizer.state.get(parameter)
            has_own |= bool(own)
            if own and states.get(index):  # it has none of a parameter that was frozen there
                _check_tensors(group, own, states[index], temporary)
    if has_own and not any(states.values()):
        raise CheckpointMismatchError(
            "the state dict has no state: give what optimizer.state_dict() returned, whole"
        )
    return {**state_dict, "param_groups": saved}


def refuse_other_optimizer(
    optimizer: Optimizer, state_dict: dict[str, Any], options: Iterable[str]
) -> None:
    """Raise CheckpointMismatchError for what is no state dict of such an optimizer.

    Args:
        optimizer: the optimizer that takes the state.
        state_dict: what to load.
        options: what each of its groups must hold.
    """
    saved, options = state_dict.get("param_groups"), tuple(options)
    if (
        not isinstance(saved, list)
        or not isinstance(state_dict.get("state"), dict)
        or any(option not in group for group in saved for option in options)
    ):
        name = type(optimizer).__name__
        raise CheckpointMismatchError(
            f"this is no state dict of {name}: give what its optimizer.state_dict() returned"
        )


def in_order(
    saved: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The saved groups, matched by name or else by order, with the optimizer's names.

    Args:
        saved: the groups of a state dict.
        groups: as many groups of the optimizer.

    Raises:
        CheckpointMismatchError: they match neither by name nor by order.
    """
    is_named = all(group.get("param_names") is not None for group in groups)
    saved = [
        group
        if is_named and len(group.get("param_names") or ()) == len(group["params"])
        else {key: value for key, value in group.items() if key != "param_names"}
        for group in saved
    ]
    matched = _by_name(saved, groups) or []
    indices = {index for group in matched for index in group["params"]}
    # Where names occur twice, names say nothing.
    is_whole = len(indices) == sum(len(group["params"]) for group in saved)
    return matched if matched and is_whole else _by_order(saved, groups)


def _by_name(
    saved: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]]
) -> list[dict[str, Any]] | None:
    """The saved groups in the optimizer's order; None where the names are not the same."""
    if not all("param_names" in group for group in (*saved, *groups)):
        return None
    left = {tuple(sorted(_names(group))): group for group in saved}
    matched = []
    for group in groups:
        same = left.get(tuple(sorted(_names(group))))
        if same is None or len(left) != len(saved):
            return None
        indices = dict(zip(_names(same), same["params"], strict=True))
        ordered = [indices[name] for name in _names(group)]
        matched.append({**same, "params": ordered, "param_names": group["param_names"]})
    return matched


def _by_order(
    saved: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The saved groups as they stand, under the optimizer's names.

    Raises:
        CheckpointMismatchError: the numbers of parameters differ, or a name that both sides have
            stands in two places.
    """
    mine = [name for group in groups for name in _names(group)]
    theirs = [name for group in saved for name in _names(group)]
    sizes = [len(group["params"]) for group in groups]
    common = {*mine} & {*theirs}
    moved = len(mine) == len(theirs) and any(
        own != other for own, other in zip(mine, theirs, strict=True) if {own, other} & common
    )
    if sizes != [len(group["params"]) for group in saved] or moved:
        raise CheckpointMismatchError(
            "the state dict has other blocks or parameters than the optimizer, which match neither "
            f"by name nor by order: it has {listed(theirs)}; the optimizer has {listed(mine)}; "
            "split the model into the blocks it was saved with"
        )
    return [
        {**other, **{key: own[key] for key in ("param_names",) if key in own}}
        for other, own in zip(saved, groups, strict=True)
    ]


def _names(group: Mapping[str, Any]) -> list[str]:
    """The names of a group's parameters without what wrappers put in front of them."""
    names = group.get("param_names")
    if names is None:
        return [f"{group.get('name', 'block')}[{i}]" for i in range(len(group["params"]))]
    plain = [plain_name(name) for name in names]
    return plain if len(set(plain)) == len(plain) else list(names)


def _titles(groups: Sequence[dict[str, Any]]) -> str:
    return listed(str(group.get("name", index)) for index, group in enumerate(groups))


def _check_tensors(
    group: dict[str, Any], own: dict[str, Any], saved: dict[str, Any], temporary: Collection[str]
) -> None:
    own_shapes, saved_shapes = (
        {key: shape for key, shape in _shapes(state).items() if key not in temporary}
        for state in (own, saved)
    )
    if own_shapes != saved_shapes:
        differing = sorted(
            key
            for key in own_shapes.keys() | saved_shapes.keys()
            if own_shapes.get(key) != saved_shapes.get(key)
        )
        raise CheckpointMismatchError(
            f"the state of block {group['name']!r} has another form ({', '.join(differing)}): "
            "build the optimizer from a model of the same shapes, with the options that the "
            "state dict was saved with"
        )


def _shapes(state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value.shape) if isinstance(value, Tensor) else None
        for key, value in state.items()
    }
