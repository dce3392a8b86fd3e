"""Numbers that are not finite: refused at once, or, on an accelerator, without waiting for it."""

from __future__ import annotations

import functools
import math
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor

from samt.errors import NonFiniteLossError
from samt.tensors.finite import refuse_unless_finite

LONGEST_DELAY = 16  # steps that a device may be behind before their losses are waited for


def is_read_late(device: torch.device) -> bool:
    """Whether to look at a tensor there is to wait for the device."""
    return device.type != "cpu"


class _Sent(NamedTuple):
    """The numbers of one step, on their way to the host."""

    labels: list[tuple[str, str]]  # what each number is, and where
    step: int
    numbers: Tensor
    arrival: Any  # an event of the device


class FiniteNumbers:
    """Looks at every loss, gradient and step, at the latest some steps after it was evaluated.

    A number in host memory is looked at when it is heard of. Those on a device are collected: at
    the end of a step the device itself is told to take the step back if one of them is not
    finite, and sends them to the host; a later step raises the error when they have arrived.

    Args:
        cure: what to do about it; the end of the error's message.
    """

    def __init__(self, cure: str = "look for bad values in the batch") -> None:
        self._cure = cure
        self._heard: list[tuple[str, str, Tensor]] = []
        self._step = 0
        self._sent: deque[_Sent] = deque()

    def start_step(self, step: int, together: bool = False) -> None:
        """Look at what has arrived of earlier steps.

        Args:
            step: its number.
            together: with other processes, all of which have to see an error in the same step,
                or those that go on would wait for those that stop: whatever has arrived, only
                steps of a certain age are looked at.

        Raises:
            NonFiniteLossError: an earlier step was taken back.
        """
        self._heard.clear()
        self._step = step
        while self._sent and (
            len(self._sent) > LONGEST_DELAY or (not together and self._sent[0].arrival.query())
        ):
            labels, sent, numbers, arrival = self._sent.popleft()
            arrival.synchronize()
            for (what, where), number in zip(labels, numbers.tolist(), strict=True):
                if not math.isfinite(number):
                    raise NonFiniteLossError(
                        f"{what} was {number}{where} at step {sent}, which weights and state "
                        f"were kept from: {self._cure}"
                    )

    def hear(self, number: Tensor | float, what: str, block: str | None = None) -> None:
        """A number was evaluated that has to be finite.

        Args:
            number: one.
            what: it is, with its article.
            block: the name of the one that it belongs to; None if it belongs to all.

        Raises:
            NonFiniteLossError: it can be seen at once and is not finite.
        """
        if isinstance(number, Tensor) and is_read_late(number.device):
            self._heard.append((what, _in(block), number))
        else:
            refuse_unless_finite(number, what, block, self._step, self._cure)

    def end_step(self) -> Tensor | None:
        """Send the numbers that were collected to the host.

        Returns:
            Whether all of them are finite, a tensor on their device; None if there are none.
        """
        if not self._heard:
            return None
        found = [number.detach().reshape(()) for *_, number in self._heard]
        dtype = functools.reduce(torch.promote_types, (x.dtype for x in found), torch.float32)
        numbers = torch.stack([number.to(found[0].device, dtype) for number in found])
        labels = [(what, where) for what, where, _ in self._heard]
        self._sent.append(_Sent(labels, self._step, *_to_host(numbers)))
        self._heard.clear()
        return torch.isfinite(numbers).all()


def _in(block: str | int | None) -> str:
    return "" if block is None else f" in block {block!r}"


def _to_host(tensor: Tensor) -> tuple[Tensor, Any]:
    """A copy that is there once the event says so."""
    copy = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    copy.copy_(tensor, non_blocking=True)
    arrival = torch.get_device_module(tensor.device).Event()
    arrival.record()
    return copy, arrival
