"""Replay: what ran ahead of a block since the last evaluation is not computed again.

While a model is evaluated, the outputs of its modules are recorded in call order. In the next
evaluation every call that ended before the first use of a changed block, or of the block that is
differentiated, returns what it returned before. This needs no knowledge of the model: modules
may be nested, shared, or called from any code, as long as their calls are deterministic.

A block is used where one of its parameters enters a torch function; which module's own code that
is, is observed in the first evaluation of each step. Where a call cannot be replaced by its
output, it is made again: somebody wrote into the output, the call wrote into its inputs or kept
something as an attribute, its inputs have a gradient. Where modules are called in another order
than before, the evaluation is repeated in full, and replay is off for this model, with one
warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from operator import is_not
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from samt.alternating.surroundings import RandomStates, copy_of, put_buffer

_ASKS = Tensor.requires_grad


class CallOrderChangedError(Exception):
    """The model called its modules in another order than before; never leaves samt."""


# Where a buffer stands, its name, the tensor, and a copy of its value.
Buffer = tuple[dict[str, Any], str, Any, Any]


@dataclass(slots=True)
class Call:
    """One call of a module."""

    module: nn.Module
    end: int = -1  # index after the last call inside this one; -1 while it is not over
    output: Any = None
    versions: Sequence[tuple[Tensor, int]] = ()
    random: RandomStates | None = None  # after the call, for models that draw numbers
    buffers: Sequence[Buffer] = ()  # those that it changed, after the call

    def finish(
        self, output: Any, end: int, random: RandomStates | None, buffers: Sequence[Buffer]
    ) -> None:
        """Keep the output, unless it holds something that cannot be watched for writes."""
        leaves = _leaves(output)
        if not all(isinstance(x, Tensor | int | float | str | None) for x in leaves):
            return
        if any(isinstance(x, Tensor) and x.is_inference() for x in leaves):
            return
        self.buffers = buffers
        self.output = _with_tensors(Tensor.detach, output)
        # A detached tensor counts the writes into the tensor that it came from as its own.
        self.versions = [(x, x._version) for x in _leaves(self.output) if isinstance(x, Tensor)]
        self.random = random
        self.end = end

    def can_replace(self, boundary: int, arguments: Iterable[Any]) -> bool:
        """Whether the output stands for the call: over before the boundary, written into by
        nobody since, and of inputs that need no gradient through it."""
        return (
            -1 < self.end <= boundary
            and all(tensor._version == version for tensor, version in self.versions)
            and not any(x.requires_grad for x in arguments if isinstance(x, Tensor))
        )

    def replay(self) -> Any:
        """What the call did: advance random numbers and buffers, return the output."""
        if self.random is not None:
            self.random.restore()
        for place in self.buffers:
            put_buffer(*place)
        return _with_tensors(_itself, self.output)  # containers of the caller's own


@dataclass(slots=True)
class Record:
    """The calls of one closure's last evaluation, as far as they can be of use again."""

    calls: list[Call] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)  # blocks that changed since


