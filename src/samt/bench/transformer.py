"""A small transformer that continues text, in the manner of GPT-2."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from samt.bench.errors import SettingsError

_HEADS, _LAYERS = 4, 2


class Transformer(nn.Module):
    """Causal self-attention over characters; logits for the one that follows each.

    Args:
        characters: how many there are.
        length: of a text, at most.
        features: of a position; a multiple of the four heads.
        layers: number of attention layers.
        dropout: probability of dropping what a layer adds.

    Raises:
        SettingsError: the features cannot be shared out among the heads.
    """

    def __init__(
        self,
        characters: int,
        length: int,
        features: int,
        layers: int = _LAYERS,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if features % _HEADS:
            raise SettingsError(
                f"a transformer of {features} features cannot share them among {_HEADS} heads: "
                f"choose a multiple of {_HEADS}"
            )
        self.embedding = nn.Embedding(characters, features)
        self.position = nn.Embedding(length, features)
        self.layers = nn.Sequential(*(Layer(features, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(features)
        self.output = nn.Linear(features, characters)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (samples, length), numbers of characters, to (samples, characters, length)."""
        numbers = x.long()
        places = numbers.new_ones(numbers.shape[1]).cumsum(0) - 1
        y = self.embedding(numbers) + self.position(places)
        logits: Tensor = self.output(self.norm(self.layers(y)))
        return logits.transpose(1, 2)


class Layer(nn.Module):
    """Attention and a fully connected network, each normalised before and added to its input."""

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(features)
        self.attention = nn.Linear(features, 3 * features)
        self.projection = nn.Linear(features, features)
        self.norm2 = nn.LayerNorm(features)
        self.hidden = nn.Linear(features, 4 * features)
        self.output = nn.Linear(4 * features, features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (samples, length, features)."""
        heads = self.attention(self.norm1(x)).view(*x.shape[:2], 3, _HEADS, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        found = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(self.projection(found.transpose(1, 2).reshape(x.shape)))
        return x + self.dropout(self.output(gelu(self.hidden(self.norm2(x)))))
