"""The published method line by line, slow and obvious: the oracle of the tests.

Weights live in a dict, the model is called through `torch.func.functional_call`, and automatic
differentiation goes from the meta loss through equations (9) and (10) into φ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from samt.reference.oracle import Batch, EtaModelReference, Reference, Tensors, statistics
from samt.step_size import relative_factor


class SAMTReference(Reference):
    """The same method as `samt.SAMT`, on one model and loss.

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
        super().__init__(model, loss_fn, groups)
        self.centers = dict(self.weights)
        self.eta: dict[str, EtaModelReference] = {}
        for group, names in zip(self.groups, self.names, strict=True):
            self._start(group, names)
        self.previous: dict[str, Tensors] = {
            name: {
                "previous_gradient": torch.zeros_like(weight),
                "previous_features": weight.new_zeros(5),
                "previous_lr": weight.new_zeros(()),
            }
            for name, weight in self.weights.items()
        }
        self.ball_scale = {name: torch.ones_like(w.sum()) for name, w in self.weights.items()}
        self.trial_graphs: dict[int, Tensors] = {}
        self.after_first: list[tuple[Tensors, Tensor]] = []

    def _start(self, group: dict[str, Any], names: list[str]) -> None:
        for name in names:
            self.eta[name] = EtaModelReference(self.weights[name], group, len(self.eta))

    def step(self, batch: Batch, other: Batch | None = None) -> Tensor:
        """Algorithm 1, one sweep.

        Args:
            batch: the mini-batch S.
            other: another mini-batch, which `fresh` needs and which takes the place of S with
                `subset`.

        Returns:
            The loss of the first pass.
        """
        self.rng_before = torch.get_rng_state()
        self.after_first.clear()
        losses = [
            self._oagd(index, batch, other)
            for index in self._order()
            if any(map(self._is_trainable, self.names[index]))
            for _ in range(self.groups[index]["inner_steps"])
        ] or [self._loss(self.weights, batch).detach()]
        self.buffers, rng = self.after_first[0]
        torch.set_rng_state(rng)
        self.calls += 1
        return losses[0]

    def _order(self) -> Sequence[int]:
        count, order = len(self.groups), self.groups[0]["order"]
        if order == "cyclic":
            return [self.calls % count]
        if order == "random":
            seed = self.groups[0]["seed"] * 1_000_003 + self.calls
            return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
        return range(count) if order == "forward" else list(reversed(range(count)))

    def _loss(self, weights: Tensors, batch: Batch) -> Tensor:
        """ℓ(w; batch), with the buffers and the randomness of the beginning of the step."""
        torch.set_rng_state(self.rng_before)
        buffers = {name: buffer.clone() for name, buffer in self.buffers.items()}
        loss = self.loss_fn(functional_call(self.model, {**weights, **buffers}, batch[0]), batch[1])
        if not self.after_first:
            self.after_first.append((buffers, torch.get_rng_state()))
        return loss

    def _gradient(
        self, weights: Tensors, names: list[str], batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor | None]]:
        leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        loss = self._loss(leaves, batch)
        grads = torch.autograd.grad(loss, [leaves[name] for name in names], allow_unused=True)
        found = zip(names, grads, strict=True)
        return loss.detach(), {n: grad if self._is_trainable(n) else None for n, grad in found}

    def _oagd(self, index: int, batch: Batch, other: Batch | None) -> Tensor:
        """Algorithms 2 and 3, one step on block `index`."""
        group, names = self.groups[index], self.names[index]
        # 1. the block's gradient
        loss, g = self._gradient(self.weights, names, batch)
        learns = group["parts"] != "fixed"
        if learns and group["meta_batch"] == "next" and index in self.trial_graphs:
            trial = self.trial_graphs[index]
            # The meta loss linearized at ŵ: ⟨h, ŵ⟩, h constant.
            linearized = [(trial[n] * h).sum() for n, h in g.items() if h is not None]
            self._descend_eta(index, trial, torch.stack([loss.new_zeros(()), *linearized]).sum())
        # 2. to 5. features, step size, trial weights
        trial = self._trial(index, self._clipped(g, group["max_grad_norm"]))
        self.weights |= {name: weight.detach() for name, weight in trial.items()}  # 7.
        # 6. the meta loss
        if learns and group["meta_batch"] == "next":
            self.trial_graphs[index] = trial
        elif learns:
            samples = _meta_batch(group["meta_batch"], batch, other)
            meta_loss = self._loss({**self.weights, **trial}, samples)
            self._descend_eta(index, trial, meta_loss)
        return loss

    def _descend_eta(self, index: int, trial: Tensors, meta_loss: Tensor) -> None:
        """6. One plain gradient-descent step of each φ of the block."""
        for name, weight in trial.items():
            used = meta_loss + 0 * weight.sum()  # a tensor that the loss does not see has slope 0
            self.eta[name].descend(used, self.groups[index]["meta_lr"])

    def _clipped(
        self, g: dict[str, Tensor | None], limit: float | None
    ) -> dict[str, Tensor | None]:
        present = [grad for grad in g.values() if grad is not None]
        if limit is None or not present:
            return g
        norm = torch.cat([grad.flatten() for grad in present]).square().sum().sqrt()
        if norm <= limit:
            return g
        return {name: None if grad is None else grad * (limit / norm) for name, grad in g.items()}

    def _trial(self, index: int, g: dict[str, Tensor | None]) -> Tensors:
        """ŵ = Π((1 − lr · weight_decay) w − η ⊙ g), as a function of φ."""
        group = self.groups[index]
        lr = float(group["lr"])
        trial = {}
        for name, grad in g.items():
            weight = self.weights[name]
            decayed = weight if grad is None else (1 - lr * group["weight_decay"]) * weight
            grad = torch.zeros_like(weight) if grad is None else grad  # noqa: PLW2901
            trial[name] = decayed - self._step_size(name, group, grad, lr) * grad
        if group["radius"] is None:
            return trial
        away = {n: w - self.centers[n] for n, w in trial.items() if g[n] is not None}
        if not away:
            self.ball_scale |= {name: torch.ones_like(w.sum()) for name, w in trial.items()}
            return trial
        distance = torch.cat([offset.flatten() for offset in away.values()]).square().sum().sqrt()
        inside = bool(distance <= group["radius"])
        scale = torch.ones_like(distance) if inside else group["radius"] / distance
        for name in g:
            self.ball_scale[name] = scale.detach() if name in away else torch.ones_like(scale)
        projected = {n: self.centers[n] + scale * offset for n, offset in away.items()}
        return trial if inside else {**trial, **projected}

    def _step_size(self, name: str, group: dict[str, Any], g: Tensor, lr: float) -> Tensor:
        """Equation (10) and its ablations."""
        if group["parts"] == "fixed":
            return torch.full_like(g, lr)
        v = statistics(g)
        self.previous[name] = {
            "previous_gradient": g,
            "previous_features": v,
            "previous_lr": g.new_tensor(lr),
        }
        alpha, eta_tilde = self.eta[name](v)
        rho = relative_factor(group["relative"])
        left = alpha * lr
        right = (1 - alpha) * eta_tilde * (1.0 if rho is None else lr * rho)
        return {"full": left + right, "left": left, "right": right}[group["parts"]]

    def state(self, index: int) -> dict[str, Tensors]:
        """State of one block by parameter name, in the form of the fast path."""
        group = self.groups[index]
        result: dict[str, Tensors] = {}
        for name in self.names[index]:
            state: Tensors = {}
            if group["parts"] != "fixed":
                state |= self.eta[name].state()
                if group["meta_batch"] == "next":
                    state |= self.previous[name]
            if group["radius"] is not None:
                state |= {"center": self.centers[name], "ball_scale": self.ball_scale[name]}
            result[name] = state
        return result


def _meta_batch(kind: str, batch: Batch, other: Batch | None) -> Batch:
    """The meta batch S′."""
    if kind == "same":
        return batch
    inputs, targets = batch if other is None else other
    return inputs[::2], targets[::2]
