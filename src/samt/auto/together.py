"""Tensors of one device and one precision, which are stepped together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from samt.auto.state import TRAINING_WEIGHTS
from samt.auto.step import NUMBERS, Amounts, Looked, Moved, OnDevice, OnHost, Recipe, advance, learn
from samt.tensors.shards import Shards, local, local_gradient, local_state

Group = dict[str, Any]
_ROWS = ("scale", *NUMBERS)


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
        recipe: the constants of the method.

    Attributes:
        parameters: the tensors.
        moved: those that had a gradient in the last step.
        device: where the tensors lie.
    """

    def __init__(
        self,
        groups: list[Group],
        members: Sequence[tuple[int, Tensor]],
        state: Mapping[Tensor, dict[str, Tensor]],
        matrices: int,
        recipe: Recipe,
    ) -> None:
        self.parameters = [parameter for _, parameter in members]
        self.moved: list[Tensor] = []
        self._recipe = recipe
        whole = [state[parameter] for parameter in self.parameters]
        self._steps = torch.stack([own["step"] for own in whole])
        self._table = torch.stack([torch.stack([own[key] for own in whole]) for key in _ROWS])
        for i, own in enumerate(whole):
            own["step"] = self._steps[i]
            own.update(zip(_ROWS, self._table[:, i].unbind(), strict=True))
        self._states = [local_state(own) for own in whole]
        lags = [own["lag"] for own in self._states]
        self._flat_lags = [s.view(-1) if s.is_contiguous() else None for s in lags]
        self._shards = Shards(self.parameters[0])
        self._groups = [groups[block] for block, _ in members]
        self._blocks = [block for block, _ in members]
        self.device, self._dtype = self._table.device, self._table.dtype
        self._is_late = is_read_late(self.device)
        self._root = math.sqrt(max(matrices, 1))
        counts = [float(max(parameter.numel(), 1)) for parameter in self.parameters]
        self._counts: Any = _sent(counts, self._dtype, self.device) if self._is_late else counts
        if not self._is_late:
            self._host = self._table.tolist()
            self._host_steps = self._steps.tolist()
        self._options_of: tuple[list[Any], Tensor] | None = None
        self._live: list[int] = []
        self._gradients: list[Tensor] = []
        self._of_block: dict[int, list[int]] = {}
        for i, block in enumerate(self._blocks):
            self._of_block.setdefault(block, []).append(i)
        self._block_groups = {block: groups[block] for block in self._of_block}

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
        looked = self._shards.sum(torch.stack(dots)) if dots else self._table.new_zeros(0)
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
        self._absorb_edits()
        amounts = self._learn_on_device(fine) if self._is_late else self._learn_on_host()
        states = [self._states[i] for i in live]
        lists = ([state[key] for state in states] for key in ("exp_avg_sq", "lead", "lag"))
        advance(Moved([self._weights(i) for i in live], self._gradients, *lists), amounts)
        self._write_rounded()
        self._show_sizes()
        self._gradients = []

    def _learn_on_host(self) -> Amounts:
        """The next numbers of each live tensor, one tensor after the other."""
        dots, squares, lags = self._looked.tolist()
        scales = [self._host[0][i] / self._root for i in self._live]
        total = sum(square * scale**2 for square, scale in zip(squares, scales, strict=True))
        ways = sum(lag / scale**2 for lag, scale in zip(lags, scales, strict=True))
        shared = OnHost.cosine(sum(dots), total, ways)
        usual = math.sqrt(total / sum(self._counts[i] for i in self._live))
        found = []
        for n, i in enumerate(self._live):
            group = self._groups[i]
            before = {key: row[i] for key, row in zip(_ROWS, self._host, strict=True)}
            looked = Looked(
                OnHost.cosine(dots[n], squares[n], lags[n]),
                shared,
                squares[n] / self._counts[i],
                usual / scales[n],
                scales[n],
                float(group["lr"]),
                group["learning"],
                *group["betas"],
            )
            self._host_steps[i] += 1
            now, pace = learn(self._host_steps[i], before, looked, self._recipe, OnHost)
            for row, key in zip(self._host, _ROWS, strict=True):
                row[i] = now.get(key, row[i])
            found.append((before, now, pace))
        self._steps.copy_(torch.tensor(self._host_steps))
        self._table.copy_(torch.tensor(self._host, dtype=self._dtype))
        # As they are in the state, so that who goes on from a checkpoint has the same numbers.
        self._host = self._table.tolist()
        weight, ahead = self._host[_ROWS.index("weight")], self._host[_ROWS.index("ahead")]
        return Amounts(
            eta=[now["step_size"] for _, now, _ in found],
            eps=[pace.eps for *_, pace in found],
            correction=[pace.correction for *_, pace in found],
            lag_weight=[pace.lag_weight for *_, pace in found],
            weight=[weight[i] for i in self._live],
            ahead=[ahead[i] for i in self._live],
            weight_before=[before["weight"] for before, *_ in found],
            ahead_before=[before["ahead"] for before, *_ in found],
            decay=[1 - self._groups[i]["betas"][1] for i in self._live],
            weight_decay=self._decays([self._host[0][i] for i in self._live]),
            counts=[self._states[i]["step"] for i in self._live],
            fine=None,
        )

    def _learn_on_device(self, fine: Tensor | None) -> Amounts:
        """The next numbers of all live tensors at once, on a device at which nobody looks."""
        is_whole = len(self._live) == len(self.parameters)
        where = None if is_whole else _sent(self._live, torch.int64, self.device)

        def of_live(table: Tensor) -> Tensor:
            return table.clone() if where is None else table.index_select(-1, where)

        options, table, steps = map(of_live, (self._options(), self._table, self._steps))
        before = dict(zip(_ROWS, table.unbind(), strict=True))
        dots, squares, lags = self._looked if fine is None else self._looked.where(fine, 0)
        scale = before["scale"] / self._root
        counts, total = of_live(self._counts), (squares * scale**2).sum()
        shared = OnDevice.cosine(dots.sum(), total, (lags / scale**2).sum())
        usual = (total / counts.sum()).sqrt() / scale
        looked = Looked(
            OnDevice.cosine(dots, squares, lags),
            *(shared, squares / counts, usual, scale, *options.unbind()),
        )
        k = (steps + 1).to(self._dtype)
        now, pace = learn(k, before, looked, self._recipe, OnDevice)
        new = torch.stack([now.get(key, before[key]) for key in _ROWS])
        flags = None
        if fine is not None:
            new = torch.where(fine, new, table)
            flags = [fine.to(self._dtype)] * len(self._live)
        whole, whole_steps = self._table.clone(), steps + (1 if fine is None else fine)
        if where is None:
            self._table.copy_(new)
            self._steps.copy_(whole_steps)
        else:
            self._table.copy_(whole.index_copy(1, where, new))
            self._steps.index_copy_(0, where, whole_steps)
        groups = [self._groups[i] for i in self._live]
        return Amounts(
            eta=_apart(now["step_size"]),
            eps=_apart(pace.eps),
            correction=_apart(pace.correction),
            lag_weight=_apart(pace.lag_weight),
            weight=_apart(now["weight"]),
            ahead=_apart(now["ahead"]),
            weight_before=_apart(before["weight"]),
            ahead_before=_apart(before["ahead"]),
            decay=[1 - group["betas"][1] for group in groups],
            weight_decay=self._decays(_apart(before["scale"])),
            counts=None,
            fine=flags,
        )

    def _decays(self, scales: list[Any]) -> list[Any] | None:
        """λ over the scale of each live tensor."""
        decays = [self._groups[i]["weight_decay"] for i in self._live]
        if not any(decays):
            return None
        return [decay / scale for decay, scale in zip(decays, scales, strict=True)]

    def _options(self) -> Tensor:
        """lr, whether there is learning, β and β₂, in a row each, on a device."""
        rates = [group["lr"] for group in self._groups]
        rest = [[float(group["learning"]), *group["betas"]] for group in self._groups]
        if any(isinstance(rate, Tensor) for rate in rates):
            like = self._table
            on_device = [torch.as_tensor(r, dtype=like.dtype, device=like.device) for r in rates]
            of_rates = torch.stack([rate.reshape(()) for rate in on_device])
            return torch.cat([of_rates[None], _sent(rest, self._dtype, self.device).T])
        rows = [[rate, *own] for rate, own in zip(rates, rest, strict=True)]
        if self._options_of is None or self._options_of[0] != rows:
            self._options_of = rows, _sent(rows, self._dtype, self.device).T.contiguous()
        return self._options_of[1]

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

    def _show_sizes(self) -> None:
        """Put the mean step size of each block into its group, where the tensors are."""
        row = _ROWS.index("step_size")
        for block, own in self._of_block.items():
            if self._is_late:
                self._block_groups[block]["step_size"] = self._table[row, own].mean()
            else:
                sizes = self._host[row]
                self._block_groups[block]["step_size"] = sum([sizes[i] for i in own]) / len(own)


def _apart(vector: Tensor) -> list[Tensor]:
    """The entries of a vector, which stay as they are when the vector changes."""
    return list(vector.clone().unbind())


def _sent(values: list[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of the host in a tensor on a device, without waiting for what the device does."""
    return torch.tensor(values, dtype=dtype, device="cpu").to(device, non_blocking=True)


def _without_faults(gradients: list[Tensor], fine: Tensor) -> list[Tensor]:
    """The gradients, or zeros if something is not finite, without a look at the device."""
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    flat.masked_fill_(~fine, 0)
    parts = flat.split([gradient.numel() for gradient in gradients])
    return [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)]
