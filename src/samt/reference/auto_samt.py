"""`samt.AutoSAMT` line by line, slow and obvious: the oracle of its tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from samt.reference.oracle import Batch, EtaModelReference, Reference, Tensors, statistics


class AutoReference(Reference):
    """The same method as `AutoSAMT`, on one model and loss; arguments as of `Reference`."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        groups: Sequence[dict[str, Any]],
    ) -> None:
        super().__init__(model, loss_fn, groups)
        self.average, self.slow_average = dict(self.weights), dict(self.weights)
        self.m = {n: torch.zeros_like(w) for n, w in self.weights.items()}
        self.v = dict(self.m)
        self.updates = dict.fromkeys(self.weights, 0)
        self.features = {n: w.new_zeros(5) for n, w in self.weights.items()}
        self.slope: Tensors = {n: w.new_zeros(()) for n, w in self.weights.items()}
        self.step_size: Tensors = {}
        self.scale: dict[str, float] = {}
        self.eta: dict[str, EtaModelReference] = {}
        for group, names in zip(self.groups, self.names, strict=True):
            self._start(group, names)

    def _start(self, group: dict[str, Any], names: list[str]) -> None:
        for name in names:
            form = {**group, "step_size": "scalar", "head": "offset"}
            self.eta[name] = EtaModelReference(self.weights[name], form, len(self.eta))
            self._make_constant(self.eta[name])
        # One block more makes all steps smaller.
        matrices = sum(p.ndim > 1 for group in self.groups for p in group["params"])
        for known, its_names in zip(self.groups, self.names, strict=True):
            fan_in = 100.0  # of a vector that no matrix stands before
            for name in its_names:
                w = self.weights[name]
                if w.ndim > 1 and w.numel():
                    fan_in = w[0].numel()
                self.scale[name] = (max(matrices, 1) * fan_in) ** -0.5
                if name in self.eta:
                    self.step_size[name] = self.scale[name] * self._eta(name, known).detach()

    @staticmethod
    def _make_constant(eta: EtaModelReference) -> None:
        """φ starts with α = 0.01 and η̃ = 0.12, whatever the features are."""
        gain = 2.0 if eta.projection == "tanh" else 1.0
        with torch.no_grad():
            eta.layer3.weight.zero_()
            for entry, start in enumerate((0.01, 0.12)):
                eta.layer3.bias[entry] = math.log(start / (1 - start)) / gain

    @property
    def is_at_average(self) -> bool:
        """Whether the next gradient is taken at the average."""
        total, every = self.groups[0]["total_steps"], self.groups[0]["meta_every"]
        if total is None:
            return self.calls >= 500 and self.calls % every == 0
        quiet = min(500, total / 4)
        return 0 < self.calls < total and self.calls >= quiet and self.calls % every == 0

    @property
    def parameters(self) -> Tensors:
        """What the model's parameters hold now."""
        return self.average if self.is_at_average else self.weights

    def step(self, batch: Batch) -> Tensor:
        """One step; returns the loss before it."""
        at_average = self.is_at_average
        leaves = {n: w.detach().requires_grad_() for n, w in self.parameters.items()}
        buffers = {name: buffer.clone() for name, buffer in self.buffers.items()}
        loss = self.loss_fn(functional_call(self.model, {**leaves, **buffers}, batch[0]), batch[1])
        self.buffers = buffers
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        g = {
            name: grad if self._is_trainable(name) else None
            for name, grad in zip(leaves, found, strict=True)
        }
        for group, names in zip(self.groups, self.names, strict=True):
            self._update(group, names, {name: g[name] for name in names}, at_average)
            if float(group["lr"]) == group["initial_step_size"]:
                group["decayed"] += 1
        self.calls += 1
        return loss.detach()

    def _update(
        self, group: dict[str, Any], names: list[str], g: dict[str, Tensor | None], at_average: bool
    ) -> None:
        a = self._anneal(group)
        beta1, beta2 = group["betas"]
        for name, grad in g.items():
            if grad is not None:
                self.updates[name] += 1
                self.m[name] = beta1 * self.m[name] + (1 - beta1) * grad
                self.v[name] = beta2 * self.v[name] + (1 - beta2) * grad * grad
                step = a * self.step_size[name]
                decayed = (1 - step * group["weight_decay"]) * self.weights[name]
                self.weights[name] = decayed - step * self._direction(name, group)
        if at_average:
            self._learn(group, names, g, a)
            for name in names:
                d = self._direction(name, group)
                self.features[name] = statistics(d)
                self.features[name][4] /= math.sqrt(max(d.numel(), 1))
                self.step_size[name] = self.scale[name] * self._eta(name, group).detach()
        for averages, every, decay in ((self.average, 5, 0.95), (self.slow_average, 20, 0.99)):
            if (self.calls + 1) % every == 0:
                for name in names:
                    averages[name] = averages[name].lerp(self.weights[name], 1 - decay**every)

    def _anneal(self, group: dict[str, Any]) -> float:
        total = group["total_steps"]
        warmup = 20 if total is None else min(100, 0.02 * total)
        a = min(1.0, (self.calls + 1) / max(1.0, warmup))
        if total is None:
            a /= 1 + group["decayed"] / 600
        else:
            a *= max(0.0, 1 - self.calls / total)
        return a * float(group["lr"]) / group["initial_step_size"]

    def _direction(self, name: str, group: dict[str, Any]) -> Tensor:
        """Adam's."""
        k = self.updates[name]
        if k == 0:
            return torch.zeros_like(self.m[name])
        m = self.m[name] / (1 - group["betas"][0] ** k)
        v = self.v[name] / (1 - group["betas"][1] ** k)
        return m / (v.sqrt() + group["eps"])

    def _eta(self, name: str, group: dict[str, Any]) -> Tensor:
        """Equation (10), without the scale."""
        alpha, eta_tilde = self.eta[name](self.features[name])
        return alpha * group["initial_step_size"] + (1 - alpha) * eta_tilde

    def _learn(
        self, group: dict[str, Any], names: list[str], h: dict[str, Tensor | None], a: float
    ) -> None:
        if not names:
            return
        present = {n: torch.zeros_like(self.m[n]) if x is None else x for n, x in h.items()}
        moved = {n: self.average[n] - self.slow_average[n] for n in names}
        size = _norm(present) * _norm(moved)
        for name in names:
            slope = (present[name] * moved[name]).sum() / size if size > 0 else size
            past = self.slope[name]
            self.slope[name] = 0.9 * past + 0.1 * slope
            if past > 0:
                continue
            ratio = self._eta(name, group).detach() / (
                0.01 * group["initial_step_size"] + 0.99 * 0.12
            )
            slope = slope * min(1.0, float(ratio)) ** 4
            objective = slope * self._eta(name, group).log()
            self.eta[name].descend(objective, a * group["meta_lr"])

    def state(self, name: str) -> Tensors:
        """Of one parameter, in the form of the fast path."""
        return {
            "exp_avg": self.m[name],
            "exp_avg_sq": self.v[name],
            "average": self.average[name],
            "slow_average": self.slow_average[name],
            "features": self.features[name],
            "slope": self.slope[name],
            "step_size": self.step_size[name],
            **self.eta[name].state(),
        }


def _norm(tensors: Tensors) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()]).square().sum().sqrt()
