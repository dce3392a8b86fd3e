"""The eta model φ: from five statistics of a gradient to α and η̃.

Each tensor of a block has its own φ, a three-layer perceptron

    v → LeakyReLU(W₁ v + b₁) → LeakyReLU(W₂ · + b₂) = z → logits → (α, η̃) = proj(logits).

All the eta models of a block are evaluated as one batched product. The logits are kept in
groups, each a matrix (2, N) for N step-size entries: one group for all the tensors of a block
whose step sizes are scalars, or else one group for each tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

STATISTICS = ("mean", "variance", "max", "min", "norm")
HEADS = ("dense", "offset")
# (tanh x + 1)/2 is the sigmoid of 2 x: both projections are a sigmoid, of so many times x.
GAIN = {"tanh": 2.0, "sigmoid": 1.0}
PROJECTIONS = tuple(GAIN)
leaky_relu_ = torch.ops.aten.leaky_relu_
leaky_relu_backward = torch.ops.aten.leaky_relu_backward
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
    found: list[Tensor] = []
    for gradient in gradients:
        count = max(gradient.numel(), 1)
        mean, norm = gradient.sum() / count, torch.linalg.vector_norm(gradient)
        low, high = torch.aminmax(gradient) if gradient.numel() else (mean, mean)
        found += (mean, norm / math.sqrt(count), high, low, norm)
    features = torch.stack(found).view(-1, len(STATISTICS))
    # rms² − mean², twenty times as fast as torch.var. Its rounding error is relative to rms² and
    # not to the variance, which matters to no feature: all of them are of the size of the rms.
    features[:, 1].square_().addcmul_(features[:, 0], features[:, 0], value=-1).clamp_(min=0)
    return features


def initial_eta_model(
    shape: torch.Size, head: str, hidden: int, seed: int, index: int, like: Tensor
) -> dict[str, Tensor]:
    """Fresh φ for one tensor, from a generator of its own.

    The weights are uniform in ±1/√fan-in, as in `torch.nn.Linear`.

    Args:
        shape: the shape of the step size.
        head: the option: `dense` or `offset`.
        hidden: the width of the two hidden layers.
        seed: the optimizer's seed.
        index: the position of the tensor among all parameters.
        like: a tensor with the dtype and the device that the weights get.

    Returns:
        `eta_model`, the flat trunk (with two shared logits for the offset head), and
        `offset` (2, *shape) or `head_weight` (2, entries, hidden) and `head_bias` (2, entries).

    Examples:
        >>> state = initial_eta_model(torch.Size([3, 1]), "offset", 64, 0, 0, torch.zeros(1))
        >>> {name: tuple(tensor.shape) for name, tensor in state.items()}
        {'eta_model': (4674,), 'offset': (2, 3, 1)}
    """
    generator = torch.Generator("cpu").manual_seed(seed * 1_000_003 + index)
    state = {
        key: like.new_zeros(size) for key, size in eta_model_shapes(shape, head, hidden).items()
    }
    for weight, bias in layers_of(state, hidden):
        for part in (weight, bias):
            values = torch.rand(part.shape, generator=generator, dtype=torch.float64, device="cpu")
            part.copy_(((2 * values - 1) / math.sqrt(weight.shape[1])).to(like))
    return state


def eta_model_shapes(shape: torch.Size, head: str, hidden: int) -> dict[str, tuple[int, ...]]:
    """The shapes of what `initial_eta_model` returns, by key.

    Args:
        shape: the shape of the step size.
        head: `dense` or `offset`.
        hidden: the width of the two hidden layers.
    """
    entries, dense = shape.numel(), head == "dense"
    size = sum(n * (m + 1) for m, n in pairwise(_widths(hidden, dense)))
    if dense:
        return {
            "eta_model": (size,),
            "head_weight": (2, entries, hidden),
            "head_bias": (2, entries),
        }
    # A single entry has its offset already: the bias.
    return {"eta_model": (size,)} | ({"offset": (2, *shape)} if entries != 1 else {})


def layers_of(state: dict[str, Tensor], hidden: int) -> list[tuple[Tensor, Tensor]]:
    """The weights (out, in) and biases (out,) of the three layers, as views of a state.

    Args:
        state: the state of one tensor, as made by `initial_eta_model`.
        hidden: the width of the two hidden layers.
    """
    dense = "head_weight" in state
    layers, start = [], 0
    for m, n in pairwise(_widths(hidden, dense)):
        weight, bias = state["eta_model"][start : start + n * (m + 1)].split([n * m, n])
        layers.append((weight.view(n, m), bias))
        start += n * (m + 1)
    if dense:
        layers.append((state["head_weight"].view(-1, hidden), state["head_bias"].view(-1)))
    return layers


def _widths(hidden: int, dense: bool) -> list[int]:
    """The widths of the layers that lie in the flat vector `eta_model`."""
    return [len(STATISTICS), hidden, hidden] + ([] if dense else [2])


class Trace(NamedTuple):
    """What a forward evaluation leaves for the gradient step: v, both hidden layers, (α, η̃)."""

    features: Tensor  # (T, 1, 5)
    hidden1: Tensor  # (T, 1, hidden), after LeakyReLU
    hidden2: Tensor  # (T, 1, hidden), after LeakyReLU: z
    projected: list[Tensor]  # of each group, (2, N)


class EtaModels:
    """The eta models of all T tensors of one block.

    Args:
        states: per tensor, the entries made by `initial_eta_model`. Their `eta_model` vectors
            are moved into one (T, P) matrix; the states then hold views of it.
        hidden: width of the two hidden layers.
        projection: `tanh` or `sigmoid`.
    """

    def __init__(
        self,
        states: Sequence[dict[str, Tensor]],
        hidden: int,
        projection: str,
    ) -> None:
        self._gain = GAIN[projection]
        self.trunk = torch.stack([state["eta_model"] for state in states])
        for state, row in zip(states, self.trunk, strict=True):
            state["eta_model"] = row
        self.dense = "head_weight" in states[0]
        self._hidden = hidden
        self.make_views()
        self._offsets = [state.get("offset") for state in states]
        self.one_group = not self.dense and not any(o is not None for o in self._offsets)
        self._heads = [(s["head_weight"], s["head_bias"]) for s in states] if self.dense else []

    def make_views(self) -> None:
        """Cut the matrix of trunks into weights (T, out, in) and biases (T, 1, out)."""
        widths = _widths(self._hidden, self.dense)
        shapes = [shape for m, n in pairwise(widths) for shape in ((n, m), (1, n))]
        parts = self.trunk.split([math.prod(shape) for shape in shapes], dim=1)
        views = [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]
        self._weights, self._biases = views[::2], views[1::2]
        self._transposed = [weight.mT for weight in self._weights]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that `descend` changes."""
        heads = [tensor for head in self._heads for tensor in head]
        return [self.trunk, *heads, *(o for o in self._offsets if o is not None)]

    def read(self, gradients: Sequence[Tensor]) -> Trace:
        """α and η̃ of every step-size entry, from the gradient of each tensor."""
        return self.forward(gradient_statistics(gradients))

    def forward(self, features: Tensor) -> Trace:
        """α and η̃ of every step-size entry, from the features (T, 5)."""
        v = features.unsqueeze(1)
        hidden1 = leaky_relu_(self._layer(0, v), SLOPE)
        hidden2 = leaky_relu_(self._layer(1, hidden1), SLOPE)
        logits = self._scaled_logits(hidden2)
        return Trace(v, hidden1, hidden2, [group.sigmoid_() for group in logits])

    def _layer(self, number: int, x: Tensor) -> Tensor:
        """T rows times T matrices: (T, 1, in) to (T, 1, out)."""
        return torch.baddbmm(self._biases[number], x, self._transposed[number])

    def _scaled_logits(self, hidden2: Tensor) -> list[Tensor]:
        """The logits of each group, times the gain of the projection."""
        if self.dense:
            pairs = zip(self._heads, hidden2.squeeze(1), strict=True)
            return [(weight @ z).add_(bias).mul_(self._gain) for (weight, bias), z in pairs]
        shared = self._layer(2, hidden2).squeeze(1) * self._gain
        if self.one_group:
            return [shared.T]
        return [
            both if offset is None else torch.add(both, offset.flatten(1), alpha=self._gain)
            for both, offset in zip(shared.unsqueeze(2), self._offsets, strict=True)
        ]

    def descend(self, trace: Trace, grads: Sequence[Tensor], meta_lr: float) -> None:
        """One plain gradient-descent step on the meta loss.

        The offsets step with meta_lr · (‖z‖² + 1): the change that the same step gives to a
        logit of the dense head, whose weights W_i and bias b_i move by −meta_lr·δ_i·(z, 1).

        Args:
            trace: what the forward evaluation left that made the step sizes.
            grads: ∂(meta loss)/∂(α, η̃) for each group, shape (2, N); it is overwritten.
            meta_lr: the step size of φ.
        """
        deltas = [
            torch.ops.aten.sigmoid_backward.grad_input(grad, projected, grad_input=grad)
            for grad, projected in zip(grads, trace.projected, strict=True)
        ]
        rate = -meta_lr * self._gain  # everything below is linear in the deltas
        z, hidden1 = trace.hidden2, trace.hidden1
        back2 = leaky_relu_backward(self._descend_head(deltas, z, rate), z, SLOPE, True)
        back1 = leaky_relu_backward(torch.bmm(back2, self._weights[1]), hidden1, SLOPE, True)
        self._descend_layer(1, back2, hidden1, rate)
        self._descend_layer(0, back1, trace.features, rate)

    def _descend_layer(self, number: int, delta: Tensor, x: Tensor, rate: float) -> None:
        self._weights[number].baddbmm_(delta.mT, x, alpha=rate)
        self._biases[number].add_(delta, alpha=rate)

    def _descend_head(self, deltas: Sequence[Tensor], z: Tensor, rate: float) -> Tensor:
        """Step the head; return ∂(meta loss)/∂z, shape (T, 1, hidden)."""
        if self.dense:
            return self._descend_dense_head(deltas, z, rate)
        if self.one_group:
            shared = deltas[0].T.unsqueeze(1)
        else:
            rates = z.square().sum(2).add_(1).mul_(rate)
            for offset, delta, own in zip(self._offsets, deltas, rates, strict=True):
                if offset is not None:
                    offset.addcmul_(delta.view_as(offset), own)
            shared = torch.stack([delta.sum(1) for delta in deltas]).unsqueeze(1)
        back = torch.bmm(shared, self._weights[2])
        self._descend_layer(2, shared, z, rate)
        return back

    def _descend_dense_head(self, deltas: Sequence[Tensor], z: Tensor, rate: float) -> Tensor:
        back = []
        for (weight, bias), delta, own in zip(self._heads, deltas, z, strict=True):
            back.append(torch.einsum("ke,keh->h", delta, weight))
            weight.add_(delta.unsqueeze(2) * own, alpha=rate)
            bias.add_(delta, alpha=rate)
        return torch.stack(back).unsqueeze(1)
