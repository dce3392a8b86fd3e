"""Repeated evaluation of one loss within a step, invisible from outside.

The loss is evaluated several times in a step, at changing weights of one block after the other.
All evaluations see the same function: buffers and randomness start each one as they started
the first. After the step, both stand as after one single evaluation. If anything raises, the
weights, the eta models, the buffers, the randomness and `requires_grad` are those of before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from samt.closures import Closure
from samt.errors import NoGradientError
from samt.finite import is_read_late
from samt.parameters import refuse_sparse
from samt.randomness import RandomStates
from samt.ranks import Ranks
from samt.replay import CallOrderChangedError, Record, Replay

Loss = Tensor | float


class Evaluated(NamedTuple):
    """Loss of one pass, without its graph, and each block's gradients, one (or None) each."""

    loss: Loss
    gradients: dict[int, list[Tensor | None]]


class RepeatedEvaluation:
    """The evaluations of one step; a context manager.

    Args:
        parameters: all parameters of the optimizer.
        models: the models that the closures evaluate, as far as they are known.
        replays: for some of these models, what ran ahead of a block need not run again.
        ranks: over which losses and gradients are averaged.

    Attributes:
        count: how many evaluations there were.
        draws: whether the first of them drew random numbers.
        is_judged_late: a step may be taken back after its end, when its losses are known.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        models: Iterable[nn.Module],
        replays: Mapping[nn.Module, Replay],
        ranks: Ranks,
    ) -> None:
        self._ranks = ranks
        self.count = 0
        self.draws = False
        self._trainable = [parameter for parameter in parameters if parameter.requires_grad]
        self._trainable_ids = {id(parameter) for parameter in self._trainable}
        known = (
            replays[model].modules if model in replays else model.modules() for model in models
        )
        self._modules = list(dict.fromkeys(module for modules in known for module in modules))
        self.is_judged_late = any(is_read_late(parameter.device) for parameter in self._trainable)
        self._devices = {p.device for p in self._trainable if p.device.type != "cpu"}
        self._replays = replays
        self._records: dict[int, Record] = {}  # by the id of the closure
        self._undo: list[tuple[Tensor, Tensor]] = []
        self._after_first: _Surroundings | None = None

    def __enter__(self) -> RepeatedEvaluation:
        self._before = _Surroundings(self._modules, self._devices)
        _require_grad(self._trainable, False)
        for replay in self._replays.values():
            replay.start_step()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for replay in reversed(list(self._replays.values())):  # they may share modules
            replay.end_step()
        _require_grad(self._trainable, True)
        for parameter in self._trainable:
            parameter.grad = None
        if kind is not None:
            take_back(self._undo)
            self._before.restore()
        elif self._after_first is not None:
            self._after_first.restore()

    def take_back_unless(self, fine: Tensor) -> None:
        """After the step: let the device take back what the step did to weights and buffers.

        Random numbers that were drawn remain drawn.

        Args:
            fine: one bool; nobody looks at it here.
        """
        take_back([*self._before.copies(), *self._undo], fine)

    def about_to_change(self, block: int, snapshot: Iterable[tuple[Tensor, Tensor]] = ()) -> None:
        """Say that a block is going to change.

        Args:
            block: its number.
            snapshot: what will change, with copies to take it back if a later evaluation raises.
        """
        self._undo += snapshot
        for record in self._records.values():
            record.changed.add(block)

    def gradients(
        self,
        closure: Callable[[], Any],
        blocks: Mapping[int, Sequence[Tensor]],
        next_changed: int | None,
    ) -> Evaluated:
        """Evaluate the loss and differentiate it with respect to some blocks.

        Args:
            closure: returns the loss; may or may not call `backward` and `zero_grad`.
            blocks: parameters by the number of their block; all others are taken as constants.
            next_changed: the block that changes before the closure's next evaluation; None if
                there is none.

        Raises:
            NoGradientError: there is neither a `.grad` nor a loss with a graph.
            UnsupportedGradientError: a gradient is sparse.
        """
        own = [p for block in blocks.values() for p in block if id(p) in self._trainable_ids]
        loss, found = None, None
        if own or not self._trainable:
            evaluate = partial(self._replayed, closure, blocks, next_changed)
            loss, found = self._evaluate(evaluate, own, unfrozen=own)
        if found is None and self._trainable:
            # Either the blocks have no part in this loss or the closure gives no gradient at all:
            # with every parameter unfrozen the two look different.
            loss, found = self._evaluate(closure, own, unfrozen=self._trainable)
        if loss is None or (found is None and self._trainable):
            raise NoGradientError(
                "the closure returned no loss that can be differentiated: return the loss tensor "
                "itself, not loss.item() or loss.detach(), or call loss.backward() in the closure "
                "and return the loss"
            )
        loss, found = self._ranks.average(loss, found or [], own)
        of = dict(zip(map(id, own), found, strict=True))
        return Evaluated(
            loss, {index: [of.get(id(p)) for p in block] for index, block in blocks.items()}
        )

    def _replayed(
        self, closure: Callable[[], Any], current: Iterable[int], next_changed: int | None
    ) -> Any:
        replay = self._replays.get(closure.model) if isinstance(closure, Closure) else None
        if replay is None or not replay.enabled:
            return closure()
        record = self._records.setdefault(id(closure), Record())
        try:
            return replay.evaluate(closure, record, current, next_changed)
        except CallOrderChangedError:
            replay.give_up()
            self._before.restore()
            return closure()

    def _evaluate(
        self, closure: Callable[[], Any], own: list[Tensor], unfrozen: list[Tensor]
    ) -> tuple[Loss | None, list[Tensor | None] | None]:
        if self.count:
            self._before.restore()
        self.count += 1
        torch.clear_autocast_cache()  # it may hold casts of weights that have changed since
        _require_grad(unfrozen, True)
        try:
            with torch.enable_grad():
                loss = closure()
                gradients = _gradients(loss, own, unfrozen)
        except RuntimeError as error:  # `backward` inside the closure, on a loss without a graph
            if "does not require grad" not in str(error):
                raise
            return None, None
        finally:
            _require_grad(unfrozen, False)
        if self._after_first is None:
            self._after_first = _Surroundings(self._modules, self._devices)
            self.draws = not self._before.random.equals(self._after_first.random)
            for replay in self._replays.values():
                replay.draws = self.draws
        return (loss.detach() if isinstance(loss, Tensor) else loss), gradients


def take_back(changed: Sequence[tuple[Tensor, Tensor]], fine: Tensor | None = None) -> None:
    """Put copies back, the oldest last.

    Args:
        changed: tensors, each with a copy of what it was.
        fine: one bool, on a device: whether to leave things as they are. Nobody looks at it here.
    """
    for tensor, copy in reversed(changed):
        tensor.copy_(copy if fine is None else torch.where(fine.to(tensor.device), tensor, copy))


def _gradients(loss: Any, own: list[Tensor], unfrozen: list[Tensor]) -> list[Tensor | None] | None:
    """Gradients of `own`, or None if the closure gave no way to have any."""
    if any(p.grad is not None for p in unfrozen):  # the closure called backward
        gradients: list[Tensor | None] = [p.grad for p in own]
        for parameter in unfrozen:
            parameter.grad = None
    elif isinstance(loss, Tensor) and loss.requires_grad:
        gradients = list(torch.autograd.grad(loss, own, allow_unused=True)) if own else []
    else:
        return None
    for gradient in gradients:
        refuse_sparse(gradient)
    return gradients


def _require_grad(parameters: Iterable[Tensor], flag: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(flag)


def _copy_of(buffer: Tensor | None) -> Tensor | None:
    """A copy, unless the buffer is None or an expanded tensor, which nothing can write to."""
    if buffer is None or (0 in buffer.stride() and buffer.numel() > 1):
        return None
    return buffer.clone()


class _Surroundings:
    """Buffers of modules, and the state of every random number generator they may use."""

    def __init__(self, modules: Iterable[nn.Module], devices: Iterable[torch.device]) -> None:
        self._buffers = [
            (module._buffers, name, buffer, _copy_of(buffer))
            for module in modules
            for name, buffer in module._buffers.items()
        ]
        self.random = RandomStates(devices)

    def copies(self) -> list[tuple[Tensor, Tensor]]:
        """The buffers that stand there now, with what they were, if they were of this shape."""
        places = ((held.get(name), copy) for held, name, _, copy in self._buffers)
        return [
            (now, copy)
            for now, copy in places
            if now is not None and copy is not None and now.shape == copy.shape
        ]

    def restore(self) -> None:
        for buffers, name, buffer, copy in self._buffers:
            buffers[name] = buffer  # some modules assign a new tensor
            if buffer is not None and copy is not None:
                buffer.copy_(copy)
        self.random.restore()
