"""The bound of the convergence analysis, with the constants of `data.least_squares`.

Let S be E‖w − w*‖², summed over L blocks, and let all step sizes of a sweep lie between low and
high. Strong convexity λ in each block, gradient stability γ between two, and projection onto balls
that hold w*, which only brings w nearer to it, give for one sweep in forward order

    S⁺ (1 − high γ (L − 1)) ≤ S (1 − 2 low λ + 2 high γ (L − 1)) + high² G²

where G² bounds E‖g‖². Two bounds of that kind are here: the supremum over the balls, as in the
published analysis, and E‖g‖² ≤ a ‖Δ‖² + b, which falls with the error itself. Both take the step
size to be independent of the sample that it is applied to; a learned step size reads that sample's
gradient, so for it the bound is a yardstick and not a theorem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samt.bench.data import least_squares as problem

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Constant:
    """One of them, for people."""

    name: str
    symbol: str
    value: float


@dataclass(frozen=True)
class Constants:
    """Of the loss (⟨x, w⟩ − y)², whose gradient is 2 (⟨x, w⟩ − y) x.

    Args:
        blocks: L.
        convexity: λ, the smallest over the blocks.
        smoothness: μ, the largest over the blocks.
        stability: γ, the largest over pairs of blocks.
        slope: a, of E‖g‖² ≤ a ‖w − w*‖² + b, summed over the blocks.
        noise: b, of the same.
        variance: σ², of the noise in y.
    """

    blocks: int
    convexity: float
    smoothness: float
    stability: float
    slope: float
    noise: float
    variance: float

    def largest_gradient(self, distance: float) -> float:
        """G²: the supremum of E‖g‖² where no block is further than `distance` from w*."""
        return self.slope * self.blocks * distance**2 + self.noise

    def listed(self, distance: float | None = None) -> list[Constant]:
        """All of them by name.

        Args:
            distance: of any point of a block's ball to w*, for G²; None leaves it out.
        """
        found = [
            Constant("number of blocks", "L", self.blocks),
            Constant("strong convexity in each block", "λ", self.convexity),
            Constant("smoothness in each block", "μ", self.smoothness),
            Constant("gradient stability between two blocks", "γ", self.stability),
            Constant("variance of the noise in y", "σ²", self.variance),
            Constant("growth of E‖g‖² with ‖w − w*‖²", "a", self.slope),
            Constant("E‖g‖² at w*", "b", self.noise),
        ]
        if distance is not None:
            name = "largest E‖g‖² in the balls"
            found.append(Constant(name, "G²", self.largest_gradient(distance)))
        return found


def constants() -> Constants:
    """The constants of the problem, from its covariance Σ.

    For Gaussian x, E‖g_d‖² = 4 (ΔᵀΣΔ tr Σ_dd + 2 ‖Σ_d Δ‖² + σ² tr Σ_dd), Σ_d the rows of block d.
    """
    sigma, size = problem.covariance(), problem.SIZE
    rows = [slice(start, start + size) for start in range(0, problem.DIMENSION, size)]
    within = [np.linalg.eigvalsh(sigma[block, block]) for block in rows]
    between = [_norm(sigma[one, two]) for one in rows for two in rows if one is not two]
    slopes = [
        np.linalg.eigvalsh(sigma)[-1] * sigma[block, block].trace() + 2 * _norm(sigma[block]) ** 2
        for block in rows
    ]
    return Constants(
        blocks=problem.BLOCKS,
        convexity=2 * min(float(values[0]) for values in within),
        smoothness=2 * max(float(values[-1]) for values in within),
        stability=2 * max(between),
        slope=4 * float(sum(slopes)),
        noise=4 * problem.NOISE**2 * float(sigma.trace()),
        variance=problem.NOISE**2,
    )


def bound(
    start: float,
    low: Sequence[float] | Array,
    high: Sequence[float] | Array,
    known: Constants,
    distance: float | None = None,
) -> Array:
    """Bound on S after each step.

    Args:
        start: S before the first step.
        low: smallest step size of each step.
        high: largest step size of each step.
        known: constants of the problem.
        distance: of any point of a block's ball to w*, for the bound by the supremum; None for the
            one that falls with the error.

    Returns:
        (steps + 1,), from before the first step; infinite from where a step size is too large for
        the bound to say anything.
    """
    slope = known.slope if distance is None else 0.0
    constant = known.noise if distance is None else known.largest_gradient(distance)
    coupling = known.stability * (known.blocks - 1)
    values = [start]
    # Numbers of Python, which are infinite without a warning.
    for least, most in zip(map(float, low), map(float, high), strict=True):
        growth = 1 - 2 * least * known.convexity + 2 * most * coupling + most**2 * slope
        shrinkage = 1 - most * coupling - most**2 * slope
        now = math.inf if shrinkage <= 0 else (values[-1] * growth + most**2 * constant) / shrinkage
        values.append(now)
    return np.array(values)


def rate(steps: Array, errors: Array, tail: float = 0.1) -> float:
    """Slope of log error over log step, fitted to the end of a curve; −1 is a rate of 1/k.

    Args:
        steps: positive and increasing.
        errors: positive.
        tail: the part from this share of the last step on.
    """
    chosen = steps >= tail * steps[-1]
    return float(np.polyfit(np.log(steps[chosen]), np.log(errors[chosen]), 1)[0])


def _norm(matrix: Array) -> float:
    return float(np.linalg.norm(matrix, 2))
