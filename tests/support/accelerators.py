"""The CPU in the role of an accelerator, whose numbers nobody may look at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from samt.auto import auto_samt, together


def play_accelerator(patch: pytest.MonkeyPatch, plays: bool = True) -> None:
    """Let AutoSAMT take the CPU for an accelerator, at which it does not look, or for a CPU."""
    for module in (auto_samt, together):
        patch.setattr(module, "is_read_late", lambda device: plays)


class NobodyLooks(TorchDispatchMode):
    """Refuses every operation that brings a number to the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Any:
        def tolist(tensor: Tensor) -> Any:
            raise AssertionError("tolist")

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
