"""Step sizes of `samt.auto`: equation (10) for normalised directions, and how φ learns them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from samt.adam_step import direction, update_and_move
from samt.eta_model import GAIN, EtaModels, gradient_statistics, initial_eta_model
from samt.finite import is_read_late
from samt.parameters import state_dtype
from samt.shards import Shards, local, local_gradient, local_state
from samt.step_size import combine, combine_backward

_SCALE = 0.1  # of tensors that stand before any matrix in their block, such as norm layers
_ALPHA, _ETA_TILDE = 0.01, 0.12  # of every tensor, at first
_MEMORY = 0.9  # decay of the average of slopes
_DAMPING = 4  # power of a step size below its start


def scales(groups: list[dict[str, Any]]) -> dict[Tensor, float]:
    """s of every tensor, 1/√(L · fan-in): the size that its weights have before training, over √L.

    L is the number of matrices in all blocks: what all of them move the output by adds up. A
    vector belongs to the matrix before it.

    Args:
        groups: all blocks.

    Examples:
        >>> tensors = [torch.zeros(8, 4), torch.zeros(8), torch.zeros(2, 8)]
        >>> [round(s, 3) for s in scales([{"params": tensors}]).values()]
        [0.354, 0.354, 0.25]
    """
    matrices = sum(p.ndim > 1 for group in groups for p in group["params"])
    found = {}
    for group in groups:
        last = _SCALE
        for parameter in group["params"]:
            if parameter.ndim > 1 and parameter.numel():
                last = math.sqrt(parameter.shape[0] / parameter.numel())
            found[parameter] = last / math.sqrt(max(matrices, 1))
    return found


def initial_state(group: dict[str, Any], parameter: Tensor, index: int) -> dict[str, Tensor]:
    """What the optimizer keeps of one tensor.

    Args:
        group: its block, with all options.
        parameter: the tensor.
        index: its position among all parameters; seeds its eta model.
    """
    weights = parameter.detach().to(state_dtype(parameter), copy=True)
    like = local(weights).new_zeros(())
    hidden, gain = group["eta_hidden"], GAIN[group["projection"]]
    eta_model = initial_eta_model(torch.Size(), "offset", hidden, group["seed"], index, like)
    # The logits start at their biases: every tensor with the same α and η̃.
    logits = [math.log(x / (1 - x)) / gain for x in (_ALPHA, _ETA_TILDE)]
    eta_model["eta_model"][-2 * hidden - 2 :] = like.new_tensor([0.0] * (2 * hidden) + logits)
    return {
        "step": like.new_zeros((), dtype=torch.float32),
        "exp_avg": torch.zeros_like(weights),
        "exp_avg_sq": torch.zeros_like(weights),
        "average": weights.clone(),
        "slow_average": weights.clone(),
        "weights": weights,
        "features": like.new_zeros(5),
        "slope": like.clone(),
        "step_size": like.clone(),  # of all tensors together, when all are known
        **eta_model,
    }


class StepSizes:
    """Tensors of all blocks with their eta models, which are evaluated together.

    Args:
        groups: all blocks.
        members: block number and parameter.
        state: of the optimizer.
        anneal: from a block to its a.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        members: list[tuple[int, Tensor]],
        state: Mapping[Tensor, dict[str, Tensor]],
        anneal: Callable[[dict[str, Any]], float | Tensor],
    ) -> None:
        self._parameters = [parameter for _, parameter in members]
        whole = [state[parameter] for parameter in self._parameters]
        first = groups[0]
        self._eta = EtaModels(whole, first["eta_hidden"], first["projection"])
        self._sizes, self._done = _together(whole, "step_size"), _together(whole, "step")
        self._features, self._slopes = _together(whole, "features"), _together(whole, "slope")
        self._states = [local_state(own) for own in whole]
        self._shards = Shards(self._parameters[0])
        self._largest = math.sqrt(torch.finfo(self._sizes.dtype).max)
        self._groups = [groups[block] for block, _ in members]
        self._anneal = anneal
        like = self._states[0]["average"]
        self._block = torch.tensor([block for block, _ in members], device=like.device)
        self._blocks = len(groups)
        of = scales(groups)
        self._scales = like.new_tensor([of[parameter] for parameter in self._parameters])
        self._counts = like.new_tensor([max(p.numel(), 1) for p in self._parameters])
        self._initial = like.new_tensor([group["initial_step_size"] for group in self._groups])
        alpha, eta_tilde = (torch.full_like(self._initial, x) for x in (_ALPHA, _ETA_TILDE))
        self._start = combine(alpha, eta_tilde, self._initial, 1.0)
        self._set_step_sizes(self._features)

    def move(self, fine: Tensor | None) -> None:
        """A step of every tensor that has a gradient.

        Args:
            fine: one bool on a device, at which nobody looks here: whether to change anything.
        """
        gradients = [local_gradient(parameter) for parameter in self._parameters]
        present = [gradient is not None for gradient in gradients]
        counted = 1 if all(present) else self._done.new_tensor(present)
        sizes = self._sizes * self._annealing()
        if fine is not None:
            fine = fine.to(sizes.device)
            counted, sizes = fine * counted, torch.where(fine, sizes, 0)
        self._done += counted
        tensors = zip(
            self._parameters, gradients, self._states, self._groups, sizes.unbind(), strict=True
        )
        for parameter, gradient, state, group, step in tensors:
            if gradient is not None:
                update_and_move(local(parameter), gradient, state, group, step, fine)

    def _annealing(self) -> float | Tensor:
        """a of every tensor, or of all of them."""
        blocks = {id(group): self._anneal(group) for group in self._groups}
        first, *others = blocks.values()
        if isinstance(first, float) and all(isinstance(a, float) and a == first for a in others):
            return first
        each = {key: torch.as_tensor(a).to(self._sizes) for key, a in blocks.items()}
        return torch.stack([each[id(group)] for group in self._groups])

    @property
    def are_sharded(self) -> bool:
        """Whether they are spread over several processes."""
        return bool(self._shards)

    @property
    def gradients_are_fine(self) -> bool:
        """Whether it can be seen at once that the moments will be finite."""
        if self._shards or is_read_late(self._sizes.device):
            return False
        return all(norm.item() < self._largest for norm in self._gradient_norms())

    def _gradient_norms(self) -> tuple[Tensor, ...]:
        there = [g for g in map(local_gradient, self._parameters) if g is not None]
        # In the precision of the state: that of a float16 gradient would overflow.
        return torch._foreach_norm(there, dtype=self._sizes.dtype) if there else ()

    def gradient_squares(self) -> Tensor:
        """Of each block, the squared norm of its gradient, finite if the moments will be.

        Of parts of tensors, the sum of the norms takes the place of the norm.
        """
        norms, none = iter(self._gradient_norms()), self._sizes.new_zeros(())
        found = torch.stack([none if p.grad is None else next(norms) for p in self._parameters])
        return self._of_blocks(self._shards.sum(found).square())

    def eta_sums(self) -> Tensor:
        """Of each block, the sum over its eta models; shape (blocks,)."""
        return self._of_blocks(self._eta.trunk.sum(1))

    def _of_blocks(self, values: Tensor) -> Tensor:
        return values.new_zeros(self._blocks).index_add(0, self._block, values)

    def look(self) -> Tensor:
        """Take h, the gradient at the average, and the way w̄ − ŵ of the averages.

        Returns:
            The squares of their norms, of these tensors alone, in each block: shape (2, blocks).
        """
        found = []
        for parameter, state in zip(self._parameters, self._states, strict=True):
            h, moved = local_gradient(parameter), state["average"] - state["slow_average"]
            h = moved.new_zeros(()).expand_as(moved) if h is None else h.to(moved.dtype)
            dot = torch.dot(h.reshape(-1), moved.reshape(-1))
            found += [dot, torch.linalg.vector_norm(h), torch.linalg.vector_norm(moved)]
        here = torch.stack(found).view(-1, 3).T.contiguous()
        here[1:].square_()
        self._dots, *squares = self._shards.sum(here)
        return torch.stack(list(map(self._of_blocks, squares)))

    def learn(self, squares: Tensor, fine: Tensor | None) -> None:
        """A gradient step of the eta models on the loss at the average.

        Args:
            squares: as returned by `look`, but of all tensors.
            fine: one bool on a device, at which nobody looks here: whether to learn anything.
        """
        lengths = squares.to(self._dots).sqrt()[:, self._block]
        size = lengths[0] * lengths[1]
        # Of tiny gradients the norms underflow before the products do.
        slopes = torch.where(size > 0, self._dots / size, 0).clamp(-1, 1)
        # What overflows says nothing.
        known = slopes.isfinite() if fine is None else slopes.isfinite() & fine.to(slopes.device)
        slopes = torch.where(known, slopes, 0)
        past = self._slopes.clone()
        self._slopes.copy_(torch.where(known, past.lerp(slopes, 1 - _MEMORY), past))
        # Only where the last ones said that the step is too small: one that is too large is
        # annealed anyway. By the past alone: slopes of mere noise must cancel out.
        slopes *= past <= 0
        # The rates are those of the blocks: everything in the step is linear in the slopes.
        rates = [float(self._anneal(group)) * group["meta_lr"] for group in self._groups]
        slopes *= slopes.new_tensor(rates)
        trace = self._eta.forward(self._features)
        alpha, eta_tilde = trace.projected[0]
        eta = combine(alpha, eta_tilde, self._initial, 1.0)
        # And the less, the further it has come down, as it would by chance in a long training.
        slopes *= (eta / self._start).clamp_max(1.0) ** _DAMPING
        # By log η: a step that is ten times too large is as wrong as one ten times too small.
        grads = combine_backward(slopes / eta, alpha, eta_tilde, self._initial, 1.0)
        self._eta.descend(trace, [grads], 1.0)

    def renew_step_sizes(self) -> None:
        """Equation (10), from the statistics of the directions; for the next steps."""
        directions = list(map(direction, self._states, self._groups))
        if self._shards:
            features = self._shards.statistics(directions, self._counts)
        else:
            features = gradient_statistics(directions)
        features[:, 4] /= self._counts.sqrt()
        self._set_step_sizes(features)

    def _set_step_sizes(self, features: Tensor) -> None:
        alpha, eta_tilde = self._eta.forward(features).projected[0]
        sizes = combine(alpha, eta_tilde, self._initial, 1.0) * self._scales
        known = sizes.isfinite()
        self._sizes.copy_(torch.where(known, sizes, self._sizes))
        self._features.copy_(torch.where(known.unsqueeze(1), features, self._features))


def _together(states: list[dict[str, Tensor]], key: str) -> Tensor:
    """What all states have in one shape, in one tensor; they then hold views of it."""
    whole = torch.stack([state[key] for state in states])
    for state, own in zip(states, whole.unbind(), strict=True):
        state[key] = own
    return whole
