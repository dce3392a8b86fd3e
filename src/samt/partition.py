"""Split a model into named blocks. A block is a param group of torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain, count, pairwise
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from samt.errors import DuplicateParameterError, PartitionError, listed

# The group of a parameter and its index there, and its name.
Places: TypeAlias = dict[Tensor, tuple[tuple[int, int], str]]
Member: TypeAlias = str | nn.Module
Partition: TypeAlias = int | Sequence[Member | Sequence[Member]] | None


def blocks(model: nn.Module, partition: Partition = None) -> list[dict[str, Any]]:
    """Make the param groups of a model, one for each block, in the order of its definition.

    A parameter that several modules share belongs to the first of them.

    Args:
        model: the network. What `torch.compile` or `DistributedDataParallel` made of a network has
            the blocks and names of the network itself, so that checkpoints fit both.
        partition: how to split the model (default None).

            - None: one block for each module that owns parameters (its weight and bias).
            - a number n: those blocks, put together in n runs of nearly equal length; 1 is the
              whole model, that is, the simultaneous update.
            - a list with one entry for each block: a module, a pattern for names of parameters
              or modules (`"encoder.*"`), or a list of these. A parameter goes to the first
              block that matches it; `"*"` at the end takes the rest.

    Returns:
        Dicts with `name`, `params` and `param_names`. Any torch optimizer takes them; options
        of SAMT may be added to each.

    Raises:
        PartitionError: the partition leaves parameters out, or an entry matches none.

    Examples:
        >>> import samt, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(),
        ...                             torch.nn.Linear(3, 2))
        >>> [(block["name"], block["param_names"]) for block in samt.blocks(model)]
        [('0', ['0.weight', '0.bias']), ('2', ['2.weight', '2.bias'])]
        >>> [block["name"] for block in samt.blocks(model, 1)]
        ['model']
        >>> [block["name"] for block in samt.blocks(model, [model[2], "*"])]
        ['2', '*']
    """
    model = inner_model(model)
    layers = _layers(model)
    if not layers:
        raise PartitionError("the model has no parameters: there is nothing to optimize")
    if partition is None:
        named = layers
    elif isinstance(partition, int) and not isinstance(partition, bool):
        named = _runs(layers, partition)
    elif not isinstance(partition, list | tuple):
        raise PartitionError(
            f"a partition is a number of blocks or a list with one entry for each block, not "
            f"{partition!r}: write [{partition!r}, '*'] for one block and the rest"
        )
    else:
        named = _matched(model, [name for _, names in layers for name in names], partition)
    parameters = dict(model.named_parameters())
    return [
        {"name": name, "params": [parameters[n] for n in members], "param_names": members}
        for name, members in named
    ]


def _layers(model: nn.Module) -> list[tuple[str, list[str]]]:
    """(module name, names of the parameters it owns) of every module that owns some."""
    first_names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = []
    for module_name, module in model.named_modules():
        own = module.named_parameters(prefix=module_name, recurse=False)
        names = [name for name, parameter in own if first_names[id(parameter)] == name]
        if names:
            layers.append((module_name or "model", names))
    return layers


def _runs(layers: list[tuple[str, list[str]]], count: int) -> list[tuple[str, list[str]]]:
    if not 1 <= count <= len(layers):
        raise PartitionError(
            f"{count} blocks were asked for, but the model has {len(layers)} modules that own "
            f"parameters: choose a number from 1 to {len(layers)}"
        )
    if count == 1:
        return [("model", [name for _, names in layers for name in names])]
    bounds = [round(i * len(layers) / count) for i in range(count + 1)]
    runs = []
    for start, end in pairwise(bounds):
        run = layers[start:end]
        title = run[0][0] if len(run) == 1 else f"{run[0][0]}…{run[-1][0]}"
        runs.append((title, [name for _, names in run for name in names]))
    return runs


def _matched(
    model: nn.Module, names: list[str], partition: Sequence[Member | Sequence[Member]]
) -> list[tuple[str, list[str]]]:
    left = list(names)
    result: list[tuple[str, list[str]]] = []
    for entry in partition:
        members = [entry] if isinstance(entry, str | nn.Module) else list(entry)
        wanted = {name for member in members for name in _names_of(model, left, member)}
        if not wanted:
            raise PartitionError(
                f"block {len(result)} of the partition takes no parameter: its entries match "
                f"nothing, or only what earlier blocks took; remove it or move it forward"
            )
        taken = [name for name in left if name in wanted]
        left = [name for name in left if name not in wanted]
        result.append((_title(model, members), taken))
    if left:
        raise PartitionError(
            f"the partition leaves out {listed(left)}: add a block for them, or '*' at the end"
        )
    return result


def _names_of(model: nn.Module, names: list[str], member: Member) -> list[str]:
    if isinstance(member, nn.Module):
        own = {id(parameter) for parameter in member.parameters()}
        parameters = dict(model.named_parameters())
        return [name for name in names if id(parameters[name]) in own]
    inside = member + ".*"
    return [name for name in names if fnmatchcase(name, member) or fnmatchcase(name, inside)]


def _title(model: nn.Module, members: Sequence[Member]) -> str:
    module_names = {id(module): name for name, module in model.named_modules()}
    titles = [m if isinstance(m, str) else module_names.get(id(m), "") for m in members]
    return "+".join(title or "model" for title in titles)


def without_duplicates(group: dict[str, Any], earlier: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A new param group, once it is sure that all its parameters are in no block yet.

    Args:
        group: the group that `add_param_group` was given; an iterator of parameters becomes a
            list.
        earlier: the param groups that the optimizer has already.

    Raises:
        DuplicateParameterError: a parameter is in a block already, or twice in this one.
    """
    params = group.get("params", ())
    if isinstance(params, set) or "params" not in group:
        return group  # torch knows what to say of these
    params = [params] if isinstance(params, Tensor) else list(params)
    seen = {id(p) for other in earlier for p in other["params"]}
    for entry in params:
        name, parameter = entry if isinstance(entry, tuple) else (None, entry)
        if id(parameter) in seen:
            what = f"parameter {name!r}" if name else "a parameter"
            block = f"block {group['name']!r}" if "name" in group else "the new block"
            raise DuplicateParameterError(
                f"{what} of {block} is in a block already: "
                "give every parameter to one block (samt.blocks does)"
            )
        seen.add(id(parameter))
    return {**group, "params": params}


