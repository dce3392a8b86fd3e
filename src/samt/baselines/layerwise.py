"""The splitting that the full-batch, gradient-free solvers share.

An MLP with layers l = 1 … L is written as a chain of equations, each of which a solver may violate
while it works, at the price of a penalty:

    m_l = W_l a_{l−1} + b_l,    z_l = m_l,    a_l = h(z_l),    a_0 = inputs.

The unknowns are weights W_l and biases b_l, pre-activations z_l, activations a_l and, in the
methods with multipliers, duals u. The papers write one sample per column; here samples are rows,
as everywhere in torch, and list index 0 holds layer 1, except that `a[0]` is a_0.

The products with all N samples cost most. Therefore m_l is kept beside W_l and changed with it, and
temporaries of N rows are allocated once: to map fresh pages takes longer than to fill them.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict

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
from samt.options import refuse_unknown

__all__ = ["LayerwiseSolver", "NetworkOptions", "Progress", "SharedOptions"]

ACTIVATIONS = ("relu", "leaky_relu")


class Progress(NamedTuple):
    """What one iteration of a layer-wise solver did.

    Attributes:
        objective: the value of the method's own objective, which is a sum over samples; it is NaN
            once the method has diverged.
        residuals: the numbers ‖z_l − m_l‖² for l = 1 … L.
        gaps: the numbers ‖a_l − h(z_l)‖², one for each activation that the method keeps.
    """

    objective: float
    residuals: tuple[float, ...]
    gaps: tuple[float, ...]


class SharedOptions(TypedDict, total=False):
    """The options that all layer-wise solvers have; `LayerwiseSolver` describes them."""

    activation: str
    negative_slope: float
    loss: str
    outputs: int | None
    tolerance: float
    seed: int


class NetworkOptions(SharedOptions, total=False):
    """The options of the solvers that start at random weights; `LayerwiseSolver` describes them."""

    weight_std: float


class LayerwiseSolver(ABC):
    """Base class: an MLP, its training data, and one iteration after the other on all of it.

    The arguments are those that all layer-wise solvers share. Where a default differs between the
    methods, each method names its own.

    Args:
        inputs: the samples, shape (N, d), or N images of d pixels; float32 or float64.
        targets: the labels, integers of shape (N,), or for the squared loss also the values,
            shape (N, K).
        hidden: the widths of the hidden layers; an empty sequence makes a linear model.
        activation: the activation h of the hidden layers: `relu` (default, as published) or
            `leaky_relu`.
        negative_slope: the slope of the leaky ReLU below zero, at least 0 and below 1 (default
            0.01); `relu` ignores it.
        loss: the loss of the outputs: `cross_entropy`, `squared` (½‖z − y‖², with one-hot vectors
            for labels), or in `ScaledADMM` also `hinge`. The default depends on the method.
        outputs: the number K of outputs (default None: as many as the targets show).
        tolerance: the accuracy, in the sum over samples, with which Newton's method solves for the
            outputs under `cross_entropy`; see `samt.baselines.proximal.cross_entropy_prox`. The
            default depends on the method.
        weight_std: the standard deviation of the random initial weights. The default depends on
            the method; `ScaledADMM`, whose weights start at zero, has no such option.
        seed: the seed of everything that is drawn at random (default 0); the global generator is
            not used.
        own: the options of one method alone, all of which have to be positive.

    Raises:
        UnknownOptionError: a keyword is no option of the method.
        OptionError: an option has an impossible value, or the data cannot be trained on.

    Attributes:
        weights: the weights W_l, shapes (d_l, d_{l−1}).
        biases: the biases b_l, shapes (d_l,).
        z: the pre-activations z_l, shapes (N, d_l).
        a: the activations a_l, shapes (N, d_l); `a[0]` is the inputs.
        m: the products m_l = W_l a_{l−1} + b_l, shapes (N, d_l).
        iteration: the number of iterations done.
    """

    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "squared")
    default_loss: ClassVar[str] = "cross_entropy"
    default_tolerance: ClassVar[float] = 1e-4
    default_weight_std: ClassVar[float] = 0.1  # 0: the weights start at zero, without this option
    _state: ClassVar[tuple[str, ...]] = ("weights", "biases", "z", "a", "m", "iteration")

    @torch.no_grad()
    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        hidden: Sequence[int],
        *,
        activation: str = "relu",
        negative_slope: float = 0.01,
        loss: str | None = None,
        outputs: int | None = None,
        tolerance: float | None = None,
        weight_std: float | None = None,
        seed: int = 0,
        **own: float,
    ) -> None:
        given = own if weight_std is None else {**own, "weight_std": weight_std}
        refuse_unknown(given, self.options(), type(self).__name__)
        _refuse_data(inputs, targets)
        if activation not in ACTIVATIONS:
            known = suggestion(activation, ACTIVATIONS)
            raise OptionError(f"unknown activation '{activation}': {known}")
        if not 0 <= negative_slope < 1:
            raise OptionError(f"negative_slope must lie in [0, 1), not {negative_slope}")
        self.loss = self.default_loss if loss is None else loss
        if self.loss not in self.losses:
            name, known = type(self).__name__, suggestion(self.loss, self.losses)
            raise OptionError(f"{name} has no loss '{self.loss}': {known}")
        if any(width < 1 for width in hidden):
            raise OptionError(f"hidden must hold widths of 1 or more, not {list(hidden)}")
        for option, value in given.items():
            if not 0 < value < math.inf:
                raise OptionError(f"{option} must be a positive number, not {value}")
        self.slope = negative_slope if activation == "leaky_relu" else 0.0
        self.tolerance = self.default_tolerance if tolerance is None else tolerance
        self.weight_std = self.default_weight_std if weight_std is None else weight_std
        self.iteration = 0
        inputs = inputs.detach().flatten(1)
        self.targets, classes = _checked_targets(targets, inputs, self.loss, outputs)
        self.generator = torch.Generator().manual_seed(seed)
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self.a = [inputs]
        self._start_weights([inputs.shape[1], *hidden, classes])
        self.z: list[Tensor] = []
        self.m: list[Tensor] = []

    def _start_weights(self, widths: Sequence[int]) -> None:
        self.weights = [
            self._normal(rows, columns).mul_(self.weight_std)
            for columns, rows in itertools.pairwise(widths)
        ]
        self.biases = [self.a[0].new_zeros(width) for width in widths[1:]]

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Return the options of this method and their defaults, the shared ones included."""
        shared = _keywords(LayerwiseSolver.__init__) | {
            "loss": cls.default_loss,
            "tolerance": cls.default_tolerance,
            "weight_std": cls.default_weight_std,
        }
        if not cls.default_weight_std:
            del shared["weight_std"]
        last = {n: shared.pop(n) for n in ("tolerance", "weight_std", "seed") if n in shared}
        own = _keywords(cls.__init__).items()
        own_alone = {n: default for n, default in own if n not in shared and n not in last}
        return shared | own_alone | last

    @property
    def depth(self) -> int:
        """The number L of layers with weights."""
        return len(self.weights)

    @functools.cached_property
    def input_gram(self) -> Tensor:
        """The Gram matrix a_0ᵀ a_0 of the inputs, shape (d, d), which never changes."""
        return torch.mm(self.a[0].T, self.a[0])

    @functools.cached_property
    def input_sum(self) -> Tensor:
        """The sum of the inputs a_0 over the samples, shape (d,)."""
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
        """Make a plain forward pass with the current weights and biases.

        Args:
            inputs: the samples, shape (N, d), or N images of d pixels.

        Returns:
            The logits or predicted values, shape (N, K).
        """
        return self._forward(inputs.flatten(1), 0)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that an iteration reads and changes, but for the training data.

        The dict loads with `torch.load(weights_only=True)`. The tensors are the solver's own, as
        in torch.
        """
        state = {name: getattr(self, name) for name in self._state}
        return {
            name: list(value[name == "a" :]) if isinstance(value, list) else value
            for name, value in state.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue, bit for bit, where another solver on the same data stood.

        Args:
            state_dict: what `state_dict` of the other solver returned.

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
        """Make the forward pass from the inputs of layer `first` to the outputs."""
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
        """Set z_L to 1 at the true class and −1 elsewhere, or to the values of a squared loss."""
        if self.loss == "cross_entropy":
            self.z[-1].fill_(-1).scatter_(1, self.targets[:, None], 1)
        else:
            self.z[-1].copy_(self.targets)

    def _normal(self, rows: int, columns: int) -> Tensor:
        drawn = torch.randn(rows, columns, generator=self.generator, dtype=self.a[0].dtype)
        return drawn.to(self.a[0].device)

    def _buffer(self, name: str, width: int) -> Tensor:
        """Return scratch memory of shape (N, width), the same whenever it is asked for."""
        key = name, width
        if key not in self._buffers:
            self._buffers[key] = self.a[0].new_empty(len(self.a[0]), width)
        return self._buffers[key]

    def _multiply(self, layer: int) -> Tensor:
        """Bring m_l up to date, which takes one product."""
        weight, bias = self.weights[layer], self.biases[layer]
        return torch.addmm(bias, self.a[layer], weight.T, out=self.m[layer])

    def _residual(self, layer: int) -> Tensor:
        """Write m_l − z_l into the buffer `residual`, and return it."""
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
        """Return the sum of the loss over the samples."""
        return output_loss(self.loss, outputs, self.targets)


def _keywords(constructor: Callable[..., None]) -> dict[str, Any]:
    """Return the keyword arguments that a constructor names, and their defaults."""
    parameters = inspect.signature(constructor).parameters.items()
    return {name: one.default for name, one in parameters if one.kind is one.KEYWORD_ONLY}


def _refuse_data(inputs: Tensor, targets: Tensor) -> None:
    """Raise OptionError for samples that no solver can work with."""
    if not inputs.dtype.is_floating_point or inputs.element_size() < 4 or len(inputs) == 0:
        raise OptionError(
            f"inputs must be float32 or float64 with one sample per row, not {inputs.dtype} "
            f"of shape {tuple(inputs.shape)}: convert them with inputs.float()"
        )
    for what, values in (("inputs", inputs), ("targets", targets)):
        if not values.isfinite().all():
            raise OptionError(f"{what} hold NaN or infinity: leave out or mend these samples")


def _checked_targets(
    targets: Tensor, inputs: Tensor, loss: str, outputs: int | None
) -> tuple[Tensor, int]:
    """Return labels, or values for the squared loss, and the number of outputs."""
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
    """Return names and shapes, which two state dicts must have in common."""
    return {
        name: [tuple(t.shape) for t in value if isinstance(t, Tensor)]
        if isinstance(value, list)
        else tuple(value.shape)
        if isinstance(value, Tensor)
        else None
        for name, value in state.items()
    }
