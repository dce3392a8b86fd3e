"""Step sizes of `samt.auto`: equation (10) for normalised directions, and how φ learns them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from samt.auto.adam_step import directions, update_and_move
from samt.auto.finite import is_read_late
from samt.eta_model import GAIN, EtaModels, gradient_statistics, initial_eta_model, layers_of
from samt.step_size import combine, combine_backward
from samt.tensors.precision import state_dtype
from samt.tensors.shards import Shards, local, local_gradient, local_state

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
    weight, bias = layers_of(eta_model, hidden)[-1]
    weight.zero_()
    bias.copy_(like.new_tensor(logits))
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
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        members: list[tuple[int, Tensor]],
        state: Mapping[Tensor, dict[str, Tensor]],
    ) -> None:
        self._parameters = [parameter for _, parameter in members]
        whole = [state[parameter] for parameter in self._parameters]
        first = groups[0]
        self._eta_models = EtaModels(whole, first["eta_hidden"], first["projection"])
        self._sizes, self._done = _together(whole, "step_size"), _together(whole, "step")
        self._features, self._slopes = _together(whole, "features"), _together(whole, "slope")
        self._states = [local_state(own) for own in whole]
        self._shards = Shards(self._parameters[0])
        self._all_groups = groups
        self._largest = math.sqrt(torch.finfo(self._sizes.dtype).max)
        self._groups = [groups[block] for block, _ in members]
        like = self._states[0]["average"]
        self._block = torch.tensor([block for block, _ in members], device=like.device)
        self._blocks = len(groups)
        of = scales(groups)
        self._scales = like.new_tensor([of[parameter] for parameter in self._parameters])
        self._counts = like.new_tensor([max(p.numel(), 1) for p in self._parameters])
        self._initial = like.new_tensor([group["initial_step_size"] for group in self._groups])
        alpha, eta_tilde = (torch.full_like(self._initial, x) for x in (_ALPHA, _ETA_TILDE))
        self._start = combine(alpha, eta_tilde, self._initial, 1.0)
        self._evaluate()

    def move(self, annealing: Sequence[float | Tensor], fine: Tensor | None) -> None:
        """A step of every tensor that has a gradient.

        Args:
            annealing: a of every block.
            fine: one bool on a device, at which nobody looks here: whether to change anything.
        """
        gradients = self._gradients()
        present = [gradient is not None for gradient in gradients]
        self._done += self._counted(present, fine)
        steps = self._steps(self._of_tensors(annealing), fine)
        tensors = zip(self._parameters, gradients, self._states, self._groups, steps, strict=True)
        for parameter, gradient, state, group, step in tensors:
            if gradient is not None:
                update_and_move(local(parameter), gradient, state, group, step, fine)

    def _counted(self, present: list[bool], fine: Tensor | None) -> int | Tensor:
        """1 for every tensor whose averages are about to take a gradient."""
        counted = 1 if all(present) else self._done.new_tensor(present)
        return counted if fine is None else fine.to(self._done.device) * counted

    def _steps(self, a: float | Tensor, fine: Tensor | None) -> Sequence[float | Tensor]:
        """a · η of every tensor, 0 where nothing is to change; numbers where that is faster."""
        if self._numbers is not None and fine is None and isinstance(a, float):
            return [a * size for size in self._numbers]
        sizes = self._sizes * a
        return (sizes if fine is None else torch.where(fine.to(sizes.device), sizes, 0)).unbind()

    def _of_tensors(self, of_blocks: Sequence[float | Tensor]) -> float | Tensor:
        """The number of every tensor's block, or of all of them if it is one."""
        first = of_blocks[0]
        if isinstance(first, float) and all(isinstance(x, float) and x == first for x in of_blocks):
            return first
        like = self._sizes
        numbers = [torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in of_blocks]
        return torch.stack(numbers).index_select(0, self._block)

    @property
    def device(self) -> torch.device:
        """Of all of them."""
        return self._sizes.device

    @property
    def are_sharded(self) -> bool:
        """Whether they are spread over several processes."""
        return bool(self._shards)

    def are_fine(self, with_eta_models: bool) -> bool:
        """Whether it can be seen at once, and for little, that nothing here is or gets infinite.

        Args:
            with_eta_models: whether they are used in this step.
        """
        if self._shards or is_read_late(self._sizes.device):
            return False
        # In the precision of the state: that of a float16 gradient would overflow.
        dtype, there = self._sizes.dtype, [g for g in self._gradients() if g is not None]
        if not all(torch.linalg.vector_norm(g, dtype=dtype).item() < self._largest for g in there):
            return False
        return not with_eta_models or math.isfinite(self._eta_models.trunk.sum().item())

    def _gradients(self) -> list[Tensor | None]:
        if self._shards:
            return list(map(local_gradient, self._parameters))
        return [parameter.grad for parameter in self._parameters]  # asked twice in every step

    def gradient_squares(self) -> Tensor:
        """Of each block, the squared norm of its gradient, finite if the moments will be.

        Of parts of tensors, the sum of the norms takes the place of the norm.
        """
        gradients, none = self._gradients(), self._sizes.new_zeros(())
        there = [gradient for gradient in gradients if gradient is not None]
        norms = iter(torch._foreach_norm(there, dtype=none.dtype) if there else ())
        found = torch.stack([none if gradient is None else next(norms) for gradient in gradients])
        return self._of_blocks(self._shards.sum(found).square())

    def eta_sums(self) -> Tensor:
        """Of each block, the sum over its eta models; shape (blocks,)."""
        return self._of_blocks(self._eta_models.trunk.sum(1))

    def _of_blocks(self, values: Tensor) -> Tensor:
        return values.new_zeros(self._blocks).index_add(0, self._block, values)

    def look(self) -> Tensor:
        """Take h, the gradient at the average, and the way w̄ − ŵ of the averages.

        Returns:
            The squares of their norms, of these tensors alone, in each block: shape (2, blocks).
        """
        dots, of_gradients, of_ways = [], [], []
        for gradient, state in zip(self._gradients(), self._states, strict=True):
            moved = (state["average"] - state["slow_average"]).reshape(-1)
            h = torch.zeros_like(moved) if gradient is None else gradient.to(moved.dtype)
            h = h.reshape(-1)
            dots.append(torch.dot(h, moved))
            of_gradients.append(torch.dot(h, h))
            of_ways.append(torch.dot(moved, moved))
        here = torch.stack(dots + of_gradients + of_ways).view(3, -1)
        self._dots, *squares = self._shards.sum(here)
        return torch.stack(list(map(self._of_blocks, squares)))

    def learn(
        self, squares: Tensor, annealing: Sequence[float | Tensor], fine: Tensor | None
    ) -> None:
        """A gradient step of the eta models on the loss at the average.

        Args:
            squares: as returned by `look`, but of all tensors.
            annealing: a of every block.
            fine: one bool on a device, at which nobody looks here: whether to learn anything.
        """
        lengths = squares.to(self._dots).sqrt()
        size = (lengths[0] * lengths[1]).index_select(0, self._block)
        # Of tiny gradients the norms underflow before the products do.
        slopes = (self._dots / size).clamp_(-1, 1).masked_fill_(size <= 0, 0)
        unknown = slopes.isnan()  # what overflows says nothing
        if fine is not None:
            unknown |= ~fine.to(slopes.device)
        slopes.masked_fill_(unknown, 0)
        past = self._slopes.clone()
        self._slopes.lerp_(torch.where(unknown, past, slopes), 1 - _MEMORY)
        # Only where the last ones said that the step is too small: one that is too large is
        # annealed anyway. By the past alone: slopes of mere noise must cancel out.
        slopes *= past <= 0
        # And the less, the further it has come down, as it would by chance in a long training.
        slopes *= (self._eta / self._start).clamp_max_(1.0).pow_(_DAMPING)
        # By log η: a step that is ten times too large is as wrong as one ten times too small.
        slopes /= self._eta
        # The rates are those of the blocks: everything in the step is linear in the slopes.
        rates = zip(annealing, self._all_groups, strict=True)
        slopes *= self._of_tensors([float(a) * group["meta_lr"] for a, group in rates])
        alpha, eta_tilde = self._trace.projected[0]
        grads = combine_backward(slopes, alpha, eta_tilde, self._initial, 1.0)
        self._eta_models.descend(self._trace, [grads], 1.0)

    def renew_step_sizes(self) -> None:
        """Equation (10), from the statistics of the directions; for the next steps."""
        found = directions(self._states, self._groups, self._done)
        if self._shards:
            features = self._shards.statistics(found, self._counts)
        else:
            features = gradient_statistics(found)
        features[:, 4] /= self._counts.sqrt()
        self._features.copy_(features)
        self._evaluate()

    def _evaluate(self) -> None:
        """The eta models, and the step sizes that they make; kept for the next `learn`."""
        self._trace = self._eta_models.forward(self._features)
        alpha, eta_tilde = self._trace.projected[0]
        self._eta = combine(alpha, eta_tilde, self._initial, 1.0)
        sizes = self._eta * self._scales
        self._sizes.copy_(torch.where(sizes.isnan(), self._sizes, sizes))
        self._numbers = None if is_read_late(self.device) else self._sizes.tolist()


def _together(states: list[dict[str, Tensor]], key: str) -> Tensor:
    """What all states have in one shape, in one tensor; they then hold views of it."""
    whole = torch.stack([state[key] for state in states])
    for state, own in zip(states, whole.unbind(), strict=True):
        state[key] = own
    return whole
