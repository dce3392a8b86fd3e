"""A network of acquaintances, drawn: who knows whom depends on the community of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from samt.bench.suite.samples import Parts, divided, generator

NODES, CLASSES, FEATURES = 1_000, 6, 16
_KNOWN, _VALIDATION = 120, 440
_WITHIN, _ACROSS = 0.05, 0.008  # the probability of an acquaintance
_SIGNAL = 0.35  # of a node's features, against noise of deviation 1


@dataclass(frozen=True)
class Community:
    """What was drawn.

    Args:
        neighbours: the normalised adjacency matrix, dense, with each node its own neighbour.
        features: the features of each node, mostly noise.
        parts: the numbers of nodes as inputs, their communities as targets.
    """

    neighbours: Tensor
    features: Tensor
    parts: Parts


@lru_cache(maxsize=1)
def drawn() -> Community:
    """Draw the graph; it is always the same."""
    chance = generator(11)
    labels = torch.randint(0, CLASSES, (NODES,), generator=chance)
    same = labels[:, None] == labels
    probability = torch.where(same, _WITHIN, _ACROSS)
    knows = (torch.rand(NODES, NODES, generator=chance) < probability).triu(1).float()
    knows = knows + knows.T + torch.eye(NODES)
    root = knows.sum(dim=1).rsqrt()
    means = torch.randn(CLASSES, FEATURES, generator=chance)
    noise = torch.randn(NODES, FEATURES, generator=chance)
    features = _SIGNAL * one_hot(labels, CLASSES).float() @ means + noise
    test = NODES - _KNOWN - _VALIDATION
    parts = divided(torch.arange(NODES), labels, _VALIDATION, test)
    return Community(root[:, None] * knows * root, features, parts)


class Convolutions(nn.Module):
    """Two graph convolutions: each averages over neighbours, then acts on every node alike.

    Args:
        neighbours: the normalised adjacency matrix.
        features: the features of each node.
        hidden: the features of a node in between.
        classes: the number of communities.
    """

    neighbours: Tensor
    features: Tensor

    def __init__(self, neighbours: Tensor, features: Tensor, hidden: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("neighbours", neighbours)
        self.register_buffer("features", features)
        self.hidden = nn.Linear(features.shape[1], hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (samples,), the numbers of nodes, to (samples, classes)."""
        inside = torch.relu(self.hidden(self.neighbours @ self.features))
        logits: Tensor = self.output(self.neighbours @ inside)
        return logits[x]
