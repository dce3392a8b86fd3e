"""Tensors of one device and one precision, which are stepped together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from samt.auto.advance import Amounts, Moved, advance, without_faults
from samt.auto.rates import learns
from samt.auto.state import TRAINING_WEIGHTS
from samt.auto.step import EPS, NUMBERS, TINY, Clock, Looked, OnDevice, OnHost, Recipe, learn, tick
from samt.auto.totals import COUNT, Totals, common, sent, sent_totals
from samt.tensors.shards import Shards, local, local_gradient, local_state

Group = dict[str, Any]
_ROWS = (*NUMBERS, "scale")
_DOT, _SIZE = NUMBERS.index("dot"), NUMBERS.index("step_size")


def is_read_late(device: torch.device) -> bool:
    """Whether to look at a tensor there is to wait for the device."""
    return device.type != "cpu"


class Learned(NamedTuple):
    """What a step has learned: lists on the host, and vectors on a device, of the live tensors.

    Attributes:
        before: the numbers before the step.
        now: the numbers after the step.
        clocks: the clock of each tensor on the host, and one of all on a device.
        eta: η of each tensor, 0 if nothing is to change.
        eps: what is added to the root of v, for each tensor.
    """

    before: dict[str, Any]
    now: dict[str, Any]
    clocks: list[Clock]
    eta: list[Any]
    eps: list[Any]


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
        moved: the tensors that had a gradient in the last step.
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
        self._shards = Shards(self.parameters[0])
        self._groups = [groups[block] for block, _ in members]
        self._blocks = [block for block, _ in members]
        self.device, self._dtype = self._table.device, self._table.dtype
        self._is_late = is_read_late(self.device)
        self._root = math.sqrt(max(matrices, 1))
        counts = [float(max(parameter.numel(), 1)) for parameter in self.parameters]
        self._elements = sent(counts, self._dtype, self.device)
        self._counts = counts
        # What the host knows of numbers that lie on a device, which is waited for here alone.
        self._read_numbers()
        self._options_of: tuple[list[Any], Tensor] | None = None
        self._live: list[int] = []
        self._looked_on_host: list[list[float]] = []
        self._gradients: list[Tensor] = []
        self._of_block: dict[int, list[int]] = {}
        for i, block in enumerate(self._blocks):
            self._of_block.setdefault(block, []).append(i)
        self._block_groups = [groups[block] for block in self._of_block]
        self._means: Tensor | None = None

    def _read_numbers(self) -> None:
        self._host = [] if self._is_late else self._table.tolist()
        self._taken = list(map(int, self._steps.tolist()))
        self._read_at = self._table._version, self._steps._version

    # What a step looks at.

    def look(self) -> None:
        """Take the gradients that are there, and find how long they are and where they point."""
        found = [local_gradient(p) if self._shards else p.grad for p in self.parameters]
        self._live = [i for i, gradient in enumerate(found) if gradient is not None]
        there = [g for g in found if g is not None]
        is_whole = len(there) == len(found) or not self._is_late
        self._where = None if is_whole else sent(self._live, torch.int64, self.device)
        self._gradients = [g if g.dtype == self._dtype else g.to(self._dtype) for g in there]
        lags = [self._states[i]["lag"] for i in self._live]
        if not there:
            self._looked = self._table.new_zeros(3, 0)
            self._looked_on_host = [[], [], []]
            return
        pairs = zip(self._gradients, lags, strict=True)
        if self._is_late:  # few kernels
            dots = [(_flat(g) @ _flat(s)) for g, s in pairs]
            sizes = torch._foreach_norm([*self._gradients, *lags])
            looked = torch.cat([torch.stack(dots), torch.stack(sizes).square()])
        else:
            numbers: list[Tensor] = []
            for g, s in pairs:
                one, other = _flat(g), _flat(s)
                numbers += (torch.dot(one, other), torch.dot(one, one), torch.dot(other, other))
            looked = torch.stack(numbers).view(-1, 3).T
        self._looked = self._shards.sum(looked.reshape(-1)).view(3, -1)
        self._looked_on_host = [] if self._is_late else self._looked.tolist()

    def totals(self) -> Totals:
        """What `samt.auto.totals` adds up over all kinds."""
        if not self._is_late:
            if (self._table._version, self._steps._version) != self._read_at:
                self._read_numbers()  # somebody wrote there
            dots_before, sizes, scales = (self._host[row] for row in (_DOT, _SIZE, -1))
            columns = []
            for i, dot, square, lag in zip(self._live, *self._looked_on_host, strict=True):
                scale, before, count = scales[i] / self._root, dots_before[i], self._counts[i]
                own = (dot, square * scale * scale, lag / scale / scale, count)
                turn = (dot * before, dot * dot, before * before, sizes[i] ** 2 * square * count)
                columns.append(own + turn)
            return list(map(sum, zip(*columns, strict=True))) or [0.0] * COUNT
        table = self._of_live(self._table)
        scale, before, size = table[-1] / self._root, table[_DOT], table[_SIZE]
        dots, squares, lags = self._looked
        counts = self._of_live(self._elements)
        own = (dots, squares * scale**2, lags / scale**2, counts)
        turn = (dots * before, dots**2, before**2, size**2 * squares * counts)
        return torch.stack([*own, *turn]).sum(1)

    def _of_live(self, table: Tensor) -> Tensor:
        """The columns of the live tensors, on a device."""
        return table if self._where is None else table.index_select(-1, self._where)

    def are_fine(self) -> Tensor | bool:
        """Whether all gradients and their squares are finite; a tensor where nobody looks."""
        if self._is_late:
            return self._looked[1].isfinite().all()
        return all(map(math.isfinite, self._looked_on_host[1]))

    def squares_of_blocks(self) -> dict[int, float]:
        """The squared norm of each block's gradient, in the precision of the state."""
        squares: dict[int, Tensor] = {}
        for i, square in zip(self._live, self._looked[1], strict=True):
            block = self._blocks[i]
            squares[block] = square + squares[block] if block in squares else square
        return {block: square.item() for block, square in squares.items()}

    # What a step changes.

    def move(self, totals: Totals, fine: Tensor | None) -> None:
        """A step of every tensor that has a gradient.

        Args:
            totals: the sum of `totals` of all kinds.
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
            self._gradients = without_faults(self._gradients, fine)
        self._absorb_edits()
        if self._is_late:
            learned = self._learn_on_device(sent_totals(totals, self._table), fine)
        else:
            learned = self._learn_on_host(totals)
        states = [self._states[i] for i in live]
        lists = ([state[key] for state in states] for key in ("exp_avg_sq", "lead", "lag"))
        moved = Moved([self._weights(i) for i in live], self._gradients, *lists)
        for own in self._alike():
            part = moved if len(own) == len(live) else moved.some(own)
            advance(part, self._amounts(own, learned, fine))
        if self._is_late:  # with those that were skipped: all skip the same
            for i in live:
                self._taken[i] += 1
        self._write_rounded()
        self._show_sizes()
        self._gradients = []

    def _alike(self) -> list[list[int]]:
        """Indices into the live tensors: those at the same step with the same β and β₂."""
        found: dict[Any, list[int]] = {}
        for n, i in enumerate(self._live):
            found.setdefault((self._taken[i], *self._groups[i]["betas"]), []).append(n)
        return list(found.values())

    def _amounts(self, own: list[int], learned: Learned, fine: Tensor | None) -> Amounts:
        before, now = learned.before, learned.now
        clock = learned.clocks[0 if self._is_late else own[0]]
        first, live = own[0], [self._live[n] for n in own]
        decays = [self._groups[i]["weight_decay"] * (self.parameters[i].ndim > 1) for i in live]
        both = [decay * now["decay"][n] for decay, n in zip(decays, own, strict=True)]
        return Amounts(
            eta=[learned.eta[n] for n in own],
            eps=[learned.eps[n] for n in own],
            parts=[now["part"][n] for n in own],
            weight_decay=both if any(decays) else None,
            correction=clock.correction[first] if self._is_late else clock.correction,
            lag_weight=clock.lag_weight[first] if self._is_late else clock.lag_weight,
            weight=now["weight"][first],
            ahead=now["ahead"][first],
            weight_before=before["weight"][first],
            ahead_before=before["ahead"][first],
            decay=1 - self._groups[live[0]]["betas"][1],
            counts=None if self._is_late else [self._states[i]["step"] for i in live],
            fine=None if fine is None else fine.to(self._dtype),
        )

    def _learn_on_host(self, totals: Totals) -> Learned:
        """The next numbers of each live tensor, one tensor after the other."""
        dots, squares, lags = self._looked_on_host
        of_all = common(totals.tolist() if isinstance(totals, Tensor) else totals, OnHost)
        rows, recipe = self._host, self._recipe
        before = {key: [row[i] for i in self._live] for key, row in zip(_ROWS, rows, strict=True)}
        known: dict[Any, Clock] = {}
        clocks, eps = [], []
        unkept: dict[str, list[float]] = {"part": [], "decay": []}
        for n, i in enumerate(self._live):
            group = self._groups[i]
            self._taken[i] += 1
            own = {key: numbers[n] for key, numbers in before.items()}
            which = (self._taken[i], group["betas"])
            if which not in known:
                beta, beta2 = group["betas"]
                known[which] = tick(self._taken[i], own, beta, beta2, recipe, OnHost)
            scale = own["scale"] / self._root
            count, effect = self._counts[i], own["step_size"] * math.sqrt(squares[n])
            looked = Looked(
                OnHost.cosine(dots[n], squares[n], lags[n]),
                *(of_all.cosine, dots[n], of_all.turn),
                effect * math.sqrt(count) / max(of_all.effect, TINY),
                *(squares[n] / count, lags[n] / count, scale),
                *(float(group["lr"]), float(learns(group))),
            )
            now = learn(known[which], own, looked, recipe, OnHost) | known[which].numbers
            for row, key in zip(rows, NUMBERS, strict=False):
                row[i] = now[key]
            clocks.append(known[which])
            for key, numbers in unkept.items():
                numbers.append(now[key])
            eps.append(max(EPS * of_all.usual / scale, TINY))
        self._steps.copy_(sent(self._taken, self._steps.dtype, self.device))
        self._table.copy_(sent(rows, self._dtype, self.device))
        # As they are in the state, so that who goes on from a checkpoint has the same numbers.
        self._host = rows = self._table.tolist()
        self._read_at = self._table._version, self._steps._version
        after = {key: [row[i] for i in self._live] for key, row in zip(_ROWS, rows, strict=True)}
        return Learned(before, after | unkept, clocks, after["step_size"], eps)

    def _learn_on_device(self, totals: Tensor, fine: Tensor | None) -> Learned:
        """The next numbers of all live tensors at once, on a device at which nobody looks."""
        where, of_live = self._where, self._of_live
        options, steps = of_live(self._options()), of_live(self._steps)
        table = of_live(self._table).clone()  # what it was, when the new numbers are written
        before = dict(zip(_ROWS, table.unbind(), strict=True))
        dots, squares, lags = self._looked if fine is None else self._looked.where(fine, 0)
        totals = totals if fine is None else totals.where(fine, 0)
        scale = before["scale"] / self._root
        of_all = common(totals.unbind(), OnDevice)
        counts = of_live(self._elements)
        lr, learns, beta, beta2 = options.unbind()
        looked = Looked(
            OnDevice.cosine(dots, squares, lags),
            *(of_all.cosine, dots, of_all.turn),
            before["step_size"] * (squares * counts).sqrt() / of_all.effect.clamp_min(TINY),
            *(squares / counts, lags / counts, scale, lr, learns),
        )
        k = (steps + 1).to(self._dtype)
        clock = tick(k, before, beta, beta2, self._recipe, OnDevice)
        now = learn(clock, before, looked, self._recipe, OnDevice) | clock.numbers
        new = torch.stack([now.get(key, before[key]) for key in _ROWS])
        eta = now["step_size"]
        if fine is not None:
            new, eta = torch.where(fine, new, table), eta * fine
        taken = steps + (1 if fine is None else fine)
        if where is None:
            self._table.copy_(new)
            self._steps.copy_(taken)
        else:
            self._table.index_copy_(1, where, new)
            self._steps.index_copy_(0, where, taken)
        eps = (EPS * of_all.usual / scale).clamp_min(TINY)
        return Learned(before, now, [clock], list(eta.unbind()), list(eps.unbind()))

    def _options(self) -> Tensor:
        """lr, how much is learned, β and β₂, in a row each, on a device."""
        rows = [[g["lr"], learns(g), *g["betas"]] for g in self._groups]
        if any(isinstance(option, Tensor) for row in rows for option in row):
            like = self._table
            columns = [
                torch.stack([torch.as_tensor(o).reshape(()).to(like, non_blocking=True) for o in c])
                for c in zip(*rows, strict=True)
            ]
            return torch.stack(columns)
        if self._options_of is None or self._options_of[0] != rows:
            self._options_of = rows, sent(rows, self._dtype, self.device).T.contiguous()
        return self._options_of[1]

    # Weights of low precision, which have a copy in the precision of the state.

    def _weights(self, i: int) -> Tensor:
        """y of a tensor, in the precision of the state."""
        state = self._states[i]
        return (
            state[TRAINING_WEIGHTS]
            if self.parameters[i].dtype != self._dtype
            else local(self.parameters[i].detach())
        )

    def _absorb_edits(self) -> None:
        """What somebody has written into a parameter of low precision is y now."""
        for i in self._live:
            if self.parameters[i].dtype != self._dtype:
                own, exact = local(self.parameters[i]), self._states[i][TRAINING_WEIGHTS]
                is_same = own == exact.to(own.dtype)
                exact.copy_(torch.where(is_same, exact, own.to(exact.dtype)))

    def _write_rounded(self) -> None:
        low = [i for i in self._live if self.parameters[i].dtype != self._dtype]
        if low:
            own = [local(self.parameters[i]) for i in low]
            torch._foreach_copy_(own, [self._weights(i) for i in low])

    # The step sizes, for people.

    def _show_sizes(self) -> None:
        """Put the mean step size of each block into its group, where the tensors are."""
        if self._is_late:
            if self._means is None:
                order = list(self._of_block)
                own = [order.index(block) for block in self._blocks]
                counts = [float(len(members)) for members in self._of_block.values()]
                self._means = torch.zeros(len(counts), dtype=self._dtype, device=self.device)
                self._block_of = sent(own, torch.int64, self.device)
                self._block_sizes = sent(counts, self._dtype, self.device)
            self._means.zero_().index_add_(0, self._block_of, self._table[_SIZE])
            # A copy: somebody may keep what a group says.
            means = (self._means / self._block_sizes).unbind()
            for group, mean in zip(self._block_groups, means, strict=True):
                group["step_size"] = mean
        else:
            sizes = self._host[_SIZE]
            for group, members in zip(self._block_groups, self._of_block.values(), strict=True):
                group["step_size"] = sum([sizes[i] for i in members]) / len(members)


def _flat(tensor: Tensor) -> Tensor:
    return tensor.view(-1) if tensor.is_contiguous() else tensor.reshape(-1)
