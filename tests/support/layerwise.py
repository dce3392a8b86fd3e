"""The layer-wise solvers on tiny problems, and minimisers to compare them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from samt.baselines import BCD, DLADMM, MDLAM, ScaledADMM
from samt.baselines.layerwise import LayerwiseSolver

SOLVERS: dict[str, Callable[..., LayerwiseSolver]] = {
    "dladmm": DLADMM,
    "mdlam": MDLAM,
    "bcd": BCD,
    "scaled_admm": ScaledADMM,
}
# Penalties with which the tiny problems below are not trivial.
OPTIONS: dict[str, dict[str, Any]] = {
    "dladmm": {"rho": 0.1},
    "mdlam": {"rho": 0.5, "epsilon": 1.0, "min_epsilon": 0.1},
    "bcd": {"alpha": 0.5, "weight_std": 0.5},
    "scaled_admm": {"warm_start": 2},
}
NETWORKS = [
    ([], "relu"),
    ([7], "relu"),
    ([7], "leaky_relu"),
    ([6, 5], "relu"),
    ([6, 5], "leaky_relu"),
    ([5, 6, 4], "leaky_relu"),
]


def data(
    samples: int = 30, features: int = 4, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Random inputs and three classes that depend on them, not linearly."""
    generator = torch.Generator().manual_seed(samples)
    inputs = torch.randn(samples, features, generator=generator, dtype=torch.float64)
    return inputs.to(dtype), (inputs[:, :3] * inputs[:, 1:4]).argmax(1)


def solver(name: str, hidden: Sequence[int] = (6, 5), **options: Any) -> Any:
    """A solver on `data()`, a few iterations away from its start."""
    made = SOLVERS[name](*data(), hidden, **(OPTIONS[name] | {"negative_slope": 0.2} | options))
    for _ in range(3):
        made.step()
    return made


def minimiser(objective: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The minimiser of a smooth convex function, found by scipy."""

    def value_and_gradient(flat: Any) -> Any:
        x = torch.from_numpy(flat).view(start.shape).requires_grad_()
        value = objective(x)
        (gradient,) = torch.autograd.grad(value, x)
        return value.item(), gradient.numpy().ravel()

    found = minimize(
        value_and_gradient,
        start.numpy().ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 40000, "ftol": 0, "gtol": 1e-11},
    )
    return torch.from_numpy(found.x).view(start.shape)


def gradient(objective: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The gradient of a function, found by autograd."""
    at = at.clone().requires_grad_()
    return torch.autograd.grad(objective(at), at)[0]


def loss_of(name: str, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Σ loss, differentiable; `targets` are labels for cross-entropy and values otherwise."""
    if name == "cross_entropy":
        return lambda z: nn.functional.cross_entropy(z, targets, reduction="sum")
    return lambda z: (z - targets).square().sum() / 2
