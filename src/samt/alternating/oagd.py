"""OAGD: online adaptive gradient descent on the sub-problem of one block (Algorithms 2 and 3).

One OAGD step is `descend(g)`, steps 1 to 5, and then `learn(h)`, step 6, once the gradient h of
the meta loss at the new weights is known. A lookahead evaluates h at once. With
`meta_batch="next"` h is the gradient of the block's next update, so everything that `learn` needs
is kept in the optimizer's state.

No second derivative is needed: with the gradient g held constant, ∂ŵ/∂η = −g, so that the
meta loss has the derivative −(g ⊙ h) with respect to η, summed down to the shape of η.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from samt.alternating.state import PREVIOUS
from samt.eta_model import (
    EtaModels,
    Trace,
)
from samt.step_size import (
    Number,
    coefficients,
    combine,
    combine_backward,
    relative_factor,
    step_size_shape,
)
from samt.tensors.finite import CheckFinite
from samt.tensors.precision import own_precision, state_dtype
from samt.tensors.refusals import refuse_several_devices

Gradients: TypeAlias = Sequence[Tensor | None]
# What `learn` needs of the last `descend`: g, the trace of φ, and what equation (10) multiplies.
Held: TypeAlias = tuple[list[Tensor], Trace, tuple[Number, Number]]
_NORM = "the norm of the gradient"


P = ParamSpec("P")
R = TypeVar("R")


def _in_own_precision(method: Callable[P, R]) -> Callable[P, R]:
    """Keep a surrounding autocast, which is meant for the model, out of a SubProblem's method."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        device = cast(SubProblem, args[0]).parameters[0].device
        if not torch.is_autocast_enabled(device.type):
            return method(*args, **kwargs)
        with own_precision([device]):
            return method(*args, **kwargs)

    return wrapped


