"""Closures and loss functions of other kinds than `samt.closure` makes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from samt.closures import Closure


class WithBackward(Closure):
    """samt.closure, but calling `zero_grad` and `backward` itself."""

    def __call__(self) -> Tensor:
        self.model.zero_grad()
        loss = super().__call__()
        loss.backward()
        return loss


class Fault:
    """Says which call of a loss function goes wrong, and counts the calls.

    Attributes:
        calls: the number of calls so far.
        fails_at: the number of the call that goes wrong; 0 for none.
        failure: what that call raises, or a factor of its loss.
    """

    def __init__(self, failure: BaseException | float = 0.0) -> None:
        self.calls = 0
        self.fails_at = 0
        self.failure = failure


def failing(fault: Fault) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss function that goes wrong in one of its calls.

    It is a function, because a step puts the attributes of a callable object back.
    """

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        fault.calls += 1
        loss = nn.functional.cross_entropy(outputs, targets)
        if fault.calls == fault.fails_at:
            if isinstance(fault.failure, BaseException):
                raise fault.failure
            loss = loss * fault.failure
        return loss

    return loss_fn
