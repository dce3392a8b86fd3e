"""What an evaluation of the loss may move beside the weights: buffers, attributes, randomness.

Modules and loss functions are looked at alike: what they hold is put back before each repeated
evaluation, so that all evaluations of a step see the same function, and after the step it stands
as one single evaluation left it.
"""

from __future__ import annotations

import types
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from operator import is_not
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from samt.closures import Closure

# Attributes that torch itself gives to every module; `_buffers` is looked at for itself.
_OF_TORCH = frozenset({*vars(nn.Module()), "forward"})
_CONTAINERS = (list, dict, set, deque)
_MISSING = object()


class RandomStates:
    """A snapshot of torch's random number generators.

    CUDA too keeps its states in host memory, so that nothing waits for the device.

    Args:
        devices: the accelerators whose generators count too; the CPU's generator always does.
        generators: generators of somebody's own that count, too.
    """

    def __init__(
        self,
        devices: Iterable[torch.device] = (),
        generators: Iterable[torch.Generator] = (),
    ) -> None:
        self._cpu = torch.get_rng_state()
        self._own = [(generator, generator.get_state()) for generator in generators]
        self._devices: list[tuple[torch.device, Tensor]] = [
            (device, torch.get_device_module(device).get_rng_state(device)) for device in devices
        ]

    def restore(self) -> None:
        """Set every generator back to the snapshot."""
        torch.set_rng_state(self._cpu)
        for device, state in self._devices:
            torch.get_device_module(device).set_rng_state(state, device)
        for generator, state in self._own:
            generator.set_state(state)

    def equals(self, other: RandomStates) -> bool:
        """Whether nothing was drawn between two snapshots of the same devices."""
        states = zip([*self._devices, *self._own], [*other._devices, *other._own], strict=True)
        return torch.equal(self._cpu, other._cpu) and all(
            torch.equal(mine, theirs) for (_, mine), (_, theirs) in states
        )


