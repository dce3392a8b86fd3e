"""The variant of SAMT that needs no tuning: step sizes judged by where the running average goes.

The literal method asks of each step how much it lowers the loss of samples that it has just seen,
which rewards steps that are too large, or of the next ones, which rewards steps that are too
small. Here the question is whether the average of the recent weights should have gone further in
the direction in which it went. The average is where annealed weights end: it shows the progress
that a step makes and not the noise that it adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from samt.auto.finite import FiniteNumbers, is_read_late
from samt.auto.step_sizes import StepSizes, initial_state
from samt.block_optimizer import BlockOptimizer, Group, Passes, never_compiled
from samt.errors import NonFiniteLossError
from samt.history import summary
from samt.options import AUTO_SAMT_OPTIONS, only
from samt.tensors.precision import own_precision
from samt.tensors.refusals import refuse_sparse
from samt.tensors.shards import Shards, local, local_state

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_WARMUP_SHARE, _MOST_WARMUP, _WARMUP_STEPS = 0.02, 100, 20
_QUIET_SHARE, _QUIET_STEPS = 0.25, 500
_DECAY_STEPS = 600
# The averages see every fifth and every twentieth step, so that they cost little; in steps they are
# 20 and 100 long.
_STRIDE, _SLOW_STRIDE = 5, 20
_FAST, _SLOW = 1 - 0.95**_STRIDE, 1 - 0.99**_SLOW_STRIDE


class AutoSAMT(BlockOptimizer):
    """The optimizer that needs no tuning: a normalised direction, and steps learned on the average.

    A block's direction d is that of Adam. Each of its tensors has a step size, made by its eta
    model from the five statistics of d,

        (α, η̃) = proj(φ([mean, variance, max, min, norm / √n](d)))
        η = s · (α η⁰ + (1 − α) η̃),   s = 1/√(L · fan-in)
        w ← w − a · η · d

    with a the schedule and L the number of matrices: η̃ = 1 would move the output by as much as
    it is in every step, were the layers independent. φ starts with α = 0.01 and η̃ = 0.12, so that
    η⁰ is no more than a hint.

    Every `meta_every`-th gradient h is taken at w̄, an exponential average of the weights: the
    parameters hold w̄ after the step before, and w again after it. With ŵ a slower average,
    ⟨h, w̄ − ŵ⟩ says whether the average should have gone further. It is the derivative of the
    loss at the average with respect to log η, up to a factor, and φ takes a plain gradient step
    on it, scaled by the norms of h and w̄ − ŵ over the block, wherever most of the last slopes
    were negative: a step that is too small stays so, one that is too large is annealed. There is
    no extra pass: `loss.backward(); optimizer.step()` is all, in any training loop.

    Args:
        params: blocks, best made by `samt.blocks(model)`.
        lr: initial step size η⁰. An LR scheduler that changes it scales the whole step; the
            decay goes no further from then on.
        total_steps: number of steps of the training; a then falls in a straight line to zero.
            Without it a = 1 / (1 + k / 600) after k steps, which needs to know no end.
        betas: of the averages of the gradient and of its square.
        eps: added to the root of the latter.
        weight_decay: decoupled: w ← (1 − a η weight_decay) w before each step.
        meta_every: steps from one gradient at the average to the next.
        meta_lr: step size of φ's own gradient descent; annealed with a.
        eta_hidden: width of φ's two hidden layers.
        projection: proj, `tanh`, that is (tanh x + 1)/2, or `sigmoid`.
        process_group: of processes that hold the same model and see different samples: gradients
            and a closure's loss are averaged over it, and they start with the weights of its
            first process. A `DistributedDataParallel` or `fully_shard` model needs none: it has
            averaged already.
        seed: of the eta models' initial weights.

    Raises:
        SAMTError: an option is wrong, or a gradient is sparse.

    Examples:
        >>> import samt, torch
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = samt.AutoSAMT(samt.blocks(model), total_steps=100)
        >>> for _ in range(100):
        ...     optimizer.zero_grad()
        ...     loss = model(torch.ones(4, 3)).square().mean()
        ...     loss.backward()
        ...     _ = optimizer.step()
        >>> bool(loss < 1e-3)
        True
    """

    options = AUTO_SAMT_OPTIONS
    of_all_blocks = ("total_steps", "meta_every", "eta_hidden", "projection")
    mark = "meta_every"
    # `initial_step_size` is the lr of the block's beginning, not torch's `initial_lr`, which some
    # schedulers write to; `decayed` counts the steps in which no scheduler had changed lr.
    notes = ("calls", "initial_step_size", "decayed")

    @only("params", "process_group", *AUTO_SAMT_OPTIONS)
    def __init__(
        self,
        params: ParamsT | nn.Module,
        lr: float | Tensor = 0.1,
        *,
        total_steps: int | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        meta_every: int = 60,
        meta_lr: float = 0.85,
        eta_hidden: int = 64,
        projection: str = "tanh",
        process_group: ProcessGroup | None = None,
        seed: int = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "total_steps": total_steps,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "meta_every": meta_every,
            "meta_lr": meta_lr,
            "eta_hidden": eta_hidden,
            "projection": projection,
            "seed": seed,
        }
        super().__init__(params, defaults, process_group)

    def _forget(self) -> None:
        super()._forget()
        self._known: list[StepSizes] | None = None
        self._finite = FiniteNumbers()

    def _note_beginning(self, group: Group) -> None:
        group.setdefault("calls", 0)
        group.setdefault("initial_step_size", float(group["lr"]))
        group.setdefault("decayed", group["calls"])

    def _takes_part(self, parameter: Tensor) -> bool:
        return True

    def _complete_state(
        self, state: dict[str, Tensor], group: Group, parameter: Tensor, index: int
    ) -> None:
        if not state:
            state |= initial_state(group, parameter, index)

    def _build(self) -> None:
        self._known = None
        self._step_sizes()

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether GradScaler announces itself, so that it can be refused."""
        return self.process_group is not None

    @property
    def passes(self) -> Passes:
        """Forward and backward passes so far: one of each for every step."""
        calls = self.param_groups[0]["calls"]
        return Passes(calls, calls)

    @property
    def _is_at_average(self) -> bool:
        """Whether the parameters hold the average, for the gradient that comes next."""
        first = self.param_groups[0]
        calls, total = first["calls"], first["total_steps"]
        if calls == 0 or calls % first["meta_every"]:
            return False
        # At first the average only lags behind; after the last step the weights are what is wanted.
        quiet = _QUIET_STEPS if total is None else min(_QUIET_STEPS, _QUIET_SHARE * total)
        return bool(quiet <= calls and (total is None or calls < total))

    def _anneal(self, group: dict[str, Any]) -> float | Tensor:
        """a: warm-up, the way to zero or the decay, and what a scheduler made of `lr`."""
        done, total = group["calls"], group["total_steps"]
        warmup = _WARMUP_STEPS if total is None else min(_MOST_WARMUP, _WARMUP_SHARE * total)
        factor = min(1.0, (done + 1) / max(1.0, warmup))
        if total is None:
            factor /= 1 + group["decayed"] / _DECAY_STEPS
        else:
            factor *= max(0.0, 1 - done / total)
        return factor * group["lr"] / group["initial_step_size"]

    @never_compiled
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every block, from the gradients that are there or that a closure makes.

        Args:
            closure: evaluates the loss; it may call `zero_grad` and `backward`. Gradients that
                are there before, such as those of earlier micro-batches, count; afterwards
                there are none.

        Returns:
            The closure's loss, or None.

        Raises:
            NonFiniteLossError: the closure's loss, a gradient or an eta model is NaN or infinite;
                nothing has changed. On an accelerator, for which nothing waits here, such a step
                moves nothing, and a later one raises the error.
            UnsupportedGradientError: a gradient is sparse.
            GradScalerUnsupportedError: a GradScaler calls it, and there is a process group.
        """
        self._start_step(
            " and a process_group, over which the ranks would have to agree when to skip: wrap "
            "the model in DistributedDataParallel and leave process_group out"
        )
        parameters = [p for group in self.param_groups for p in group["params"]]
        several = self._ranks.are_several
        together = several or any(sizes.are_sharded for sizes in self._step_sizes())
        self._finite.start_step(self.param_groups[0]["calls"], together)
        loss = None if closure is None else self._evaluate(closure, parameters)
        for parameter in parameters:
            refuse_sparse(parameter.grad)
        if several:
            loss = self._average_over_ranks(loss, parameters)
        try:
            with own_precision(sizes.device for sizes in self._step_sizes()):
                self._update(parameters, loss)
        except NonFiniteLossError:
            if closure is not None:
                self.zero_grad()
            raise
        if closure is not None:
            # Before the closure it would be wrong: a trainer that accumulates has the gradients
            # of the earlier micro-batches there, and the closure adds those of the last.
            self.zero_grad()
        return loss

    def _update(self, parameters: list[Tensor], loss: Any) -> None:
        """From the gradients that are there to the next weights."""
        at_average = self._is_at_average
        annealing = list(map(self._anneal, self.param_groups))
        fine = self._look_for_what_is_not_finite(loss, annealing, at_average)
        if at_average:
            for parameter in parameters:
                parameter.copy_(self.state[parameter]["weights"])
        for sizes in self._step_sizes():
            sizes.move(annealing, fine)
        for group in self.param_groups:
            self._note(group, loss)
        if at_average:
            self._learn(annealing, fine)
        for group in self.param_groups:
            group["calls"] += 1
            # Of two that anneal, the scheduler is the one that was asked for.
            group["decayed"] += float(group["lr"]) == group["initial_step_size"]
        self._average(parameters)

    def _evaluate(self, closure: Callable[[], Any], parameters: list[Tensor]) -> Any:
        before = [(p.grad, 0 if p.grad is None else p.grad._version) for p in parameters]
        with torch.enable_grad():
            loss = closure()
            if isinstance(loss, Tensor) and loss.requires_grad:
                untouched = all(
                    p.grad is gradient and (gradient is None or gradient._version == version)
                    for p, (gradient, version) in zip(parameters, before, strict=True)
                )
                if untouched or all(p.grad is None for p in parameters):
                    _backward(loss, parameters)
                loss = loss.detach()
        return loss

    def _average_over_ranks(self, loss: Any, parameters: list[Tensor]) -> Any:
        gradients = [parameter.grad for parameter in parameters]
        loss, means = self._ranks.average(loss, gradients, parameters)
        for parameter, gradient, mean in zip(parameters, gradients, means, strict=True):
            if gradient is not None and mean is not None:
                gradient.copy_(mean)
            elif mean is not None:
                parameter.grad = mean.to(parameter.dtype)
        return loss

    def _look_for_what_is_not_finite(
        self, loss: Any, annealing: Sequence[float | Tensor], at_average: bool
    ) -> Tensor | None:
        """Raise, or return whether everything is finite where nobody can know it yet."""
        if isinstance(loss, Tensor | float):
            self._finite.hear(loss, "the loss")
        for group, a in zip(self.param_groups, annealing, strict=True):
            self._finite.hear(a, "the schedule of lr", group["name"])
        for sizes in self._step_sizes():
            if not sizes.are_fine(at_average):
                self._hear(sizes.gradient_squares(), "the squared norm of the gradient")
                if at_average:
                    self._hear(sizes.eta_sums(), "the sum over the eta models")
        return self._finite.end_step()

    def _hear(self, of_blocks: Tensor, what: str) -> None:
        numbers = of_blocks.unbind() if is_read_late(of_blocks.device) else of_blocks.tolist()
        for group, number in zip(self.param_groups, numbers, strict=True):
            self._finite.hear(number, what, group["name"])

    def _learn(self, annealing: Sequence[float | Tensor], fine: Tensor | None) -> None:
        """The next step sizes, by what the gradients at the average say of these."""
        kinds = self._step_sizes()
        if kinds:
            first, *others = [sizes.look() for sizes in kinds]
            whole = sum((other.to(first) for other in others), start=first)
            for sizes in kinds:
                sizes.learn(whole, annealing, fine)
                sizes.renew_step_sizes()

    def _average(self, parameters: list[Tensor]) -> None:
        """Move the averages; and where the next gradient is due at the average, go there."""
        calls, goes = self.param_groups[0]["calls"], self._is_at_average
        if not parameters or not (calls % _STRIDE == 0 or goes):
            return
        states = [local_state(self.state[parameter]) for parameter in parameters]
        own, average = list(map(local, parameters)), [state["average"] for state in states]
        if calls % _STRIDE == 0:
            weights = [w.to(mean.dtype) for w, mean in zip(own, average, strict=True)]
            torch._foreach_lerp_(average, weights, _FAST)
            if calls % _SLOW_STRIDE == 0:
                torch._foreach_lerp_([state["slow_average"] for state in states], weights, _SLOW)
        if goes:
            torch._foreach_copy_([state["weights"] for state in states], own)
            torch._foreach_copy_(own, average)

    def _step_sizes(self) -> list[StepSizes]:
        """All tensors, by place and precision; nearly always they are all alike."""
        if self._known is None:
            found: dict[Any, list[tuple[int, Tensor]]] = {}
            for block, group in enumerate(self.param_groups):
                for parameter in group["params"]:
                    dtype = self.state[parameter]["average"].dtype
                    kind = parameter.device, dtype, Shards(parameter)
                    found.setdefault(kind, []).append((block, parameter))
            self._known = [
                StepSizes(self.param_groups, members, self.state) for members in found.values()
            ]
        return self._known

    def _note(self, group: dict[str, Any], loss: Any) -> None:
        if self.history is not None and group["params"]:
            sizes = [self.state[p]["step_size"] for p in group["params"]]
            names = group.get("param_names") or list(map(str, range(len(sizes))))
            every = partial(summary, sizes)
            self.history.record(group["calls"], group["name"], names, loss, every)


def _backward(loss: Tensor, parameters: list[Tensor]) -> None:
    """Unless the closure has done so, and has found none of these parameters in the loss."""
    if any(parameter.requires_grad for parameter in parameters):
        try:
            loss.backward()
        except RuntimeError as error:
            if "backward through the graph a second time" not in str(error):
                raise
