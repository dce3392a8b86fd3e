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
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from samt.randomness import RandomStates


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
    versions: list[tuple[Tensor, int]] = field(default_factory=list)
    random: RandomStates | None = None  # after the call, for models that draw numbers
    buffers: list[Buffer] = field(default_factory=list)  # those that it changed, after the call

    def finish(
        self, output: Any, end: int, random: RandomStates | None, buffers: list[Buffer]
    ) -> None:
        """Keep the output, unless it holds something that cannot be watched for writes."""
        leaves = pytree.tree_leaves(output)
        if not all(isinstance(x, Tensor | int | float | str | None) for x in leaves):
            return
        if any(isinstance(x, Tensor) and x.is_inference() for x in leaves):
            return
        self.buffers = buffers
        self.output = pytree.tree_map_only(Tensor, Tensor.detach, output)
        self.versions = [(x, x._version) for x in leaves if isinstance(x, Tensor)]
        self.versions = [(x.detach(), version) for x, version in self.versions]
        self.random = random
        self.end = end

    def can_replace(self, boundary: int, arguments: Iterable[Tensor]) -> bool:
        """Whether the output stands for the call: over before the boundary, written into by
        nobody since, and of inputs that need no gradient through it."""
        return (
            -1 < self.end <= boundary
            and all(tensor._version == version for tensor, version in self.versions)
            and not any(tensor.requires_grad for tensor in arguments)
        )

    def replay(self) -> Any:
        """What the call did: advance random numbers and buffers, return the output."""
        if self.random is not None:
            self.random.restore()
        for buffers, name, buffer, copy in self.buffers:
            buffers[name] = buffer
            if buffer is not None:
                buffer.copy_(copy)
        return pytree.tree_map(lambda leaf: leaf, self.output)  # containers of the caller's own


@dataclass(slots=True)
class Record:
    """The calls of one closure's last evaluation, as far as they can be of use again."""

    calls: list[Call] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)  # blocks that changed since


