"""Numbers that have to be finite: a step in which one is not changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from samt.errors import NonFiniteLossError

# Called with a number, what the number is, and the name of its block (None: of all blocks).
CheckFinite: TypeAlias = Callable[[Tensor | float, str, str | None], None]


class FiniteNumbers:
    """Looks at every number of one step that has to be finite.

    A number in host memory is looked at at once. Numbers on an accelerator are collected, and
    `look` looks at all of them together, so that a step waits for the device only once.

    Args:
        step: the number of the step, for the error message.
        cure: what the user can do about a number that is not finite; the end of the message.
    """

    def __init__(self, step: int, cure: str) -> None:
        self._step = step
        self._cure = cure
        self._collected: list[tuple[Tensor, str, str | None]] = []

    def check(self, number: Tensor | float, what: str, block: str | None = None) -> None:
        """Look at a number, now or in `look`.

        Args:
            number: a number, or a tensor with one element.
            what: the name of the number in the error message, such as "the loss".
            block: the name of the block that the number belongs to; None if it belongs to all.

        Raises:
            NonFiniteLossError: the number is in host memory and is NaN or infinite.
        """
        if isinstance(number, Tensor) and number.device.type != "cpu":
            self._collected.append((number.detach(), what, block))
        else:
            refuse_unless_finite(number, what, block, self._step, self._cure)

    def look(self) -> None:
        """Look at the numbers that were collected.

        Raises:
            NonFiniteLossError: one of them is NaN or infinite.
        """
        collected, self._collected = self._collected, []
        for number, what, block in collected:
            refuse_unless_finite(number, what, block, self._step, self._cure)


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
