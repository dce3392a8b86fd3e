"""Repeated evaluation of one loss within a step, invisible from outside.

The loss is evaluated several times in a step, at changing weights of one block after the other.
All evaluations see the same function: buffers and randomness start each one as they started
the first. After the step, both stand as after one single evaluation. If anything raises, the
weights, the eta models, the buffers, the randomness and `requires_grad` are those of before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from samt.errors import NoGradientError, UnsupportedGradientError

Loss = Tensor | float


class BlockGradient(NamedTuple):
    """Loss of one pass, without its graph, and one gradient (or None) for each parameter."""

    loss: Loss
    gradients: list[Tensor | None]


class RepeatedEvaluation:
    """The evaluations of one step; a context manager.

    Args:
        parameters: all parameters of the optimizer.
        models: the models that the closures evaluate, as far as they are known.
        total: how many evaluations the step will take.

    Attributes:
        remaining: how many of them are left.
        count: how many there were.
    """

    def __init__(
        self, parameters: Iterable[Tensor], models: Iterable[nn.Module], total: int
    ) -> None:
        self.remaining = total
        self.count = 0
        self._trainable = [parameter for parameter in parameters if parameter.requires_grad]
        self._trainable_ids = {id(parameter) for parameter in self._trainable}
        self._models = list(dict.fromkeys(models))
        self._devices = {p.device for p in self._trainable if p.device.type != "cpu"}
        self._undo: list[tuple[Tensor, Tensor]] = []
        self._after_first: _Surroundings | None = None

    def __enter__(self) -> RepeatedEvaluation:
        self._before = _Surroundings(self._models, self._devices)
        _require_grad(self._trainable, False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        _require_grad(self._trainable, True)
        for parameter in self._trainable:
            parameter.grad = None
        if kind is not None:
            for tensor, copy in reversed(self._undo):
                tensor.copy_(copy)
            self._before.restore()
        elif self._after_first is not None:
            self._after_first.restore()

    def about_to_change(self, snapshot: Callable[[], list[tuple[Tensor, Tensor]]]) -> None:
        """Keep what is going to change, if an evaluation to come could still raise."""
        if self.remaining:
            self._undo += snapshot()

    def gradient(self, closure: Callable[[], Any], block: Sequence[Tensor]) -> BlockGradient:
        """Evaluate the loss and differentiate it with respect to one block.

        Args:
            closure: returns the loss; may or may not call `backward` and `zero_grad`.
            block: the block's parameters; all others are taken as constants.

        Raises:
            NoGradientError: there is neither a `.grad` nor a loss with a graph.
            UnsupportedGradientError: a gradient is sparse.
        """
        own = [p for p in block if id(p) in self._trainable_ids]
        loss, gradients = None, None
        if own or not self._trainable:
            loss, gradients = self._evaluate(closure, own, unfrozen=own)
        if gradients is None and self._trainable:
            # Either the block has no part in this loss or the closure gives no gradient at all:
            # with every parameter unfrozen the two look different.
            loss, gradients = self._evaluate(closure, own, unfrozen=self._trainable)
        if loss is None or (gradients is None and self._trainable):
            raise NoGradientError(
                "the closure returned no loss that can be differentiated: return the loss tensor "
                "itself, not loss.item() or loss.detach(), or call loss.backward() in the closure "
                "and return the loss"
            )
        self.remaining -= 1
        by_parameter = dict(zip(map(id, own), gradients or (), strict=True))
        return BlockGradient(loss, [by_parameter.get(id(p)) for p in block])

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
            self._after_first = _Surroundings(self._models, self._devices)
        return (loss.detach() if isinstance(loss, Tensor) else loss), gradients


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


def refuse_sparse(gradient: Tensor | None) -> None:
    """Raise UnsupportedGradientError for a sparse gradient."""
    if gradient is not None and gradient.layout != torch.strided:
        raise UnsupportedGradientError(
            "SAMT does not support sparse gradients: build the embedding with sparse=False"
        )


def _require_grad(parameters: Iterable[Tensor], flag: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(flag)


def _copy_of(buffer: Tensor | None) -> Tensor | None:
    """A copy, unless the buffer is None or an expanded tensor, which nothing can write to."""
    if buffer is None or (0 in buffer.stride() and buffer.numel() > 1):
        return None
    return buffer.clone()


class _Surroundings:
    """Buffers of the models, and the state of every random number generator they may use."""

    def __init__(self, models: Sequence[nn.Module], devices: Iterable[torch.device]) -> None:
        self._buffers = [
            (module._buffers, name, buffer, _copy_of(buffer))
            for model in models
            for module in model.modules()
            for name, buffer in module._buffers.items()
        ]
        self._cpu = torch.get_rng_state()
        self._devices = [
            (device, torch.get_device_module(device).get_rng_state(device)) for device in devices
        ]

    def restore(self) -> None:
        for buffers, name, buffer, copy in self._buffers:
            buffers[name] = buffer  # some modules assign a new tensor
            if buffer is not None and copy is not None:
                buffer.copy_(copy)
        torch.set_rng_state(self._cpu)
        for device, state in self._devices:
            torch.get_device_module(device).set_rng_state(state, device)