class Surroundings:
    """A snapshot of buffers, attributes and random states.

    Args:
        holders: the modules and other objects whose buffers and attributes count.
        devices: the accelerators whose random numbers count.
        generators: the generators of somebody's own whose random numbers count.
    """

    def __init__(
        self,
        holders: Sequence[Any],
        devices: Iterable[torch.device],
        generators: Iterable[torch.Generator] = (),
    ) -> None:
        self._attributes = [(vars(holder), vars(holder).copy()) for holder in holders]
        self._buffers = [
            (holder._buffers, name, buffer, copy_of(buffer))
            for holder in holders
            if isinstance(holder, nn.Module)
            for name, buffer in holder._buffers.items()
        ]
        self.random = RandomStates(devices, generators)

    def differences(self, later: Surroundings) -> tuple[bool, bool]:
        """Whether random numbers were drawn, and whether attributes were set, until a later one."""
        return not self.random.equals(later.random), bool(self._changed())

    def _changed(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return [
            (now, before)
            for now, before in self._attributes
            if len(now) != len(before) or any(map(is_not, now.values(), before.values()))
        ]

    def restore(self) -> None:
        """Put everything back."""
        for attributes, before in self._changed():
            attributes.clear()
            attributes.update(before)
        for buffers, name, buffer, copy in self._buffers:
            put_buffer(buffers, name, buffer, copy)
        self.random.restore()


def put_buffer(
    buffers: dict[str, Any], name: str, buffer: Tensor | None, copy: Tensor | None
) -> None:
    """Put a buffer back where it stood, with the values and the shape of its copy.

    Args:
        buffers: the dict of the module that holds the buffer.
        name: the buffer's key in that dict.
        buffer: the tensor; some modules assign a new one.
        copy: the values; None for a tensor that nothing can write to.
    """
    buffers[name] = buffer
    if buffer is not None and copy is not None:
        if buffer.shape != copy.shape:  # observers of quantisation resize theirs
            buffer.resize_(copy.shape)
        buffer.copy_(copy)


def copy_of(buffer: Tensor | None) -> Tensor | None:
    """A copy, unless there is nothing to copy, or nothing can write to the buffer in place."""
    if buffer is None or is_lazy(buffer) or buffer.layout is not torch.strided:
        return None
    if 0 in buffer.stride() and buffer.numel() > 1:  # expanded
        return None
    return buffer.clone()


class Unprotected:
    """Finds what a repeated evaluation changes and nobody puts back, and warns of it.

    These are lists, dicts, sets and plain tensors that a module or loss function holds as an
    attribute and changes in place.

    Args:
        holders: the modules and other objects.
    """

    def __init__(self, holders: Sequence[Any]) -> None:
        self._held = [
            (holder, name, value, _mark(value))
            for holder in holders
            for name, value in vars(holder).items()
            if name not in _OF_TORCH and isinstance(value, (Tensor, *_CONTAINERS))
        ]

    def warn(self) -> bool:
        """Warn of the first object that has changed since.

        Returns:
            Whether there was one.
        """
        for holder, name, value, mark in self._held:
            if _mark(value) != mark:
                kind = type(holder).__name__
                warnings.warn(
                    f"{kind} changes its attribute '{name}' in place when it is evaluated. samt "
                    "evaluates it several times in a step and cannot take that back: make "
                    f"'{name}' a buffer, or assign a new object to it",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return True
        return False


def _mark(value: Any) -> Any:
    """Something that is equal to itself later unless the value was changed in place."""
    if isinstance(value, Tensor):
        return None if value.is_inference() else value._version
    return [id(x) for x in (value.values() if isinstance(value, dict) else value)]


_MOST_LOOKED_AT = 300  # objects, for each function
_DEPTH = 5
_OF_OTHERS = ("torch.", "builtins", "numpy", "functools", "collections")


class Reached(NamedTuple):
    """What some functions can reach.

    Attributes:
        holders: modules, and objects that are loss functions, whose buffers and attributes count.
        generators: random number generators of somebody's own.
        is_data_parallel: whether there is a `DistributedDataParallel`.
    """

    holders: list[Any]
    generators: list[torch.Generator]
    is_data_parallel: bool


def reached_by(functions: Iterable[Any], known: Iterable[nn.Module] = ()) -> Reached:
    """Find the modules and generators that some functions can reach, and objects with state.

    Looked at are the model and the loss function of a `samt.closure`, what a function has in its
    closure, its defaults or names globally, the object of a bound method, the arguments of a
    partial, and what all of these hold in containers and attributes, a few levels deep.

    Args:
        functions: closures and loss functions.
        known: modules that are found already.

    Examples:
        >>> model, critic = nn.Linear(2, 1), nn.BatchNorm1d(1)
        >>> loss = Closure(model, lambda outputs: critic(outputs).mean(), (torch.ones(4, 2),))
        >>> [type(holder).__name__ for holder in reached_by([loss]).holders]
        ['Linear', 'BatchNorm1d']
    """
    found: dict[int, Any] = {id(module): module for module in known}
    generators: dict[int, torch.Generator] = {}
    for function in functions:
        for part in _parts(function):
            if isinstance(part, torch.Generator):
                generators.setdefault(id(part), part)
                continue
            for one in part.modules() if isinstance(part, nn.Module) else (part,):
                found.setdefault(id(one), one)
    for one in list(found.values()):
        for value in vars(one).values():
            if isinstance(value, torch.Generator):
                generators.setdefault(id(value), value)
    # What data parallel wrappers note of a pass is theirs, and means something to them.
    wrappers = nn.parallel.DistributedDataParallel, nn.DataParallel
    holders = [one for one in found.values() if not isinstance(one, wrappers)]
    is_data_parallel = any(isinstance(one, wrappers[0]) for one in found.values())
    return Reached(holders, list(generators.values()), is_data_parallel)


def _parts(function: Any) -> Iterator[Any]:
    """The outermost modules, the generators, and a callable loss object that a function reaches."""
    if isinstance(function, Closure):
        yield function.model
        loss_fn = function.loss_fn
        if hasattr(loss_fn, "__dict__") and not _is_code(loss_fn):
            yield loss_fn
        function = loss_fn
    seen: dict[int, Any] = {}
    level = [function]
    for _ in range(_DEPTH):
        following: list[Any] = []
        for value in level:
            if id(value) in seen or len(seen) > _MOST_LOOKED_AT:
                continue
            seen[id(value)] = value
            if isinstance(value, nn.Module | torch.Generator):
                yield value
            elif isinstance(value, Closure):
                yield from _parts(value)
            else:
                following += _reached(value)
        level = following


def _is_code(value: Any) -> bool:
    """Whether a callable is a function, a method or a partial rather than an object with state."""
    kinds = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, partial, type)
    return isinstance(value, (*kinds, nn.Module))


def _reached(value: Any) -> Iterable[Any]:
    """What a callable or an object holds or names."""
    if isinstance(value, partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, types.MethodType):
        return (value.__func__, value.__self__)
    if isinstance(value, types.FunctionType):
        return _reached_by_function(value)
    if isinstance(value, list | tuple | set | dict | deque):
        return list(value.values() if isinstance(value, dict) else value)[:_MOST_LOOKED_AT]
    is_other = isinstance(value, type | types.ModuleType | Tensor | torch.optim.Optimizer)
    if is_other or (type(value).__module__ or "").startswith(_OF_OTHERS):
        return ()
    return list(getattr(value, "__dict__", {}).values())


def _reached_by_function(function: types.FunctionType) -> list[Any]:
    if str(function.__globals__.get("__name__")).startswith("torch."):
        return [function.__dict__.get("__wrapped__")]  # torch's own functions keep nothing
    found = [_content(cell) for cell in function.__closure__ or ()]
    codes = [function.__code__]
    for code in codes:  # functions within functions name what they use, too
        found += [function.__globals__.get(name) for name in code.co_names]
        codes += [one for one in code.co_consts if isinstance(one, types.CodeType)]
    found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*found, *vars(function).values()]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not assigned yet
        return None
