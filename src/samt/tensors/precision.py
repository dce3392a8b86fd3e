"""The precision in which an optimizer computes, whatever precision the model runs in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor


def state_dtype(parameter: Tensor) -> torch.dtype:
    """The dtype of a parameter's state: float64 for a float64 parameter, else float32."""
    return torch.promote_types(parameter.dtype, torch.float32)


def own_precision(devices: Iterable[torch.device]) -> AbstractContextManager[object]:
    """Switch off a surrounding autocast, which is meant for the model.

    The casts of weights that autocast keeps are dropped, because those weights are about to change.

    Args:
        devices: the devices that the optimizer computes on.
    """
    kinds = {d.type for d in devices if torch.is_autocast_enabled(d.type)}
    if not kinds:
        return nullcontext()
    torch.clear_autocast_cache()
    switched_off = ExitStack()
    for kind in kinds:
        switched_off.enter_context(torch.autocast(kind, enabled=False))
    return switched_off
