"""`samt.AutoSAMT` line by line, slow and obvious: the oracle of its tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from samt.reference.oracle import Batch, Reference, Tensors


class AutoReference(Reference):
    """The same method as `AutoSAMT`, on one model and loss, with z, x and x̄ as they are.

    The fast path keeps z − x and x − x̄ instead, relative to y, which the parameters hold.

    Args:
        model: the network; its own weights and buffers stay as they are.
        loss_fn: a function from (outputs, targets) to a scalar loss.
        groups: complete param groups, as in the optimizer's `param_groups`.

    Attributes:
        weights: y, at which the gradients are taken.
        z: the weights that walk along the normalised gradient.
        x: the average of z, which is evaluated.
        slow: x̄, the slower average of x.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        groups: Sequence[dict[str, Any]],
    ) -> None:
        super().__init__(model, loss_fn, groups)
        self.z, self.x, self.slow = dict(self.weights), dict(self.weights), dict(self.weights)
        self.v = {n: torch.zeros_like(w) for n, w in self.weights.items()}
        self.k = dict.fromkeys(self.weights, 0)
        self.m = dict.fromkeys(self.weights, 0.0)
        self.weight_sum = dict.fromkeys(self.weights, 0.0)
        self.beta: dict[str, float] = {}
        self.scale: dict[str, float] = {}
        self.eta: dict[str, float] = {}
        for group, names in zip(self.groups, self.names, strict=True):
            self._start(group, names)

    def _start(self, group: dict[str, Any], names: list[str]) -> None:
        self._find_scales()

    def _find_scales(self) -> None:
        """The scales of all tensors that are trained for the first time, or were before."""
        last = 0.1
        for group, names in zip(self.groups, self.names, strict=True):
            for name in names:
                if name not in self.scale:
                    if not self._is_trainable(name):
                        continue
                    self.scale[name] = last
                    self.beta[name] = group["betas"][0]
                    w = self.weights[name]
                    if w.ndim > 1:
                        rms = math.sqrt(w.square().mean().item()) if w.numel() else 0.0
                        fan_in = max(w[0].numel(), 1) if len(w) else 1
                        self.scale[name] = math.sqrt(3) * rms if rms > 0 else fan_in**-0.5
                if self.weights[name].ndim > 1:
                    last = self.scale[name]

    @property
    def parameters(self) -> Tensors:
        """What the model's parameters hold while they are trained."""
        return self.weights

    def step(self, batch: Batch) -> Tensor:
        """One step; returns the loss before it."""
        self._find_scales()
        leaves = {n: w.detach().requires_grad_() for n, w in self.weights.items()}
        buffers = {name: buffer.clone() for name, buffer in self.buffers.items()}
        loss = self.loss_fn(functional_call(self.model, {**leaves, **buffers}, batch[0]), batch[1])
        self.buffers = buffers
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        gradients = dict(zip(leaves, found, strict=True))
        held = [name for names in self.names for name in names]
        matrices = sum(self.weights[n].ndim > 1 for n in held if n in self.scale)
        for group, names in zip(self.groups, self.names, strict=True):
            for name in names:
                g = gradients[name]
                if g is not None and self._is_trainable(name):
                    self._update(group, name, g, math.sqrt(max(matrices, 1)))
        self.calls += 1
        return loss.detach()

    def _update(self, group: dict[str, Any], name: str, g: Tensor, root: float) -> None:
        self.k[name] += 1
        k = self.k[name]
        beta, beta2 = group["betas"]
        warm = min(1.0, k / 20)
        z, x, slow, y = self.z[name], self.x[name], self.slow[name], self.weights[name]
        if k > 2 and group["learning"]:
            way = x - slow
            size = g.norm().item() * way.norm().item()
            cosine = (g * way).sum().item() / size if size > 0 else 0.0
            rate = 0.02 + 0.3 * math.exp(-k / 60)
            self.m[name] = max(-9.0, min(9.0, self.m[name] - rate * cosine))
        self.v[name] = beta2 * self.v[name] + (1 - beta2) * g * g
        d = g / ((self.v[name] / (1 - beta2**k)).sqrt() + group["eps"])
        scale = self.scale[name] / root
        eta = float(group["lr"]) * warm * 0.02 * scale * math.exp(self.m[name])
        self.eta[name] = eta
        z = z - eta * (d + group["weight_decay"] * y)
        weight = k**2 * warm**2
        self.weight_sum[name] += weight
        x = x + weight / self.weight_sum[name] * (z - x)
        self.slow[name] = slow + 0.02 * (x - slow)
        self.z[name], self.x[name], self.beta[name] = z, x, beta
        self.weights[name] = beta * x + (1 - beta) * z

    def state(self, name: str) -> Tensors:
        """The state of one parameter, in the form of the fast path.

        Args:
            name: the name of the parameter.
        """
        like = self.weights[name]
        numbers = {
            "log_step": self.m[name],
            "scale": self.scale[name],
            "weight_sum": self.weight_sum[name],
            "beta": self.beta[name],
        }
        return {
            "exp_avg_sq": self.v[name],
            "lead": self.z[name] - self.x[name],
            "lag": self.x[name] - self.slow[name],
            "step": torch.tensor(float(self.k[name])),
            **{key: like.new_tensor(value) for key, value in numbers.items()},
        }
