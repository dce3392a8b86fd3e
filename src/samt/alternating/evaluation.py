"""Repeated evaluation of one loss within a step, invisible from outside.

The loss is evaluated several times in a step, at changing weights of one block after the other.
All evaluations see the same function: buffers, attributes and randomness start each one as they
started the first. After the step they stand as after one single evaluation. If anything raises,
the weights, the eta models, the buffers, the attributes, the randomness and `requires_grad` are
those of before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from samt.alternating.replay import CallOrderChangedError, Observer, Record, Replay
from samt.alternating.surroundings import Surroundings, Unprotected, reached_by
from samt.closures import Closure
from samt.errors import ClosureResultError, NoGradientError, OptionError, UnsupportedGradientError
from samt.tensors.process_groups import Ranks
from samt.tensors.refusals import refuse_post_accumulate_hooks, refuse_sparse

Loss: TypeAlias = Tensor | float
Undo: TypeAlias = Sequence[tuple[Tensor, Tensor]]  # tensors with copies of what they were
Found: TypeAlias = tuple[Loss | None, list[Tensor | None] | None]
# The blocks that are differentiated, and the block that changes before the next evaluation.
Moves: TypeAlias = tuple[Sequence[int], int | None]
_DATA_PARALLEL = (
    "a DistributedDataParallel model averages nothing here: build the optimizer with "
    "process_group=torch.distributed.group.WORLD, or use one block and call loss.backward() in "
    "the closure"
)
_MOST_REPLAYS = 4  # a new module for every step would otherwise fill the memory
_STEPS_TO_WATCH = 2  # in which state that nobody can protect is looked for


class Evaluated(NamedTuple):
    """The result of one evaluation.

    Attributes:
        loss: the loss without its graph.
        gradients: by the number of a block, one gradient or None for each of its parameters.
    """

    loss: Loss
    gradients: dict[int, list[Tensor | None]]


class RepeatedEvaluation:
    """Evaluates the losses of one step; a context manager.

    Args:
        parameters: all parameters of the optimizer.
        functions: the closures that the step will evaluate.
        replays: for each model the object that spares what ran ahead of a block.
        ranks: the processes over which losses and gradients are averaged.
        habits: what earlier steps have learned of models and losses.

    Attributes:
        count: the number of evaluations so far.
        draws: whether the first evaluation drew random numbers.
        keeps: whether the first evaluation set attributes of modules or of the loss.
        undo: the tensors that the step changes, with copies to put back if it fails.
        holders: the modules and loss objects whose buffers and attributes count.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        functions: Sequence[Callable[[], Any]],
        replays: Mapping[nn.Module, Replay],
        ranks: Ranks,
        habits: Evaluations,
    ) -> None:
        self.count = 0
        self.draws = self.keeps = False
        self._trainable = [parameter for parameter in parameters if parameter.requires_grad]
        self._trainable_ids = {id(parameter) for parameter in self._trainable}
        self._devices = {p.device for p in self._trainable if p.device.type != "cpu"}
        reached = reached_by(functions, [m for r in replays.values() for m in r.modules])
        self.holders, self._generators = reached.holders, reached.generators
        self._replays = replays
        self._ranks = ranks
        self._averages = ranks.are_several
        self._is_data_parallel = reached.is_data_parallel and not self._averages
        self._habits = habits
        self._records: dict[int, Record] = {}  # by the id of the closure
        self.undo: list[tuple[Tensor, Tensor]] = []
        self._was_tried = False
        self._after_first: Surroundings | None = None

    def __enter__(self) -> RepeatedEvaluation:
        try:
            for replay in self._replays.values():
                replay.start_step(self._generators)
            self._before = Surroundings(self.holders, self._devices, self._generators)
        except BaseException:
            self._end_replays()
            raise
        watches = self._habits.steps_watched < _STEPS_TO_WATCH
        self._unprotected = Unprotected(self.holders) if watches else None
        # torch's own fast path of attention asks whether anything requires gradients, but not in a
        # way that `Observer` could see.
        self._had_fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        _require_grad(self._trainable, False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        torch.backends.mha.set_fastpath_enabled(self._had_fast_path)
        _require_grad(self._trainable, True)
        for parameter in self._trainable:
            parameter.grad = None
        if kind is not None:
            take_back(self.undo)
            self._before.restore()
        elif self._after_first is not None:
            self._after_first.restore()
        self._end_replays()

    def _end_replays(self) -> None:
        for replay in reversed(list(self._replays.values())):  # they may share modules
            replay.end_step()

    def gradients(
        self,
        closure: Callable[[], Any],
        blocks: Mapping[int, Sequence[Tensor]],
        changed: Collection[int],
        next_changed: int | None,
    ) -> Evaluated:
        """Evaluate the loss and differentiate it with respect to some blocks.

        Args:
            closure: a function that returns the loss; it may call `backward` and `zero_grad`.
            blocks: the parameters of some blocks, by the number of the block. All other
                parameters are taken as constants.
            changed: the numbers of the blocks that changed since the last evaluation.
            next_changed: the number of the block that changes before the closure's next
                evaluation; None if there is no next evaluation.

        Raises:
            NoGradientError: there is neither a `.grad` nor a loss with a graph.
            ClosureResultError: the closure returned something else than one number.
            UnsupportedGradientError: a gradient is sparse, or a hook would never run.
        """
        own = [p for block in blocks.values() for p in block if id(p) in self._trainable_ids]
        for record in self._records.values():
            record.changed.update(changed)
        loss, found = None, None
        if own or not self._trainable:
            loss, found = self._evaluate(closure, own, own, (list(blocks), next_changed))
        if found is None and self._trainable:
            # Either the blocks have no part in this loss or the closure gives no gradient at all:
            # with every parameter unfrozen the two look different.
            loss, found = self._evaluate(closure, own, self._trainable)
        if loss is None or (found is None and self._trainable):
            raise NoGradientError(
                "the closure returned no loss that can be differentiated: return the loss tensor "
                "itself, not loss.item() or loss.detach(), or call loss.backward() in the closure "
                "and return the loss"
            )
        found = found or []
        if self._averages:
            loss, found = self._ranks.average(loss, found, own)
        of = dict(zip(map(id, own), found, strict=True))
        return Evaluated(
            loss, {index: [of.get(id(p)) for p in block] for index, block in blocks.items()}
        )

    def _evaluate(
        self,
        closure: Callable[[], Any],
        own: list[Tensor],
        unfrozen: list[Tensor],
        moves: Moves | None = None,
    ) -> Found:
        """Loss and gradients of one evaluation; made again where that shows how to make it."""
        observer = self._observer(closure)
        self.count += 1
        try:
            result = self._attempt(closure, own, unfrozen, moves, observer)
        except Exception as error:
            if self._has_to_unfreeze(observer, unfrozen):
                pass
            elif isinstance(closure, Closure) and closure.is_too_small(error):
                closure.take_whole()
            elif isinstance(error, RuntimeError) and "does not require grad" in str(error):
                return None, None  # `backward` inside the closure, on a loss without a graph
            else:
                if isinstance(closure, Closure):
                    closure.refuse_if_a_part(error)
                raise
        else:
            if not self._has_to_unfreeze(observer, unfrozen):
                return result
        self.count -= 1
        if self.count == 0:
            self._after_first = None
        self._records.pop(id(closure), None)
        return self._evaluate(closure, own, unfrozen)

    def _attempt(
        self,
        closure: Callable[[], Any],
        own: list[Tensor],
        unfrozen: list[Tensor],
        moves: Moves | None,
        observer: Observer | None,
    ) -> Found:
        if self._was_tried:
            self._before.restore()
        self._was_tried = True
        torch.clear_autocast_cache()  # it may hold casts of weights that have changed since
        if self._habits.reads_requires_grad:
            unfrozen, moves = self._trainable, None
        if self._is_data_parallel and len(unfrozen) < len(self._trainable):
            raise OptionError(_DATA_PARALLEL)
        _require_grad(unfrozen, True)
        try:
            with torch.enable_grad():
                with observer or nullcontext():
                    loss = closure() if moves is None else self._replayed(closure, *moves)
                refuse_other_than_one_number(loss)
                gradients = self._gradients(loss, own, unfrozen)
        finally:
            _require_grad(unfrozen, False)
        if self._after_first is None:
            self._look_at_what_the_first_did()
        return (loss.detach() if isinstance(loss, Tensor) else loss), gradients

    def _gradients(
        self, loss: Any, own: list[Tensor], unfrozen: list[Tensor]
    ) -> list[Tensor | None] | None:
        """Gradients of `own`, or None if the closure gave no way to have any."""
        if any(p.grad is not None for p in unfrozen):  # the closure called backward
            gradients: list[Tensor | None] = [p.grad for p in own]
            for parameter in unfrozen:
                parameter.grad = None
        elif isinstance(loss, Tensor) and loss.requires_grad:
            if self._is_data_parallel:
                raise OptionError(_DATA_PARALLEL)
            gradients = _differentiated(loss, own)
        else:
            return None
        for gradient in gradients:
            if gradient is not None and gradient.layout is not torch.strided:
                refuse_sparse(gradient)
        return gradients

    def _replay_of(self, closure: Callable[[], Any]) -> Replay | None:
        return self._replays.get(closure.model) if isinstance(closure, Closure) else None

    def _replayed(
        self, closure: Callable[[], Any], current: Sequence[int], next_changed: int | None
    ) -> Any:
        replay = self._replay_of(closure)
        if replay is None or not replay.enabled:
            return closure()
        record = self._records.setdefault(id(closure), Record())
        try:
            return replay.evaluate(closure, record, current, next_changed)
        except CallOrderChangedError:
            replay.give_up()
            self._before.restore()
            return closure()

    def _observer(self, closure: Callable[[], Any]) -> Observer | None:
        """An observer for the first evaluation of each model, and of any function, in a step."""
        if self._habits.reads_requires_grad:
            return None
        replay = self._replay_of(closure)
        if replay is not None and replay.observing:
            return Observer(self._trainable_ids, replay.note_use if replay.enabled else None)
        return None if self._was_tried else Observer(self._trainable_ids, None)

    def _has_to_unfreeze(self, observer: Observer | None, unfrozen: list[Tensor]) -> bool:
        """Whether the code asked for requires_grad while parameters did not have their own."""
        asked = observer is not None and observer.asked
        if not asked or self._habits.reads_requires_grad or len(unfrozen) == len(self._trainable):
            return False
        self._habits.reads_requires_grad = True
        return True

    def _look_at_what_the_first_did(self) -> None:
        self._after_first = Surroundings(self.holders, self._devices, self._generators)
        self.draws, self.keeps = self._before.differences(self._after_first)
        for replay in self._replays.values():
            if self.draws and not replay.draws:
                self._records.clear()  # without the random states that a replay would need
            replay.draws = self.draws
        if self._unprotected is not None:
            self._habits.steps_watched += 1
            if self._unprotected.warn():
                self.keeps = True
                self._habits.steps_watched = _STEPS_TO_WATCH


class Evaluations:
    """Starts the repeated evaluation of each step, and keeps what steps learn of the models.

    Args:
        groups: the param groups of all blocks.
        earlier: the object that knows what steps learned before the groups changed, or None.

    Attributes:
        reads_requires_grad: whether the code asks tensors if they require gradients. Then all
            parameters do in every evaluation, as in everybody's loop.
        steps_watched: the number of steps in which unprotected state was looked for.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], earlier: Evaluations | None = None
    ) -> None:
        self.reads_requires_grad: bool = earlier is not None and earlier.reads_requires_grad
        self.steps_watched: int = 0 if earlier is None else earlier.steps_watched
        self._parameters = [p for group in groups for p in group["params"]]
        self._block_of = {id(p): i for i, group in enumerate(groups) for p in group["params"]}
        self._recorders: dict[nn.Module, Replay] = {}

    def of_step(
        self, closures: Sequence[Callable[[], Any]], ranks: Ranks, is_replaying: bool
    ) -> RepeatedEvaluation:
        """The evaluation of one step, to be entered.

        Args:
            closures: the closures that the step will evaluate.
            ranks: the processes over which losses and gradients are averaged.
            is_replaying: whether what ran ahead of a block need not run again.
        """
        models = dict.fromkeys(c.model for c in closures if isinstance(c, Closure))
        replays = {model: self._recorder(model) for model in models} if is_replaying else {}
        return RepeatedEvaluation(self._parameters, closures, replays, ranks, self)

    def _recorder(self, model: nn.Module) -> Replay:
        known = self._recorders.get(model)
        if known is not None and known.modules != list(model.modules()):
            del self._recorders[model]
        if model not in self._recorders:
            if len(self._recorders) >= _MOST_REPLAYS:
                self._recorders.clear()
            accelerators = {p.device for p in self._parameters if p.device.type != "cpu"}
            self._recorders[model] = Replay(model, self._block_of, accelerators)
        return self._recorders[model]


def take_back(changed: Undo) -> None:
    """Put copies back, the oldest last.

    Args:
        changed: tensors with copies of their earlier values, in the order of the changes.
    """
    for tensor, copy in reversed(changed):
        tensor.copy_(copy)


def refuse_other_than_one_number(loss: Any) -> None:
    """Raise ClosureResultError for a closure's result that is not one real number."""
    if isinstance(loss, Tensor):
        if loss.numel() == 1 and not loss.is_complex():
            return
        found = f"a loss of shape {tuple(loss.shape)} and {loss.dtype}"
    elif loss is None or isinstance(loss, int | float):
        return
    else:
        found = f"a {type(loss).__name__}"
    raise ClosureResultError(
        f"the closure returned {found}: return one number, for example loss.mean(), and keep "
        "other results in a variable outside the closure"
    )


def _differentiated(loss: Tensor, own: list[Tensor]) -> list[Tensor | None]:
    """The gradients of a loss that nobody called `backward` of."""
    if any(map(_hooks_of, own)):
        refuse_post_accumulate_hooks()
    try:
        return list(torch.autograd.grad(loss, own, allow_unused=True)) if own else []
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise UnsupportedGradientError(
            "a reentrant checkpoint computes no gradients of a block: call "
            "torch.utils.checkpoint.checkpoint with use_reentrant=False"
        ) from error


_hooks_of = operator.attrgetter("_post_accumulate_grad_hooks")


def _require_grad(parameters: Iterable[Tensor], flag: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(flag)
