"""One sweep of Algorithm 1: OAGD on one block after the other, each at the newest other blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from samt.errors import ClosureRequiredError, OptionError
from samt.evaluation import Evaluated, Loss, RepeatedEvaluation, take_back
from samt.finite import FiniteNumbers, Hear, is_read_late
from samt.parameters import refuse_sparse
from samt.ranks import Ranks
from samt.subproblem import Gradients, SubProblem


class Sweep:
    """The updates of one call of `step`.

    Args:
        evaluation: evaluates the loss; entered.
        closure: the loss of the mini-batch S.
        meta: the losses of the meta batches, by kind.
        check: called with every number that has to be finite; raises if it can see that it is not.
        report: called with the block and the loss of its first pass after each update.
    """

    def __init__(
        self,
        evaluation: RepeatedEvaluation,
        closure: Callable[[], Any],
        meta: Mapping[str, Callable[[], Any]],
        check: Hear,
        report: Callable[[SubProblem, Loss], None],
    ) -> None:
        self._evaluation = evaluation
        self._closure = closure
        self._meta = meta
        self._check = check
        self._report = report

    def run(self, blocks: Sequence[SubProblem]) -> Loss:
        """Solve each block's sub-problem approximately, in the order given.

        Args:
            blocks: one or more, each with something to train.

        Returns:
            The loss of the first pass, before any update.
        """
        updates = [block for block in blocks for _ in range(block.group["inner_steps"])]
        known: Evaluated | None = None
        losses = []
        for block, following in zip(updates, [*updates[1:], None], strict=True):
            if known is None:
                again = following is not None or (block.looks_ahead and block.kind == "same")
                known = self._evaluate(self._closure, [block], block if again else None)
            losses.append(known.loss)
            known = self._update(block, known.gradients[block.index], following)
            self._report(block, losses[-1])
        return losses[0]

    def _update(
        self, block: SubProblem, g: Gradients, following: SubProblem | None
    ) -> Evaluated | None:
        """One step of Algorithm 2 or 3.

        Returns:
            An evaluation of S at the new weights, for the update that follows; None if there
            was none.
        """
        undoable = following is not None or block.looks_ahead or self._evaluation.is_judged_late
        self._evaluation.about_to_change(block.index, block.snapshot(whole=undoable))
        if block.learns_from_next:
            block.learn(g, self._check)
        block.descend(g, self._check)
        if not block.looks_ahead:
            return None
        if block.kind == "same" and following is not None:
            # The pass that gives this block's h gives the gradient of the following update too.
            both = self._evaluate(self._closure, [block, following], following)
            block.learn(both.gradients[block.index], self._check)
            return both
        ahead = self._evaluate(self._meta[block.kind], [block], following)
        block.learn(ahead.gradients[block.index], self._check)
        return None

    def _evaluate(
        self,
        closure: Callable[[], Any],
        blocks: Sequence[SubProblem],
        next_changed: SubProblem | None,
    ) -> Evaluated:
        count = self._evaluation.count
        result = self._evaluation.gradients(
            closure,
            {block.index: block.parameters for block in blocks},
            None if next_changed is None else next_changed.index,
        )
        blocks[0].group["passes"] += self._evaluation.count - count
        self._check(result.loss, "the loss", blocks[0].group["name"])
        return result


def refuse_unused_meta_closure(blocks: Sequence[SubProblem]) -> None:
    """Raise OptionError if no block looks at a meta closure."""
    if not {"subset", "fresh"} & {block.kind for block in blocks if block.looks_ahead}:
        raise OptionError(
            "meta_closure is used with meta_batch='subset' or 'fresh' alone: leave it out"
        )


def step_on_gradients(
    blocks: Sequence[SubProblem],
    report: Callable[[SubProblem, Loss | None], None],
    cure: str,
    ranks: Ranks,
    finite: FiniteNumbers,
) -> None:
    """`loss.backward(); optimizer.step()`: the gradients are there, and no other is needed.

    Args:
        blocks: that the step updates.
        report: called after each update.
        cure: how to build an optimizer that can take such a step.
        ranks: over which the gradients are averaged.
        finite: hears of every number that has to be finite.

    Raises:
        NonFiniteLossError: one is not; nothing has changed.
        ClosureRequiredError: this mode evaluates the loss again.
        UnsupportedGradientError: a gradient is sparse.
    """
    repeats = any(block.looks_ahead or block.group["inner_steps"] > 1 for block in blocks)
    if repeats or len(blocks) > 1:
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
        undo = block.snapshot(whole=any(is_read_late(p.device) for p in block.parameters))
        try:
            if block.learns_from_next:
                block.learn(gradients, finite.hear)
            block.descend(gradients, finite.hear)
        except BaseException:
            take_back(undo)
            raise
        fine = finite.end_step()
        if fine is not None:
            take_back(undo, fine)
        block.group["passes"] += 1
        report(block, None)
