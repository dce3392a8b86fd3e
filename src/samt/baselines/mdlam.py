"""mDLAM: multi-convex alternating minimisation with inequality constraints (Wang et al., 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from samt.baselines.layerwise import LayerwiseSolver, NetworkOptions, Progress
from samt.baselines.proximal import (
    activation_gap,
    backtracked,
    chunks,
    mean_difference,
    output_prox,
    ratio,
    square,
    squared_distance,
)
from samt.errors import OptionError

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MDLAM"]


class MDLAM(LayerwiseSolver):
    """mDLAM, full batch, for an MLP of any depth.

    It descends on

        F = Σ loss(z_L) + ρ/2 Σ_l ‖z_l − m_l‖² + μ/2 Σ_l ‖W_l‖²
        subject to h(z_l) − ε ≤ a_l ≤ h(z_l) + ε,  l < L,

    layer after layer in the order W_l, b_l, z_l, a_l, without multipliers; ε is halved after each
    iteration. W_l and a_l take one (projected) gradient step, its inverse length doubled from 1
    until it majorises; b_l, hidden z_l, and z_L under the squared loss ½‖z − y‖², are exact; z_L
    under cross-entropy takes Newton. Nesterov's acceleration extrapolates every unknown x to
    x^k + (t_k − 1)/t_{k+1} · (x^k − x^{k−1}) with t_{k+1} = (1 + √(1 + 4 t_k²))/2, and where F
    would rise the update is made again from x^k. The exact updates do not depend on where they
    start, so this concerns W_l and a_l. Hence F does not rise while ε is constant; while it
    shrinks it may.

    The defaults are those of the official code (`xianggebenben/mDLAM`), which has two hidden
    layers. Its acceleration is without effect (the old value is overwritten ahead of the
    extrapolation), it never updates the bias of the second layer, and it refuses to move W_l or
    a_l where 2¹⁰ does not majorise, which freezes wide networks. `accelerated=False,
    max_curvature=1024` is its plain form, with the bias.

    Args:
        inputs: the samples, shape (N, d), or N images of d pixels; float32 or float64.
        targets: the labels, shape (N,), or for the squared loss also the values, shape (N, K).
        hidden: the widths of the hidden layers.
        rho: ρ, the penalty, above 0 (default 1e-3).
        mu: μ, the weight decay, 0 or more (default 0.05).
        epsilon: ε in the first iteration, above 0 (default 100).
        min_epsilon: the value at which the halving of ε ends, above 0 (default 1e-3).
        accelerated: whether unknowns are extrapolated (default True).
        max_curvature: the largest inverse step length that the doubling tries, 1 or more (default
            infinity). Where it does not majorise either, W_l or a_l stays as it is.
        shared: the options that `LayerwiseSolver` describes. Here `loss` is `cross_entropy` by
            default, `tolerance` 1e-4 and `weight_std` 0.1, which is that of the biases too.

    Raises:
        UnknownOptionError: a keyword is no option of this method; the message lists those that are.
        OptionError: an option has an impossible value, or the data cannot be trained on.

    Examples:
        >>> inputs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
        >>> solver = MDLAM(inputs, torch.tensor([0, 1, 0, 1]), hidden=[8])
        >>> for _ in range(60):
        ...     progress = solver.step()
        >>> solver.predict(inputs).argmax(1)
        tensor([0, 1, 0, 1])
    """

    _state: ClassVar[tuple[str, ...]] = (
        *LayerwiseSolver._state,
        *("weight_changes", "previous_a", "epsilon", "momentum"),
    )

    @torch.no_grad()
    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        hidden: Sequence[int],
        *,
        rho: float = 1e-3,
        mu: float = 0.05,
        epsilon: float = 100.0,
        min_epsilon: float = 1e-3,
        accelerated: bool = True,
        max_curvature: float = math.inf,
        **shared: Unpack[NetworkOptions],
    ) -> None:
        super().__init__(
            inputs, targets, hidden, rho=rho, epsilon=epsilon, min_epsilon=min_epsilon, **shared
        )
        if not 0 <= mu < math.inf or not max_curvature >= 1:
            raise OptionError(
                f"mu must be 0 or more and max_curvature 1 or more, not {mu} and {max_curvature}"
            )
        self.rho, self.mu, self.epsilon, self.min_epsilon = rho, mu, epsilon, min_epsilon
        self.accelerated, self.max_curvature = accelerated, max_curvature
        self.biases = [self._normal(1, len(b))[0].mul_(self.weight_std) for b in self.biases]
        self._start_from_forward_pass()
        self._start_from_targets()
        self.momentum = 1.0  # t_k
        self.weight_changes = [torch.zeros_like(w) for w in self.weights] if accelerated else []
        self.previous_a = [a.clone() for a in self.a[1:]] if accelerated else []

    @torch.no_grad()
    def step(self) -> Progress:
        """Take one iteration: every layer from the first to the last, then ε and t."""
        following = (1 + math.sqrt(1 + 4 * self.momentum**2)) / 2
        omega = (self.momentum - 1) / following if self.accelerated else 0.0
        for layer in range(self.depth):
            self._update_weight(layer, omega)
            self._update_bias(layer)
            self._update_z(layer)
            if layer + 1 < self.depth:
                self._update_activation(layer + 1, omega)
        self.momentum = following
        self.epsilon = max(self.epsilon / 2, self.min_epsilon)
        self.iteration += 1
        return self._progress()

    def _update_weight(self, layer: int, omega: float) -> None:
        """Take one majorised gradient step, which costs the products zᵀ a, aᵀ a and W a.

        The product a_0ᵀ a_0 is computed once.

        With the Gram matrix of a, extrapolation, line search and the comparison of F before and
        after cost nothing that grows with the number of samples.
        """
        a, weight = self.a[layer], self.weights[layer]
        gram = torch.mm(a.T, a) if layer else self.input_gram
        g = torch.mm(self._residual(layer).T, a).mul_(self.rho).add_(weight, alpha=self.mu)

        def hessian(direction: Tensor) -> Tensor:
            return torch.mm(direction, gram).mul_(self.rho).add_(direction, alpha=self.mu)

        def stepped(g: Tensor) -> Tensor:
            curvature = ratio(float((g * hessian(g)).sum()), square(g))
            alpha = backtracked(1.0, curvature)
            return g * (-1 / alpha if alpha <= self.max_curvature else 0)

        change = stepped(g)
        if omega:
            ahead = self.weight_changes[layer] * omega
            trial = ahead + stepped(g + hessian(ahead))
            # F(W + trial) − F(W), without the rounding of either.
            if float((trial * (g + hessian(trial) / 2)).sum()) <= 0:
                change = trial
        weight.add_(change)
        if self.accelerated:
            self.weight_changes[layer].copy_(change)
        self._multiply(layer)

    def _update_bias(self, layer: int) -> None:
        shift = mean_difference(self.m[layer], self.z[layer])
        self.biases[layer].sub_(shift)
        self.m[layer].sub_(shift)

    def _update_z(self, layer: int) -> None:
        z, m = self.z[layer], self.m[layer]
        if layer + 1 == self.depth:
            z.copy_(output_prox(self.loss, m, self.targets, self.rho, z, self.tolerance))
            return
        for z_, m_, a_ in chunks(z, m, self.a[layer + 1]):
            # a − ε ≤ h(z) ≤ a + ε, or as near to it as a ReLU comes
            torch.minimum(m_, self._bound(a_, self.epsilon), out=z_)
            torch.maximum(z_, self._bound(a_, -self.epsilon), out=z_)

    def _bound(self, a: Tensor, offset: float) -> Tensor:
        """Return h⁻¹(a + offset), or where a ReLU has none, 0 above a and −∞ below a."""
        h = a + offset
        if self.slope:
            return torch.minimum(h, h / self.slope, out=h)
        return (
            h.clamp_min_(0)
            if offset > 0
            else nn.functional.threshold(h, 0, -math.inf, inplace=True)
        )

    def _update_activation(self, layer: int, omega: float) -> None:
        """Update a[layer], which is near h(z[layer − 1]) and is read by the layer of that index."""
        a, m = self.a[layer], self.m[layer]
        gap = activation_gap(a, self.z[layer - 1], self.slope, self._buffer("h", a.shape[1]))
        if omega:
            previous = self.previous_a[layer - 1]
            ahead = torch.sub(a, previous, out=self._buffer("ahead", a.shape[1])).mul_(omega)
            change, image = self._projected_step(layer, gap, ahead)
            residual = self._residual(layer)
            before = square(residual)
            rises = square(residual.add_(image)) > before
        if not omega or rises:
            change, image = self._projected_step(layer, gap, None)
        if self.accelerated:
            self.previous_a[layer - 1].copy_(a)
        a.add_(change)
        m.add_(image)

    def _projected_step(
        self, layer: int, gap: Tensor, ahead: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Take a majorised gradient step of a from a + ahead, into |a − h(z)| ≤ ε.

        Args:
            layer: the index of the layer that reads a.
            gap: the difference a − h(z), shape (N, d_l).
            ahead: the extrapolation of a, shape (N, d_l), or None if there is none.

        Returns:
            The change of a, extrapolation included, and the product of the change with W.
        """
        weight, residual = self.weights[layer], self._residual(layer)
        width = len(weight)
        if ahead is not None:
            ahead_image = torch.mm(ahead, weight.T, out=self._buffer("ahead image", width))
            residual.add_(ahead_image)
        g = torch.mm(residual, weight, out=self._buffer("g", gap.shape[1]))  # over ρ
        change, image = self._buffer("step", gap.shape[1]), self._buffer("image", width)
        sufficient = self.rho * square(weight)  # no direction has a larger curvature
        t = 1.0
        while t <= self.max_curvature:
            for step, g_, gap_, *more in chunks(
                change, g, gap, *([] if ahead is None else [ahead])
            ):
                torch.add(gap_, g_, alpha=-self.rho / t, out=step)
                for ahead_ in more:
                    step.add_(ahead_)
                step.clamp_(-self.epsilon, self.epsilon).sub_(gap_)
            torch.mm(change, weight.T, out=image)
            if t >= sufficient:
                return change, image
            if ahead is None:
                moved, moved_image = square(change), square(image)
            else:
                moved = squared_distance(change, ahead)
                moved_image = squared_distance(image, ahead_image)
            if not self.rho * moved_image > t * moved:
                return change, image
            t *= 2
        return change.zero_(), image.zero_()

    def _progress(self) -> Progress:
        residuals = self._residuals()
        objective = self._output_loss(self.z[-1]) + self.rho / 2 * sum(residuals)
        objective += self.mu / 2 * sum(square(weight) for weight in self.weights)
        return Progress(objective, residuals, self._gaps())
