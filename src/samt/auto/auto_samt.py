"""AutoSAMT, the optimizer that needs no tuning: step sizes learned from where the average goes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from samt.auto.gradients import average, of_closure
from samt.auto.held import Held
from samt.auto.modes import watch
from samt.auto.rates import larger
from samt.auto.state import TRAINING_WEIGHTS, complete_state
from samt.auto.step import NUMBERS, Recipe
from samt.auto.together import Together, is_read_late
from samt.auto.totals import sum_of
from samt.block_optimizer import BlockOptimizer, Group, Passes, never_compiled
from samt.errors import CheckpointMismatchError, NonFiniteLossError
from samt.history import summary
from samt.options import AUTO_SAMT_OPTIONS, only
from samt.partition import inner_model
from samt.tensors.finite import refuse_unless_finite
from samt.tensors.precision import own_precision
from samt.tensors.refusals import refuse_sparse
from samt.tensors.shards import Shards

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_CURE = "look for bad values in the batch"
LOOK_EVERY = 50  # steps after which an accelerator is asked how many steps it has skipped


class AutoSAMT(BlockOptimizer):
    """The optimizer that needs no tuning: it averages weights and learns a step for each tensor.

    z walks along the normalised gradient, x is an average of z, and the gradient is taken at y
    between the two. With g the gradient of a tensor, in its step k = 1, 2, …,

        g ← g · min(1, 10 r / RMS(g))                          r of the step before, for k > 20
        v ← β₂ v + (1 − β₂) g²,   d = g / (√(v / (1 − β₂^k)) + ε)
        z ← z − η (d + λ′ y),     λ′ = λ · (r / peak) / scale · min(1, 0.02 scale / η)
        x ← (1 − c) x + c z,      c = w_k / (w_1 + … + w_k),  w_k = k² min(1, k/20)²
        y = β x + (1 − β) z

    A step is relative to the size of the tensor, and fades with its gradients:

        η = lr · min(1, k/20) · 0.003 · scale/√L · e^m · (r / peak) · min(1, r / RMS(g))

    The scale is √3 times the root mean square of the tensor's first weights, and L the number of
    matrices, which are the tensors with two dimensions or more: the unit in which weights are
    stored changes nothing. A matrix of zeros has the scale 1/√(number of inputs); a vector has the
    scale of the matrix before it, or 0.1 where there is none. r is the root of the mean of
    v / (1 − β₂^k), and the peak is the largest r so far; before each step the peak shrinks by a
    tenth of e^(−k/150), which is a lot at first and nothing later. The last factor, and the first
    line above, limit what an unusually large gradient does. ε is 10⁻⁶ of the root mean square of
    all gradients, each times the scale of its tensor, over the scale of this one.

    m is what is learned. With x̄ ← 0.98 x̄ + 0.02 x, a slower average, and C the cosine between two
    long vectors, all gradients, each times the scale of its tensor, and all ways x − x̄, each
    divided by it,

        m ← m − (0.02 + 0.3 e^(−k/150)) · (cos(g, x − x̄) + C)          from k = 3 on

    within ±9: a step down the derivative of the loss with respect to log η, along the way that the
    average took. A negative cosine means that the loss still falls in the direction in which x
    moved: the step becomes larger. Two more lessons begin with step 51. Where cosines have been
    negative steadily, that is, where their running mean over about fifty steps is below −1/2 of
    their running root mean square, m grows by 0.02 · (−mean / RMS − 1/2). Where gradients turn
    round in each step, m falls by up to 0.03: T is the running mean over about ten steps of the
    cosine of the numbers ⟨g, x − x̄⟩ of all tensors with those that they had last, and a tensor
    gives way by 0.03 · min(1, max(0, −10 T − 9)) times its part η √n ‖g‖ in the root of the sum of
    squares over all tensors, with n elements each and η of the last step. Less is learned where the
    average moves by what older, larger steps did, and where lr is smaller than it was, or than the
    rate that a scheduler of torch warms up to. `samt.auto.step.Recipe` holds the constants.

    x is what one evaluates and saves. `AutoSAMT(model)` sees to that: in training mode the
    parameters hold y, before the first forward pass in evaluation mode and in
    `model.state_dict()` they come to hold x, and before the next pass in training mode y again.
    If the optimizer was made from parameters or blocks, call `optimizer.eval()` before an
    evaluation. Without that call y is evaluated, which is worse (`auto-samt/y evaluated`).

    The state of a parameter is described in `samt.auto.state.complete_state`. A group has, beside
    its options, `step_size`: the mean step size of its tensors in the last step, a number in host
    memory and a tensor elsewhere; and `largest_lr`, the largest lr that it has had.

    Args:
        params: what to train: a `torch.nn.Module`, which is recommended, since the optimizer can
            then show x by itself; or the blocks that `samt.blocks(model)` returns; or any iterable
            of parameters.
        lr: a float or a one-element tensor, 0 or more (default 1.0): a factor without unit by which
            every learned step is multiplied. A param group may have its own, and schedulers may
            change it.
        betas: β, the weight of x in y, and β₂, the decay of v (default (0.9, 0.99)).
        weight_decay: λ, the decoupled weight decay of matrices (default 0.01): a step of size η
            also subtracts η · λ′ · y from z, which is at most 0.02 λ of y. Biases and other tensors
            with one dimension have none.
        learning: whether m is learned (default True); False is there for comparisons.
        process_group: the processes that hold the same model and see different samples (default
            None): gradients and a closure's loss are averaged over them. At the start every process
            gets the weights of the first one. A `DistributedDataParallel` or `fully_shard` model
            needs none: it has averaged already.

    Raises:
        SAMTError: one of the errors in `samt.errors`; the message names the cure.

    Examples:
        >>> import samt, torch
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = samt.AutoSAMT(model)
        >>> for _ in range(100):
        ...     optimizer.zero_grad()
        ...     loss = model(torch.ones(4, 3)).square().mean()
        ...     loss.backward()
        ...     _ = optimizer.step()
        >>> model = model.eval()
        >>> bool(model(torch.ones(4, 3)).square().mean() < 1e-2)
        True
    """

    options = AUTO_SAMT_OPTIONS
    of_all_blocks = ()
    mark = "learning"
    numbers = frozenset(("step", "scale", *NUMBERS))
    temporary = (TRAINING_WEIGHTS,)
    recipe: ClassVar[Recipe] = Recipe()
    _last_scale: Tensor | None  # of the matrix before the tensor whose state is completed

    @only("params", "process_group", *AUTO_SAMT_OPTIONS)
    def __init__(
        self,
        params: ParamsT | nn.Module,
        lr: float | Tensor = 1.0,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        learning: bool = True,
        process_group: ProcessGroup | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "learning": learning,
        }
        model = params if isinstance(params, nn.Module) else None
        self._begin_holding()
        super().__init__(params, defaults, process_group)
        if model is not None:
            self._watch(model)

    # The life cycle.

    def _begin_holding(self) -> None:
        self._held = Held()
        self._model: nn.Module | None = None
        self._skipped: dict[torch.device, Tensor] = {}
        weakref.finalize(self, self._held.orphan).atexit = False

    def _watch(self, model: nn.Module) -> None:
        self._model = inner_model(model)
        watch(model, [p for group in self.param_groups for p in group["params"]], self._held)

    def __getstate__(self) -> dict[str, Any]:
        own = {"_model": self._model, "_shows_average": self._held.shows_average}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        model, shows_average = state.pop("_model", None), state.pop("_shows_average", None)
        super().__setstate__(state)  # after unpickling, and in the middle of load_state_dict
        if "_held" not in self.__dict__:
            self._begin_holding()
            self._held.members = list(self.state.items())
            self._held.loaded(bool(shows_average))
            if not shows_average:
                self._held.remember(self._held.trained_parameters())
            if model is not None:
                self._watch(model)

    def _forget(self) -> None:
        super()._forget()
        self._kinds: list[Together] = []

    def _note_beginning(self, group: Group) -> None:
        super()._note_beginning(group)
        group.setdefault("step_size", 0.0)
        rate = group.get("lr")  # a group that was appended by hand is refused later
        group.setdefault("largest_lr", rate.detach() * 0 if isinstance(rate, Tensor) else 0.0)

    def _complete_state(
        self, state: dict[str, Tensor], group: Group, parameter: Tensor, index: int
    ) -> None:
        complete_state(state, group, parameter, self._last_scale)
        if parameter.ndim > 1:
            self._last_scale = state["scale"]

    def _sync(self) -> None:
        self._last_scale = None
        super()._sync()

    def _build(self) -> None:
        """All tensors by place and precision; nearly always they are all alike."""
        found: dict[Any, list[tuple[int, Tensor]]] = {}
        for block, members in enumerate(self._members):
            for _, parameter in members:
                dtype = self.state[parameter]["lead"].dtype
                kind = parameter.device, dtype, Shards(parameter)
                found.setdefault(kind, []).append((block, parameter))
        matrices = sum(p.ndim > 1 for members in self._members for _, p in members)
        self._kinds = [
            Together(self.param_groups, members, self.state, matrices, self.recipe)
            for members in found.values()
        ]
        held = [p for members in self._members for _, p in members]
        self._held.members = [(parameter, self.state[parameter]) for parameter in held]

    def state_dict(self) -> dict[str, Any]:
        """As in torch, complete before the first step; loads with `weights_only=True`.

        With a model, parameters show x until the next training pass, and the state dict has y.
        """
        self._refuse_skipped()
        self._sync()
        if self._model is not None:
            self._held.show_average()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but exact, and matched by parameter name where both sides have names.

        Args:
            state_dict: what `state_dict` returned. Tensors are copied in their own precision.

        Raises:
            CheckpointMismatchError: it belongs to other parameters or to another optimizer.
        """
        groups = state_dict.get("param_groups")
        if isinstance(groups, list) and any("meta_every" in group for group in groups):
            raise CheckpointMismatchError(
                "the state dict is of an earlier AutoSAMT, which was another method: load the "
                "model's weights alone, and begin with a new optimizer"
            )
        self._sync()
        own = {p: state.pop(TRAINING_WEIGHTS, None) for p, state in self.state.items()}
        try:
            super().load_state_dict(state_dict)
        except BaseException:
            for parameter, y in own.items():
                if y is not None:
                    self.state[parameter][TRAINING_WEIGHTS] = y
            raise
        shown = any(TRAINING_WEIGHTS in state for state in self.state.values())
        self._held.loaded(shown)

    # Which weights the parameters hold.

    def eval(self) -> None:
        """Let the parameters hold x, the weights to evaluate and to save.

        With a model there is no need to call it: the model's own mode does that.
        """
        self._sync()
        self._held.show_average()

    def train(self) -> None:
        """Let the parameters hold y, the weights to train.

        There is no need to call it: `step` does that, and a forward pass in training mode.
        """
        self._sync()
        self._held.show_training_weights()

    # The step.

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether GradScaler announces itself, so that it can be refused."""
        return self.process_group is not None

    @property
    def passes(self) -> Passes:
        """Forward and backward passes so far: one of each for every step."""
        calls = self.param_groups[0]["calls"]
        return Passes(calls, calls)

    @never_compiled
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every block, from the gradients that are there or that a closure makes.

        Args:
            closure: evaluates the loss; it may call `zero_grad` and `backward`. Gradients that
                were there before the call, such as those of earlier micro-batches, are added to
                the closure's. After the call all gradients are None.

        Returns:
            The closure's loss, or None.

        Raises:
            NonFiniteLossError: the closure's loss or a gradient is NaN or infinite; nothing has
                changed. On an accelerator, for which nothing waits here, such a step moves
                nothing, and every fiftieth step raises the error if steps were skipped.
            UnsupportedGradientError: a gradient is sparse.
            GradScalerUnsupportedError: a GradScaler calls it, and there is a process group.
        """
        self._start_step(
            " and a process_group, over which the ranks would have to agree when to skip: wrap "
            "the model in DistributedDataParallel and leave process_group out"
        )
        if self.param_groups[0]["calls"] % LOOK_EVERY == 0:
            self._refuse_skipped()
        parameters = [p for group in self.param_groups for p in group["params"]]
        self._held.show_training_weights()
        several = self._ranks.are_several  # or an error, before anything is evaluated
        result = loss = None
        if closure is not None:
            result, loss = of_closure(closure, parameters)
            self._held.show_training_weights()  # the closure may have evaluated the model
            self._sync()
        for parameter in parameters:
            refuse_sparse(parameter.grad)
        if several:
            average_loss = average(self._ranks, loss, parameters)
            result, loss = average_loss if result is loss else result, average_loss
        try:
            with own_precision(kind.device for kind in self._kinds):
                self._update(loss)
        except NonFiniteLossError:
            if closure is not None:
                self.zero_grad()
            raise
        if closure is not None:
            # Before the closure it would be wrong: a trainer that accumulates has the gradients
            # of the earlier micro-batches there, and the closure adds those of the last.
            self.zero_grad()
        return result

    def _update(self, loss: Any) -> None:
        """From the gradients that are there to the next weights."""
        for kind in self._kinds:
            kind.look()
        fine = self._look_for_what_is_not_finite(loss)
        for group in self.param_groups:
            group["largest_lr"] = larger(group.get("largest_lr", 0.0), group["lr"])
        totals = sum_of([kind.totals() for kind in self._kinds])
        for kind in self._kinds:
            kind.move(totals, fine)
            self._held.remember(kind.moved)
        for block, group in enumerate(self.param_groups):
            if self.history is not None and self._members[block]:
                names = [name for name, _ in self._members[block]]
                sizes = [self.state[p]["step_size"].clone() for _, p in self._members[block]]
                every = partial(summary, sizes)
                self.history.record(group["calls"], group["name"], names, loss, every)
            group["calls"] += 1

    # Numbers that are not finite.

    def _look_for_what_is_not_finite(self, loss: Any) -> Tensor | None:
        """Raise, or return whether everything is finite where nobody can know it yet."""
        step = self.param_groups[0]["calls"]
        flags: list[Tensor] = []
        numbers = [(loss, "the loss", None)] if isinstance(loss, Tensor | float) else []
        numbers += [(g["lr"], "lr", g["name"]) for g in self.param_groups]
        for number, what, block in numbers:
            if isinstance(number, Tensor) and is_read_late(number.device):
                flags.append(number.detach().isfinite().all())
            elif not isinstance(number, Tensor) or number.numel() == 1:
                refuse_unless_finite(number, what, block, step, _CURE)
        for kind in self._kinds:
            are_fine = kind.are_fine()
            if isinstance(are_fine, Tensor):
                flags.append(are_fine)
            elif not are_fine:
                for block, square in kind.squares_of_blocks().items():
                    name = self.param_groups[block]["name"]
                    what = "the squared norm of the gradient"
                    refuse_unless_finite(square, what, name, step, _CURE)
        if not flags:
            return None
        fine = torch.stack([flag.to(flags[0].device) for flag in flags]).all()
        count = self._skipped.setdefault(fine.device, torch.zeros_like(fine, dtype=torch.int64))
        count += ~fine
        return fine

    def _refuse_skipped(self) -> None:
        """Raise if an accelerator has skipped steps; the only place where it is waited for."""
        skipped = sum(int(count) for count in self._skipped.values())
        self._skipped.clear()
        if skipped:
            raise NonFiniteLossError(
                f"{skipped} of the last steps before step {self.param_groups[0]['calls']} had a "
                "loss or a gradient that was not finite; they were skipped, and weights and state "
                f"were kept from them: {_CURE}"
            )
