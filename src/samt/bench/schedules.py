"""How `lr` changes over the budget: with SAMT that is η⁰, with `relative` the whole step size."""

from __future__ import annotations

import math
from collections.abc import Callable

# From the share of the budget that is used up to a factor.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    # 1 / (1 + k / k₀) after k steps, k₀ a hundredth of all: the decay of the convergence analysis.
    "inverse": lambda share: 1.0 / (1.0 + 100.0 * share),
    "cosine": lambda share: (1.0 + math.cos(math.pi * share)) / 2.0,
}
