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

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from samt.alternating.evaluation import Evaluations, Loss
from samt.alternating.oagd import Gradients, norm_of_all
from samt.alternating.sweep import Sweep, order, step_on_gradients
from samt.block_optimizer import BlockOptimizer, Group, Member, never_compiled
from samt.closures import closures_of_step
from samt.options import DANTE_OPTIONS, only
from samt.tensors.finite import CheckFinite, FiniteNumbers
from samt.tensors.precision import own_precision, state_dtype
from samt.tensors.refusals import (
    refuse_gradients,
    refuse_several_devices,
    refuse_sharded,
)

_CURE = "lower lr, or look for bad values in the batch"


class Layer:
    """One layer's sub-problem: gradient steps of a given length, and nothing to learn.

    Args:
        index: the number of the block.
        group: the param group, from which options are read at every step.
        members: the names and parameters of the group that take part in training, at least one.

    Attributes:
        etas: the step size, once for each parameter.
    """

    kind = "same"
    looks_ahead = learns_from_next = False

    def __init__(self, index: int, group: Group, members: Sequence[Member]) -> None:
        self.index = index
        self.group = group
        self.names = [name for name, _ in members]
        self.parameters = [parameter for _, parameter in members]
        self.tensors = self.parameters
        self.learned: list[Tensor] = []
        self.etas: list[Tensor] = []
        # With fresh batches there is one update for each call.
        self.inner_steps = 1 if group["fresh_batches"] else int(group["inner_iterations"])
        refuse_several_devices(self.parameters, group["name"])
        dtypes = [state_dtype(parameter) for parameter in self.parameters]
        self.dtype = torch.float64 if torch.float64 in dtypes else torch.float32

    def descend(self, gradients: Gradients, check_finite: CheckFinite) -> None:
        """A step along the gradient, or along the normalised gradient of the whole layer."""
        pairs = [
            (parameter, gradient.to(self.dtype))
            for parameter, gradient in zip(self.parameters, gradients, strict=True)
            if gradient is not None
        ]
        lr, device = self.group["lr"], self.parameters[0].device
        eta = torch.as_tensor(lr, dtype=self.dtype, device=device).reshape(())
        self.etas = [eta for _ in self.parameters]
        if not pairs:
            return
        parameters, g = [p for p, _ in pairs], [gradient for _, gradient in pairs]
        with own_precision([device]):
            norm = norm_of_all(g)
            check_finite([(norm, "the norm of the gradient")], self.group["name"])
            if self.group["normalized"]:
                g = [gradient * torch.where(norm > 0, 1 / norm, 0) for gradient in g]
            length = norm_of_all(g) * eta
            check_finite([(length, "the length of the step")], self.group["name"])
            for parameter, gradient in zip(parameters, g, strict=True):
                if parameter.dtype == self.dtype and not isinstance(lr, Tensor):
                    parameter.add_(gradient, alpha=-lr)
                else:  # in low precision the step is rounded once, at its end
                    parameter.copy_(parameter.to(self.dtype).addcmul_(gradient, eta, value=-1))

    def learn(self, meta_gradients: Gradients, check_finite: CheckFinite) -> None:
        """There is nothing to learn."""

    def forget(self) -> None:
        """There is nothing to forget."""


class Dante(BlockOptimizer):
    """Dante: gradient steps on one layer, then on the next, with a step size that is given.

    The blocks, the closures and the replay are those of SAMT; there is no eta model. What the
    paper leaves open is an option here: the step size and its schedule, and whether all iterations
    on a layer see one mini-batch. The norm is that of the block, bias included.

    Args:
        params: the blocks, best made by `samt.blocks(model)`, one for each layer.
        lr: the step size η (default 0.1). Normalised steps have this length, so that they come no
            closer to a minimiser than that: let an LR scheduler shrink it.
        inner_iterations: the number of gradient iterations on a layer before the next layer
            (default 5).
        normalized: whether the block's gradient is divided by its norm (default True).
        order: the order of the layers: `reverse` (default), from the output layer to the first, as
            in the paper; or `forward`.
        fresh_batches: whether each iteration has a new mini-batch (default False). Then every call
            of `step` is one iteration on one layer, and the layer changes after
            `inner_iterations` calls. Otherwise a call is a whole sweep over the layers, on one
            mini-batch.
        replay: do not compute again what ran ahead of a layer, as in SAMT (default True).

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

    options = DANTE_OPTIONS
    of_all_blocks = ("order", "fresh_batches", "replay")
    structural = ("inner_iterations", "fresh_batches")
    mark = "inner_iterations"
    notes = ("calls", "passes")
    _step_supports_amp_scaling = True

    @only("params", *DANTE_OPTIONS)
    def __init__(
        self,
        params: ParamsT | nn.Module,
        lr: float | Tensor = 0.1,
        *,
        inner_iterations: int = 5,
        normalized: bool = True,
        order: str = "reverse",
        fresh_batches: bool = False,
        replay: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "inner_iterations": inner_iterations,
            "normalized": normalized,
            "order": order,
            "fresh_batches": fresh_batches,
            "replay": replay,
        }
        super().__init__(params, defaults, None)

    def _forget(self) -> None:
        super()._forget()
        self._numbers = FiniteNumbers(_CURE)

    def _complete_group(self, group: Group) -> None:
        refuse_sharded(group)

    def _build(self) -> None:
        self._layers = [
            Layer(index, group, members) if members else None
            for index, (group, members) in enumerate(
                zip(self.param_groups, self._members, strict=True)
            )
        ]
        earlier = self.__dict__.get("_evaluations")
        self._evaluations = Evaluations(self.param_groups, earlier)

    def _order(self) -> Sequence[int]:
        found, first = order(self.param_groups), self.param_groups[0]
        if not first["fresh_batches"]:
            return found
        turns = [i for i in found for _ in range(self.param_groups[i]["inner_iterations"])]
        return [turns[first["calls"] % len(turns)]]

    @never_compiled
    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], Any] | None = None
    ) -> Loss | None:
        """One sweep over the layers; with `fresh_batches` one iteration on one layer.

        Args:
            closure: evaluates the loss; see `samt.closure`. It may be left out after
                `loss.backward()` with `fresh_batches=True`.

        Returns:
            The loss of the first pass, before any update; None without a closure.

        Raises:
            SAMTError: the weights are then those of before the step.
        """
        self._start_step(": train in bfloat16 autocast, without a scaler")
        groups, first = self.param_groups, self.param_groups[0]
        numbers, updated = self._numbers, self._updated if self.history is not None else None
        numbers.step = first["calls"]
        layers = [layer for layer in map(self._layers.__getitem__, self._order()) if layer]
        with self._notes_kept_if_it_fails():
            if closure is None:
                cure = "build Dante with fresh_batches=True"
                step_on_gradients(layers, self._ranks, numbers, updated, cure)
                loss = None
            else:
                if any(p.grad is not None for group in groups for p in group["params"]):
                    refuse_gradients()
                trainable = [x for x in layers if any(p.requires_grad for p in x.parameters)]
                closure, _ = closures_of_step(closure, None, set(), None)
                replays = first["replay"] and (len(groups) > 1 or first["inner_iterations"] > 1)
                evaluation = self._evaluations.of_step([closure], self._ranks, replays)
                sweep = Sweep(trainable, closure, {}, evaluation, groups)
                loss = sweep.run(numbers, updated)
        for group in groups:
            group["calls"] += 1
        return loss