class Replay:
    """Records the calls of one model's modules, and replays those that cannot have changed.

    Args:
        model: the model whose modules are recorded.
        block_of: the number of each parameter's block, by the parameter's `id`.
        devices: the accelerators whose random numbers the model may draw.

    Attributes:
        enabled: whether the model is one for which replay is right.
        draws: whether the model drew random numbers in the first evaluation of the last step; the
            first evaluation of this step may show that it was wrong to expect the same again.
        observing: whether the next evaluation observes which code uses which parameter.
    """

    def __init__(
        self, model: nn.Module, block_of: Mapping[int, int], devices: Iterable[torch.device]
    ) -> None:
        self.model = model
        self.modules = list(model.modules())
        self.enabled = not any(_is_opaque(module) for module in self.modules)
        self._block_of = block_of
        self._uses: dict[nn.Module | None, set[int]] = {
            module: {block_of[id(p)] for p in module.parameters(recurse=False) if id(p) in block_of}
            for module in self.modules
        }
        self._uses[None] = set()
        self._unobserved = dict(block_of)  # the parameters whose uses are not known
        self._unfit: set[nn.Module] = set()  # they keep something as an attribute
        self._order_changed = False
        self._buffers = {
            module: [(m._buffers, name) for m in module.modules() for name in m._buffers]
            for module in (self.modules if self.enabled else ())
        }
        self._saved: list[tuple[nn.Module, Any]] = []  # forwards that stand on the instance
        self._devices = list(devices)
        self._generators: Sequence[torch.Generator] = ()
        self._record: Record | None = None  # while an evaluation is under way
        self._stack: list[nn.Module] = []
        self.observing = True
        self.draws = True

    def start_step(self, generators: Sequence[torch.Generator] = ()) -> None:
        """Put recorders around all modules, and look again at what the model does.

        It may be in another mode than in the last step. `end_step` has to follow.

        Args:
            generators: the generators of somebody's own that the model may draw from.
        """
        self._generators = generators
        self.observing = True
        if not self.enabled:
            return
        for module in self.modules:
            recorder: Any = partial(self._call, module, module.forward)
            recorder.__wrapped__ = module.forward  # its signature
            self._saved.append((module, module.__dict__.get("forward")))
            module.__dict__["forward"] = recorder

    def end_step(self) -> None:
        """Take the recorders away."""
        while self._saved:
            module, forward = self._saved.pop()
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = forward

    def evaluate(
        self,
        closure: Callable[[], Any],
        record: Record,
        current: Iterable[int],
        next_changed: int | None,
    ) -> Any:
        """Evaluate a closure within a step; use the record, and bring it up to date.

        Args:
            closure: the function that evaluates the model.
            record: the record of the same closure's last evaluation; it is changed in place.
            current: the numbers of the blocks that are differentiated.
            next_changed: the number of the block that will change next; None if there is no next
                evaluation.

        Returns:
            What the closure returns.

        Raises:
            CallOrderChangedError: the record does not fit; evaluate again without it.
        """
        self._start(record, {*record.changed, *current}, next_changed)
        try:
            result = closure()
        finally:
            self._record = None
            self._stack.clear()
        if self._position < self._boundary or self._order_changed:
            raise CallOrderChangedError
        record.changed.clear()
        self.observing = False
        return result

    def give_up(self) -> None:
        """Switch replay off for this model, with one warning."""
        self.enabled = False
        warnings.warn(
            f"{type(self.model).__name__} calls its modules in an order that changes between "
            "evaluations of the same batch: samt evaluates it in full from now on",
            RuntimeWarning,
            stacklevel=2,
        )

    def _start(self, record: Record, moving: set[int], next_changed: int | None) -> None:
        self._order_changed = False
        boundary = 0
        if moving.isdisjoint(self._uses[None]) and moving.isdisjoint(self._unobserved.values()):
            still = (moving.isdisjoint(self._uses[call.module]) for call in record.calls)
            boundary = next((i for i, same in enumerate(still) if not same), len(record.calls))
        del record.calls[boundary:]
        self._record = record
        self._boundary = boundary
        self._position = 0
        self._recording = next_changed is not None
        self._next_changed = next_changed

    def _call(
        self, module: nn.Module, original: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        record = self._record
        if record is None:
            return original(*args, **kwargs)
        index = self._position
        self._position += 1
        if index < self._boundary:
            call = record.calls[index]
            if call.module is not module:
                self._order_changed = True
                raise CallOrderChangedError
            if call.can_replace(self._boundary, _passed(args, kwargs)):
                self._position = call.end
                return call.replay()
            call.end = -1
        else:
            if self._next_changed in self._uses[module]:
                self._recording = False
            call = Call(module)
            if self._recording:
                record.calls.append(call)
        before = None  # what is not recorded from its beginning on will not be at its end
        if self._recording:
            before = _Before(_passed(args, kwargs), self._buffers[module])
        attributes = module.__dict__.copy()
        self._stack.append(module)
        try:
            output = original(*args, **kwargs)
        finally:
            self._stack.pop()
        now = module.__dict__
        if len(now) != len(attributes) or any(map(is_not, now.values(), attributes.values())):
            self._unfit.update([module, *self._stack])
        fit = self._recording and module not in self._unfit
        if before is not None and fit and before.has_same_inputs():
            random = RandomStates(self._devices, self._generators) if self.draws else None
            call.finish(output, self._position, random, before.changed_buffers())
        return output

    def note_use(self, parameter: int) -> None:
        """Note that a parameter enters a torch function, in the code of the innermost module.

        Args:
            parameter: the `id` of the parameter.
        """
        self._unobserved.pop(parameter, None)
        place = self._stack[-1] if self._stack else None
        self._uses[place].add(self._block_of[parameter])


class Observer(TorchFunctionMode):
    """A mode that watches the torch functions of one evaluation.

    Args:
        parameters: the `id`s of the parameters that matter.
        note_use: called with the `id` of a parameter that enters a torch function.

    Attributes:
        asked: whether code asked a tensor if it requires gradients.
    """

    def __init__(self, parameters: Set[int], note_use: Callable[[int], None] | None) -> None:
        super().__init__()
        self._parameters = parameters
        self._note_use = note_use
        self.asked = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs) if kwargs else func(*args)
        is_getter = func.__name__ == "__get__"
        if is_getter and func.__self__ is _ASKS:
            self.asked = True
        # A look at the dtype, the device or the shape is no use.
        if self._note_use is not None and (not is_getter or isinstance(result, Tensor)):
            for parameter in self._parameters & set(map(id, _passed(args, kwargs))):
                self._note_use(parameter)
        return result


