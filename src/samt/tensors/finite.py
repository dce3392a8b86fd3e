"""Numbers that have to be finite: a step in which one is not changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor

from samt.errors import NonFiniteLossError

# Numbers, each with its name in the error message, such as "the loss".
Named: TypeAlias = Sequence[tuple[Tensor | float, str]]
# Called with such numbers and the name of their block (None: of all blocks).
CheckFinite: TypeAlias = Callable[[Named, str | None], None]


class FiniteNumbers:
    """Looks at every number of one step that has to be finite.

    A number in host memory is looked at at once. Numbers on an accelerator are collected, and
    `look` looks at all of them together, so that a step waits for the device only once.

    Args:
        cure: what the user can do about a number that is not finite; the end of the message.

    Attributes:
        step: the number of the step, for the error message.
        collected: the numbers that `look` has to look at, with their names and blocks.
    """

    def __init__(self, cure: str) -> None:
        self.step = 0
        self.collected: list[tuple[Tensor, str, str | None]] = []
        self._cure = cure

    def check(self, numbers: Named, block: str | None = None) -> None:
        """Look at numbers, now or in `look`.

        Args:
            numbers: numbers or tensors with one element, each with its name in the error message,
                such as "the loss".
            block: the name of the block that the numbers belong to; None if they belong to all.

        Raises:
            NonFiniteLossError: a number is in host memory and is NaN or infinite.
        """
        for number, what in numbers:
            if isinstance(number, Tensor) and number.device.type != "cpu":
                self.collected.append((number.detach(), what, block))
            else:
                refuse_unless_finite(number, what, block, self.step, self._cure)

    def look(self) -> None:
        """Look at the numbers that were collected.

        Raises:
            NonFiniteLossError: one of them is NaN or infinite.
        """
        collected, self.collected = self.collected, []
        for number, what, block in collected:
            refuse_unless_finite(number, what, block, self.step, self._cure)


def refuse_unless_finite(
    number: Tensor | float, what: str, block: str | int | None, step: int, cure: str
) -> None:
    """Raise NonFiniteLossError if a number is NaN or infinite.

    Args:
        number: a number, or a tensor with one element; its device is waited for.
        what: the name of the number in the error message, such as "the loss".
        block: the name or index of the block that the number belongs to; None for all blocks.
        step: the number of the step.
        cure: what the user can do about it.
    """
    if not math.isfinite(number):
        where = "" if block is None else f" in block {block!r}"
        raise NonFiniteLossError(
            f"{what} is {float(number)}{where} at step {step}; weights and state are those "
            f"of before this step: {cure}"
        )
