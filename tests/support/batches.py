"""Mini-batches that several test files train on."""

from __future__ import annotations

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
INPUT_SIZES = {"mlp": 4, "convolutional": 16, "shared": 4}


def batch(model: str, seed: int, size: int = 8) -> Batch:
    """Random inputs with labels that depend on them."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, INPUT_SIZES[model], generator=generator, dtype=torch.float64)
    return inputs, inputs[:, :3].argmax(1)


def regression(seed: int, size: int = 8) -> Batch:
    """Random inputs of the `mlp` with three numbers that depend on them."""
    inputs, _ = batch("mlp", seed, size)
    return inputs, torch.sin(3 * inputs[:, :3])
