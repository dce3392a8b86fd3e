"""Losses that are not finite: refused at once, or, on an accelerator, without waiting for it."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor

from samt.errors import NonFiniteLossError
from samt.subproblem import SubProblem

_CURE = "lower lr, set max_grad_norm, or look for bad values in the batch"
LONGEST_DELAY = 16  # steps that a device may be behind before their losses are waited for


def is_read_late(device: torch.device) -> bool:
    """Whether to look at a tensor there is to wait for the device."""
    return device.type != "cpu"


class _Sent(NamedTuple):
    """The losses of one step, on their way to the host."""

    names: list[str]  # of the block of each loss
    step: int
    losses: Tensor
    arrival: Any  # an event of the device


class FiniteLosses:
    """Looks at every loss, at the latest some steps after it was evaluated.

    A loss in host memory is looked at when it is heard of. Those on a device are collected: at
    the end of a step the device itself is told to take the step back if one of them is not
    finite, and sends them to the host; a later step raises the error when they have arrived.
    """

    def __init__(self) -> None:
        self._heard: list[tuple[SubProblem, Tensor]] = []
        self._sent: deque[_Sent] = deque()

    def start_step(self, together: bool = False) -> None:
        """Look at what has arrived of earlier steps.

        Args:
            together: with other processes, all of which have to see an error in the same step,
                or those that go on would wait for those that stop: whatever has arrived, only
                steps of a certain age are looked at.

        Raises:
            NonFiniteLossError: an earlier step was taken back.
        """
        self._heard.clear()
        while self._sent and (
            len(self._sent) > LONGEST_DELAY or (not together and self._sent[0].arrival.query())
        ):
            names, step, losses, arrival = self._sent.popleft()
            arrival.synchronize()
            for name, loss in zip(names, losses.tolist(), strict=True):
                if not math.isfinite(loss):
                    raise NonFiniteLossError(
                        f"the loss was {loss} in block {name!r} at step {step}, which weights "
                        f"and state were kept from: {_CURE}"
                    )

    def hear(self, block: SubProblem, loss: Tensor | float) -> None:
        """A loss was evaluated.

        Args:
            block: for which.
            loss: of one evaluation.

        Raises:
            NonFiniteLossError: it can be seen at once and is not finite.
        """
        if isinstance(loss, Tensor) and is_read_late(loss.device):
            self._heard.append((block, loss))
        elif not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {float(loss)} in block {block.group['name']!r} at step "
                f"{block.group['calls']}; weights and state are those of before this step: {_CURE}"
            )

    def end_step(self) -> Tensor | None:
        """Send the losses that were collected to the host.

        Returns:
            Whether all of them are finite, a tensor on their device; None if there are none.
        """
        if not self._heard:
            return None
        blocks, found = zip(*self._heard, strict=True)
        losses = torch.stack([loss.reshape(()) for loss in found])
        names = [block.group["name"] for block in blocks]
        self._sent.append(_Sent(names, blocks[0].group["calls"], *_to_host(losses)))
        self._heard.clear()
        return torch.isfinite(losses).all()


def _to_host(tensor: Tensor) -> tuple[Tensor, Any]:
    """A copy that is there once the event says so."""
    copy = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    copy.copy_(tensor, non_blocking=True)
    arrival = torch.get_device_module(tensor.device).Event()
    arrival.record()
    return copy, arrival