class SubProblem:
    """One block: its tensors, its options and the eta models of its tensors.

    Args:
        index: the number of the block.
        group: the param group. Options are read from it at every step, so that schedulers and
            hand-made changes take effect.
        members: the names and parameters of the group that take part in training, at least one.
        states: for each of these parameters, its complete entry in the optimizer's state.

    Attributes:
        inner_steps: the number of OAGD steps before the next block.
        kind: the kind of the meta batch: `same`, `subset`, `fresh` or `next`.
        looks_ahead: whether h is evaluated right after the trial step, on a meta batch.
        learns_from_next: whether h is the gradient of the block's next update.
        etas: η of the last `descend`, one tensor for each parameter.
        tensors: everything that a step changes in place.
        learned: those of them that have changed when `descend` refuses a number, before it moves a
            weight: the eta models that learn from the gradient of this update.

    Raises:
        OptionError: the block lies on several devices.
    """

    def __init__(
        self,
        index: int,
        group: dict[str, Any],
        members: Sequence[tuple[str, Tensor]],
        states: Sequence[dict[str, Tensor]],
    ) -> None:
        self.index = index
        self.group = group
        self.names = [name for name, _ in members]
        self.parameters = [parameter for _, parameter in members]
        self.states = list(states)
        self.etas: list[Tensor] = []
        refuse_several_devices(self.parameters, group["name"])
        dtypes = [state_dtype(parameter) for parameter in self.parameters]
        self.dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        for parameter, state in zip(self.parameters, self.states, strict=True):
            for key, value in state.items():  # the model may have been converted since
                state[key] = value.to(device=parameter.device, dtype=self.dtype)
        self.eta: EtaModels | None = None
        self._held: Held | None = None
        self._chosen: tuple[Any, ...] = (None, None, None)
        self._constants: tuple[Number, Number] = (0.0, 0.0)
        self._of_eta: list[Tensor] = []  # everything that φ learns
        if group["parts"] != "fixed":
            self._shapes = [step_size_shape(group["step_size"], p) for p in self.parameters]
            self.eta = EtaModels(self.states, group["eta_hidden"], group["projection"])
            self._of_eta = self.eta.tensors
        self.inner_steps = int(group["inner_steps"])
        self.kind = str(group["meta_batch"])
        self.looks_ahead = self.eta is not None and self.kind != "next"
        self.learns_from_next = self.eta is not None and self.kind == "next"
        kept = (*PREVIOUS, "ball_scale")
        self.learned = self._of_eta if self.learns_from_next else []
        self.tensors = [*self.parameters, *self._of_eta]
        self.tensors += [state[key] for state in self.states for key in kept if key in state]

    @_in_own_precision
    def descend(self, gradients: Gradients, check_finite: CheckFinite) -> None:
        """Steps 1 to 5: from the block's gradient to its trial weights, which it keeps.

        Args:
            gradients: one gradient or None for each parameter. A parameter whose gradient is
                None is left alone: it counts as a zero gradient and does not decay.
            check_finite: the function that looks at numbers that have to be finite; it is called
                before anything changes.
        """
        group = self.group
        lr: Number = group["lr"]
        if isinstance(lr, Tensor):
            lr = lr.reshape(())
        g = self._zeros_for_missing(gradients)
        if group["max_grad_norm"] is not None:
            norm = norm_of_all(g)
            check_finite([(norm, _NORM)], group["name"])
            g = clipped(g, group["max_grad_norm"], norm)
        decays = [1 - lr * group["weight_decay"] if x is not None else 1 for x in gradients]
        if self.eta is None:
            step_size = torch.as_tensor(lr, dtype=self.dtype, device=g[0].device)
            self.etas = [step_size for _ in g]
            self._check_step(check_finite, norm_of_all(g), step_size)
            self._move_fixed(g, lr, decays)
        else:
            constants = self._coefficients(lr)
            trace = self.eta.read(g)
            found = [combine(both[0], both[1], *constants) for both in trace.projected]
            self._check_step(check_finite, trace.features[:, 0, 4].sum(), _sum(found))
            self._hold(g, trace, lr, constants)
            each = found[0].unbind() if self.eta.one_group else found
            self.etas = [eta.view(shape) for eta, shape in zip(each, self._shapes, strict=True)]
            self._move(g, decays)
        if group["radius"] is not None:
            self._project_onto_ball([gradient is not None for gradient in gradients])

    @_in_own_precision
    def learn(self, meta_gradients: Gradients, check_finite: CheckFinite) -> None:
        """Step 6: one plain gradient-descent step of the eta models on the meta loss.

        Args:
            meta_gradients: h, the gradient of the meta loss at the trial weights.
            check_finite: the function that looks at numbers that have to be finite; it is called
                after the step.
        """
        if self.eta is None:
            return
        h = self._zeros_for_missing(meta_gradients)
        if self.group["radius"] is not None:
            h = self._through_ball(h)
        g, trace, constants = self._recall(self.eta)
        # ∂(meta loss)/∂η = −(g ⊙ h), summed down to the shape of η; the sign is put to the rate.
        slopes = [_product(a, b, shape) for a, b, shape in zip(g, h, self._shapes, strict=True)]
        if self.eta.one_group:
            slopes = [torch.cat(slopes)]
        grads = [
            combine_backward(slope, both[0], both[1], *constants)
            for slope, both in zip(slopes, trace.projected, strict=True)
        ]
        self.eta.descend(trace, grads, -self.group["meta_lr"])
        name = self.group["name"]
        check_finite([(_sum(self._of_eta), "the sum over the eta models")], name)

    def _check_step(self, check_finite: CheckFinite, norm: Tensor, step_size: Tensor) -> None:
        numbers = [(norm, _NORM), (norm * step_size, "the length of the step")]
        check_finite(numbers, self.group["name"])

    def _coefficients(self, lr: Number) -> tuple[Number, Number]:
        chosen = lr, self.group["parts"], self.group["relative"]
        if not all(map(operator.is_, chosen, self._chosen)):  # a scheduler may have changed lr
            self._constants = coefficients(chosen[1], lr, relative_factor(chosen[2]))
            self._chosen = chosen
        return self._constants

    def _zeros_for_missing(self, gradients: Gradients) -> list[Tensor]:
        return [
            torch.zeros_like(parameter, dtype=self.dtype)
            if gradient is None
            else (gradient if gradient.dtype == self.dtype else gradient.to(self.dtype))
            for gradient, parameter in zip(gradients, self.parameters, strict=True)
        ]

    def _move(self, g: Sequence[Tensor], decays: Sequence[Number]) -> None:
        """Equation (9): w ← (1 − lr · weight_decay) w − η ⊙ g."""
        moves = zip(self.parameters, g, self.etas, decays, strict=True)
        for parameter, gradient, step_size, decay in moves:
            weight = parameter.to(self.dtype)  # the parameter itself, but for low precision
            if self.group["weight_decay"] != 0:
                weight.mul_(decay)
            weight.addcmul_(gradient, step_size, value=-1)
            if weight is not parameter:
                parameter.copy_(weight)

    def _move_fixed(self, g: list[Tensor], lr: Number, decays: Sequence[Number]) -> None:
        plain = all(parameter.dtype == self.dtype for parameter in self.parameters)
        if plain and not isinstance(lr, Tensor) and self.group["weight_decay"] == 0:
            torch._foreach_add_(self.parameters, g, alpha=-lr)  # bit for bit what SGD does
        else:
            self._move(g, decays)

    # What `learn` needs of the last `descend`: held here, and in the state where it has to
    # outlive the step.

    def _hold(
        self, g: list[Tensor], trace: Trace, lr: Number, constants: tuple[Number, Number]
    ) -> None:
        if self.learns_from_next:
            for state, gradient, v in zip(self.states, g, trace.features, strict=True):
                state["previous_gradient"].copy_(gradient)
                state["previous_features"].copy_(v[0])
                state["previous_lr"].fill_(lr)
        else:
            self._held = (g, trace, constants)

    def forget(self) -> None:
        """Drop what the last `descend` left for a `learn` that will not come."""
        self._held = None

    def _recall(self, eta: EtaModels) -> Held:
        if self._held is not None:
            held, self._held = self._held, None
            return held
        features = torch.stack([state["previous_features"] for state in self.states])
        g = [state["previous_gradient"] for state in self.states]
        constants = self._coefficients(self.states[0]["previous_lr"])
        return g, eta.forward(features), constants

    # The ball of given radius around the block's initial weights.

    def _from_center(self) -> list[Tensor]:
        return [
            parameter.to(self.dtype) - state["center"]
            for parameter, state in zip(self.parameters, self.states, strict=True)
        ]

    def _project_onto_ball(self, moved: Sequence[bool]) -> None:
        """A tensor without a gradient, such as a frozen one, stays where it is."""
        away = self._from_center()
        distance = norm_of_all(
            [x if moves else x.new_zeros(()) for x, moves in zip(away, moved, strict=True)]
        )
        scale = (self.group["radius"] / distance).clamp(max=1.0)
        found = zip(self.parameters, self.states, away, moved, strict=True)
        for parameter, state, offset, moves in found:
            state["ball_scale"].copy_(scale if moves else torch.ones_like(scale))
            if not moves:
                continue
            projected = state["center"] + scale * offset
            parameter.copy_(torch.where(scale < 1, projected, parameter.to(self.dtype)))

    def _through_ball(self, h: list[Tensor]) -> list[Tensor]:
        """Derivative of the projection: s (h − u ⟨u, h⟩) outside the ball, u the unit radius."""
        scales = [state["ball_scale"] for state in self.states]
        # Of those that were projected.
        away = [torch.where(s < 1, x, 0) for s, x in zip(scales, self._from_center(), strict=True)]
        inner = torch.stack([(a * b).sum() for a, b in zip(away, h, strict=True)]).sum()
        square = norm_of_all(away).square()
        along = torch.where(square > 0, inner / square, 0.0)
        return [s * (b - along * a) for s, a, b in zip(scales, away, h, strict=True)]


