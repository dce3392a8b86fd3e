"""`closure(model, loss_fn, *batch)`: a loss that can be evaluated again, also on half its batch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from samt.errors import MetaBatchUnavailableError, OptionError
from samt.partition import inner_model, is_data_parallel


class Closure:
    """A repeatable loss that knows its model and its batch; made by `closure`.

    Attributes:
        whole: for the loss of a part of a batch, the closure of the whole batch.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Tensor],
        batch: tuple[Any, ...],
        whole: Closure | None = None,
    ) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self.batch = batch
        self.whole = whole

    def __call__(self) -> Tensor:
        if not self.batch:
            return self.loss_fn()
        if len(self.batch) == 1:
            (whole,) = self.batch
            output = self.model(**whole) if isinstance(whole, Mapping) else self.model(whole)
            return self.loss_fn(output, whole)
        *inputs, targets = self.batch
        return self.loss_fn(self.model(*inputs), targets)

    def every_second(self) -> Closure:
        """The same loss on every second sample: the first, the third and so on.

        Raises:
            MetaBatchUnavailableError: the batch is missing, or its samples do not lie along
                dimension 0 of tensors.
        """
        if not self.batch:
            raise MetaBatchUnavailableError(
                "this samt.closure has no batch, so every second sample cannot be taken: use "
                "samt.closure(model, loss_fn, inputs, targets), or meta_batch='same' or 'next'"
            )
        _refuse_other_than_samples(self.batch)
        return type(self)(self.model, self.loss_fn, _every_second(self.batch), whole=self)

    def is_too_small(self, error: Exception) -> bool:
        """Whether an error says that a layer such as batch norm needs more samples than these.

        Args:
            error: the error that this closure raised.
        """
        needs_more = "Expected more than 1 value per channel when training" in str(error)
        return self.whole is not None and (needs_more or "more than 1 spatial" in str(error))

    def refuse_if_a_part(self, error: Exception) -> None:
        """Raise MetaBatchUnavailableError from an error that only a part of the batch raised.

        Args:
            error: the error that this closure raised; that of a whole batch is left as it is.
        """
        from_torch = type(error) is ValueError and _innermost_file(error).startswith(_TORCH)
        if self.whole is not None and (from_torch or type(error) in (IndexError, RuntimeError)):
            (line, *_) = str(error).splitlines() or [""]
            why = f"its loss raised {type(error).__name__}: {line[:120]}"
            raise MetaBatchUnavailableError(_CURE.format(why=why)) from error

    def take_whole(self) -> None:
        """Be the loss of the whole batch from now on."""
        assert self.whole is not None
        self.batch, self.whole = self.whole.batch, None


def closure(model: nn.Module, loss_fn: Callable[..., Tensor], *batch: Any) -> Closure:
    """Build the loss of one mini-batch for `SAMT.step`.

    The optimizer evaluates it several times in a step. Because the closure knows its model,
    buffers such as batch-norm statistics advance once; because it knows its batch, the meta
    batch can be every second sample of it.

    Args:
        model: the network.
        loss_fn: a function from (outputs, targets) to a scalar loss.
        batch: the model's inputs, then the targets. For `meta_batch="subset"` and `"fresh"` the
            samples lie along dimension 0 of every tensor; tuples, lists and dicts may hold
            tensors, and numbers and tensors without dimensions are left as they are. With one
            entry alone, `loss_fn` gets that entry as its targets: `model(entry)`, or
            `model(**entry)` for a mapping. With no entry, `loss_fn()` is called.

    Returns:
        A callable without arguments that returns the loss and does not call `backward`.

    Examples:
        >>> import samt, torch
        >>> model, loss_fn = torch.nn.Linear(3, 1), torch.nn.MSELoss()
        >>> loss = samt.closure(model, loss_fn, torch.ones(4, 3), torch.zeros(4, 1))
        >>> loss().shape, loss.every_second().batch[0].shape
        (torch.Size([]), torch.Size([2, 3]))
    """
    return Closure(model, loss_fn, batch)


def closures_of_step(
    closure: Callable[[], Any],
    meta_closure: Callable[[], Any] | None,
    kinds: set[str],
    process_group: object,
) -> tuple[Callable[[], Any], dict[str, Callable[[], Any]]]:
    """What a step evaluates: the loss of the mini-batch S, and of the meta batch of each kind.

    Args:
        closure: the loss of the mini-batch, as it was given to `step`.
        meta_closure: a loss of other samples, or None.
        kinds: the kinds of meta batches that the blocks look at, out of `same`, `subset`, `fresh`.
        process_group: the optimizer's process group, or None.

    Raises:
        MetaBatchUnavailableError: a kind cannot be had from these closures.
        OptionError: the model is data parallel and the optimizer averages nothing.
    """
    closure = _without_data_parallel(_unwrapped(closure), process_group)
    if meta_closure is not None:
        meta_closure = _without_data_parallel(meta_closure, process_group)
    return closure, _meta_closures(kinds, closure, meta_closure)


def _unwrapped(closure: Callable[[], Any]) -> Callable[[], Any]:
    """A `Closure` that a trainer wrapped in a partial, as Lightning does.

    The wrapper calls hooks that are meant for the one evaluation of other optimizers, and hides
    the batch.

    Examples:
        >>> import samt, torch
        >>> from functools import partial
        >>> loss = samt.closure(torch.nn.Linear(1, 1), torch.nn.MSELoss())
        >>> _unwrapped(partial(lambda trainer, inner: inner(), "trainer", loss)) is loss
        True
    """
    if isinstance(closure, partial) and closure.args and isinstance(closure.args[-1], Closure):
        return closure.args[-1]
    return closure


