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
        self.sums: dict[str, list[float]] = {n: [] for n in self.weights}
        self.numbers: dict[str, dict[str, float]] = {
            n: {"weight": 1.0, "ahead": 0.0} for n in self.weights
        }
        self.cosines: dict[str, list[float]] = {n: [] for n in self.weights}
        self.dots = dict.fromkeys(self.weights, 0.0)
        self.turns: dict[str, list[float]] = {n: [] for n in self.weights}
        self.level = dict.fromkeys(self.weights, 0.0)
        self.peak = dict.fromkeys(self.weights, 0.0)
        self.lag_sum = dict.fromkeys(self.weights, 0.0)
        self.q = {n: torch.zeros_like(w) for n, w in self.weights.items()}
        self.eta = dict.fromkeys(self.weights, 0.0)
        self.scale: dict[str, float] = {}
        self.largest: dict[str, float] = {}  # lr of each group so far
        for group, names in zip(self.groups, self.names, strict=True):
            self._start(group, names)

    def _start(self, group: dict[str, Any], names: list[str]) -> None:
        self._find_scales()

    def _find_scales(self) -> None:
        """The scales of all tensors that are trained for the first time, or were before."""
        last = 0.1
        for names in self.names:
            for name in names:
                if name not in self.scale:
                    if not self._is_trainable(name):
                        continue
                    self.scale[name] = last
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
        for group in self.groups:
            before = self.largest.get(group["name"], 0.0)
            self.largest[group["name"]] = max(before, float(group["lr"]))
        leaves = {n: w.detach().requires_grad_() for n, w in self.weights.items()}
        buffers = {name: buffer.clone() for name, buffer in self.buffers.items()}
        loss = self.loss_fn(functional_call(self.model, {**leaves, **buffers}, batch[0]), batch[1])
        self.buffers = buffers
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        gradients = dict(zip(leaves, found, strict=True))
        held = [name for names in self.names for name in names]
        matrices = sum(self.weights[n].ndim > 1 for n in held if n in self.scale)
        root = math.sqrt(max(matrices, 1))
        live = {
            name: (group, gradients[name], self.scale[name] / root)
            for group, names in zip(self.groups, self.names, strict=True)
            for name in names
            if gradients[name] is not None and self._is_trainable(name)
        }
        shared = self._shared_cosine(live)
        self._note_turn(live)
        blames = self._blames(live)
        usual = math.sqrt(_mean([(g * scale).square() for _, g, scale in live.values()]))
        for name, (group, g, scale) in live.items():
            self._update(group, name, g, scale, (shared, blames[name]), 1e-6 * usual / scale)
        self.calls += 1
        return loss.detach()

    def _shared_cosine(self, live: dict[str, tuple[dict[str, Any], Tensor, float]]) -> float:
        """The cosine of all gradients and ways, each in units of its tensor's scale."""
        if not live:
            return 0.0
        of_all = [
            ((g * scale).flatten(), (self.state(name)["lag"] / scale).flatten())
            for name, (_, g, scale) in live.items()
        ]
        gradient, way = (torch.cat(parts) for parts in zip(*of_all, strict=True))
        return _cosine(gradient, way)

    def _note_turn(self, live: dict[str, Any]) -> None:
        """Compare ⟨g, s⟩ of all tensors with what they were last."""
        now = {name: (g * self.state(name)["lag"]).sum().item() for name, (_, g, _) in live.items()}
        before, after = ([dots[name] for name in live] for dots in (self.dots, now))
        vectors = torch.tensor([before, after], dtype=torch.float64)
        for name in live:
            self.turns[name].append(_cosine(*vectors))
        self.dots |= now

    def _blames(self, live: dict[str, Any]) -> dict[str, float]:
        """The part of each tensor in what moves the loss, if steps are as long as before."""
        effects = {
            name: self.eta[name] * g.norm().item() * math.sqrt(max(g.numel(), 1))
            for name, (_, g, _) in live.items()
        }
        whole = max(math.hypot(*effects.values()), 1e-30)
        return {name: effect / whole for name, effect in effects.items()}

    def _update(
        self,
        group: dict[str, Any],
        name: str,
        g: Tensor,
        scale: float,
        of_all: tuple[float, float],
        eps: float,
    ) -> None:
        self.k[name] += 1
        k = self.k[name]
        (shared, blame), (beta, beta2) = of_all, group["betas"]
        warm = min(1.0, k / 20)
        z, x, slow, y = self.z[name], self.x[name], self.slow[name], self.weights[name]
        square = g.square().mean().item() if g.numel() else 0.0
        usual = math.sqrt(self.level[name] / (1 - beta2 ** (k - 1))) if k > 1 else 0.0
        if k > 20 and usual > 1e-30:  # a gradient that is unusually large is scaled down
            part = min(1.0, 10 * usual / max(math.sqrt(square), 1e-30))
            g, square = part * g, part**2 * square
        self.level[name] = beta2 * self.level[name] + (1 - beta2) * square
        size = math.sqrt(self.level[name] / (1 - beta2**k))
        self.peak[name] = max(size, self.peak[name] * (1 - 0.1 * math.exp(-k / 150)))
        if k > 2:
            cosine = _cosine(g, x - slow)
            self.cosines[name].append(cosine)
            lesson = -(0.02 + 0.3 * math.exp(-k / 150)) * (cosine + shared)
            lesson += self._growth(name, k) - blame * self._brake(name, k)
            lesson *= self._learns(group)
            lesson *= self._freshness(name, math.sqrt(square) / max(size, 1e-30))
            self.m[name] = max(-9.0, min(9.0, self.m[name] + lesson))
        self.v[name] = beta2 * self.v[name] + (1 - beta2) * g * g
        d = g / ((self.v[name] / (1 - beta2**k)).sqrt() + max(eps, 1e-30))
        eta = float(group["lr"]) * warm * 0.003 * scale * math.exp(self.m[name])
        eta *= size / max(self.peak[name], 1e-30)  # steps shrink with the gradients
        eta *= min(1.0, size / max(math.sqrt(square), 1e-30))  # and where one is unusual
        self.eta[name] = eta
        decay = group["weight_decay"] * size / max(self.peak[name], 1e-30) * (y.ndim > 1)
        decay *= min(1.0, 0.02 * self.scale[name] / max(eta, 1e-30))
        z = z - eta * (d + decay * y / self.scale[name])
        self.q[name] = z - x
        self.sums[name].append(k**2 * warm**2)
        c = self.sums[name][-1] / sum(self.sums[name])
        x = x + c * (z - x)
        self.slow[name] = slow + 0.02 * (x - slow)
        self.lag_sum[name] = 0.98 * (self.lag_sum[name] + c)
        self.z[name], self.x[name] = z, x
        self.numbers[name] = {"weight": c, "ahead": (1 - beta) * (1 - c)}
        self.weights[name] = beta * x + (1 - beta) * z

    def _learns(self, group: dict[str, Any]) -> float:
        """How much is learned: less where lr is smaller than it was, or than it shall become."""
        rate = float(group["lr"])
        full = max(self.largest[group["name"]], float(group.get("initial_lr", 0.0)))
        return group["learning"] * (rate / full if full > 0 else 1.0)

    def _freshness(self, name: str, size: float) -> float:
        """How long the last step of z was beside the way of x, at most 1."""
        step = self.eta[name] * min(1.0, size)
        lag = self.state(name)["lag"]
        way = self.numbers[name]["weight"] * math.sqrt(lag.square().mean().item())
        return min(1.0, (step + 1e-30) / (way + 1e-30))

    def _growth(self, name: str, k: int) -> float:
        """What a steady trend adds: averages of the cosines with weights that fall by 0.98."""
        if k <= 50:
            return 0.0
        ages = range(len(self.cosines[name]) - 1, -1, -1)
        total = sum(0.98**age for age in ages)
        mean = sum(0.98**age * c for age, c in zip(ages, self.cosines[name], strict=True)) / total
        square = sum(0.98**a * c * c for a, c in zip(ages, self.cosines[name], strict=True)) / total
        steadiness = -mean / math.sqrt(square) if square > 0 else 0.0
        return 0.02 * min(max(steadiness - 0.5, 0.0), 0.5)

    def _turn(self, name: str) -> float:
        return sum(0.1 * 0.9**age * turn for age, turn in enumerate(reversed(self.turns[name])))

    def _brake(self, name: str, k: int) -> float:
        """What is taken away where the gradient turns round in each step."""
        return 0.03 * min(max((-self._turn(name) - 0.9) / 0.1, 0.0), 1.0) if k > 50 else 0.0

    def _trend(self, name: str, power: int) -> float:
        ages = range(len(self.cosines[name]) - 1, -1, -1)
        pairs = zip(ages, self.cosines[name], strict=True)
        return 0.02 * sum(0.98**age * c**power for age, c in pairs)

    def state(self, name: str) -> Tensors:
        """The state of one parameter, in the form of the fast path.

        Args:
            name: the name of the parameter.
        """
        like = self.weights[name]
        way = self.x[name] - self.slow[name]
        numbers = {
            "log_step": self.m[name],
            "scale": self.scale[name],
            "step_size": self.eta[name],
            "weight_sum": float(sum(self.sums[name])),
            "lag_sum": self.lag_sum[name],
            "trend": self._trend(name, 1),
            "trend_square": self._trend(name, 2),
            "dot": self.dots[name],
            "turn": self._turn(name),
            "level": self.level[name],
            "peak": self.peak[name],
            **self.numbers[name],
        }
        return {
            "exp_avg_sq": self.v[name],
            "lead": self.q[name],
            "lag": way / self.lag_sum[name] if self.lag_sum[name] else way,
            "step": torch.tensor(float(self.k[name])),
            **{key: like.new_tensor(value) for key, value in numbers.items()},
        }


def _cosine(g: Tensor, way: Tensor) -> float:
    size = g.norm().item() * way.norm().item()
    return (g * way).sum().item() / size if size > 0 else 0.0


def _mean(tensors: list[Tensor]) -> float:
    every = torch.cat([t.flatten() for t in tensors]) if tensors else torch.zeros(1)
    return every.mean().item() if every.numel() else 0.0