class _Before:
    """What a call of a module found: its inputs, the buffers below it."""

    def __init__(
        self, arguments: Iterable[Any], buffers: Iterable[tuple[dict[str, Any], str]]
    ) -> None:
        self._inputs = [
            (x, x._version) for x in arguments if isinstance(x, Tensor) and not x.is_inference()
        ]
        held = ((place, name, place[name]) for place, name in buffers)
        self._buffers = [(p, n, b, _version_of(b)) for p, n, b in held]

    def has_same_inputs(self) -> bool:
        """Whether the call wrote into none of its inputs."""
        return all(tensor._version == version for tensor, version in self._inputs)

    def changed_buffers(self) -> list[Buffer]:
        """The buffers that the call changed, with copies of what they are now."""
        return [
            (place, name, place[name], copy_of(place[name]))
            for place, name, before, version in self._buffers
            if place[name] is not before or _version_of(before) != version
        ]


def _version_of(buffer: Tensor | None) -> int | None:
    if buffer is None or is_lazy(buffer) or buffer.is_inference():
        return None
    return buffer._version


def _is_opaque(module: nn.Module) -> bool:
    """Whether a module does not run its submodules' Python code, or watches them itself."""
    kinds = (torch.jit.ScriptModule, nn.parallel.DistributedDataParallel, nn.DataParallel)
    compiled = hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None)
    return isinstance(module, kinds) or bool(compiled)


# Not only tuples, lists and dicts are containers to pytree, but these are none.
_LEAVES = frozenset([Tensor, nn.Parameter, type(None), bool, int, float, str])


def _leaves(tree: Any) -> Collection[Any]:
    """What containers hold in the end; most often a tensor, or a tuple that holds no other."""
    if type(tree) in _LEAVES:
        return (tree,)
    if type(tree) is tuple and _LEAVES.issuperset(map(type, tree)):
        return tree
    return pytree.tree_leaves(tree)


def _passed(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Collection[Any]:
    """The leaves of a call's arguments."""
    leaves = _leaves(args)
    return [*leaves, *_leaves(tuple(kwargs.values()))] if kwargs else leaves


def _with_tensors(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """New containers like these, with changed tensors."""
    if type(tree) is Tensor:
        return change(tree)
    return pytree.tree_map_only(Tensor, change, tree)


def _itself(tensor: Tensor) -> Tensor:
    return tensor