def _meta_closures(
    kinds: set[str], closure: Callable[[], Any], meta_closure: Callable[[], Any] | None
) -> dict[str, Callable[[], Any]]:
    """The closure to evaluate for each kind of meta batch.

    Args:
        kinds: out of `same`, `subset` and `fresh`.
        closure: the loss of the mini-batch S.
        meta_closure: a loss of other samples, or None.

    Raises:
        MetaBatchUnavailableError: a kind cannot be had from these closures.
    """
    if meta_closure is None and "fresh" in kinds:
        raise MetaBatchUnavailableError(
            "meta_batch='fresh' needs another mini-batch: call optimizer.step(closure, "
            "meta_closure=samt.closure(model, loss_fn, other_inputs, other_targets))"
        )
    source = closure if meta_closure is None else meta_closure
    found: dict[str, Callable[[], Any]] = {"same": closure} if "same" in kinds else {}
    for kind in sorted(kinds - {"same"}):
        if isinstance(source, Closure):
            found[kind] = source.every_second()
        elif meta_closure is not None:
            found[kind] = meta_closure
        else:
            raise MetaBatchUnavailableError(
                "meta_batch='subset' takes every second sample of the batch, which a plain "
                "function does not show: use samt.closure(model, loss_fn, inputs, targets), "
                "pass meta_closure=, or choose meta_batch='same' or 'next'"
            )
    return found


def _without_data_parallel(closure: Callable[[], Any], process_group: object) -> Callable[[], Any]:
    """The closure, on the module inside where its model is a `DistributedDataParallel`.

    DistributedDataParallel waits in every pass for the gradients of all parameters, of which a
    pass for one block has few; it is the optimizer that has to average them.

    Args:
        closure: any.
        process_group: of the optimizer.

    Raises:
        OptionError: the optimizer averages nothing.
    """
    if not (isinstance(closure, Closure) and is_data_parallel(closure.model)):
        return closure
    if process_group is None:
        raise OptionError(
            "SAMT averages the gradients of a DistributedDataParallel model itself here: build it "
            "with process_group=torch.distributed.group.WORLD"
        )
    return type(closure)(inner_model(closure.model), closure.loss_fn, closure.batch)


_TORCH = str(Path(torch.__file__).parent)
_CURE = (
    "every second sample of this batch cannot be taken, because {why}: build the optimizer with "
    "meta_batch='same' or 'next', or pass meta_closure="
)
_CONSTANTS = (int, float, complex, str, bytes, type(None), Enum, torch.dtype, torch.device)


def _innermost_file(error: Exception) -> str:
    """The file of the code that raised an error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_code.co_filename if frames else ""


def _refuse_other_than_samples(batch: tuple[Any, ...]) -> None:
    """Raise MetaBatchUnavailableError unless all tensors have the same size along dimension 0."""
    sizes = {len(tensor) for tensor in _tensors(batch)}
    if not sizes:
        raise MetaBatchUnavailableError(_CURE.format(why="it holds no tensor with dimensions"))
    if len(sizes) > 1:
        found = ", ".join(map(str, sorted(sizes)))
        raise MetaBatchUnavailableError(
            _CURE.format(why=f"its tensors have {found} entries along dimension 0")
        )
    sequences = list(_sequences(batch))
    # A tensor outside of all lists and tuples shows how many samples there are.
    outside = any(isinstance(one, Tensor | Mapping) for one in batch)
    for one in sequences:
        of_tensors = any(True for _ in _tensors(one))
        is_ambiguous = isinstance(one, list) and len(one) in sizes
        if (not of_tensors and len(one) in sizes) or is_ambiguous or not outside:
            kind = type(one).__name__
            raise MetaBatchUnavailableError(
                _CURE.format(why=f"the entries of a {kind} of {len(one)} may be samples or inputs")
            )


def _tensors(data: Any) -> Iterator[Tensor]:
    """The tensors with samples in a batch.

    Raises:
        MetaBatchUnavailableError: the batch holds something else than containers of tensors.
    """
    if isinstance(data, Tensor):
        if data.is_nested or data.layout != torch.strided:
            raise MetaBatchUnavailableError(_CURE.format(why="it holds a nested or sparse tensor"))
        if data.dim():
            yield data
    elif isinstance(data, PackedSequence):
        raise MetaBatchUnavailableError(_CURE.format(why="it holds a PackedSequence"))
    elif isinstance(data, Mapping | tuple | list):
        for value in data.values() if isinstance(data, Mapping) else data:
            yield from _tensors(value)
    elif not isinstance(data, _CONSTANTS):
        raise MetaBatchUnavailableError(_CURE.format(why=f"it holds a {type(data).__name__}"))


def _sequences(data: Any, is_outermost: bool = True) -> Iterator[list[Any] | tuple[Any, ...]]:
    """The lists and tuples within a batch, and within its containers."""
    if isinstance(data, tuple | list) and not is_outermost:
        yield data
    if isinstance(data, Mapping | tuple | list):
        for value in data.values() if isinstance(data, Mapping) else data:
            yield from _sequences(value, is_outermost=False)


def _every_second(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data[::2] if data.dim() else data
    if isinstance(data, Mapping):
        return {key: _every_second(value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):  # a named tuple
        return type(data)(*map(_every_second, data))
    if isinstance(data, tuple | list):
        return type(data)(_every_second(value) for value in data)
    return data
