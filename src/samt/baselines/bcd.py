"""BCD: block coordinate descent on the three-splitting (Zeng, Lau, Lin and Yao, ICML 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from samt.baselines.layerwise import LayerwiseSolver, NetworkOptions, Progress
from samt.baselines.proximal import (
    activate,
    activation_prox,
    chunks,
    fit_activation,
    output_prox,
    solve_positive,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BCD"]


class BCD(LayerwiseSolver):
    """Block coordinate descent, full batch, for an MLP of any depth.

    In the paper's letters U_l is z_l and V_l is a_l, with V_L = U_L at the output. It minimises

        Σ loss(V_L) + γ/2 Σ_l ‖V_l − h(U_l)‖² + ρ/2 Σ_l ‖U_l − m_l‖²

    one block after the other from the last layer to the first: V_L, U_L, and for each layer
    W_l, b_l, V_{l−1}, U_{l−1}. A proximal term α/2 ‖x − x^k‖² stands in the problems of V_L, W_l,
    b_l and U_l; every problem is solved exactly, so that the objective never rises. There are no
    multipliers.

    The defaults are those of the official code (`timlautk/BCD-for-DNNs-PyTorch`), whose loss is
    ½‖V_L − Y‖² on one-hot labels. It inverts matrices of condition 1e6 in float32, so that its
    objective does rise; here W_l is corrected by its residual times a float64 Cholesky solve, and
    V_l comes from a system of the size of layer l + 1. The softmax cross-entropy, which the paper's
    theory covers and its code has not, solves V_L by Newton.

    Args:
        inputs: the samples, shape (N, d), or N images of d pixels; float32 or float64.
        targets: the labels, shape (N,), or for the squared loss also the values, shape (N, K).
        hidden: the widths of the hidden layers.
        gamma: γ, the penalty of the activations, above 0 (default 1).
        rho: ρ, the penalty of the pre-activations, above 0 (default 1).
        alpha: α, the weight of the proximal terms, above 0 (default 5). The official code uses 5
            for three hidden layers and 1 for ten.
        shared: the options that `LayerwiseSolver` describes. Here `loss` is `squared` by default,
            as published, `tolerance` 1e-4 and `weight_std` 0.01; the biases start at 0.1.

    Raises:
        UnknownOptionError: a keyword is no option of this method; the message lists those that are.
        OptionError: an option has an impossible value, or the data cannot be trained on.

    Examples:
        >>> inputs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
        >>> solver = BCD(inputs, torch.tensor([0, 1, 0, 1]), hidden=[8], alpha=0.1)
        >>> for _ in range(60):
        ...     progress = solver.step()
        >>> solver.predict(inputs).argmax(1)
        tensor([0, 1, 0, 1])
    """

    default_loss: ClassVar[str] = "squared"
    default_weight_std: ClassVar[float] = 0.01

    @torch.no_grad()
    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        hidden: Sequence[int],
        *,
        gamma: float = 1.0,
        rho: float = 1.0,
        alpha: float = 5.0,
        **shared: Unpack[NetworkOptions],
    ) -> None:
        super().__init__(inputs, targets, hidden, gamma=gamma, rho=rho, alpha=alpha, **shared)
        self.gamma, self.rho, self.alpha = gamma, rho, alpha
        for bias in self.biases:
            bias.fill_(0.1)
        self._start_from_forward_pass()
        self.a.append(self.z[-1].clone())  # V_L

    @torch.no_grad()
    def step(self) -> Progress:
        """Take one iteration: every block once, from the output to the inputs."""
        self._update_output()
        for layer in range(self.depth - 1, -1, -1):
            self._update_weight_and_bias(layer)
            if layer:
                self._update_activation(layer)
                self._update_z(layer - 1)
            else:
                self._multiply(0)
        self.iteration += 1
        residuals, gaps = self._residuals(), self._gaps()
        objective = self._output_loss(self.a[-1])
        objective += self.gamma / 2 * sum(gaps) + self.rho / 2 * sum(residuals)
        return Progress(objective, residuals, gaps)

    def _update_output(self) -> None:
        """Update V_L, then U_L."""
        gamma, rho, alpha = self.gamma, self.rho, self.alpha
        u, v = self.z[-1], self.a[-1]
        center = torch.lerp(u, v, alpha / (gamma + alpha))
        v.copy_(output_prox(self.loss, center, self.targets, gamma + alpha, v, self.tolerance))
        torch.lerp(self.m[-1], v, gamma / (gamma + rho), out=u)

    def _update_weight_and_bias(self, layer: int) -> None:
        """Add ρ (U − m)ᵀ V (α I + ρ Vᵀ V)⁻¹ to W, V the layer's inputs, then update b; not m."""
        v, residual = self.a[layer], self._residual(layer)
        matrix = (torch.mm(v.T, v) if layer else self.input_gram).double() * self.rho
        matrix.diagonal().add_(self.alpha)
        change = solve_positive(matrix, torch.mm(v.T, residual).mul_(-self.rho)).T
        self.weights[layer].add_(change)
        # The new residual's sum over the samples, without the product for its terms.
        total = residual.sum(0) + torch.mv(change, v.sum(0) if layer else self.input_sum)
        scale = self.rho / (self.rho * len(v) + self.alpha)
        self.biases[layer].sub_(total, alpha=scale)

    def _update_activation(self, layer: int) -> None:
        """Update V_{l−1} of the layer that reads it, and that layer's m."""
        h = self._buffer("h", self.a[layer].shape[1])
        activate(self.z[layer - 1], self.slope, out=h)
        fit_activation(
            self.weights[layer],
            self.biases[layer],
            self.z[layer],
            h,
            self.gamma / self.rho,
            out=self.a[layer],
            image=self.m[layer],
            scratch=self._buffer("residual", self.z[layer].shape[1]),
        )

    def _update_z(self, layer: int) -> None:
        rho, alpha = self.rho, self.alpha
        u, m = self.z[layer], self.m[layer]
        for u_, m_, v in chunks(u, m, self.a[layer + 1]):
            center = torch.lerp(m_, u_, alpha / (rho + alpha))
            activation_prox(v, center, self.gamma, rho + alpha, self.slope, out=u_)
