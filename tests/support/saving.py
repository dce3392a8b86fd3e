"""Saving and loading a model together with its optimizer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

import samt

Run = tuple[nn.Module, samt.SAMT]


def saved(model: nn.Module, optimizer: samt.SAMT) -> dict[str, Any]:
    """Weights, buffers and the whole state of the optimizer, as values."""
    return copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})


def through_a_file(value: Any, path: Path) -> Any:
    """What is read back of a value that was saved."""
    torch.save(value, path / "checkpoint.pt")
    return torch.load(path / "checkpoint.pt", weights_only=True)


def load(run: Run, checkpoint: dict[str, Any]) -> None:
    """Load what `saved` returned."""
    run[0].load_state_dict(checkpoint["model"])
    run[1].load_state_dict(checkpoint["optimizer"])
