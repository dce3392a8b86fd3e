"""What the oracles share: a model called functionally, its weights in a dict, and φ.

Nothing is shared with the fast path but the initial weights of the eta models and the shapes of
step sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from samt.eta_model import initial_eta_model, layers_of
from samt.step_size import step_size_shape

Batch = tuple[Tensor, Tensor]
Tensors = dict[str, Tensor]


class EtaModelReference(nn.Module):
    """φ of one tensor: 5 → hidden → hidden → 2 · entries, LeakyReLU."""

    def __init__(self, weight: Tensor, group: dict[str, Any], index: int) -> None:
        super().__init__()
        hidden = group["eta_hidden"]
        self.shape = step_size_shape(group["step_size"], weight)
        self.projection = group["projection"]
        initial = initial_eta_model(
            self.shape, group["head"], hidden, group["seed"], index, weight.detach()
        )
        self.layer1 = nn.Linear(5, hidden, dtype=weight.dtype)
        self.layer2 = nn.Linear(hidden, hidden, dtype=weight.dtype)
        self.dense = group["head"] == "dense"
        outputs = 2 * self.shape.numel() if self.dense else 2
        self.layer3 = nn.Linear(hidden, outputs, dtype=weight.dtype)
        self.offset = nn.Parameter(initial["offset"]) if "offset" in initial else None
        self._initial = initial
        for layer, (matrix, bias) in zip(self._layers(), layers_of(initial, hidden), strict=True):
            layer.weight = nn.Parameter(matrix.clone())
            layer.bias = nn.Parameter(bias.clone())

    def _layers(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        return self.layer1, self.layer2, self.layer3

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(α, η̃) from v."""
        z = nn.functional.leaky_relu(self.layer1(features))
        z = nn.functional.leaky_relu(self.layer2(z))
        self.z = z.detach()
        logits = self.layer3(z)
        if self.dense:
            logits = logits.reshape(2, *self.shape)
        elif self.offset is None:
            logits = logits.reshape(2)
        else:
            logits = logits.reshape(2, *[1] * len(self.shape)) + self.offset
        logits = logits.reshape(2, *self.shape)
        if self.projection == "tanh":
            projected = (torch.tanh(logits) + 1) / 2
        else:
            projected = torch.sigmoid(logits)
        return projected[0], projected[1]

    def descend(self, objective: Tensor, meta_lr: float) -> None:
        """φ ← φ − meta_lr ∂objective/∂φ; the offset's rate is meta_lr (‖z‖² + 1)."""
        parameters = list(self.parameters())
        grads = torch.autograd.grad(objective, parameters, retain_graph=True)
        with torch.no_grad():
            for parameter, grad in zip(parameters, grads, strict=True):
                rate = (
                    meta_lr * (self.z.square().sum() + 1) if parameter is self.offset else meta_lr
                )
                parameter.sub_(rate * grad)

    def state(self) -> Tensors:
        """The weights of φ in the form of the fast path's state."""
        state = {key: torch.empty_like(value) for key, value in self._initial.items()}
        views = layers_of(state, self.layer1.out_features)
        for layer, (weight, bias) in zip(self._layers(), views, strict=True):
            weight.copy_(layer.weight.detach())
            bias.copy_(layer.bias.detach())
        if self.offset is not None:
            state["offset"] = self.offset.detach()
        return state


class Reference:
    """Blocks, weights and buffers of an oracle.

    Args:
        model: the network; its own weights and buffers stay as they are.
        loss_fn: a function from (outputs, targets) to a scalar loss.
        groups: complete param groups, as in the optimizer's `param_groups`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        groups: Sequence[dict[str, Any]],
    ) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self.groups = [dict(group) for group in groups]
        self.calls = 0
        self.names = [self._names_of(group) for group in groups]
        self.weights = {n: p.detach().clone() for n, p in model.named_parameters()}
        self.buffers = {n: b.detach().clone() for n, b in model.named_buffers()}

    def _names_of(self, group: dict[str, Any]) -> list[str]:
        named = {id(p): name for name, p in self.model.named_parameters()}
        return [named[id(p)] for p in group["params"]]

    def add(self, group: dict[str, Any]) -> None:
        """Add a complete block whose parameters nobody has moved."""
        self.groups.append(dict(group))
        self.names.append(self._names_of(group))
        self._start(self.groups[-1], self.names[-1])

    def _start(self, group: dict[str, Any], names: list[str]) -> None:
        """Make what is kept of the tensors of a block."""
        raise NotImplementedError

    def _is_trainable(self, name: str) -> bool:
        return self.model.get_parameter(name).requires_grad


def statistics(g: Tensor) -> Tensor:
    """The statistics v(g) of a gradient; zeros if it has no element."""
    if not g.numel():
        return g.new_zeros(5)
    variance = (g - g.mean()).square().mean()
    return torch.stack((g.mean(), variance, g.max(), g.min(), g.square().sum().sqrt()))
