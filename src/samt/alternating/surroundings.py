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
from typing import Any

import torch
from torch import Tensor, nn

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
    """

    def __init__(self, devices: Iterable[torch.device] = ()) -> None:
        self._cpu = torch.get_rng_state()
        self._devices: list[tuple[torch.device, Tensor]] = [
            (device, torch.get_device_module(device).get_rng_state(device)) for device in devices
        ]

    def restore(self) -> None:
        """Set every generator back to the snapshot."""
        torch.set_rng_state(self._cpu)
        for device, state in self._devices:
            torch.get_device_module(device).set_rng_state(state, device)

    def equals(self, other: RandomStates) -> bool:
        """Whether nothing was drawn between two snapshots of the same devices."""
        states = zip(self._devices, other._devices, strict=True)
        return torch.equal(self._cpu, other._cpu) and all(
            torch.equal(mine, theirs) for (_, mine), (_, theirs) in states
        )


class Surroundings:
    """A snapshot of buffers, attributes and random states.

    Args:
        holders: the modules and other objects whose buffers and attributes count.
        devices: the accelerators whose random numbers count.
    """

    def __init__(self, holders: Sequence[Any], devices: Iterable[torch.device]) -> None:
        self._attributes = [(vars(holder), vars(holder).copy()) for holder in holders]
        self._buffers = [
            (holder._buffers, name, buffer, _copy_of(buffer))
            for holder in holders
            if isinstance(holder, nn.Module)
            for name, buffer in holder._buffers.items()
        ]
        self.random = RandomStates(devices)

    def has_other_attributes(self) -> bool:
        """Whether an attribute is another object now."""
        return bool(self._changed())

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


def _copy_of(buffer: Tensor | None) -> Tensor | None:
    """A copy, unless the buffer is None or an expanded tensor, which nothing can write to."""
    if buffer is None or (0 in buffer.stride() and buffer.numel() > 1):
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


def holders_of(functions: Iterable[Any], known: Iterable[nn.Module] = ()) -> list[Any]:
    """Every module that some functions can reach, and objects that are loss functions themselves.

    Looked at are the model and the loss function of a `samt.closure`, what a function has in its
    closure or calls by a global name, the object of a bound method, and the arguments of a
    partial.

    Args:
        functions: closures and loss functions.
        known: modules that are found already.

    Examples:
        >>> model, critic = nn.Linear(2, 1), nn.BatchNorm1d(1)
        >>> loss = Closure(model, lambda outputs: critic(outputs).mean(), (torch.ones(4, 2),))
        >>> [type(holder).__name__ for holder in holders_of([loss])]
        ['Linear', 'BatchNorm1d']
    """
    found: dict[int, Any] = {id(module): module for module in known}
    for function in functions:
        for part in _parts(function, depth=2):
            for one in part.modules() if isinstance(part, nn.Module) else (part,):
                found.setdefault(id(one), one)
    # What data parallel wrappers note of a pass is theirs, and means something to them.
    wrappers = nn.parallel.DistributedDataParallel, nn.DataParallel
    return [one for one in found.values() if not isinstance(one, wrappers)]


def _parts(value: Any, depth: int) -> Iterator[Any]:
    """The outermost modules, and the callable objects, that a function reaches."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, Closure):
        yield value.model
        yield from _parts(value.loss_fn, depth)
        if hasattr(value.loss_fn, "__dict__") and not _is_code(value.loss_fn):
            yield value.loss_fn
    elif depth:
        for inner in _reached(value):
            yield from _parts(inner, depth - 1)


def _is_code(value: Any) -> bool:
    """Whether a callable is a function, a method or a partial rather than an object with state."""
    kinds = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, partial, type)
    return isinstance(value, (*kinds, nn.Module))


def _reached(function: Any) -> Iterator[Any]:
    """What a callable holds or names."""
    if isinstance(function, partial):
        yield from (function.func, *function.args, *function.keywords.values())
    elif isinstance(function, types.MethodType):
        yield function.__func__
        yield function.__self__
    elif isinstance(function, types.FunctionType):
        if function.__module__.startswith("torch."):
            return  # torch's own functions keep nothing
        for cell in function.__closure__ or ():
            yield _content(cell)
        for name in function.__code__.co_names:
            yield function.__globals__.get(name)
        yield from function.__defaults__ or ()
    elif not isinstance(function, type | types.ModuleType) and hasattr(function, "__dict__"):
        yield from (one for one in vars(function).values() if isinstance(one, nn.Module))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not assigned yet
        return None
