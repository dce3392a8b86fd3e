"""How often a model was evaluated."""

from __future__ import annotations

from typing import NamedTuple


class Passes(NamedTuple):
    """Number of forward and backward passes, each of which may be on a part of a batch."""

    forward: int
    backward: int
