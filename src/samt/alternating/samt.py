"""The published method: stochastic alternating minimization with trainable step sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from samt.alternating.compiled import CompiledSweeps
from samt.alternating.evaluation import Evaluations, Loss
from samt.alternating.oagd import SubProblem
from samt.alternating.state import STRUCTURAL, complete_state
from samt.alternating.sweep import Sweep, order, step_on_gradients
from samt.block_optimizer import BlockOptimizer, Group, never_compiled
from samt.closures import closures_of_step
from samt.errors import OptionError
from samt.options import SAMT_OPTIONS, only
from samt.step_size import Granularity
from samt.tensors.finite import FiniteNumbers
from samt.tensors.refusals import refuse_gradients, refuse_sharded

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_CURE = "lower lr, set max_grad_norm, or look for bad values in the batch"
_CURE_WITHOUT_CLOSURE = (
    "build SAMT with meta_batch='next', inner_steps=1 and order='cyclic' or one block"
)


class SAMT(BlockOptimizer):
    """Algorithm 1, as it was published: one block after the other, with learned step sizes.

    Each param group is a block. A step solves the sub-problem of one block after the other,
    all other blocks fixed, by `inner_steps` steps of online adaptive gradient descent: with g
    the block's gradient and φ the eta model,

        (α, η̃) = proj(φ([mean, variance, max, min, norm](g)))
        η = α ⊙ η⁰ + (1 − α) ⊙ η̃                                        (equation 10)
        ŵ = w − η ⊙ g                                                    (equation 9)
        φ ← φ − meta_lr · ∂(loss of the meta batch at ŵ)/∂φ
        w ← ŵ

    The state of a parameter is described in `samt.alternating.state.complete_state`. Parameters
    that do not require gradients have no state and no influence; they get state at the first step
    in which they do.

    Args:
        params: the blocks, best made by `samt.blocks(model)`; or a module, which is split in the
            same way; or parameters, which are one block: the simultaneous update. A group may
            have any option below but `order`, `replay`, `compile` and `process_group`, which are
            one for all blocks.
        lr: the initial step size η⁰ (default 0.1); LR schedulers change it.
        step_size: the shape of η: `scalar` (default), `row` (one step size per output unit),
            `column` (one per input unit), `element`, or a callable from the tensor to a shape
            that broadcasts to the tensor's.
        head: the output layer of φ for shapes other than scalar: `offset` (default; two shared
            logits and one learned offset per entry) or `dense` (a full layer, which is 64 times
            as large as the tensor).
        projection: the function proj, either `tanh` (default), that is (tanh x + 1)/2, or
            `sigmoid`.
        parts: which parts of η are used: `full` (default), `left`: α ⊙ η⁰, `right`: (1 − α) ⊙ η̃,
            or `fixed`: η⁰.
        meta_batch: the samples of the meta loss. `subset` (default): every second sample of the
            batch, or the whole batch where half of it is too small for a layer such as batch
            norm. `same`: the batch. `fresh`: every second sample of `meta_closure`'s batch.
            `next`: the block's gradient at its next update, at no extra pass.
        meta_lr: the step size of φ's own gradient descent (default 0.01).
        eta_hidden: the width of φ's two hidden layers (default 64).
        inner_steps: the number of OAGD steps on a block before the next block (default 1).
        order: the order of the blocks: `forward` (default), `reverse`, `random`, or `cyclic` (one
            block for each call of `step`, so that every block has a fresh mini-batch).
        radius: project each block onto the ball of this radius around its initial weights
            (default None: no projection).
        relative: True or a number ρ (True means 10): η = η⁰ · (α + (1 − α) ⊙ ρ η̃), so that a
            scheduler on `lr` anneals the whole step (default False).
        weight_decay: decoupled weight decay: w ← (1 − lr · weight_decay) · w before each step
            (default 0).
        max_grad_norm: clip the block's gradient to this norm before the statistics are taken
            (default None: no clipping).
        replay: with `samt.closure`, do not compute again what ran ahead of a block since the
            last evaluation (default True). This changes no number; it is right for models whose
            modules depend on nothing but their inputs, parameters, buffers, attributes and
            torch's random numbers.
        compile: with `samt.closure`, run the whole sweep as one graph of `torch.compile`, for
            each shape of batch; on a GPU as one CUDA graph (default False). The numbers agree to
            rounding. The third step of a shape waits for the compiler. Models that draw random
            numbers (dropout) or keep attributes run without, after one warning.
        process_group: the processes that hold the same model and see different samples (default
            None). Every gradient and loss is averaged over them, and they start with the weights
            of the first process. With `samt.closure` on a `DistributedDataParallel` model a
            process group is needed, and the module inside is evaluated.
        seed: the seed of the eta models' initial weights and of the random order (default 0).

    Raises:
        SAMTError: one of the errors in `samt.errors`; the message names the cure.

    Examples:
        >>> import samt, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(),
        ...                             torch.nn.Linear(8, 1))
        >>> optimizer = samt.SAMT(samt.blocks(model), step_size="row")
        >>> inputs, targets = torch.ones(16, 3), torch.zeros(16, 1)
        >>> loss = optimizer.step(samt.closure(model, torch.nn.MSELoss(), inputs, targets))
        >>> optimizer.passes
        Passes(forward=4, backward=4)
    """

    options = SAMT_OPTIONS
    of_all_blocks = ("order", "replay", "compile")
    structural = STRUCTURAL
    mark = "inner_steps"
    notes = ("calls", "passes")
    # GradScaler then announces itself instead of handing over scaled gradients in silence.
    _step_supports_amp_scaling = True

    @only("params", "process_group", *SAMT_OPTIONS)
    def __init__(
        self,
        params: ParamsT | nn.Module,
        lr: float | Tensor = 0.1,
        *,
        step_size: Granularity = "scalar",
        head: str = "offset",
        projection: str = "tanh",
        parts: str = "full",
        meta_batch: str = "subset",
        meta_lr: float = 1e-2,
        eta_hidden: int = 64,
        inner_steps: int = 1,
        order: str = "forward",
        radius: float | None = None,
        relative: bool | float = False,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        replay: bool = True,
        compile: bool = False,
        process_group: ProcessGroup | None = None,
        seed: int = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "step_size": step_size,
            "head": head,
            "projection": projection,
            "parts": parts,
            "meta_batch": meta_batch,
            "meta_lr": meta_lr,
            "eta_hidden": eta_hidden,
            "inner_steps": inner_steps,
            "order": order,
            "radius": radius,
            "relative": relative,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
            "replay": replay,
            "compile": compile,
            "seed": seed,
        }
        super().__init__(params, defaults, process_group)

    def _forget(self) -> None:
        super()._forget()
        self._compiled = CompiledSweeps()
        self._numbers = FiniteNumbers(_CURE)

    def _complete_group(self, group: Group) -> None:
        refuse_sharded(group)
        if group["compile"] and self.process_group is not None:
            raise OptionError("a compiled sweep averages nothing: leave out compile=True")

    def _complete_state(
        self, state: dict[str, Tensor], group: Group, parameter: Tensor, index: int
    ) -> None:
        complete_state(state, group, parameter, index)

    def _build(self) -> None:
        self._blocks: list[SubProblem | None] = [
            SubProblem(i, group, members, [self.state.get(p, {}) for _, p in members])
            if members
            else None
            for i, (group, members) in enumerate(zip(self.param_groups, self._members, strict=True))
        ]
        earlier = self.__dict__.get("_evaluations")
        self._evaluations = Evaluations(self.param_groups, earlier)
        self._compiled.forget()

    @never_compiled
    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Any] | None = None,
        meta_closure: Callable[[], Any] | None = None,
    ) -> Loss | None:
        """One sweep over the blocks (one block only with `order="cyclic"`).

        Args:
            closure: evaluates the loss; see `samt.closure`. It may be left out after
                `loss.backward()` where no loss is evaluated again: `meta_batch="next"` or
                `parts="fixed"`, with one block or `order="cyclic"`.
            meta_closure: the loss of the meta batch. With `fresh` it is needed; with `subset`
                it replaces the batch. Every second sample of a `samt.closure` is used; any
                other function is evaluated as it is.

        Returns:
            The loss of the first pass, before any update; None without a closure.

        Raises:
            SAMTError: weights and state are then those of before the step.
        """
        self._start_step(": train in bfloat16 autocast, without a scaler")
        groups, first = self.param_groups, self.param_groups[0]
        numbers, updated = self._numbers, self._updated if self.history is not None else None
        numbers.step = first["calls"]
        due = [block for block in map(self._blocks.__getitem__, order(groups)) if block is not None]
        with self._notes_kept_if_it_fails():
            if closure is None:
                due = [
                    b
                    for b in due
                    if any(p.requires_grad or p.grad is not None for p in b.parameters)
                ]
                step_on_gradients(due, self._ranks, numbers, updated, _CURE_WITHOUT_CLOSURE)
                loss = None
            else:
                if any(p.grad is not None for group in groups for p in group["params"]):
                    refuse_gradients()
                due = [block for block in due if any(p.requires_grad for p in block.parameters)]
                sweep = self._sweep(due, closure, meta_closure)
                if first["compile"]:
                    loss = self._compiled.run(sweep, numbers, updated)
                else:
                    loss = sweep.run(numbers, updated)
        for group in groups:
            group["calls"] += 1
        return loss

    def _sweep(
        self,
        due: list[SubProblem],
        closure: Callable[[], Any],
        meta_closure: Callable[[], Any] | None,
    ) -> Sweep:
        """The sweep of a step, with everything that it evaluates."""
        kinds = {block.kind for block in self._blocks if block is not None and block.looks_ahead}
        if meta_closure is not None and not {"subset", "fresh"} & kinds:
            raise OptionError(
                "meta_closure is used with meta_batch='subset' or 'fresh' alone: leave it out"
            )
        kinds = {block.kind for block in due if block.looks_ahead}
        closure, meta = closures_of_step(closure, meta_closure, kinds, self._ranks.group)
        first = self.param_groups[0]
        # With one block alone, nothing that runs ahead of it was evaluated before.
        replays = first["replay"] and (len(self.param_groups) > 1 or first["inner_steps"] > 1)
        closures = [closure, *meta.values()]
        evaluation = self._evaluations.of_step(closures, self._ranks, replays)
        return Sweep(due, closure, meta, evaluation, self.param_groups)
