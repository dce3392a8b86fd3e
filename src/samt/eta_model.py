"""The eta model φ: from five statistics of a gradient to α and η̃.

Each tensor of a block has its own φ, a three-layer perceptron

    v → LeakyReLU(W₁ v + b₁) → LeakyReLU(W₂ · + b₂) = z → logits → (α, η̃) = proj(logits).

All the eta models of a block are evaluated as one batched product. The step-size entries of
all its tensors stand one after the other in one vector, N in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

STATISTICS = ("mean", "variance", "max", "min", "norm")
HEADS = ("dense", "offset")
PROJECTIONS = ("tanh", "sigmoid")
SLOPE = 0.01  # of LeakyReLU, torch's default


def gradient_statistics(gradients: Sequence[Tensor]) -> Tensor:
    """v(g) = [mean, variance, max, min, Frobenius norm] of each gradient.

    The variance is divided by n, so that one element has variance 0 and not NaN.

    Args:
        gradients: T tensors of any shapes.

    Returns:
        Features, shape (T, 5).

    Examples:
        >>> gradient_statistics([torch.tensor([[3.0, -1.0]]), torch.tensor(2.0)])
        tensor([[ 1.0000,  4.0000,  3.0000, -1.0000,  3.1623],
                [ 2.0000,  0.0000,  2.0000,  2.0000,  2.0000]])
    """
    return torch.stack([_statistics(gradient) for gradient in gradients])


def _statistics(gradient: Tensor) -> Tensor:
    count = gradient.numel()
    if count == 0:
        return gradient.new_zeros(len(STATISTICS))
    mean = gradient.sum() / count
    low, high = torch.aminmax(gradient)
    norm = torch.linalg.vector_norm(gradient)
    # rms² − mean², twenty times as fast as torch.var. Its rounding error is relative to rms² and
    # not to the variance, which matters to no feature: all of them are of the size of the rms.
    rms = norm / math.sqrt(count)
    variance = ((rms - mean.abs()) * (rms + mean.abs())).clamp(min=0)
    return torch.stack((mean, variance, high, low, norm))


def project(logits: Tensor, projection: str) -> Tensor:
    """proj: real numbers to [0, 1], by (tanh x + 1)/2 or the sigmoid.

    Examples:
        >>> project(torch.tensor([0.0, 1.0]), "tanh")
        tensor([0.5000, 0.8808])
    """
    # (tanh x + 1)/2 is the sigmoid of 2x, which is one pass over the entries instead of three.
    return torch.sigmoid(2 * logits if projection == "tanh" else logits)


def project_backward(grad: Tensor, projected: Tensor, projection: str) -> Tensor:
    """Derivative of proj, written with its value p: 2 p (1 − p) for tanh, p (1 − p) for sigmoid.

    Examples:
        >>> project_backward(torch.tensor(1.0), torch.tensor(0.5), "tanh")
        tensor(0.5000)
    """
    slope: Tensor = torch.ops.aten.sigmoid_backward(grad, projected)
    return slope.mul_(2) if projection == "tanh" else slope


def initial_eta_model(
    shape: torch.Size, head: str, hidden: int, seed: int, index: int, like: Tensor
) -> dict[str, Tensor]:
    """Fresh φ for one tensor, from a generator of its own.

    The weights are uniform in ±1/√fan-in, as in `torch.nn.Linear`.

    Args:
        shape: shape of the step size.
        head: `dense` or `offset`.
        hidden: width of the two hidden layers.
        seed: the optimizer's seed.
        index: position of the tensor among all parameters.
        like: gives dtype and device.

    Returns:
        `eta_model`, the flat trunk (with two shared logits for the offset head), and
        `offset` (2, *shape) or `head_weight` (2, entries, hidden) and `head_bias` (2, entries).

    Examples:
        >>> state = initial_eta_model(torch.Size([3, 1]), "offset", 64, 0, 0, torch.zeros(1))
        >>> {name: tuple(tensor.shape) for name, tensor in state.items()}
        {'eta_model': (4674,), 'offset': (2, 3, 1)}
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)

    def uniform(fan_in: int, *size: int) -> Tensor:
        values = torch.rand(size, generator=generator, dtype=torch.float64)
        return ((2 * values - 1) / math.sqrt(fan_in)).to(like)

    def layer(fan_in: int, fan_out: int) -> tuple[Tensor, Tensor]:
        return uniform(fan_in, fan_out, fan_in), uniform(fan_in, fan_out)

    trunk = [*layer(len(STATISTICS), hidden), *layer(hidden, hidden)]
    entries = shape.numel()
    outputs = 2 * entries if head == "dense" else 2
    weight, bias = layer(hidden, outputs)
    if head == "dense":
        return {
            "eta_model": torch.cat([part.flatten() for part in trunk]),
            "head_weight": weight.view(2, entries, hidden),
            "head_bias": bias.view(2, entries),
        }
    state = {"eta_model": torch.cat([part.flatten() for part in (*trunk, weight, bias)])}
    if entries != 1:  # a single entry has its offset already: the bias
        state["offset"] = torch.zeros(2, *shape).to(like)
    return state


