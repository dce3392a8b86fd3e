"""Proximal maps, losses and small linear algebra of the layer-wise solvers.

Everything here has one answer that an independent solver can check, and nothing keeps state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_CHUNK = 2**16  # numbers: temporaries of an element-wise chain that stay in the cache


def square(tensor: Tensor) -> float:
    """‖tensor‖², the sum of squares of all entries.

    Examples:
        >>> square(torch.tensor([3.0, 4.0]))
        25.0
    """
    return float(torch.linalg.vector_norm(tensor)) ** 2


def chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A few rows of each tensor at a time, so few that a chain of operations stays in the cache.

    With 60,000 samples every operation otherwise reads and writes the memory, and a dozen of them
    take as long as a matrix product.

    Args:
        tensors: of one shape.

    Examples:
        >>> for x, y in chunks(torch.ones(3, 2), torch.zeros(3, 2)):
        ...     y.add_(x).mul_(2)
        tensor([[2., 2.],
                [2., 2.],
                [2., 2.]])
    """
    first = tensors[0]
    rows = len(first) if first.is_cuda else max(1, _CHUNK // max(1, first[0].numel()))
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def squared_distance(x: Tensor, y: Tensor) -> float:
    """‖x − y‖², x and y of one shape.

    Examples:
        >>> squared_distance(torch.ones(3, 1), torch.tensor([[1.0], [4.0], [1.0]]))
        9.0
    """
    return sum(square(a - b) for a, b in chunks(x, y))


def mean_difference(x: Tensor, y: Tensor) -> Tensor:
    """Mean of x − y over the rows.

    Examples:
        >>> mean_difference(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.ones(2, 2))
        tensor([1., 1.])
    """
    return torch.stack([(a - b).sum(0) for a, b in chunks(x, y)]).sum(0).div_(len(x))


def activation_gap(a: Tensor, z: Tensor, slope: float, out: Tensor) -> Tensor:
    """a − h(z), into `out`, which may be neither.

    Examples:
        >>> a, z = torch.ones(1, 2), torch.tensor([[-2.0, 3.0]])
        >>> activation_gap(a, z, 0.5, out=torch.empty(1, 2))
        tensor([[ 2., -2.]])
    """
    for a_, z_, gap in chunks(a, z, out):
        torch.sub(a_, activate(z_, slope, out=gap), out=gap)
    return out


def activate(z: Tensor, slope: float, out: Tensor) -> Tensor:
    """h(z) = max(z, slope · z), into `out`, which may be z itself; slope 0 is ReLU.

    Examples:
        >>> z = torch.tensor([-2.0, 3.0])
        >>> activate(z, 0.5, out=z)
        tensor([-1.,  3.])
    """
    if slope == 0:
        return torch.clamp_min(z, 0, out=out)
    if out is z:
        return nn.functional.leaky_relu_(z, slope)
    return torch.maximum(torch.mul(z, slope, out=out), z, out=out)


def activation_prox(a: Tensor, m: Tensor, p: float, q: float, slope: float, out: Tensor) -> Tensor:
    """argmin over z of p (a − h(z))² + q (z − m)², entry by entry, in closed form.

    On z ≥ 0 and on z ≤ 0 the function is a parabola; with s = 1 and s = slope their constrained
    minimisers lie max(0, p a + q m)² / (p + q) and min(0, p s a + q m)² / (p s² + q) below the
    common value at z = 0. The deeper one is the answer, the negative one where both are equal.

    Args:
        a: activations, any shape.
        m: W a + b of the layer, the same shape.
        p: weight of the activation's gap, positive.
        q: weight of the layer's residual, positive.
        slope: of h on the negative side, in [0, 1).
        out: takes the result; may be neither a nor m.

    Returns:
        `out`.

    Examples:
        >>> a, m = torch.tensor([3.0, 0.5, -1.0]), torch.tensor([1.0, -2.0, 1.0])
        >>> activation_prox(a, m, 1.0, 1.0, 0.0, out=torch.empty(3))
        tensor([ 2., -2.,  0.])
    """
    above, below = p + q, p * slope**2 + q
    for a_, m_, z_ in chunks(a, m, out):
        up = (m_ * (q / above)).add_(a_, alpha=p / above).clamp_min_(0)
        if slope:
            down = (m_ * (q / below)).add_(a_, alpha=p * slope / below).clamp_max_(0)
        else:
            down = m_.clamp_max(0)
        # They lie `above` up² and `below` down² below the common value. As 0 or 1, which is faster
        # to multiply with than a mask:
        positive = torch.add(down, up, alpha=math.sqrt(above / below)).gt_(0)
        torch.mul(up, positive, out=z_)
        z_.addcmul_(down, positive.sub_(1), value=-1)
    return out


def output_loss(loss: str, outputs: Tensor, targets: Tensor) -> float:
    """Sum over samples of the softmax cross-entropy, ½‖z − y‖², or the hinge loss.

    The hinge loss of Taylor et al. is max(0, 1 − z) where y = 1 and max(0, z) where y = 0.

    Examples:
        >>> output_loss("squared", torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        2.0
    """
    if loss == "cross_entropy":
        # One class per row, as in `cross_entropy_prox`: three times as fast.
        chosen = outputs.gather(1, targets[:, None])
        return float(outputs.T.contiguous().logsumexp(0).sum() - chosen.sum())
    if loss == "squared":
        return square(outputs - targets) / 2
    return float(torch.where(targets > 0.5, 1 - outputs, outputs).clamp_min_(0).sum())


def output_prox(
    loss: str,
    center: Tensor,
    targets: Tensor,
    rho: float,
    start: Tensor,
    tolerance: float,
) -> Tensor:
    """argmin over z of loss(z) + rho/2 ‖z − center‖²: closed form, or Newton for cross-entropy.

    Args:
        loss: `cross_entropy`, `squared` or `hinge`, each as in `output_loss`.
        center: shape (N, K).
        targets: labels (N,), or values (N, K).
        rho: positive.
        start: where Newton's method begins, shape (N, K).
        tolerance: see `cross_entropy_prox`.

    Returns:
        z, a new tensor of shape (N, K).

    Examples:
        >>> zero, y = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> output_prox("squared", zero, y, 1.0, zero, 0.0)
        tensor([[0.5000, 0.0000]])
    """
    if loss == "cross_entropy":
        return cross_entropy_prox(center, targets, rho, start, tolerance)
    if loss == "squared":
        return torch.add(targets, center, alpha=rho).div_(1 + rho)
    # In x = z where y = 0 and x = 1 − z where y = 1, the loss is max(0, x).
    sign, offset = 1 - 2 * targets, targets
    x = center * sign + offset
    return ((x - 1 / rho).clamp_min(0) + x.clamp_max(0) - offset) * sign


def cross_entropy_prox(
    center: Tensor,
    labels: Tensor,
    rho: float,
    start: Tensor,
    tolerance: float,
    iterations: int = 100,
) -> Tensor:
    """Damped Newton on softmax cross-entropy + rho/2 ‖z − center‖², all samples at once.

    The published codes run FISTA on this strictly convex problem, which takes hundreds of
    iterations where rho is small and then costs more than all matrix products. The Hessian of a
    sample is diag(p + rho) − p pᵀ, p its softmax, so that a Newton step needs no products either.
    A step δ is shortened by ln(1 + d)/d, d = max δ − min δ: the third derivative along δ is at most
    d times the second, so that it always descends (Sun and Tran-Dinh 2019).

    Args:
        center: shape (N, K).
        labels: class numbers, shape (N,).
        rho: weight of the quadratic term, positive.
        start: where to begin, shape (N, K).
        tolerance: Newton's estimate of how far the objective, a sum over samples, lies above its
            minimum, from which on one more step is the last.
        iterations: the most that are taken.

    Returns:
        z, a new tensor of shape (N, K), whose objective is not above that of `start`.

    Examples:
        >>> z = cross_entropy_prox(torch.zeros(1, 2), torch.tensor([0]), 1.0, torch.zeros(1, 2), 0)
        >>> bool((z.softmax(1) - torch.tensor([[1.0, 0.0]]) + z).abs().max() < 1e-6)
        True
    """
    # One class per row: what is summed over classes is then added row by row.
    z, center, labels = start.T.clone(), center.T.contiguous(), labels[None]
    minus_one = z.new_full(labels.shape, -1.0)
    p, g, scratch, step = torch.empty(4, *z.shape, dtype=z.dtype, device=z.device)
    for _ in range(iterations):
        torch.softmax(z, 0, out=p)
        torch.sub(z, center, out=g).mul_(rho).add_(p).scatter_add_(0, labels, minus_one)
        torch.add(p, rho, out=scratch)
        torch.div(g, scratch, out=step)
        torch.div(p, scratch, out=scratch)
        # Sherman and Morrison; 1 − Σ p²/(p + rho) = rho Σ p/(p + rho) without cancellation.
        along = p.mul_(step).sum(0).div_(scratch.sum(0).mul_(rho))
        step.addcmul_(scratch, along)
        decrement = float(g.mul_(step).sum(dtype=torch.float64))
        width = step.amax(0).sub_(step.amin(0))
        factor = torch.log1p(width).div_(width).nan_to_num_(1.0)  # 1 where the step is 0
        z.addcmul_(step, factor, value=-1)
        if not decrement > 2 * tolerance:
            break
    return z.T.contiguous()


def backtracked(start: float, curvature: float) -> float:
    """The first of start, 2 start, 4 start … that is not below the curvature.

    On a quadratic φ with gradient g, φ(x − g/α) ≤ φ(x) − ‖g‖²/(2α) holds exactly where α is at
    least the curvature along g, so that no trial evaluations are needed; the official codes make
    them, and where rounding keeps the test from ever passing they do not end.

    Args:
        start: positive.
        curvature: ⟨g, H g⟩ / ⟨g, g⟩. Infinity and NaN are returned as they are.

    Examples:
        >>> backtracked(1.0, 5.0), backtracked(1.0, 0.5)
        (8.0, 1.0)
    """
    if not math.isfinite(curvature):
        return curvature
    while start < curvature:
        start *= 2
    return start


def ratio(numerator: float, denominator: float) -> float:
    """0 where the denominator is: the curvature along a gradient that vanishes."""
    return numerator / denominator if denominator else 0.0


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """matrix⁻¹ right by Cholesky factors in float64; NaN where the matrix has diverged.

    Args:
        matrix: symmetric and positive definite, shape (d, d).
        right: shape (d, k).

    Returns:
        Shape (d, k), in the dtype of `right`.

    Examples:
        >>> solve_positive(torch.tensor([[2.0]]), torch.tensor([[1.0]]))
        tensor([[0.5000]])
    """
    factor, failed = torch.linalg.cholesky_ex(matrix.double())
    if failed:
        return torch.full_like(right, math.nan)
    return torch.cholesky_solve(right.double(), factor).to(right.dtype)


def fit_activation(
    weight: Tensor,
    bias: Tensor,
    z: Tensor,
    h: Tensor,
    ridge: float,
    *,
    out: Tensor,
    image: Tensor,
    scratch: Tensor,
) -> None:
    """argmin over a of ‖z − (W a + b)‖² + ridge ‖a − h‖², for every sample.

    It is h + Wᵀ (W Wᵀ + ridge I)⁻¹ (z − W h − b), of which W a + b falls off too: three products
    and a system of the size of the layer's outputs.

    Args:
        weight: W, shape (k, d).
        bias: b, shape (k,).
        z: shape (N, k).
        h: shape (N, d).
        ridge: positive.
        out: takes a, shape (N, d); may be h.
        image: takes W a + b, shape (N, k).
        scratch: shape (N, k), overwritten.

    Examples:
        >>> one, a, m, scratch = torch.ones(1, 1), *torch.empty(3, 1, 1)
        >>> fit_activation(one, torch.zeros(1), 3 * one, one, 1.0, out=a, image=m, scratch=scratch)
        >>> a, m
        (tensor([[2.]]), tensor([[2.]]))
    """
    matrix = torch.mm(weight, weight.T).double()
    matrix.diagonal().add_(ridge)
    back = solve_positive(matrix, weight)
    torch.addmm(bias, h, weight.T, out=image)
    torch.sub(z, image, out=scratch)
    torch.addmm(h, scratch, back, out=out)
    image.addmm_(scratch, torch.mm(back, weight.T))
