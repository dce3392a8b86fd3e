"""Algorithm 1: which block is due, and OAGD on one block after the other.

A sweep updates each block at the newest weights of all others. `Sweep.run` is the algorithm;
`step_on_gradients` is the step after a plain `loss.backward()`, for which no loss is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from samt.alternating.evaluation import Evaluated, Loss, RepeatedEvaluation, take_back
from samt.alternating.oagd import Gradients
from samt.errors import ClosureRequiredError
from samt.history import summary
from samt.tensors.finite import CheckFinite, FiniteNumbers
from samt.tensors.process_groups import Ranks
from samt.tensors.refusals import refuse_sparse


class Block(Protocol):
    """What a sweep updates: `oagd.SubProblem`, or a layer of Dante."""

    index: int
    group: dict[str, Any]
    names: list[str]
    parameters: list[Tensor]
    etas: list[Tensor]
    kind: str  # of the meta batch: `same`, `subset`, `fresh` or `next`
    looks_ahead: bool  # h is evaluated right after the trial step, on a meta batch
    learns_from_next: bool  # h is the gradient of the block's next update
    inner_steps: int  # the number of updates before the next block
    tensors: list[Tensor]  # everything that an update changes in place
    learned: list[Tensor]  # those that have changed before `descend` can refuse a number

    def descend(self, gradients: Gradients, check_finite: CheckFinite) -> None:
        """Take the trial step."""

    def learn(self, meta_gradients: Gradients, check_finite: CheckFinite) -> None:
        """Let the eta models learn from h."""

    def forget(self) -> None:
        """Drop what a `descend` left for a `learn` that will not come."""


# Called after each update with the block, the loss of its first pass (None: there was none), and
# a function that gives the summary of its step sizes.
Updated = Callable[[Block, Loss | None, Callable[[], Tensor]], None]


def order(groups: Sequence[dict[str, Any]]) -> Sequence[int]:
    """The numbers of the blocks that a step updates, in their order.

    Args:
        groups: all blocks; `order` of the first one counts for all.
    """
    first, count = groups[0], len(groups)
    if first["order"] == "cyclic":
        return [first["calls"] % count]
    if first["order"] == "random":
        generator = torch.Generator("cpu")
        generator.manual_seed(first["seed"] * 1_000_003 + first["calls"])
        return torch.randperm(count, generator=generator, device="cpu").tolist()
    return range(count) if first["order"] == "forward" else range(count - 1, -1, -1)


class Sweep:
    """The updates of one call of `step`.

    Args:
        blocks: the blocks that are due, in their order, each with something to train.
        closure: the loss of the mini-batch S.
        meta: the losses of the meta batches S′, by kind.
        evaluation: evaluates and differentiates the closures; not entered yet.
        groups: all blocks' groups; the first one counts the passes if no block is due.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        closure: Callable[[], Any],
        meta: Mapping[str, Callable[[], Any]],
        evaluation: RepeatedEvaluation,
        groups: Sequence[dict[str, Any]],
    ) -> None:
        self.blocks = blocks
        self.closures: list[Any] = list(dict.fromkeys([closure, *meta.values()]))
        self.evaluation = evaluation
        self._closure = closure
        self._meta = meta
        self._groups = groups
        self._changed: set[int] = set()  # the blocks that changed since the last evaluation

    def run(self, numbers: FiniteNumbers, updated: Updated | None) -> Loss:
        """Solve each block's sub-problem approximately, one after the other.

        Args:
            numbers: looks at every number that has to be finite.
            updated: called after each update, or None.

        Returns:
            The loss of the first pass, before any update.
        """
        self._check_finite = numbers.check
        updates = [block for block in self.blocks for _ in range(block.inner_steps)]
        last = updates[-1] if updates and updates.count(updates[-1]) == 1 else None
        for block in self.blocks:
            # The last update can be refused before it moves a weight, unless it looks ahead.
            whole = block is not last or block.looks_ahead or _on_accelerator(block)
            self.evaluation.undo += _copied(block.tensors if whole else block.learned)
        known: Evaluated | None = None
        losses = []
        try:
            with self.evaluation:
                for block, following in zip(updates, [*updates[1:], None], strict=False):
                    if known is None:
                        again = following or (block.looks_ahead and block.kind == "same")
                        known = self._evaluate(self._closure, [block], block if again else None)
                    losses.append(known.loss)
                    known = self._update(block, known.gradients[block.index], following)
                    if updated is not None:
                        updated(block, losses[-1], partial(summary, block.etas))
                if not updates:  # all blocks are frozen
                    losses.append(self._evaluate(self._closure, [], None).loss)
                if numbers.collected:
                    numbers.look()
        except BaseException:
            numbers.collected.clear()
            for block in self.blocks:
                block.forget()
            raise
        return losses[0]

    def _update(self, block: Block, g: Gradients, following: Block | None) -> Evaluated | None:
        """One step of Algorithm 2 or 3.

        Returns:
            An evaluation of S at the new weights, for the update that follows; None if there
            was none.
        """
        if block.learns_from_next:
            block.learn(g, self._check_finite)
        block.descend(g, self._check_finite)
        self._changed.add(block.index)
        if not block.looks_ahead:
            return None
        if block.kind == "same" and following is not None:
            # The pass that gives this block's h gives the gradient of the following update too.
            both = self._evaluate(self._closure, [block, following], following)
            block.learn(both.gradients[block.index], self._check_finite)
            return both
        ahead = self._evaluate(self._meta[block.kind], [block], following)
        block.learn(ahead.gradients[block.index], self._check_finite)
        return None

    def _evaluate(
        self, closure: Callable[[], Any], blocks: Sequence[Block], next_changed: Block | None
    ) -> Evaluated:
        count = self.evaluation.count
        result = self.evaluation.gradients(
            closure,
            {block.index: block.parameters for block in blocks},
            changed=self._changed,
            next_changed=None if next_changed is None else next_changed.index,
        )
        self._changed = set()
        group = blocks[0].group if blocks else self._groups[0]
        group["passes"] += self.evaluation.count - count
        self._check_finite([(result.loss, "the loss")], group["name"] if blocks else None)
        return result