# What wrappers put into the names of the parameters that they wrap.
_WRAPPERS = frozenset(("module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"))


def plain_name(name: str) -> str:
    """The name of a parameter without what wrappers of its model added.

    Args:
        name: a name from `named_parameters()` of the model or of its wrapper.

    Examples:
        >>> plain_name("_orig_mod.encoder.module.weight")
        'encoder.weight'
    """
    kept = [part for part in name.split(".") if part not in _WRAPPERS]
    return ".".join(kept) or name


def inner_model(model: nn.Module) -> nn.Module:
    """The model inside its wrappers, whose parameters have the names that its author gave them.

    Args:
        model: a network, or what `torch.compile` or `DistributedDataParallel` made of a network.
    """
    *_, inner = outside(model)
    return inner


def is_data_parallel(model: nn.Module) -> bool:
    """Whether there is a `DistributedDataParallel` around the model."""
    return any(isinstance(one, DistributedDataParallel) for one in outside(model))


def outside(model: nn.Module) -> Iterator[nn.Module]:
    """The model, what it wraps, and so on."""
    inner: object = model
    while isinstance(inner, nn.Module):
        yield inner
        is_parallel = isinstance(inner, DistributedDataParallel | DataParallel)
        inner = inner.module if is_parallel else getattr(inner, "_orig_mod", None)


def places(groups: list[dict[str, Any]]) -> Places:
    """The places of the parameters of groups with names, and those names.

    Args:
        groups: the param groups of an optimizer.
    """
    return {
        p: ((number, index), name)
        for number, group in enumerate(groups)
        for index, (p, name) in enumerate(
            zip(group["params"], group.get("param_names") or (), strict=False)
        )
    }


def follow_names(groups: list[dict[str, Any]], before: Places) -> Places:
    """Give parameters that were moved their own names, and new ones their place's or a fresh one.

    Names that were edited while the parameters of the group stayed where they were are kept.

    Args:
        groups: the param groups of an optimizer, whose `param_names` are changed where needed.
        before: the places and names when they were last looked at.

    Returns:
        The places and names now.
    """
    known: list[list[str | None]] = []
    old = {name for _, name in before.values()}
    titled = [
        (str(g.get("name", i)), g) for i, g in enumerate(groups) if g.get("param_names") is not None
    ]
    for _, group in titled:
        homes = [before.get(p, (None, None)) for p in group["params"]]
        number = homes[0][0][0] if homes and homes[0][0] else None
        stay = [place for place, _ in homes] == [(number, i) for i in range(len(homes))]
        are_edited = not old >= {*group["param_names"]}
        is_same = stay and len(group["param_names"]) == len(homes) and are_edited
        known.append(list(group["param_names"]) if is_same else [name for _, name in homes])
    taken = {name for names in known for name in names}
    for (title, group), names in zip(titled, known, strict=True):
        for index in [i for i, name in enumerate(names) if name is None]:
            fresh = (f"{title}[{number}]" for number in count(index))
            choices = chain(group["param_names"][index : index + 1], fresh)
            names[index] = next(choice for choice in choices if choice not in taken)
            taken.add(names[index])
        if names != group["param_names"]:
            group["param_names"] = names
    return places(groups)
