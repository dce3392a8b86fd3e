"""Dante: deep alternations for training networks.

Sinha, Singh, Shevade et al., 2020. The layers are trained in turn, all others fixed. For a layer
followed by a generalised ReLU (slope a for positive inputs, b for negative ones: ReLU and LeakyReLU
among them) the sub-problem is quasi-convex near its solution, and is solved by stochastic
normalised gradient descent (Hazan, Levy, Shalev-Shwartz 2015):

    W ← W − η g / ‖g‖,  g = ∂(loss)/∂W on a mini-batch

The sub-problem is differentiated through the model itself: any activation with a (sub)gradient,
and any loss, will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from samt.errors import OptionError, explain_unknown_options, suggestion
from samt.finite import Hear
from samt.optimizer import PaperSAMT
from samt.subproblem import Gradients, SubProblem, norm_of_all

ORDERS = ("reverse", "forward")


class _Layer(SubProblem):
    """The sub-problem of one layer, with normalised steps where the group wants them."""

    def descend(self, gradients: Gradients, check: Hear) -> None:
        present = [gradient.to(self.dtype) for gradient in gradients if gradient is not None]
        if present and self.group["normalized"]:
            norm = norm_of_all(present)
            check(norm, "the norm of the gradient", self.group["name"])
            scale = torch.where(norm > 0, 1 / norm, 0)
            gradients = [None if g is None else g.to(self.dtype) * scale for g in gradients]
        super().descend(gradients, check)


class Dante(PaperSAMT):
    """Dante: gradient steps on one layer, then on the next, with a step size that is given.

    The blocks, the closures and the replay are those of SAMT; there is no eta model. What the
    paper leaves open (step size and its schedule, whether all iterations on a layer see one
    mini-batch, bias inside the norm or not) is an option here, or, for the norm: it is that of
    the block, bias included.

    Args:
        params: blocks, best made by `samt.blocks(model)`, one for each layer.
        lr: step size η; normalised steps have this length, so that they come no closer to a
            minimiser than that: let an LR scheduler shrink it.
        inner_iterations: gradient iterations on a layer before the next layer.
        normalized: divide the block's gradient by its norm.
        order: `reverse`: from the output layer to the first, as in the paper; or `forward`.
        fresh_batches: a new mini-batch for each iteration: every call of `step` is one iteration
            on one layer, and the layer changes after `inner_iterations` calls. Without it, a call
            is a whole sweep over the layers, on one mini-batch.
        replay: as in SAMT.

    Raises:
        SAMTError: one of the errors in `samt.errors`; the message names the cure.

    Examples:
        >>> import samt, torch
        >>> from samt.baselines import Dante
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.LeakyReLU(),
        ...                             torch.nn.Linear(8, 1))
        >>> optimizer = Dante(samt.blocks(model), lr=0.01)
        >>> inputs, targets = torch.ones(16, 3), torch.zeros(16, 1)
        >>> loss = optimizer.step(samt.closure(model, torch.nn.MSELoss(), inputs, targets))
        >>> optimizer.passes  # five on each of two layers
        Passes(forward=10, backward=10)
    """

    _subproblem = _Layer
    _cure_without_closure = "build Dante with fresh_batches=True"

    @explain_unknown_options
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        *,
        inner_iterations: int = 5,
        normalized: bool = True,
        order: str = "reverse",
        fresh_batches: bool = False,
        replay: bool = True,
    ) -> None:
        own = {
            "inner_iterations": inner_iterations,
            "normalized": normalized,
            "fresh_batches": fresh_batches,
        }
        entries: list[Any] = list(params)
        if not (entries and isinstance(entries[0], dict)):
            entries = [{"params": entries}]
        groups = [{**own, **group} for group in entries]
        super().__init__(groups, lr, parts="fixed", order=order, replay=replay)
        self.defaults.update(own)

    def _complete(self, group: dict[str, Any]) -> None:
        _check(group)
        fresh = group["fresh_batches"]
        if fresh != self.param_groups[0]["fresh_batches"]:
            raise OptionError(
                "fresh_batches is one for all blocks: give it to Dante, not to a group"
            )
        group["inner_steps"] = 1 if fresh else group["inner_iterations"]
        super()._complete(group)

    def _order(self) -> Sequence[int]:
        order = super()._order()
        if not self.param_groups[0]["fresh_batches"]:
            return order
        turns = [i for i in order for _ in range(self.param_groups[i]["inner_iterations"])]
        return [turns[self.param_groups[0]["calls"] % len(turns)]]


def _check(group: dict[str, Any]) -> None:
    for name in ("normalized", "fresh_batches"):
        if not isinstance(group[name], bool):
            raise OptionError(f"{name} must be True or False, not {group[name]!r}")
    count = group["inner_iterations"]
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise OptionError(f"inner_iterations must be a whole number, 1 or more, not {count!r}")
    if group["order"] not in ORDERS:
        raise OptionError(
            f"unknown order {group['order']!r}: {suggestion(str(group['order']), ORDERS)}"
        )
