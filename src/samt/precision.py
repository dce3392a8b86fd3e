"""Keeps the precision that a model is run in out of what an optimizer computes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch


def own_precision(devices: Iterable[torch.device]) -> AbstractContextManager[object]:
    """Switch off a surrounding autocast, which is meant for the model.

    Casts of the weights that autocast keeps are dropped: those weights are about to change.

    Args:
        devices: that the optimizer computes on.
    """
    kinds = {d.type for d in devices if torch.is_autocast_enabled(d.type)}
    if not kinds:
        return nullcontext()
    torch.clear_autocast_cache()
    switched_off = ExitStack()
    for kind in kinds:
        switched_off.enter_context(torch.autocast(kind, enabled=False))
    return switched_off