def step_on_gradients(
    blocks: Sequence[Block],
    ranks: Ranks,
    numbers: FiniteNumbers,
    updated: Updated | None,
    cure: str,
) -> None:
    """`loss.backward(); optimizer.step()`: the gradients are there, and no other is needed.

    Args:
        blocks: the blocks that are due.
        ranks: the processes over which the gradients are averaged.
        numbers: looks at every number that has to be finite.
        updated: called after each update, or None.
        cure: how to build an optimizer that can take such a step; the end of an error message.

    Raises:
        NonFiniteLossError: a number is not finite; nothing has changed.
        ClosureRequiredError: this mode evaluates the loss again.
        UnsupportedGradientError: a gradient is sparse.
    """
    if len(blocks) > 1 or any(block.looks_ahead or block.inner_steps > 1 for block in blocks):
        raise ClosureRequiredError(
            "this mode evaluates the loss more than once in a step: call "
            "optimizer.step(samt.closure(model, loss_fn, inputs, targets)); or, to keep "
            f"loss.backward(); optimizer.step(), {cure}"
        )
    for block in blocks:
        gradients = [parameter.grad for parameter in block.parameters]
        for gradient in gradients:
            refuse_sparse(gradient)
        _, gradients = ranks.average(None, gradients, block.parameters)
        undo = _copied(block.tensors if _on_accelerator(block) else block.learned)
        try:
            if block.learns_from_next:
                block.learn(gradients, numbers.check)
            block.descend(gradients, numbers.check)
            numbers.look()
        except BaseException:
            numbers.collected.clear()
            take_back(undo)
            raise
        block.group["passes"] += 1
        if updated is not None:
            updated(block, None, partial(summary, block.etas))


def _copied(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Tensors, each with a copy to put back."""
    return [(tensor, tensor.detach().clone()) for tensor in tensors]


def _on_accelerator(block: Block) -> bool:
    """Whether numbers are looked at after the step, which then has to be taken back whole."""
    return any(parameter.device.type != "cpu" for parameter in block.parameters)
