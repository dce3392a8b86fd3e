"""dlADMM: deep-learning ADMM with a backward and a forward sweep (Wang et al., KDD 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from samt.baselines.layerwise import LayerwiseSolver, NetworkOptions, Progress
from samt.baselines.proximal import (
    activate,
    activation_gap,
    activation_prox,
    backtracked,
    mean_difference,
    output_prox,
    ratio,
    square,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DLADMM"]


class DLADMM(LayerwiseSolver):
    """dlADMM, full batch, for an MLP of any depth.

    It descends on the augmented Lagrangian, in which only the output layer has a multiplier,

        Σ loss(z_L) + ⟨u, z_L − m_L⟩ + ρ/2 Σ_l ‖z_l − m_l‖² + ρ/2 Σ_{l<L} ‖a_l − h(z_l)‖²,

    once from the last layer to the first (z_l, b_l, W_l, a_{l−1}) and once from the first to the
    last (W_l, b_l, z_l, a_l); then u ← u + ρ (z_L − m_L). Biases, hidden z_l, and z_L under the
    squared loss ½‖z − y‖², have closed forms; z_L under cross-entropy takes Newton; W_l and a_l
    take one gradient step each, its inverse length doubled from θ or τ until it majorises.

    The defaults are those of the official code (`xianggebenben/dlADMM`, `MLP/pytorch_version`),
    which has two hidden layers, and so is the schedule: after three rises of the training loss in a
    row ρ grows tenfold up to 0.1, and with hidden layers of 100 or more so do τ and θ. Differences:
    its line search compares rounded function values, and never ends where the gradient nearly
    vanishes (`OverflowError` at h = 300), here the exact quadratic condition is used; it solves for
    z_L by FISTA with steps of 4, twice what is safe; it draws all tensors from the same seed, so
    that they share their first entries.

    With these defaults only the output layer moves noticeably: the step of a_l has length 1/τ = 1
    on a gradient that is multiplied by ρ = 1e-6.

    Args:
        inputs: the samples, shape (N, d), or N images of d pixels; float32 or float64.
        targets: the labels, shape (N,), or for the squared loss also the values, shape (N, K).
        hidden: the widths of the hidden layers.
        rho: ρ, the penalty, above 0 (default 1e-6).
        tau: τ, the inverse step length at which the doubling for a_l starts, above 0 (default 1).
        theta: θ, the inverse step length at which the doubling for W_l starts, above 0
            (default 1).
        scheduled: whether ρ, τ and θ follow the schedule (default True).
        shared: the options that `LayerwiseSolver` describes. Here `loss` is `cross_entropy` by
            default, `tolerance` 1e-3 and `weight_std` 0.1, which is that of the biases too.

    Raises:
        UnknownOptionError: a keyword is no option of this method; the message lists those that are.
        OptionError: an option has an impossible value, or the data cannot be trained on.

    Examples:
        >>> inputs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
        >>> solver = DLADMM(inputs, torch.tensor([0, 1, 0, 1]), hidden=[8], rho=0.1)
        >>> for _ in range(20):
        ...     progress = solver.step()
        >>> solver.predict(inputs).argmax(1)
        tensor([0, 1, 0, 1])
    """

    default_tolerance: ClassVar[float] = 1e-3
    _state: ClassVar[tuple[str, ...]] = (
        *LayerwiseSolver._state,
        *("u", "rho", "tau", "theta", "recent_losses"),
    )

    @torch.no_grad()
    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        hidden: Sequence[int],
        *,
        rho: float = 1e-6,
        tau: float = 1.0,
        theta: float = 1.0,
        scheduled: bool = True,
        **shared: Unpack[NetworkOptions],
    ) -> None:
        super().__init__(inputs, targets, hidden, rho=rho, tau=tau, theta=theta, **shared)
        self.rho, self.tau, self.theta = rho, tau, theta
        self.scheduled = scheduled
        self.biases = [self._normal(1, len(b))[0].mul_(self.weight_std) for b in self.biases]
        self._start_from_forward_pass()
        self._start_from_targets()
        self.u = torch.zeros_like(self.z[-1])
        self.recent_losses: list[float] = []  # mean training loss of the last four iterations
        self._grows_steps = min(hidden, default=0) >= 100

    @torch.no_grad()
    def step(self) -> Progress:
        """Take one iteration: both sweeps, the multiplier and the schedule."""
        for layer in range(self.depth - 1, -1, -1):
            self._update_z(layer)
            self._update_bias(layer)
            if layer:
                self._update_weight(layer)
                self._update_activation(layer)
        self._update_first_weight()
        for layer in range(self.depth):
            if layer:
                self._update_weight(layer)
            self._update_bias(layer)
            self._update_z(layer)
            if layer + 1 < self.depth:
                self._update_activation(layer + 1)
        self.u.sub_(self._residual(self.depth - 1), alpha=self.rho)
        self.iteration += 1
        progress = self._progress()
        if self.scheduled:
            self._follow_schedule()
        return progress

    def _scaled_residual(self, layer: int) -> Tensor:
        """Return m_l − z_l − u/ρ, the derivative of the quadratic terms by m_l, divided by ρ."""
        residual = self._residual(layer)
        if layer + 1 == self.depth:
            residual.sub_(self.u, alpha=1 / self.rho)
        return residual

    def _update_z(self, layer: int) -> None:
        if layer + 1 < self.depth:
            z, a, m = self.z[layer], self.a[layer + 1], self.m[layer]
            activation_prox(a, m, 1.0, 1.0, self.slope, out=z)
            return
        center = self.m[-1].sub(self.u, alpha=1 / self.rho)
        start, targets = self.z[-1], self.targets
        z = output_prox(self.loss, center, targets, self.rho, start, self.tolerance)
        self.z[-1].copy_(z)

    def _update_bias(self, layer: int) -> None:
        last = layer + 1 == self.depth
        m, z = self.m[layer], self.z[layer]
        shift = self._scaled_residual(layer).mean(0) if last else mean_difference(m, z)
        self.biases[layer].sub_(shift)
        m.sub_(shift)

    def _update_weight(self, layer: int) -> None:
        a, m = self.a[layer], self.m[layer]
        g = torch.mm(self._scaled_residual(layer).T, a).mul_(self.rho)
        change = torch.mm(a, g.T, out=self._buffer("image", m.shape[1]))
        alpha = backtracked(self.theta, self.rho * ratio(square(change), square(g)))
        self.weights[layer].sub_(g, alpha=1 / alpha)
        m.sub_(change, alpha=1 / alpha)

    def _update_first_weight(self) -> None:
        """Take both steps of W_1, which follow one another, for two products with all samples.

        The first step changes the gradient by its product with the constant Gram matrix.
        """
        g = torch.mm(self._scaled_residual(0).T, self.a[0]).mul_(self.rho)
        for _ in range(2):
            change = torch.mm(g, self.input_gram)
            alpha = backtracked(self.theta, self.rho * ratio(float((g * change).sum()), square(g)))
            self.weights[0].sub_(g, alpha=1 / alpha)
            g.sub_(change, alpha=self.rho / alpha)
        self._multiply(0)

    def _update_activation(self, layer: int) -> None:
        """Update a[layer], which lies between h(z[layer − 1]) and the residual of its reader."""
        a, m, weight = self.a[layer], self.m[layer], self.weights[layer]
        g = activation_gap(a, self.z[layer - 1], self.slope, self._buffer("h", a.shape[1]))
        g.addmm_(self._scaled_residual(layer), weight)  # over ρ
        change = torch.mm(g, weight.T, out=self._buffer("image", m.shape[1]))
        t = backtracked(self.tau, self.rho * (1 + ratio(square(change), square(g))))
        a.sub_(g, alpha=self.rho / t)
        m.sub_(change, alpha=self.rho / t)

    def _progress(self) -> Progress:
        residuals, gaps = self._residuals(), self._gaps()
        difference = self._residual(self.depth - 1)
        objective = self._output_loss(self.z[-1]) - float((self.u * difference).sum())
        objective += self.rho / 2 * (sum(residuals) + sum(gaps))
        return Progress(objective, residuals, gaps)

    def _follow_schedule(self) -> None:
        first = activate(self.m[0], self.slope, out=self._buffer("h", self.m[0].shape[1]))
        outputs = self._forward(first, 1) if self.depth > 1 else self.m[0]
        losses = [*self.recent_losses, self._output_loss(outputs) / len(outputs)][-4:]
        self.recent_losses = losses
        if len(losses) == 4 and losses == sorted(set(losses)):
            self.rho = min(10 * self.rho, 0.1)
            if self._grows_steps:
                self.tau *= 10
                self.theta *= 10
