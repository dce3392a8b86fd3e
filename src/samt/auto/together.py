"""Tensors of one device and one precision, which are stepped together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from ctypes import c_float
from typing import Any

import torch
from torch import Tensor

from samt.auto.state import NUMBERS, TRAINING_WEIGHTS
from samt.auto.step import (
    Moved,
    Numbers,
    advance,
    eta_of,
    eta_on_device,
    learn,
    learn_on_device,
)
from samt.tensors.shards import Shards, local, local_gradient, local_state

Group = dict[str, Any]


def is_read_late(device: torch.device) -> bool:
    """Whether to look at a tensor there is to wait for the device."""
    return device.type != "cpu"


class Together:
    """Some tensors of all blocks, which lie on one device in one precision.

    Args:
        groups: all blocks.
        members: the number of its block and the parameter, for each tensor.
        state: the optimizer's state; the numbers in it become views of vectors.
        matrices: the number of matrices that the optimizer trains.

    Attributes:
        parameters: the tensors.
        moved: those that had a gradient in the last step.
        sizes: the step size of each tensor in its last step, in a vector.
        device: where the tensors lie.
    """

    def __init__(
        self,
        groups: list[Group],
        members: Sequence[tuple[int, Tensor]],
        state: Mapping[Tensor, dict[str, Tensor]],
        matrices: int,
    ) -> None:
        self.parameters = [parameter for _, parameter in members]
        self.moved: list[Tensor] = []
        whole = [state[parameter] for parameter in self.parameters]
        self._numbers = {key: _in_a_vector(whole, key) for key in NUMBERS}
        # These two change in every step; their vectors are rows of one tensor.
        self._learned = torch.stack([self._numbers[key] for key in ("log_step", "weight_sum")])
        for key, row in zip(("log_step", "weight_sum"), self._learned, strict=True):
            self._numbers[key] = row
            for own, number in zip(whole, row.unbind(), strict=True):
                own[key] = number
        self._states = [local_state(own) for own in whole]
        lags = [state["lag"] for state in self._states]
        self._flat_lags = [s.view(-1) if s.is_contiguous() else None for s in lags]
        self._shards = Shards(self.parameters[0])
        self._groups = [groups[block] for block, _ in members]
        self._blocks = [block for block, _ in members]
        scale = self._numbers["scale"]
        self.device, self._dtype = scale.device, scale.dtype
        self._is_late = is_read_late(self.device)
        self._largest = math.sqrt(torch.finfo(self._dtype).max)
        self._root = math.sqrt(max(matrices, 1))
        # What the host knows of numbers that lie on a device, which is waited for here alone.
        self._host = {key: vector.tolist() for key, vector in self._numbers.items()}
        self._wanted_betas: list[float] = []
        self._rates_of: tuple[list[Any], Tensor] | None = None
        self._live: list[int] = []
        self._gradients: list[Tensor] = []
        self._prepare_sizes(groups)

    @property
    def are_sharded(self) -> bool:
        """Whether the tensors are spread over several processes."""
        return bool(self._shards)

    # What a step looks at.

    def look(self) -> None:
        """Take the gradients that are there, and find how long they are and where they point."""
        found = [local_gradient(p) if self._shards else p.grad for p in self.parameters]
        self._live = [i for i, gradient in enumerate(found) if gradient is not None]
        there = [g for g in found if g is not None]
        self._gradients = [g if g.dtype == self._dtype else g.to(self._dtype) for g in there]
        dots: list[Tensor] = []
        for g, i in zip(self._gradients, self._live, strict=True):
            s = self._flat_lags[i]
            if s is not None and g.is_contiguous():
                flat = g.view(-1)
                dots += (torch.dot(flat, s), torch.dot(flat, flat), torch.dot(s, s))
            else:
                s = self._states[i]["lag"]
                dots += ((g * s).sum(), (g * g).sum(), (s * s).sum())
        like = self._numbers["scale"]
        looked = self._shards.sum(torch.stack(dots)) if dots else like.new_zeros(0)
        self._looked = looked.view(-1, 3).T

    def are_fine(self) -> Tensor | bool:
        """Whether all gradients and their squares are finite; a tensor where nobody looks."""
        squares = self._looked[1]
        if self._is_late:
            return squares.isfinite().all()
        return all(map(math.isfinite, squares.tolist()))

    def squares_of_blocks(self) -> dict[int, float]:
        """The squared norm of each block's gradient, in the precision of the state."""
        squares: dict[int, Tensor] = {}
        for i, square in zip(self._live, self._looked[1], strict=True):
            block = self._blocks[i]
            squares[block] = square + squares[block] if block in squares else square
        return {block: square.item() for block, square in squares.items()}

    # What a step changes.

    def move(self, fine: Tensor | None) -> None:
        """A step of every tensor that has a gradient.

        Args:
            fine: one bool on a device, at which nobody looks here: whether to change anything;
                None where that is known.
        """
        live = self._live
        is_whole = len(live) == len(self.parameters)
        self.moved = self.parameters if is_whole else [self.parameters[i] for i in live]
        if not live:
            return
        if fine is not None:
            fine = fine.to(self.device)
            self._gradients = _without_faults(self._gradients, fine)
            fine = fine.to(self._dtype)
        self._absorb_edits()
        for i in live:
            self._host["step"][i] += 1
        etas, weights = self._learn_late(fine) if self._is_late else self._learn()
        states = [self._states[i] for i in live]
        lists = ([state[key] for state in states] for key in ("exp_avg_sq", "lead", "lag"))
        moved = Moved([self._weights(i) for i in live], self._gradients, *lists)
        before = self._renew_betas()
        for indices in self._alike(before):
            part = moved if len(indices) == len(live) else moved.some(indices)
            by = self._numbers_of(indices, [etas[i] for i in indices], weights[indices[0]], fine)
            by.beta_before = before[live[indices[0]]]
            advance(part, by)
        self._write_rounded()
        self._show_sizes()
        self._gradients = []

    def _learn(self) -> tuple[list[float], list[float]]:
        """η and c of each live tensor, in host memory."""
        host, found = self._host, []
        dots, of_gradients, of_lags = self._looked.tolist()
        for n, i in enumerate(self._live):
            group = self._groups[i]
            size = math.sqrt(of_gradients[n]) * math.sqrt(of_lags[n])
            cosine = max(-1.0, min(1.0, dots[n] / size)) if size > 0 else 0.0
            scale = float(group["lr"]) * host["scale"][i] / self._root
            before = host["log_step"][i], host["weight_sum"][i]
            own = learn(host["step"][i], *before, scale, cosine, group["learning"])
            host["log_step"][i], host["weight_sum"][i] = own.log_step, own.weight_sum
            host["eta"][i] = own.eta
            found.append(own)
        self._numbers["step"].copy_(torch.tensor(host["step"], device=self.device))
        learned = [host["log_step"], host["weight_sum"]]
        both = torch.tensor(learned, dtype=self._dtype, device=self.device)
        self._learned.copy_(both)
        # As they are in the state, so that who goes on from a checkpoint has the same numbers.
        host["log_step"], host["weight_sum"] = both.tolist()
        return [own.eta for own in found], [own.weight for own in found]

    def _learn_late(self, fine: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """η and c of each live tensor, on a device at which nobody looks."""
        numbers, like = self._numbers, self._numbers["scale"]
        dots, of_gradients, of_lags = self._looked
        size = of_gradients.sqrt() * of_lags.sqrt()
        cosine = (dots / size).clamp_(-1, 1)
        cosine.masked_fill_(~(size > 0) | cosine.isnan(), 0)
        is_whole = len(self._live) == len(self.parameters)
        where = None if is_whole else _sent(self._live, torch.int64, self.device)
        rates, learns = self._rates()
        vectors = (
            *(numbers["step"], numbers["log_step"], numbers["weight_sum"]),
            *(numbers["scale"] * rates, learns),
        )
        step, log_step, weight_sum, scale, teaches = (
            vector if where is None else vector.index_select(0, where) for vector in vectors
        )
        one = like.new_ones(()) if fine is None else fine
        found = learn_on_device(step, log_step, weight_sum, scale, cosine, teaches, one)
        news = (
            (numbers["step"], found.step),
            (numbers["log_step"], found.log_step),
            (numbers["weight_sum"], found.weight_sum),
            (self.sizes, found.eta),
        )
        for vector, new in news:
            if where is None:
                vector.copy_(new)
            else:
                vector.index_copy_(0, where, new.to(vector.dtype))
        self._late_steps = found.step
        return list(found.eta.unbind()), list(found.weight.unbind())

    def _rates(self) -> tuple[Tensor, Tensor]:
        """lr over √L, and 1 where there is learning, for each tensor on a device."""
        like = self._numbers["scale"]
        rates = [group["lr"] for group in self._groups]
        learns = [float(group["learning"]) for group in self._groups]
        if any(isinstance(rate, Tensor) for rate in rates):
            on_device = [torch.as_tensor(r, dtype=like.dtype, device=like.device) for r in rates]
            of_rates = torch.stack([rate.reshape(()) for rate in on_device])
            return of_rates / self._root, _sent(learns, self._dtype, self.device)
        if self._rates_of is None or self._rates_of[0] != [rates, learns]:
            numbers = [[rate / self._root for rate in rates], learns]
            both = _sent(numbers, self._dtype, self.device)
            self._rates_of = [rates, learns], both
        return self._rates_of[1][0], self._rates_of[1][1]

    def _alike(self, betas_before: list[float]) -> Iterator[list[int]]:
        """The live tensors, by what is one for all of them: the options and the count.

        Args:
            betas_before: β of the step before, of all tensors.

        Yields:
            Indices into the live tensors.
        """
        found: dict[Any, list[int]] = {}
        for index, i in enumerate(self._live):
            group = self._groups[i]
            key = (*group["betas"], group["eps"], group["weight_decay"], betas_before[i])
            key = (*key, self._host["step"][i])
            found.setdefault(key, []).append(index)
        yield from found.values()

    def _numbers_of(
        self,
        indices: list[int],
        etas: list[Any],
        weight: float | Tensor,
        fine: Tensor | None,
    ) -> Numbers:
        first, own = indices[0], [self._live[index] for index in indices]
        group = self._groups[own[0]]
        beta = self._host["beta"][own[0]]
        beta2 = group["betas"][1]
        correction: float | Tensor
        if self._is_late:
            correction = 1 - beta2 ** self._late_steps[first].clamp_min(1).to(self._dtype)
        else:
            correction = 1 - beta2 ** self._host["step"][own[0]]
        return Numbers(
            beta=beta,
            beta_before=beta,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            etas=etas,
            weight=weight,
            correction=correction,
            fine=fine,
            counts=None if self._is_late else [self._states[i]["step"] for i in own],
        )

    def _renew_betas(self) -> list[float]:
        """Note β of this step, as it is in the precision of the state; return those before."""
        before = self._host["beta"]
        wanted = [group["betas"][0] for group in self._groups]
        if wanted == self._wanted_betas and len(self._live) == len(wanted):
            return before
        is_wide = self._dtype == torch.float64
        own = wanted if is_wide else [c_float(beta).value for beta in wanted]
        new = list(before)
        for i in self._live:
            new[i] = own[i]
        self._wanted_betas = wanted if new == own else []
        if new != before:
            self._numbers["beta"].copy_(_sent(new, self._dtype, self.device))
            self._host["beta"] = new
        return before

    # Weights of low precision, which have a copy in the precision of the state.

    def _weights(self, i: int) -> Tensor:
        """y of a tensor, in the precision of the state."""
        state = self._states[i]
        return state[TRAINING_WEIGHTS] if self._is_low(i) else local(self.parameters[i].detach())

    def _is_low(self, i: int) -> bool:
        return self.parameters[i].dtype != self._dtype

    def _absorb_edits(self) -> None:
        """What somebody has written into a parameter of low precision is y now."""
        for i in self._live:
            if self._is_low(i):
                own, exact = local(self.parameters[i]), self._states[i][TRAINING_WEIGHTS]
                is_same = own == exact.to(own.dtype)
                exact.copy_(torch.where(is_same, exact, own.to(exact.dtype)))

    def _write_rounded(self) -> None:
        low = [i for i in self._live if self._is_low(i)]
        if low:
            own = [local(self.parameters[i]) for i in low]
            torch._foreach_copy_(own, [self._weights(i) for i in low])

    # The step sizes, for people.

    def _prepare_sizes(self, groups: list[Group]) -> None:
        """The step sizes before the first step, or of the last one."""
        numbers, host = self._numbers, self._host
        k = numbers["step"].to(self._dtype).clamp_min(1)
        self._of_block: dict[int, list[int]] = {}
        for i, block in enumerate(self._blocks):
            self._of_block.setdefault(block, []).append(i)
        self._groups_by_block = groups
        if self._is_late:
            scale = numbers["scale"] * self._rates()[0]
            self.sizes = eta_on_device(k, numbers["log_step"], scale)
            counts = [float(len(self._of_block.get(b, [0]))) for b in range(len(groups))]
            self._means, self._counts = k.new_zeros(len(groups)), k.new_tensor(counts)
            self._block_of = torch.tensor(self._blocks, device=self.device)
        else:
            rates = [float(group["lr"]) / self._root for group in self._groups]
            scales = [rate * scale for rate, scale in zip(rates, host["scale"], strict=True)]
            host["eta"] = list(map(eta_of, k.tolist(), host["log_step"], scales))
        shown = {block: groups[block].get("step_size") for block in self._of_block}
        self._show_sizes()
        for block, size in shown.items():  # of the last step, where there was one
            if self._is_late and isinstance(size, Tensor):
                self._means[block].copy_(size)
            elif not self._is_late and size:
                groups[block]["step_size"] = float(size)

    def _show_sizes(self) -> None:
        """Put the mean step size of each block into its group, where the tensors are."""
        if self._is_late:
            self._means.zero_().index_add_(0, self._block_of, self.sizes).div_(self._counts)
            for block in self._of_block:
                self._groups_by_block[block]["step_size"] = self._means[block]
        else:
            etas = self._host["eta"]
            for block, own in self._of_block.items():
                mean = sum([etas[i] for i in own]) / len(own)
                self._groups_by_block[block]["step_size"] = mean

    def size(self, i: int) -> Tensor:
        """The step size of a tensor in its last step."""
        return (
            self.sizes[i]
            if self._is_late
            else torch.tensor(self._host["eta"][i], device=self.device)
        )


def _in_a_vector(states: list[dict[str, Tensor]], key: str) -> Tensor:
    """What all states have under a key, in one vector; they then hold views of it."""
    whole = torch.stack([state[key] for state in states])
    for state, own in zip(states, whole.unbind(), strict=True):
        state[key] = own
    return whole


def _sent(values: list[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of the host in a tensor on a device, without waiting for what the device does."""
    return torch.tensor(values, dtype=dtype, device="cpu").to(device, non_blocking=True)


def _without_faults(gradients: list[Tensor], fine: Tensor) -> list[Tensor]:
    """The gradients, or zeros if something is not finite, without a look at the device."""
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    flat.masked_fill_(~fine, 0)
    parts = flat.split([gradient.numel() for gradient in gradients])
    return [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)]
