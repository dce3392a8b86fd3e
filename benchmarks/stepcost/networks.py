"""The networks that are measured and that samt.bench does not have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Encoder(nn.Module):
    """A transformer encoder that classifies sequences of tokens by the mean of its outputs."""

    def __init__(self, depth: int = 6, width: int = 128, tokens: int = 1000) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        # Without dropout, so that every method computes the same thing.
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=4 * width, dropout=0.0, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.output = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (batch, length) to logits (batch, 10)."""
        logits: Tensor = self.output(self.encoder(self.embedding(x)).mean(1))
        return logits


def equal_layers(depth: int, width: int) -> nn.Sequential:
    """Linear layers of one size, so that each costs the same."""
    return plain_mlp([width] * (depth + 1))


def plain_mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with LeakyReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU()]
    return nn.Sequential(*layers[:-1])
