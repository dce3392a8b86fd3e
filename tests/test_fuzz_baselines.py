"""A search for a wrong number of the baselines that are optimizers: hypergradient descent, Dante.

Their oracles are here: the recursions as their papers write them, with plain autograd.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from torch import Tensor, nn
from torch.func import functional_call

from samt.baselines import SGDHD, AdamHD, Dante, SGDNesterovHD
from samt.baselines.hypergradient_base import HypergradientDescent
from samt.closures import Closure
from samt.reference import Reference
from samt.reference.oracle import Tensors

from .support.batches import Batch
from .support.closures import WithBackward
from .support.comparisons import assert_close
from .support.optimizer_machine import (
    CHOICES,
    SEARCH,
    OneEvaluationMachine,
    OptimizerMachine,
    faulty,
    loss_fn,
)


class GradientReference(Reference):
    """An oracle that takes gradients at its own weights."""

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensors, Tensors]:
        """The loss, the gradients that there are, and the buffers after it."""
        leaves = {n: w.detach().requires_grad_() for n, w in self.weights.items()}
        buffers = {name: buffer.clone() for name, buffer in self.buffers.items()}
        loss = self.loss_fn(functional_call(self.model, {**leaves, **buffers}, batch[0]), batch[1])
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        gradients = {
            name: gradient
            for name, gradient in zip(leaves, found, strict=True)
            if gradient is not None and self._is_trainable(name)
        }
        return loss.detach(), gradients, buffers


class HypergradientReference(GradientReference):
    """Hypergradient descent on each group, for tensors with a gradient; α is the group's `lr`."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        groups: Sequence[dict[str, Any]],
        nesterov: bool,
    ) -> None:
        super().__init__(model, loss, groups)
        self.nesterov = nesterov
        self.state: dict[str, dict[str, Any]] = {}
        for group in self.groups:
            self._start(group, [])

    def _start(self, group: dict[str, Any], names: list[str]) -> None:
        group["lr"] = float(group["lr"])

    def step(self, batch: Batch) -> Tensor:
        """One step on all groups; returns the loss before it."""
        loss, gradients, self.buffers = self.evaluate(batch)
        for group, names in zip(self.groups, self.names, strict=True):
            self._descend(group, {name: gradients[name] for name in names if name in gradients})
            for name in names:
                if name not in gradients and name in self.state:
                    self.state[name]["previous_update"] = torch.zeros_like(self.weights[name])
        return loss

    def _descend(self, group: dict[str, Any], gradients: Tensors) -> None:
        if not gradients:
            return
        g = {n: d + group["weight_decay"] * self.weights[n] for n, d in gradients.items()}
        nothing = {name: torch.zeros_like(gradient) for name, gradient in g.items()}
        u = {n: self.state.get(n, {}).get("previous_update", nothing[n]) for n in g}
        slope = float(sum((g[name] * u[name]).sum() for name in g))
        if group["rule"] == "additive":
            group["lr"] += group["hypergrad_lr"] * slope
        else:
            lengths = [float(sum(v.square().sum() for v in vs.values())) ** 0.5 for vs in (g, u)]
            if lengths[0] * lengths[1] > 0:
                group["lr"] *= 1 + group["hypergrad_lr"] * slope / (lengths[0] * lengths[1])
        for name, gradient in g.items():
            update = self._direction(self.state.setdefault(name, {}), group, gradient)
            self.state[name]["previous_update"] = update
            self.weights[name] = self.weights[name] - group["lr"] * update

    def _direction(self, state: dict[str, Any], group: dict[str, Any], g: Tensor) -> Tensor:
        """u_t of Adam, of SGD, or of SGD with Nesterov's momentum."""
        nothing = torch.zeros_like(g)
        if "betas" in group:
            beta1, beta2 = group["betas"]
            t = state["step"] = state.get("step", 0) + 1
            m = state["exp_avg"] = beta1 * state.get("exp_avg", nothing) + (1 - beta1) * g
            v = state["exp_avg_sq"] = beta2 * state.get("exp_avg_sq", nothing) + (1 - beta2) * g * g
            return (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + group["eps"])
        mu = group["momentum"]
        if mu == 0:
            return g
        m = state["momentum_buffer"] = mu * state.get("momentum_buffer", nothing) + g
        return g + mu * m if self.nesterov else m


class DanteReference(GradientReference):
    """Gradient iterations on one layer after the other."""

    def _start(self, group: dict[str, Any], names: list[str]) -> None:
        """Nothing is kept of a layer but its weights."""

    def step(self, batch: Batch) -> Tensor:
        """One iteration, or a sweep; returns the first loss."""
        turns = [i for i, group in enumerate(self.groups) for _ in range(group["inner_iterations"])]
        if self.groups[0]["order"] == "reverse":
            turns = turns[::-1]
        if self.groups[0]["fresh_batches"]:
            turns = [turns[self.calls % len(turns)]]
        self.calls += 1
        rng = torch.get_rng_state()
        loss, _, buffers = self.evaluate(batch)
        rng_after = torch.get_rng_state()
        for index in turns:
            torch.set_rng_state(rng)  # the same masks
            self._iterate(self.groups[index], self.names[index], self.evaluate(batch)[1])
        torch.set_rng_state(rng_after)
        self.buffers = buffers
        return loss

    def _iterate(self, group: dict[str, Any], names: list[str], gradients: Tensors) -> None:
        g = {name: gradients[name] for name in names if name in gradients}
        length = float(sum(d.square().sum() for d in g.values())) ** 0.5
        for name, d in g.items():
            factor = (1 / length if length else 0.0) if group["normalized"] else 1.0
            self.weights[name] = self.weights[name] - float(group["lr"]) * factor * d


