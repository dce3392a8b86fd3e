"""Linear regression in coupled blocks, whose solution and constants are known.

y = Σ_d ⟨x_d, w*_d⟩ + σ ε with x Gaussian of covariance Σ and ε standard normal. The expected loss
E ½ (⟨x, w⟩ − y)² is strongly convex in each block: λ_d = λ_min(Σ_dd), μ_d = λ_max(Σ_dd), and the
gradient of block d changes by at most γ = ‖Σ_di‖ for each unit that block i moves.

The test part is the identity matrix with targets w*, so that its mean squared error is
‖w − w*‖² / DIMENSION: the squared distance to the solution, not an estimate of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from samt.bench.data.raw import Part, RawData

BLOCKS, SIZE, SAMPLES = 2, 2, 4_000
DIMENSION = BLOCKS * SIZE
COUPLING, NOISE = 0.1, 0.5

Array = npt.NDArray[np.float64]


def covariance() -> Array:
    """Σ: eigenvalues 1 to 1.5 within a block, COUPLING times the identity between two."""
    within = np.diag(np.linspace(1.0, 1.5, SIZE))
    between = COUPLING * np.eye(SIZE)
    return np.kron(np.ones((BLOCKS, BLOCKS)), between) + np.kron(np.eye(BLOCKS), within - between)


def solution() -> Array:
    """w*: of norm 1 in each block."""
    signs = np.where(np.arange(DIMENSION) % 2 == 0, 1.0, -1.0)
    return signs / np.sqrt(SIZE)


def draw(seed: int) -> RawData:
    """Independent samples; one pass over them is the single-sample scheme of the analysis.

    Args:
        seed: of inputs and noise.

    Returns:
        Data with nothing left to scale.
    """
    chance = np.random.default_rng(seed)
    factor = np.linalg.cholesky(covariance())
    inputs = chance.standard_normal((SAMPLES, DIMENSION)) @ factor.T
    targets = inputs @ solution() + NOISE * chance.standard_normal(SAMPLES)
    train = Part(inputs, targets[:, None])
    test = Part(np.eye(DIMENSION), solution()[:, None])
    return RawData(
        *("regression", 1, train, test, "none"), published_split=seed, scales_targets=False
    )