def is_eta_model_of(state: dict[str, Tensor], shape: torch.Size, head: str, hidden: int) -> bool:
    """Whether a state was made by `initial_eta_model` with this shape, head and width."""
    dense, entries = head == "dense", shape.numel()
    size = hidden * (len(STATISTICS) + 1) + hidden * (hidden + 1) + (0 if dense else 2 * hidden + 2)
    wanted = {"head_bias": (2, entries)} if dense else {}
    if not dense and entries != 1:
        wanted["offset"] = (2, *shape)
    found = {key: tuple(state[key].shape) for key in ("head_bias", "offset") if key in state}
    return state["eta_model"].numel() == size and found == wanted


class Trace(NamedTuple):
    """What a forward evaluation leaves for the gradient step: v, both hidden layers, (α, η̃)."""

    features: Tensor  # (T, 5)
    hidden1: Tensor  # (T, hidden), after LeakyReLU
    hidden2: Tensor  # (T, hidden), after LeakyReLU: z
    projected: Tensor  # (2, N)


class EtaModels:
    """The eta models of all T tensors of one block.

    Args:
        states: per tensor, the entries made by `initial_eta_model`. Their `eta_model` vectors
            are moved into one (T, P) matrix; the states then hold views of it.
        hidden: width of the two hidden layers.
        projection: `tanh` or `sigmoid`.
        entries: per tensor, the number of its step-size entries.
    """

    def __init__(
        self,
        states: Sequence[dict[str, Tensor]],
        hidden: int,
        projection: str,
        entries: Sequence[int],
    ) -> None:
        self.projection = projection
        self.entries = list(entries)
        self.trunk = torch.stack([state["eta_model"] for state in states])
        for state, row in zip(states, self.trunk, strict=True):
            state["eta_model"] = row
        self.dense = "head_weight" in states[0]
        self._hidden = hidden
        self.make_views()
        self._offsets = [state.get("offset") for state in states]
        self._all_scalar = not any(offset is not None for offset in self._offsets)
        self._heads = [(s["head_weight"], s["head_bias"]) for s in states] if self.dense else []

    def make_views(self) -> None:
        """Cut the matrix of trunks into weights and biases, (T, …) each."""
        hidden = self._hidden
        shapes = [(hidden, len(STATISTICS)), (hidden,), (hidden, hidden), (hidden,)]
        if not self.dense:
            shapes += [(2, hidden), (2,)]
        parts = self.trunk.split([math.prod(shape) for shape in shapes], dim=1)
        self._layers = [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]

    @property
    def tensors(self) -> list[Tensor]:
        """Everything that `descend` changes."""
        heads = [tensor for head in self._heads for tensor in head]
        return [self.trunk, *heads, *(o for o in self._offsets if o is not None)]

    def forward(self, features: Tensor) -> Trace:
        """α and η̃ of every step-size entry, from the features (T, 5)."""
        hidden1 = leaky_relu(_apply(self._layers[0], features, self._layers[1]), SLOPE)
        hidden2 = leaky_relu(_apply(self._layers[2], hidden1, self._layers[3]), SLOPE)
        return Trace(features, hidden1, hidden2, project(self._logits(hidden2), self.projection))

    def _logits(self, hidden2: Tensor) -> Tensor:
        if self.dense:
            pairs = zip(self._heads, hidden2, strict=True)
            return torch.cat([weight @ z + bias for (weight, bias), z in pairs], dim=1)
        shared = _apply(self._layers[4], hidden2, self._layers[5])
        if self._all_scalar:
            return shared.T
        logits = shared.new_empty(2, sum(self.entries))
        segments = logits.split(self.entries, dim=1)
        for segment, column, offset in zip(segments, shared, self._offsets, strict=True):
            segment.copy_(column.unsqueeze(1))
            if offset is not None:
                segment.add_(offset.flatten(1))
        return logits

    def descend(self, trace: Trace, grad: Tensor, meta_lr: float) -> None:
        """One plain gradient-descent step on the meta loss.

        The offsets step with meta_lr · (‖z‖² + 1): the change that the same step gives to a
        logit of the dense head, whose weights W_i and bias b_i move by −meta_lr·δ_i·(z, 1).

        Args:
            trace: of the forward evaluation that made the step sizes.
            grad: ∂(meta loss)/∂(α, η̃), shape (2, N).
            meta_lr: step size of φ.
        """
        delta = project_backward(grad, trace.projected, self.projection)
        z = trace.hidden2
        back = self._descend_head(delta, z, meta_lr)
        back2 = back * _leaky_slope(z)
        back1 = _apply(self._layers[2].mT, back2) * _leaky_slope(trace.hidden1)
        _descend_layer(self._layers[2], self._layers[3], back2, trace.hidden1, meta_lr)
        _descend_layer(self._layers[0], self._layers[1], back1, trace.features, meta_lr)

    def _descend_head(self, delta: Tensor, z: Tensor, meta_lr: float) -> Tensor:
        """Step the head; return ∂(meta loss)/∂z, shape (T, hidden)."""
        if self.dense:
            back = []
            segments = delta.split(self.entries, dim=1)
            for (weight, bias), segment, z_t in zip(self._heads, segments, z, strict=True):
                back.append(torch.einsum("ke,keh->h", segment, weight))
                weight.sub_(segment.unsqueeze(2) * z_t, alpha=meta_lr)
                bias.sub_(segment, alpha=meta_lr)
            return torch.stack(back)
        if not self._all_scalar:
            rates = meta_lr * (z.square().sum(1) + 1)
            segments = delta.split(self.entries, dim=1)
            for offset, segment, rate in zip(self._offsets, segments, rates, strict=True):
                if offset is not None:
                    offset.addcmul_(segment.view_as(offset), rate, value=-1)
            shared = torch.stack([segment.sum(1) for segment in segments])
        else:
            shared = delta.T
        back_z = _apply(self._layers[4].mT, shared)
        _descend_layer(self._layers[4], self._layers[5], shared, z, meta_lr)
        return back_z


def _apply(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """T matrices times T vectors: (T, m, n) and (T, n) to (T, m)."""
    if bias is None:
        return torch.bmm(weight, x.unsqueeze(2)).squeeze(2)
    return torch.baddbmm(bias.unsqueeze(2), weight, x.unsqueeze(2)).squeeze(2)


def _leaky_slope(activated: Tensor) -> Tensor:
    # LeakyReLU keeps the sign, so its slope can be read off its value.
    return torch.where(activated > 0, 1.0, SLOPE).to(activated.dtype)


def _descend_layer(weight: Tensor, bias: Tensor, delta: Tensor, x: Tensor, rate: float) -> None:
    weight.baddbmm_(delta.unsqueeze(2), x.unsqueeze(1), alpha=-rate)
    bias.sub_(delta, alpha=rate)
