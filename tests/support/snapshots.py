"""Snapshots of a training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

import samt


def everything(model: nn.Module, optimizer: samt.SAMT) -> dict[str, Any]:
    """All that a failed step has to put back."""
    found: dict[str, Any] = {
        "model": model.state_dict(),
        "parameters": dict(model.named_parameters()),
        "gradients": {name: p.grad for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "optimizer": optimizer.state_dict(),
        "passes": optimizer.passes,
        "rng": torch.get_rng_state(),
        "history": len(optimizer.history.entries) if optimizer.history else None,
    }
    return copy.deepcopy({**found, "parameters": {n: p.data for n, p in model.named_parameters()}})
