"""The splitting that the full-batch, gradient-free solvers share.

An MLP with layers l = 1 … L is written as a chain of equations, each of which a solver may violate
while it works, at the price of a penalty:

    m_l = W_l a_{l−1} + b_l,    z_l = m_l,    a_l = h(z_l),    a_0 = inputs.

The unknowns are weights W_l and biases b_l, pre-activations z_l, activations a_l and, in the
methods with multipliers, duals u. The papers write one sample per column; here samples are rows,
as everywhere in torch, and list index 0 holds layer 1, except that `a[0]` is a_0.

What costs is the products with all N samples, so that m_l is kept beside W_l and changed with it,
and temporaries of N rows are allocated once: mapping fresh pages takes longer than filling them.
"""

from __future__ import annotations

import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from samt.baselines.proximal import (
    activate,
    activation_gap,
    chunks,
    output_loss,
    square,
    squared_distance,
)
from samt.errors import CheckpointMismatchError, OptionError, suggestion

__all__ = ["LayerwiseSolver", "Progress"]

ACTIVATIONS = ("relu", "leaky_relu")


class Progress(NamedTuple):
    """What one iteration of a layer-wise solver did.

    Attributes:
        objective: the method's own objective, a sum over samples; NaN where it has diverged.
        residuals: ‖z_l − m_l‖² for l = 1 … L.
        gaps: ‖a_l − h(z_l)‖² for each activation that the method keeps.
    """

    objective: float
    residuals: tuple[float, ...]
    gaps: tuple[float, ...]