def _product(g: Tensor, h: Tensor, shape: torch.Size) -> Tensor:
    """g ⊙ h, summed down to the shape of the step size, as a vector."""
    if shape == g.shape:
        return (g * h).flatten()
    if shape.numel() == 1 and g.is_contiguous() and h.is_contiguous():
        return torch.dot(g.view(-1), h.view(-1)).view(1)  # no product in memory
    return (g * h).sum_to_size(shape).flatten()


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of all elements; it is finite if and only if each element is, up to overflow."""
    first, *others = [tensor.sum() for tensor in tensors]
    return torch.stack([first, *others]).sum() if others else first


def norm_of_all(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of several tensors taken as one vector."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors]))


def clipped(gradients: Sequence[Tensor], max_norm: float, norm: Tensor) -> list[Tensor]:
    """The block's gradient, shortened to `max_norm` if it is longer.

    Args:
        gradients: the gradients of the block's tensors.
        max_norm: the largest allowed norm of all of them together.
        norm: the norm that they have together.

    Examples:
        >>> clipped([torch.tensor([3.0, 4.0])], 1.0, torch.tensor(5.0))
        [tensor([0.6000, 0.8000])]
    """
    scale = (max_norm / norm).clamp(max=1.0)
    return [gradient * scale for gradient in gradients]
