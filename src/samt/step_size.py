"""Equation (10): the step size of a tensor, its shape and the parts it is made of.

With initial step size η⁰ and the eta model's outputs α and η̃, both in [0, 1],

    η = α ⊙ η⁰ + (1 − α) ⊙ η̃                    (absolute, the published form)
    η = η⁰ · (α + (1 − α) ⊙ ρ η̃)                (relative)

Both read η = α · left + (1 − α) · η̃ · right, with left = η⁰ and right = 1 or ρ η⁰. The
ablations `left` and `right` set the other coefficient to zero; `fixed` is η = η⁰.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from samt.errors import OptionError

Granularity: TypeAlias = (
    Literal["scalar", "row", "column", "element"] | Callable[[Tensor], Sequence[int]]
)
Number: TypeAlias = float | Tensor

GRANULARITIES = ("scalar", "row", "column", "element")
PARTS = ("full", "left", "right", "fixed")
DEFAULT_RHO = 10.0  # with η⁰ = 0.1 the relative form starts as the absolute one: ρ η⁰ = 1


def step_size_shape(step_size: Granularity, parameter: Tensor) -> torch.Size:
    """The shape of the step size of one tensor; it broadcasts to the tensor's shape.

    Dimension 0 is the output unit or channel, dimension 1 the input unit or channel. Tensors
    with one dimension: `row` is `element` and `column` is `scalar`.

    Args:
        step_size: the option: `scalar`, `row`, `column`, `element`, or a callable from the tensor
            to a shape.
        parameter: the tensor that is stepped.

    Returns:
        The shape; `()` for a scalar step size.

    Raises:
        OptionError: a callable's shape does not broadcast to the tensor's.

    Examples:
        >>> weight = torch.zeros(16, 3, 5, 5)
        >>> step_size_shape("row", weight)
        torch.Size([16, 1, 1, 1])
        >>> step_size_shape("column", weight)
        torch.Size([1, 3, 1, 1])
        >>> step_size_shape(lambda tensor: tensor.shape[-2:], weight)
        torch.Size([5, 5])
    """
    shape = parameter.shape
    if callable(step_size):
        wanted = step_size(parameter)
        if not _broadcasts(wanted, shape):
            raise OptionError(
                f"the step_size callable returned {wanted!r}, which is no shape that broadcasts "
                f"to the parameter's shape {tuple(shape)}: return one that does"
            )
        return torch.Size(wanted)
    if step_size == "element":
        return shape
    kept = {"row": 0, "column": 1}.get(step_size)
    if kept is None or kept >= len(shape):
        return torch.Size()
    return torch.Size(size if dim == kept else 1 for dim, size in enumerate(shape))


def _broadcasts(shape: Sequence[int], target: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(torch.Size(shape), target) == target
    except (RuntimeError, TypeError):
        return False


def coefficients(parts: str, lr: Number, rho: float | None) -> tuple[Number, Number]:
    """The two constants (left, right) of η = α · left + (1 − α) · η̃ · right.

    Args:
        parts: the option: `full`, `left` or `right`.
        lr: the initial step size η⁰.
        rho: ρ of the relative form, or None for the absolute one.

    Returns:
        The factor of α and the factor of (1 − α) η̃.

    Examples:
        >>> coefficients("full", 0.5, None), coefficients("right", 0.5, 4.0)
        ((0.5, 1.0), (0.0, 2.0))
    """
    left: Number = 0.0 if parts == "right" else lr
    right: Number = 0.0 if parts == "left" else (1.0 if rho is None else rho * lr)
    return left, right


def combine(alpha: Tensor, eta_tilde: Tensor, left: Number, right: Number) -> Tensor:
    """Equation (10).

    Args:
        alpha: α, of any shape.
        eta_tilde: η̃, of the same shape.
        left: the factor of α, from `coefficients`.
        right: the factor of (1 − α) η̃, from `coefficients`.

    Returns:
        η, the same shape.

    Examples:
        >>> combine(torch.tensor(0.25), torch.tensor(0.5), 0.1, 1.0)
        tensor(0.4000)
    """
    start = eta_tilde if _is_one(right) else eta_tilde * right
    end = left.to(start) if isinstance(left, Tensor) else start.new_full((), left)
    return torch.lerp(start, end, alpha)  # one pass: start + α (left − start)


def combine_backward(
    grad: Tensor, alpha: Tensor, eta_tilde: Tensor, left: Number, right: Number
) -> Tensor:
    """Derivative of equation (10): from ∂/∂η to ∂/∂(α, η̃).

    Args:
        grad: ∂(meta loss)/∂η, of the shape of η.
        alpha: α of the same step.
        eta_tilde: η̃ of the same step.
        left: the factor of α, from `coefficients`.
        right: the factor of (1 − α) η̃, from `coefficients`.

    Returns:
        Both derivatives, shape (2, *grad.shape).

    Examples:
        >>> one = torch.tensor(1.0)
        >>> combine_backward(one, torch.tensor(0.25), torch.tensor(0.5), 0.1, 1.0)
        tensor([-0.4000,  0.7500])
    """
    result = grad.new_empty(2, *grad.shape)
    of_alpha, of_eta_tilde = result.unbind()
    torch.addcmul(grad, grad, alpha, value=-1, out=of_eta_tilde)
    if not _is_one(right):
        of_eta_tilde.mul_(right)
        eta_tilde = eta_tilde * right
    # Written without temporaries, for step sizes as large as the tensor.
    torch.sub(left, eta_tilde, out=of_alpha).mul_(grad)
    return result


def _is_one(factor: Number) -> bool:
    return isinstance(factor, float) and factor == 1


def relative_factor(relative: bool | float) -> float | None:
    """ρ of the relative form, or None for the absolute one; True means `DEFAULT_RHO`.

    Examples:
        >>> relative_factor(False), relative_factor(True), relative_factor(3)
        (None, 10.0, 3.0)
    """
    if isinstance(relative, bool):
        return DEFAULT_RHO if relative else None
    return float(relative)