_RULE = st.sampled_from(["additive", "multiplicative"])
_HYPERGRADIENT = {
    "lr": st.sampled_from([0.0, 1e-3, 0.1]),
    "hypergrad_lr": st.sampled_from([0.0, 1e-3, 0.1]),
    "momentum": st.sampled_from([0.0, 0.5, 0.9]),
    "betas": st.sampled_from([(0.9, 0.99), (0.0, 0.5), (0.5, 0.0)]),
    "eps": st.sampled_from([1e-8, 1e-3]),
    "weight_decay": st.sampled_from([0.0, 0.05]),
}


class HypergradientMachine(OneEvaluationMachine):
    """A training with one of the methods of hypergradient descent."""

    not_negative = ("lr", "weight_decay", "hypergrad_lr")
    method: type[HypergradientDescent]

    @initialize(
        **CHOICES,
        options=st.fixed_dictionaries({"rule": _RULE}, optional=_HYPERGRADIENT),
        of_groups=st.lists(
            st.fixed_dictionaries({}, optional={**_HYPERGRADIENT, "rule": _RULE}), max_size=3
        ),
    )
    def start(self, **choices: Any) -> None:
        known = inspect.signature(self.method).parameters
        for options in (choices["options"], *choices["of_groups"]):
            for name in options.keys() - known:
                del options[name]
        self.begin(**choices)

    def make(self, groups: list[dict[str, Any]]) -> HypergradientDescent:
        return self.method(groups, **self.options)

    def make_oracle(self) -> HypergradientReference:
        groups = self.optimizer.param_groups
        return HypergradientReference(self.model, loss_fn, groups, self.method is SGDNesterovHD)

    def fast_step(self, data: Batch, other: Batch, fault: Callable[[], Any]) -> Any:
        loss = faulty(fault)
        if self.style is WithBackward:
            return self.optimizer.step(WithBackward(self.model, loss, data))
        return self.plain_step(loss, data)

    def sees_nothing(self) -> bool:
        """The optimizer has the gradients alone."""
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        return not (held and all(p.requires_grad for p in held))

    def agree(self) -> None:
        super().agree()
        for group, own in zip(self.optimizer.param_groups, self.oracle.groups, strict=True):
            assert_close(
                torch.as_tensor(group["lr"]).double(), torch.tensor(own["lr"]).double(), "lr"
            )
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                state = self.optimizer.state.get(parameter, {})
                expected = self.oracle.state.get(name, {})
                assert state.keys() == expected.keys()
                for key, value in expected.items():
                    assert_close(torch.as_tensor(state[key]), torch.as_tensor(value), key)


_LAYER = {
    "lr": st.sampled_from([0.0, 0.01, 0.3]),
    "inner_iterations": st.sampled_from([1, 2, 5]),
    "normalized": st.booleans(),
}
_DANTE = {
    **_LAYER,
    "order": st.sampled_from(["reverse", "forward"]),
    "fresh_batches": st.booleans(),
    "replay": st.booleans(),
}


class DanteMachine(OptimizerMachine):
    """A training with Dante."""

    not_negative = ("lr", "inner_iterations")

    @initialize(
        **CHOICES,
        options=st.fixed_dictionaries({}, optional=_DANTE),
        of_groups=st.lists(st.fixed_dictionaries({}, optional=_LAYER), max_size=3),
    )
    def start(self, **choices: Any) -> None:
        self.begin(**choices)

    def make(self, groups: list[dict[str, Any]]) -> Dante:
        return Dante(groups, **self.options)

    def make_oracle(self) -> DanteReference:
        return DanteReference(self.model, loss_fn, self.optimizer.param_groups)

    def fast_step(self, data: Batch, other: Batch, fault: Callable[[], Any]) -> Any:
        loss = faulty(fault)
        fresh = self.optimizer.param_groups[0]["fresh_batches"]
        if self.style is None and fresh and fault() is None:
            return self.plain_step(loss_fn, data)  # a fault in it is not the optimizer's
        return self.optimizer.step((self.style or Closure)(self.model, loss, data))


class SGDMachine(HypergradientMachine):
    method = SGDHD


class NesterovMachine(HypergradientMachine):
    method = SGDNesterovHD


class AdamMachine(HypergradientMachine):
    method = AdamHD


TestSGD = SGDMachine.TestCase
TestSGD.settings = SEARCH
TestNesterov = NesterovMachine.TestCase
TestNesterov.settings = SEARCH
TestAdam = AdamMachine.TestCase
TestAdam.settings = SEARCH
TestDante = DanteMachine.TestCase
TestDante.settings = SEARCH
