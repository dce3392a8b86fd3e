"""The published method: stochastic alternating minimization with trainable step sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from samt import checkpoint, options
from samt.blocks import without_duplicates
from samt.closures import Closure, meta_closures, unwrapped, without_data_parallel
from samt.compiled import CompiledSweeps
from samt.errors import (
    OptionError,
    explain_unknown_options,
)
from samt.evaluation import Loss, RepeatedEvaluation
from samt.finite import FiniteNumbers, Hear
from samt.history import summary
from samt.memory import keep_freed_memory
from samt.parameters import refuse_gradients, refuse_sharded, refuse_unreal
from samt.passes import Passes
from samt.presets import SAMT
from samt.ranks import Ranks
from samt.replay import Replay
from samt.step_size import Granularity
from samt.subproblem import SubProblem, complete_state
from samt.sweep import Sweep, refuse_unused_meta_closure, step_on_gradients

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_CURE = "lower lr, set max_grad_norm, or look for bad values in the batch"
_MOST_REPLAYS = 4  # a new module for every step would otherwise fill the memory


class PaperSAMT(SAMT, preset="paper"):
    """`SAMT` with `preset="paper"`: Algorithm 1, as it was published.

    Each param group is a block. A step solves the sub-problem of one block after the other,
    all other blocks fixed, by `inner_steps` steps of online adaptive gradient descent: with g
    the block's gradient and φ the eta model,

        (α, η̃) = proj(φ([mean, variance, max, min, norm](g)))
        η = α ⊙ η⁰ + (1 − α) ⊙ η̃
        ŵ = w − η ⊙ g
        φ ← φ − meta_lr · ∂(loss of the meta batch at ŵ)/∂φ
        w ← ŵ

    Args:
        params: blocks, best made by `samt.blocks(model)`. Plain `model.parameters()` is one
            block: the simultaneous update. Any option below may stand in a group, but `preset`,
            `order`, `replay`, `compile` and `process_group`, which are one for all blocks.
        lr: initial step size η⁰; what LR schedulers change.
        preset: `paper`.
        step_size: shape of η: `scalar`, `row` (one per output unit), `column` (one per input
            unit), `element`, or a callable from the tensor to a shape that broadcasts to it.
        head: output layer of φ for shapes other than scalar: `offset` (two shared logits and
            one learned offset per entry) or `dense` (a full layer; 64 times the tensor's size).
        projection: proj, `tanh`, that is (tanh x + 1)/2, or `sigmoid`.
        parts: `full` η, its `left` part α ⊙ η⁰, its `right` part (1 − α) ⊙ η̃, or `fixed`: η⁰.
        meta_batch: samples of the meta loss. `same`: the batch. `subset`: every second sample
            of the batch. `fresh`: every second sample of `meta_closure`'s batch. `next`: the
            block's gradient at its next update, at no extra pass.
        meta_lr: step size of φ's own gradient descent.
        eta_hidden: width of φ's two hidden layers.
        inner_steps: OAGD steps on a block before the next block.
        order: of the blocks: `forward`, `reverse`, `random`, or `cyclic` (one block for each
            call of `step`, so that every block has a fresh mini-batch).
        radius: project each block onto the ball of this radius around its initial weights.
        relative: True or a number ρ (True: 10): η = η⁰ · (α + (1 − α) ⊙ ρ η̃), so that a
            scheduler on `lr` anneals the whole step.
        weight_decay: decoupled: w ← (1 − lr · weight_decay) · w before each step.
        max_grad_norm: clip the block's gradient to this norm before the statistics.
        replay: with `samt.closure`, do not compute again what ran ahead of a block since the
            last evaluation. Changes no number; right for models whose modules depend on
            nothing but their inputs, parameters, buffers and torch's random numbers.
        compile: with `samt.closure`, run the whole sweep as one graph of `torch.compile`, for
            each shape of batch; on a GPU as one CUDA graph. The numbers agree to rounding. The
            third step of a shape waits for the compiler. Models that draw random numbers
            (dropout) run without, after one warning.
        process_group: of processes that hold the same model and see different samples: every
            gradient and loss that is evaluated is averaged over it, and they start with the
            weights of its first process. With `samt.closure` on a `DistributedDataParallel`
            model it is needed, and the module inside is evaluated.
        seed: of the eta models' initial weights and of the random order.

    Raises:
        SAMTError: one of the errors in `samt.errors`; the message names the cure.

    Examples:
        >>> import samt, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(),
        ...                             torch.nn.Linear(8, 1))
        >>> optimizer = samt.SAMT(samt.blocks(model), preset="paper", step_size="row")
        >>> inputs, targets = torch.ones(16, 3), torch.zeros(16, 1)
        >>> loss = optimizer.step(samt.closure(model, torch.nn.MSELoss(), inputs, targets))
        >>> optimizer.passes
        Passes(forward=4, backward=4)
    """

    _subproblem: ClassVar[type[SubProblem]] = SubProblem
    _cure_without_closure: ClassVar[str] = (
        "build SAMT with meta_batch='next', inner_steps=1 and order='cyclic' or one block"
    )
    # GradScaler then announces itself instead of handing over scaled gradients in silence.
    _step_supports_amp_scaling = True

    @explain_unknown_options
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        *,
        preset: str | None = None,
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
            "preset": "paper" if preset is None else preset,
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
        options.check(defaults, preset="paper")
        self._ranks = Ranks(process_group)
        self._subproblems: list[SubProblem] | None = None
        self._replays: dict[torch.nn.Module, Replay] = {}
        self._compiled = CompiledSweeps()
        self._finite = FiniteNumbers(_CURE)
        self.history = None
        self._is_built = False
        super().__init__(params, defaults)
        self._is_built = True
        self._bound()
        keep_freed_memory()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._is_built = True
        self._subproblems = None  # they point into the old state
        self._replays = {}
        self._compiled = CompiledSweeps()
        self._finite = FiniteNumbers(_CURE)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a block; its state is made at once.

        Args:
            param_group: `params`, and optionally `name` and any option but those that are one
                for all blocks: `preset`, `order`, `replay`, `compile`, `process_group`.

        Raises:
            SAMTError: an option is wrong, or a parameter is already in a block.
        """
        options.check_spelling(param_group, self.defaults)
        count = len(self.param_groups)
        super().add_param_group(without_duplicates(param_group, self.param_groups))
        try:
            self._complete(self.param_groups[-1])
            if self._is_built:
                self._subproblems = None
                self._bound()
        except Exception:
            for parameter in self.param_groups[-1]["params"]:
                self.state.pop(parameter, None)
            del self.param_groups[count:]
            raise

    def _complete(self, group: dict[str, Any]) -> None:
        """Check a new block and give it what every block has."""
        group.setdefault("name", f"block {len(self.param_groups) - 1}")
        options.check(group, preset="paper")
        for option in ("preset", "order", "replay", "compile"):
            if group[option] != self.param_groups[0][option]:
                raise OptionError(
                    f"{option} is one for all blocks: give it to SAMT, not to a group"
                )
        group.setdefault("calls", self.param_groups[0].get("calls", 0))
        group.setdefault("passes", 0)
        refuse_unreal(group)
        refuse_sharded(group)
        if group["compile"] and self.process_group is not None:
            raise OptionError("a compiled sweep averages nothing: leave out compile=True")
        self._ranks.start_alike(group["params"])

    @property
    def passes(self) -> Passes:
        """Forward and backward passes so far, those of bare `step()` calls included."""
        total = sum(group["passes"] for group in self.param_groups)
        return Passes(total, total)

    def state_dict(self) -> dict[str, Any]:
        """As in torch, complete before the first step; loads with `weights_only=True`."""
        return checkpoint.portable(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but matched by parameter name where both sides have names.

        Args:
            state_dict: as returned by `state_dict`. Tensors are copied, in their own precision.

        Raises:
            CheckpointMismatchError: it belongs to other parameters or to other options.
        """
        self._bound()
        checkpoint.load(self, super().load_state_dict, state_dict)
        self._subproblems = None
        self._bound()

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Any] | None = None,
        meta_closure: Callable[[], Any] | None = None,
    ) -> Loss | None:
        """One sweep over the blocks (one block only with `order="cyclic"`).

        Args:
            closure: evaluates the loss; see `samt.closure`. May be left out after
                `loss.backward()` where no loss is evaluated again: `meta_batch="next"` or
                `parts="fixed"`, with one block or `order="cyclic"`.
            meta_closure: the loss of the meta batch. With `fresh` it is needed; with `subset`
                it replaces the batch. Every second sample of a `samt.closure` is used; any
                other function is evaluated as it is.

        Returns:
            The loss of the first pass, before any update; None without a closure.

        Raises:
            SAMTError: weights and state are then those of before the step. On an accelerator
                a loss, gradient or step that is not finite is taken back at once too, but named
                some steps later: nothing waits for the device.
        """
        self._refuse_scaled_gradients(": train in bfloat16 autocast, without a scaler")
        closure = unwrapped(closure)
        self._finite.start_step(self.param_groups[0]["calls"], self._ranks.are_several)
        bound = self._bound()
        blocks = [bound[index] for index in self._order()]
        blocks = [b for b in blocks if any(p.requires_grad for p in b.parameters)]
        with self._taken_back_if_it_fails():
            if closure is None:
                cure = self._cure_without_closure
                step_on_gradients(blocks, self._report, cure, self._ranks, self._finite)
                loss = None
            else:
                if meta_closure is not None:
                    refuse_unused_meta_closure(bound)
                refuse_gradients(self.param_groups)
                loss = self._step_with_closure(blocks, closure, meta_closure)
        for group in self.param_groups:
            group["calls"] += 1
        return loss

    def _step_with_closure(
        self,
        blocks: list[SubProblem],
        closure: Callable[[], Any],
        meta_closure: Callable[[], Any] | None,
    ) -> Loss:
        closure = without_data_parallel(closure, self.process_group)
        if meta_closure is not None:
            meta_closure = without_data_parallel(meta_closure, self.process_group)
        sweep = partial(self._sweep, blocks, closure, meta_closure)
        if self.param_groups[0]["compile"]:
            closures = closure, meta_closure
            loss = self._compiled.run(blocks, closures, sweep, self._finite.hear, self._record)
            if loss is not None:
                self._finite.end_step()  # the graph takes itself back
                return loss
        return sweep(self._finite.hear, self._report)

    @contextmanager
    def _taken_back_if_it_fails(self) -> Iterator[None]:
        """Passes and history; the weights and all other state are taken back where they change."""
        passes = [group["passes"] for group in self.param_groups]
        recorded = len(self.history.entries) if self.history is not None else 0
        try:
            yield
        except BaseException:
            for group, before in zip(self.param_groups, passes, strict=True):
                group["passes"] = before
            for block in self._subproblems or ():
                block.forget()
            if self.history is not None:
                del self.history.entries[recorded:]
            raise

    def _bound(self) -> list[SubProblem]:
        """The sub-problems, made anew where the state or the blocks are no longer theirs."""
        states = [[self.state[p] for p in group["params"]] for group in self.param_groups]
        if self._subproblems is None or not all(
            subproblem.is_bound_to(own)
            for subproblem, own in zip(self._subproblems, states, strict=True)
        ):
            index = 0
            for group, own in zip(self.param_groups, states, strict=True):
                for parameter, state in zip(group["params"], own, strict=True):
                    complete_state(state, group, parameter, index)
                    index += 1
            numbered = enumerate(zip(self.param_groups, states, strict=True))
            self._subproblems = [self._subproblem(i, group, own) for i, (group, own) in numbered]
            self._replays.clear()
            self._compiled.forget()
        return self._subproblems

    def _order(self) -> Sequence[int]:
        first = self.param_groups[0]
        count = len(self.param_groups)
        if first["order"] == "cyclic":
            return [first["calls"] % count]
        if first["order"] == "random":
            generator = torch.Generator().manual_seed(first["seed"] * 1_000_003 + first["calls"])
            return torch.randperm(count, generator=generator).tolist()
        return range(count) if first["order"] == "forward" else range(count - 1, -1, -1)

    def _sweep(
        self,
        blocks: list[SubProblem],
        closure: Callable[[], Any],
        meta_closure: Callable[[], Any] | None,
        check: Hear,
        report: Callable[[SubProblem, Loss], None],
    ) -> Loss:
        kinds = {block.kind for block in blocks if block.looks_ahead}
        meta = meta_closures(kinds, closure, meta_closure)
        models = [c.model for c in (closure, *meta.values()) if isinstance(c, Closure)]
        replays = {model: self._replay(model) for model in models} if self._replaying() else {}
        parameters = [p for group in self.param_groups for p in group["params"]]
        with RepeatedEvaluation(parameters, models, replays, self._ranks) as evaluation:
            if blocks:
                loss = Sweep(evaluation, closure, meta, check, report).run(blocks)
            else:  # all of them are frozen
                loss = evaluation.gradients(closure, {}, None).loss
                check(loss, "the loss", None)
                self.param_groups[0]["passes"] += evaluation.count
        fine = self._finite.end_step()
        if fine is not None:
            evaluation.take_back_unless(fine)
        if evaluation.draws and self.param_groups[0]["compile"]:
            self._compiled.give_up("the model draws random numbers (dropout)")
        return loss

    def _replaying(self) -> bool:
        # One block alone: nothing that runs ahead of it was evaluated before.
        first = self.param_groups[0]
        return first["replay"] and (len(self.param_groups) > 1 or first["inner_steps"] > 1)

    def _replay(self, model: torch.nn.Module) -> Replay:
        known = self._replays.get(model)
        if known is not None and known.modules != list(model.modules()):
            del self._replays[model]
        if model not in self._replays:
            if len(self._replays) >= _MOST_REPLAYS:
                self._replays.clear()
            block_of = {
                id(parameter): index
                for index, group in enumerate(self.param_groups)
                for parameter in group["params"]
            }
            devices = {p.device for g in self.param_groups for p in g["params"]}
            accelerators = [device for device in devices if device.type != "cpu"]
            self._replays[model] = Replay(model, block_of, accelerators)
        return self._replays[model]

    def _report(self, block: SubProblem, loss: Loss | None) -> None:
        self._record(block, loss, partial(summary, block.step_sizes))

    def _record(
        self, block: SubProblem, loss: Loss | None, step_sizes: Callable[[], Tensor]
    ) -> None:
        if self.history is not None:
            self.history.record(block.group["calls"], block.group, loss, step_sizes)