class Replay:
    """Replay for one model.

    Args:
        model: whose modules are recorded.
        block_of: the number of each parameter's block, by the parameter's `id`.
        devices: accelerators whose random numbers the model may draw.

    Attributes:
        enabled: whether the model is one for which replay is right.
        draws: whether the model draws random numbers; to be set after the first evaluation of
            a step.
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
        self._observed: set[int] = set()  # ids of the parameters whose uses are known
        self._unfit: set[nn.Module] = set()  # they keep something as an attribute
        self._order_changed = False
        self._buffers = {
            module: [(m._buffers, name) for m in module.modules() for name in m._buffers]
            for module in (self.modules if self.enabled else ())
        }
        self._forwards = {module: self._wrapped(module) for module in self.modules}
        self._originals: dict[nn.Module, Callable[..., Any]] = {}
        self._devices = list(devices)
        self._record: Record | None = None  # while an evaluation is under way
        self._stack: list[nn.Module] = []
        self.start_step()

    def start_step(self) -> None:
        """Look again at what the model does: it may be in another mode."""
        self.observing = True
        self.draws = True

    def evaluate(
        self,
        closure: Callable[[], Any],
        record: Record,
        current: Iterable[int],
        next_changed: int | None,
    ) -> Any:
        """Evaluate a closure; use the record, and bring it up to date.

        Args:
            closure: evaluates the model.
            record: of the same closure's last evaluation; changed in place.
            current: blocks that are differentiated.
            next_changed: the block that will change next; None if there is no next evaluation.

        Returns:
            What the closure returns.

        Raises:
            CallOrderChangedError: the record does not fit; evaluate again without it.
        """
        self._start(record, {*record.changed, *current}, next_changed)
        saved = self._install()
        try:
            with self._observation():
                result = closure()
        finally:
            self._uninstall(saved)
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
        unknown = {i for p, i in self._block_of.items() if p not in self._observed}
        used_outside = (self._uses[None] | unknown) & moving
        uses = (i for i, call in enumerate(record.calls) if self._uses[call.module] & moving)
        boundary = 0 if used_outside else next(uses, len(record.calls))
        del record.calls[boundary:]
        self._record = record
        self._boundary = boundary
        self._position = 0
        self._recording = next_changed is not None
        self._next_changed = next_changed

    def _install(self) -> list[tuple[nn.Module, Any]]:
        saved = []
        for module, forward in self._forwards.items():
            self._originals[module] = module.forward
            saved.append((module, module.__dict__.get("forward")))  # some put one on the instance
            forward.__wrapped__ = module.forward  # type: ignore[attr-defined]  # its signature
            module.__dict__["forward"] = forward
        return saved

    @staticmethod
    def _uninstall(saved: list[tuple[nn.Module, Any]]) -> None:
        for module, forward in saved:
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = forward

    def _wrapped(self, module: nn.Module) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            original = self._originals[module]
            if self._record is None:
                return original(*args, **kwargs)
            return self._call(self._record, module, original, args, kwargs)

        return forward

    def _call(
        self,
        record: Record,
        module: nn.Module,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        index = self._position
        self._position += 1
        arguments = _tensors((args, kwargs))
        if index < self._boundary:
            call = record.calls[index]
            if call.module is not module:
                self._order_changed = True
                raise CallOrderChangedError
            if call.can_replace(self._boundary, arguments):
                self._position = call.end
                return call.replay()
            call.end = -1
        else:
            if self._next_changed in self._uses[module]:
                self._recording = False
            call = Call(module)
            if self._recording:
                record.calls.append(call)
        before = _Before(module, arguments, self._buffers[module])
        self._stack.append(module)
        try:
            output = original(*args, **kwargs)
        finally:
            self._stack.pop()
        if before.has_other_attributes():
            self._unfit.update([module, *self._stack])
        if self._recording and module not in self._unfit and not before.has_other_inputs():
            random = RandomStates(self._devices) if self.draws else None
            call.finish(output, self._position, random, before.changed_buffers())
        return output

    def _observation(self) -> AbstractContextManager[Any]:
        return _Observer(self) if self.observing else nullcontext()

    def note_use(self, parameter: Tensor) -> None:
        """A parameter enters a torch function, in the code of the module on top of the stack."""
        block = self._block_of.get(id(parameter))
        if block is not None:
            self._observed.add(id(parameter))
            self._uses[self._stack[-1] if self._stack else None].add(block)


class _Observer(TorchFunctionMode):
    def __init__(self, replay: Replay) -> None:
        super().__init__()
        self._replay = replay

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__ == "__get__" and not isinstance(result, Tensor):
            return result  # a look at the dtype, the device or the shape
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._replay.note_use(leaf)
        return result


class _Before:
    """What a call of a module found: its attributes, its inputs, the buffers below it."""

    def __init__(
        self,
        module: nn.Module,
        arguments: Iterable[Tensor],
        buffers: Iterable[tuple[dict[str, Any], str]],
    ) -> None:
        self._module = module
        self._attributes = dict(module.__dict__)
        self._inputs = [(x, x._version) for x in arguments if not x.is_inference()]
        held = ((place, name, place[name]) for place, name in buffers)
        self._buffers = [(p, n, b, None if b is None else b._version) for p, n, b in held]

    def has_other_attributes(self) -> bool:
        """Whether the call kept something on its module that was not there before."""
        now = self._module.__dict__
        return len(now) != len(self._attributes) or any(
            now[name] is not value for name, value in self._attributes.items()
        )

    def has_other_inputs(self) -> bool:
        """Whether the call wrote into its inputs."""
        return any(tensor._version != version for tensor, version in self._inputs)

    def changed_buffers(self) -> list[Buffer]:
        """The buffers that the call changed, with copies of what they are now."""
        return [
            (place, name, place[name], None if place[name] is None else place[name].clone())
            for place, name, before, version in self._buffers
            if place[name] is not before or (before is not None and before._version != version)
        ]


def _is_opaque(module: nn.Module) -> bool:
    """Whether a module does not run its submodules' Python code, or watches them itself."""
    kinds = (torch.jit.ScriptModule, nn.parallel.DistributedDataParallel, nn.DataParallel)
    compiled = hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None)
    return isinstance(module, kinds) or bool(compiled)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