class LayerwiseSolver(ABC):
    """Base class: an MLP, its training data and one iteration after the other on all of it.

    Attributes:
        weights: W_l, shapes (d_l, d_{l−1}).
        biases: b_l, shapes (d_l,).
        z: pre-activations, shapes (N, d_l).
        a: activations, shapes (N, d_l); `a[0]` is the inputs.
        m: W_l a_{l−1} + b_l, shapes (N, d_l).
        iteration: number of iterations done.
    """

    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "squared")
    _state: ClassVar[tuple[str, ...]] = ("weights", "biases", "z", "a", "m", "iteration")

    @torch.no_grad()
    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        hidden: Sequence[int],
        *,
        activation: str,
        negative_slope: float,
        loss: str,
        outputs: int | None,
        weight_std: float,
        seed: int,
        **positive: float,
    ) -> None:
        if not inputs.dtype.is_floating_point or inputs.element_size() < 4 or len(inputs) == 0:
            raise OptionError(
                f"inputs must be float32 or float64 with one sample per row, not {inputs.dtype} "
                f"of shape {tuple(inputs.shape)}: convert them with inputs.float()"
            )
        for what, values in (("inputs", inputs), ("targets", targets)):
            if not values.isfinite().all():
                raise OptionError(f"{what} hold NaN or infinity: leave out or mend these samples")
        if activation not in ACTIVATIONS:
            known = suggestion(activation, ACTIVATIONS)
            raise OptionError(f"unknown activation '{activation}': {known}")
        if not 0 <= negative_slope < 1:
            raise OptionError(f"negative_slope must lie in [0, 1), not {negative_slope}")
        if loss not in self.losses:
            name = type(self).__name__
            raise OptionError(f"{name} has no loss '{loss}': {suggestion(loss, self.losses)}")
        if any(width < 1 for width in hidden):
            raise OptionError(f"hidden must hold widths of 1 or more, not {list(hidden)}")
        for option, value in (positive | {"weight_std": weight_std}).items():
            if not 0 < value < math.inf:
                raise OptionError(f"{option} must be a positive number, not {value}")
        self.slope = negative_slope if activation == "leaky_relu" else 0.0
        self.loss = loss
        self.iteration = 0
        inputs = inputs.detach().flatten(1)
        self.targets, classes = _checked_targets(targets, inputs, loss, outputs)
        widths = [inputs.shape[1], *hidden, classes]
        self.generator = torch.Generator().manual_seed(seed)
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self.a = [inputs]
        self.weights = [
            self._normal(rows, columns).mul_(weight_std)
            for columns, rows in itertools.pairwise(widths)
        ]
        self.biases = [inputs.new_zeros(width) for width in widths[1:]]
        self.z: list[Tensor] = []
        self.m: list[Tensor] = []

    @property
    def depth(self) -> int:
        """L, the number of layers with weights."""
        return len(self.weights)

    @functools.cached_property
    def input_gram(self) -> Tensor:
        """a_0ᵀ a_0, shape (d, d), which never changes."""
        return torch.mm(self.a[0].T, self.a[0])

    @functools.cached_property
    def input_sum(self) -> Tensor:
        """Sum of a_0 over the samples, shape (d,)."""
        return self.a[0].sum(0)

    @abstractmethod
    def step(self) -> Progress:
        """Take one iteration, that is, update every unknown in the method's order."""

    @property
    def model(self) -> nn.Sequential:
        """The network as a `torch.nn.Sequential` whose parameters share memory with the solver."""
        layers: list[nn.Module] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            linear = nn.Linear(1, 1)
            linear.out_features, linear.in_features = weight.shape
            linear.weight = nn.Parameter(weight, requires_grad=False)
            linear.bias = nn.Parameter(bias, requires_grad=False)
            layers += [linear, nn.LeakyReLU(self.slope) if self.slope else nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """The plain forward pass with the current weights and biases.

        Args:
            inputs: shape (N, d), or images of d pixels.

        Returns:
            Logits or predicted values, shape (N, K).
        """
        return self._forward(inputs.flatten(1), 0)

    def state_dict(self) -> dict[str, Any]:
        """Everything that an iteration reads and changes, but for the training data.

        Loads with `torch.load(weights_only=True)`. The tensors are the solver's own, as in torch.
        """
        state = {name: getattr(self, name) for name in self._state}
        return {
            name: list(value[name == "a" :]) if isinstance(value, list) else value
            for name, value in state.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue, bit for bit, where another solver on the same data stood.

        Raises:
            CheckpointMismatchError: the state is of another method, depth, width or data set.
        """
        own = self.state_dict()
        if not isinstance(state_dict, dict) or _form(own) != _form(state_dict):
            raise CheckpointMismatchError(
                f"the state dict does not fit this {type(self).__name__}: build it with the data, "
                "widths and options that the state was saved with"
            )
        for name, value in own.items():
            if isinstance(value, Tensor):
                value.copy_(state_dict[name])
            elif isinstance(value, list) and value and isinstance(value[0], Tensor):
                for tensor, saved in zip(value, state_dict[name], strict=True):
                    tensor.copy_(saved)
            else:
                held = state_dict[name]
                setattr(self, name, list(held) if isinstance(held, list) else held)

    def _forward(self, a: Tensor, first: int) -> Tensor:
        """From the inputs of layer `first` to the outputs."""
        for index in range(first, self.depth):
            a = nn.functional.linear(a, self.weights[index], self.biases[index])
            if index + 1 < self.depth:
                a = activate(a, self.slope, out=a)
        return a

    def _start_from_forward_pass(self) -> None:
        for layer in range(self.depth):
            self.m.append(nn.functional.linear(self.a[-1], self.weights[layer], self.biases[layer]))
            self.z.append(self.m[-1].clone())
            if layer + 1 < self.depth:
                self.a.append(activate(self.z[-1], self.slope, out=torch.empty_like(self.z[-1])))

    def _start_from_targets(self) -> None:
        """z_L: 1 at the true class and −1 elsewhere, or the values of a squared loss."""
        if self.loss == "cross_entropy":
            self.z[-1].fill_(-1).scatter_(1, self.targets[:, None], 1)
        else:
            self.z[-1].copy_(self.targets)

    def _normal(self, rows: int, columns: int) -> Tensor:
        drawn = torch.randn(rows, columns, generator=self.generator, dtype=self.a[0].dtype)
        return drawn.to(self.a[0].device)

    def _buffer(self, name: str, width: int) -> Tensor:
        """Scratch memory of shape (N, width), the same one whenever it is asked for."""
        key = name, width
        if key not in self._buffers:
            self._buffers[key] = self.a[0].new_empty(len(self.a[0]), width)
        return self._buffers[key]

    def _multiply(self, layer: int) -> Tensor:
        """Bring m_l up to date: one product."""
        weight, bias = self.weights[layer], self.biases[layer]
        return torch.addmm(bias, self.a[layer], weight.T, out=self.m[layer])

    def _residual(self, layer: int) -> Tensor:
        """m_l − z_l, in the buffer `residual`."""
        m = self.m[layer]
        return torch.sub(m, self.z[layer], out=self._buffer("residual", m.shape[1]))

    def _residuals(self) -> tuple[float, ...]:
        return tuple(itertools.starmap(squared_distance, zip(self.m, self.z, strict=True)))

    def _gaps(self) -> tuple[float, ...]:
        gaps: list[float] = []
        for z, a in zip(self.z, self.a[1:], strict=False):
            # The last activation, where a method has one, is that of the identity.
            if len(gaps) == self.depth - 1:
                gaps.append(squared_distance(a, z))
                continue
            parts = chunks(a, z, self._buffer("residual", z.shape[1]))
            gaps.append(
                sum(square(activation_gap(a_, z_, self.slope, gap)) for a_, z_, gap in parts)
            )
        return tuple(gaps)

    def _output_loss(self, outputs: Tensor) -> float:
        """Sum of the loss over the samples."""
        return output_loss(self.loss, outputs, self.targets)


def _checked_targets(
    targets: Tensor, inputs: Tensor, loss: str, outputs: int | None
) -> tuple[Tensor, int]:
    """Labels, or values for the squared loss, on the inputs' device; and the number of outputs."""
    targets = targets.detach().to(inputs.device)
    labels = targets.dim() == 1 and not targets.dtype.is_floating_point
    values = targets.dim() == 2 and targets.dtype.is_floating_point and loss == "squared"
    if len(targets) != len(inputs) or not (labels or values):
        raise OptionError(
            f"targets of shape {tuple(targets.shape)} and {targets.dtype} do not fit {len(inputs)} "
            f"samples and loss='{loss}': give int64 labels (N,), or floats (N, K) with "
            "loss='squared'"
        )
    found = int(targets.max()) + 1 if labels else targets.shape[1]
    outputs = found if outputs is None else outputs
    if outputs < found or (values and outputs != found) or (labels and int(targets.min()) < 0):
        raise OptionError(f"outputs={outputs} does not fit targets that need {found}: leave it out")
    if loss == "cross_entropy":
        return targets.long(), outputs
    if labels:
        targets = nn.functional.one_hot(targets.long(), outputs)
    return targets.to(inputs.dtype), outputs


def _form(state: dict[str, Any]) -> dict[str, Any]:
    """Names and shapes: what two state dicts must have in common."""

    return {
        name: [tuple(t.shape) for t in value if isinstance(t, Tensor)]
        if isinstance(value, list)
        else tuple(value.shape)
        if isinstance(value, Tensor)
        else None
        for name, value in state.items()
    }
