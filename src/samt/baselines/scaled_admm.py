"""Scaled ADMM: training without gradients (Taylor et al., ICML 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from samt.baselines.layerwise import LayerwiseSolver, Progress, SharedOptions
from samt.baselines.proximal import activate, activation_prox, fit_activation, output_prox
from samt.errors import OptionError

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ScaledADMM"]


class ScaledADMM(LayerwiseSolver):
    """Scaled ADMM, full batch, for an MLP of any depth without biases.

    It alternates over the exact minimisers of

        Σ loss(z_L) + ⟨u, z_L⟩ + β ‖z_L − W_L a_{L−1}‖²
            + Σ_{l<L} (γ ‖a_l − h(z_l)‖² + β ‖z_l − W_l a_{l−1}‖²),

    from the first layer to the last: W_l, a_l, z_l, and at the output W_L, z_L; then, once the warm
    start is over, u ← u + β (z_L − W_L a_{L−1}). During the warm start u is zero and the objective
    never rises. The biases of the network stay zero.

    This follows Algorithm 1 of the paper; the authors' code is not public. W_l is the least-squares
    solution of smallest norm, z_l a_{l−1}⁺, whose inverse Gram matrix is that of the inputs for the
    first layer and is computed once, in float64; directions in which a_{l−1} is zero to within
    rounding, such as pixels that are always black, get no weight. The squared loss is ½‖z − y‖²,
    and the hinge loss, the paper's, max(0, 1 − z) at the true class and max(0, z) elsewhere.

    Args:
        inputs: the samples, shape (N, d), or N images of d pixels; float32 or float64.
        targets: the labels, shape (N,), or for the squared loss also the values, shape (N, K).
        hidden: the widths of the hidden layers.
        beta: β, the penalty of the pre-activations, above 0 (default 1).
        gamma: γ, the penalty of the activations, above 0 (default 10).
        warm_start: the number of iterations before u starts to move, 0 or more (default 10).
        shared: the options that `LayerwiseSolver` describes. Here `loss` is `hinge` by default, as
            published, or `squared` or `cross_entropy`; `tolerance` is 1e-4. The weights start at
            zero; z_l and a_l start at standard normal numbers.

    Raises:
        UnknownOptionError: a keyword is no option of this method; the message lists those that are.
        OptionError: an option has an impossible value, or the data cannot be trained on.

    Examples:
        >>> inputs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
        >>> solver = ScaledADMM(inputs, torch.tensor([0, 1, 0, 1]), hidden=[8])
        >>> for _ in range(20):
        ...     progress = solver.step()
        >>> solver.predict(inputs).argmax(1)
        tensor([0, 1, 0, 1])
    """

    default_loss: ClassVar[str] = "hinge"
    default_weight_std: ClassVar[float] = 0.0
    losses: ClassVar[tuple[str, ...]] = ("hinge", "squared", "cross_entropy")
    _state: ClassVar[tuple[str, ...]] = (*LayerwiseSolver._state, "u")

    @torch.no_grad()
    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        hidden: Sequence[int],
        *,
        beta: float = 1.0,
        gamma: float = 10.0,
        warm_start: int = 10,
        **shared: Unpack[SharedOptions],
    ) -> None:
        if warm_start < 0:
            raise OptionError(f"warm_start must be 0 or more, not {warm_start}")
        super().__init__(inputs, targets, hidden, beta=beta, gamma=gamma, **shared)
        self.beta, self.gamma = beta, gamma
        self.warm_start = warm_start
        for weight in self.weights:
            weight.zero_()
            self.z.append(self._normal(len(self.a[0]), len(weight)))
            self.m.append(torch.zeros_like(self.z[-1]))
            if len(self.z) < self.depth:
                self.a.append(self._normal(*self.z[-1].shape))
        self.u = torch.zeros_like(self.z[-1])
        self._input_inverse = self._inverse(self.input_gram)

    @torch.no_grad()
    def step(self) -> Progress:
        """Take one iteration: every layer from the first to the last, then the multiplier."""
        for layer in range(self.depth):
            self._update_weight(layer)
            if layer + 1 < self.depth:
                self._update_activation(layer + 1)
                z, a, m = self.z[layer], self.a[layer + 1], self.m[layer]
                activation_prox(a, m, self.gamma, self.beta, self.slope, out=z)
        self._update_output()
        self.iteration += 1
        residuals, gaps = self._residuals(), self._gaps()
        objective = self._output_loss(self.z[-1]) + float((self.u * self.z[-1]).sum())
        objective += self.gamma * sum(gaps) + self.beta * sum(residuals)
        if self.iteration > self.warm_start:
            self.u.sub_(self._residual(self.depth - 1), alpha=self.beta)
        return Progress(objective, residuals, gaps)

    def _update_weight(self, layer: int) -> None:
        """Set W to z a⁺ = (zᵀ a) (aᵀ a)⁺, and bring m up to date."""
        a = self.a[layer]
        inverse = self._inverse(torch.mm(a.T, a)) if layer else self._input_inverse
        weight = torch.mm(torch.mm(self.z[layer].T, a).double(), inverse)
        self.weights[layer].copy_(weight)
        self._multiply(layer)

    def _inverse(self, gram: Tensor) -> Tensor:
        """Return (aᵀ a)⁺ in float64, cut off at the rounding of a's own precision."""
        if not gram.isfinite().all():
            return torch.full_like(gram, math.nan, dtype=torch.float64)
        cutoff = len(gram) * torch.finfo(gram.dtype).eps
        return torch.linalg.pinv(gram.double(), rtol=cutoff, hermitian=True)

    def _update_activation(self, layer: int) -> None:
        """Update a[layer], which lies between h(z[layer − 1]) and z[layer]."""
        h = self._buffer("h", self.a[layer].shape[1])
        activate(self.z[layer - 1], self.slope, out=h)
        fit_activation(
            self.weights[layer],
            self.biases[layer],
            self.z[layer],
            h,
            self.gamma / self.beta,
            out=self.a[layer],
            image=self.m[layer],
            scratch=self._buffer("residual", self.z[layer].shape[1]),
        )

    def _update_output(self) -> None:
        center = self.m[-1].sub(self.u, alpha=1 / (2 * self.beta))
        z, rho = self.z[-1], 2 * self.beta
        z.copy_(output_prox(self.loss, center, self.targets, rho, z, self.tolerance))
