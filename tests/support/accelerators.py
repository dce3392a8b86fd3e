"""The CPU in the role of an accelerator, whose numbers nobody may look at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from samt.auto import adam_step, auto_samt, finite, step_sizes


class Arrival:
    """An event that a test decides over."""

    has_come = True

    def query(self) -> bool:
        """Whether the numbers have arrived."""
        return Arrival.has_come

    def synchronize(self) -> None:
        """Wait for the numbers."""


class OnHost(Tensor):
    """A copy that is on the host."""


def to_host(numbers: Tensor) -> tuple[Tensor, Arrival]:
    """Send numbers to the host; they have arrived when the arrival says so."""
    return numbers.clone().as_subclass(OnHost), Arrival()


def play_accelerator(patch: pytest.MonkeyPatch, plays: bool = True) -> None:
    """Let AutoSAMT take the CPU for an accelerator, whose numbers arrive later, or for a CPU."""
    for module in (adam_step, auto_samt, finite, step_sizes):
        patch.setattr(module, "is_read_late", lambda device: plays)
    patch.setattr(finite, "_to_host", to_host)


class NobodyLooks(TorchDispatchMode):
    """Refuses every operation that brings a number to the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Any:
        original = Tensor.tolist

        def tolist(tensor: Tensor) -> Any:
            assert isinstance(tensor, OnHost), "tolist"
            return original(tensor)

        self._patch.setattr(Tensor, "tolist", tolist)  # on a CPU no operation that is seen here
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *exception: Any) -> None:
        self._patch.undo()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.is_nonzero,
            torch.ops.aten.nonzero,
        ), func
        return func(*args, **(kwargs or {}))
