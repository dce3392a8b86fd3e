"""The variant of SAMT that needs no tuning: step sizes judged by where the running average goes.

The literal method asks of each step how much it lowers the loss of samples that it has just seen,
which rewards steps that are too large, or of the next ones, which rewards steps that are too
small. Here the question is whether the average of the recent weights should have gone further in
the direction in which it went. The average is where annealed weights end: it shows the progress
that a step makes and not the noise that it adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from samt import checkpoint, options
from samt.blocks import without_duplicates
from samt.errors import (
    NonFiniteLossError,
    OptionError,
    UnsupportedGradientError,
    explain_unknown_options,
)
from samt.eta_model import GAIN, EtaModels, gradient_statistics, initial_eta_model
from samt.history import History, summary
from samt.step_size import combine, combine_backward

_SCALE = 0.1  # of tensors that stand before any matrix in their block, such as norm layers
_WARMUP_SHARE, _WARMUP_STEPS = 0.02, 100
_QUIET_SHARE, _QUIET_STEPS = 0.25, 1000
_ALPHA, _ETA_TILDE = 0.02, 0.07
_FORGIVENESS = 0.25
_FAST, _SLOW = 0.05, 0.01


def scales(parameters: list[Tensor]) -> list[float]:
    """The size that the weights of each tensor have before training: 1/√fan-in.

    A vector belongs to the matrix before it.

    Args:
        parameters: of one block.

    Examples:
        >>> scales([torch.zeros(8, 4), torch.zeros(8), torch.zeros(2, 4, 2, 2)])
        [0.5, 0.5, 0.25]
    """
    found, last = [], _SCALE
    for parameter in parameters:
        if parameter.ndim > 1 and parameter.numel():
            last = math.sqrt(parameter.shape[0] / parameter.numel())
        found.append(last)
    return found


class AutoSAMT(torch.optim.Optimizer):
    """SAMT without numbers to choose: a normalised direction, and steps learned on the average.

    A block's direction d is that of Adam. Each of its tensors has a step size, made by its eta
    model from the five statistics of d,

        (α, η̃) = proj(φ([mean, variance, max, min, norm / √n](d)))
        η = s · (α η⁰ + (1 − α) η̃),   s = 1/√fan-in
        w ← w − a · η · d

    with a the schedule. η̃ = 1 would move a weight by its own size in every step. φ starts with
    α = 0.02 and η̃ = 0.07, so that η⁰ is no more than a hint.

    Every `meta_every`-th gradient h is taken at w̄, an exponential average of the weights: the
    parameters hold w̄ after the step before, and w again after it. With ŵ a slower average,
    ⟨h, w̄ − ŵ⟩ says whether the average should have gone further. It is the derivative of the
    loss at the average with respect to log η, up to a factor, and φ takes a plain gradient step
    on it, scaled by the norms of h and w̄ − ŵ over the block. There is no extra pass:
    `loss.backward(); optimizer.step()` is all, in any training loop.

    Args:
        params: blocks, best made by `samt.blocks(model)`.
        lr: initial step size η⁰. An LR scheduler that changes it scales the whole step.
        total_steps: number of steps of the training; the whole step is then annealed to zero by
            a cosine. Without it the step stays, unless a scheduler anneals it.
        betas: of the averages of the gradient and of its square.
        eps: added to the root of the latter.
        weight_decay: decoupled: w ← (1 − a η weight_decay) w before each step.
        meta_every: steps from one gradient at the average to the next.
        meta_lr: step size of φ's own gradient descent; annealed with a.
        eta_hidden: width of φ's two hidden layers.
        projection: proj, `tanh`, that is (tanh x + 1)/2, or `sigmoid`.
        seed: of the eta models' initial weights.

    Raises:
        SAMTError: an option is wrong, or a gradient is sparse.

    Examples:
        >>> import samt, torch
        >>> from samt.auto import AutoSAMT
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = AutoSAMT(samt.blocks(model), total_steps=100)
        >>> for _ in range(100):
        ...     optimizer.zero_grad()
        ...     loss = model(torch.ones(4, 3)).square().mean()
        ...     loss.backward()
        ...     _ = optimizer.step()
        >>> bool(loss < 1e-3)
        True
    """

    @explain_unknown_options
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        *,
        total_steps: int | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        meta_every: int = 10,
        meta_lr: float = 0.25,
        eta_hidden: int = 64,
        projection: str = "tanh",
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
        _check(defaults)
        self.history: History | None = None
        self._eta: dict[int, EtaModels] = {}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._eta = {}
        self.__dict__.setdefault("history", None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a block; its state is made at once.

        Args:
            param_group: `params`, and optionally `name` and any option but `total_steps` and
                `meta_every`, which are one for all blocks.
        """
        super().add_param_group(without_duplicates(param_group, self.param_groups))
        group, first = self.param_groups[-1], self.param_groups[0]
        try:
            _check(group)
            for name in ("total_steps", "meta_every"):
                if group[name] != first[name]:
                    raise OptionError(f"{name} is one for all blocks: give it to the optimizer")
            group.setdefault("name", f"block {len(self.param_groups) - 1}")
            group.setdefault("initial_lr", float(group["lr"]))
            group.setdefault("calls", first.get("calls", 0))
            index = sum(len(g["params"]) for g in self.param_groups[:-1])
            for offset, parameter in enumerate(group["params"]):
                self.state[parameter] |= _initial_state(group, parameter, index + offset)
        except Exception:
            for parameter in self.param_groups.pop()["params"]:
                self.state.pop(parameter, None)
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but exact, and matched by parameter name where both sides have names."""
        checkpoint.load(self, super().load_state_dict, state_dict, "meta_every")
        self._eta = {}

    @property
    def _is_at_average(self) -> bool:
        """Whether the parameters hold the average, for the gradient that comes next."""
        first = self.param_groups[0]
        calls, total = first["calls"], first["total_steps"]
        # At first the average only lags behind; after the last step the weights are what is wanted.
        quiet = _QUIET_STEPS if total is None else min(_QUIET_STEPS, _QUIET_SHARE * total)
        due = calls > 0 and calls >= quiet and calls % first["meta_every"] == 0
        return bool(due) and (total is None or calls < total)

    def _anneal(self, group: dict[str, Any]) -> float | Tensor:
        """a: warm-up, the cosine, and what a scheduler made of `lr`."""
        done, total = group["calls"], group["total_steps"]
        warmup = _WARMUP_STEPS if total is None else min(_WARMUP_STEPS, _WARMUP_SHARE * total)
        factor = min(1.0, (done + 1) / max(1.0, warmup))
        if total is not None:
            factor *= (1 + math.cos(math.pi * min(1.0, done / total))) / 2
        return factor * group["lr"] / group["initial_lr"]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every block, from the gradients that are there or that a closure makes.

        Args:
            closure: evaluates the loss, as for any optimizer of torch.

        Returns:
            The closure's loss, or None.

        Raises:
            NonFiniteLossError: the closure's loss is NaN or infinite; nothing has changed.
            UnsupportedGradientError: a gradient is sparse.
        """
        loss = None if closure is None else self._evaluate(closure)
        at_average = self._is_at_average
        for index, group in enumerate(self.param_groups):
            trained = [p for p in group["params"] if p.grad is not None]
            for parameter in trained:
                if parameter.grad.is_sparse:
                    raise UnsupportedGradientError("AutoSAMT needs dense gradients")
            if at_average:
                for parameter in group["params"]:
                    parameter.copy_(self.state[parameter]["weights"])
            self._update(index, group, trained, at_average)
            group["calls"] += 1
            self._record(group, loss)
        self._go_to_average()
        return loss

    def _evaluate(self, closure: Callable[[], Any]) -> Any:
        with torch.enable_grad():
            self.zero_grad()
            loss = closure()
            parameters = [p for group in self.param_groups for p in group["params"]]
            if isinstance(loss, Tensor) and loss.requires_grad:
                if all(p.grad is None for p in parameters):
                    loss.backward()
                loss = loss.detach()
        if isinstance(loss, Tensor | float) and not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss was {float(loss)} at step {self.param_groups[0]['calls']}, and the "
                "weights are those of before it: look for bad values in the batch"
            )
        return loss

    def _update(
        self, index: int, group: dict[str, Any], trained: list[Tensor], at_average: bool
    ) -> None:
        a = self._anneal(group)
        moved = at_average or group["calls"] == 0
        if moved:
            for parameter in trained:
                _update_moments(self.state[parameter], parameter, group["betas"])
            if at_average:
                self._learn(index, group, a)
            self._renew_step_sizes(index, group)
        for parameter in trained:
            state = self.state[parameter]
            step = a * state["step_size"]
            if moved or parameter.dtype != state["exp_avg"].dtype:
                if not moved:
                    _update_moments(state, parameter, group["betas"])
                _move(parameter, state, group, step)
            else:
                _update_fused(parameter, state, group, step)
        for name, rate in (("average", _FAST), ("slow_average", _SLOW)):
            for parameter in group["params"]:
                average = self.state[parameter][name]
                average.lerp_(parameter.to(average.dtype), rate)

    def _learn(self, index: int, group: dict[str, Any], a: float | Tensor) -> None:
        """A gradient step of the eta models on the loss at the average."""
        states = [self.state[p] for p in group["params"]]
        h = [torch.zeros_like(p) if p.grad is None else p.grad for p in group["params"]]
        moved = [state["average"] - state["slow_average"] for state in states]
        dtype = moved[0].dtype
        h = [gradient.to(dtype) for gradient in h]
        dots = torch.stack([(x * y).sum() for x, y in zip(h, moved, strict=True)])
        size = _norm(h) * _norm(moved)
        slopes = dots / size.clamp_min(torch.finfo(dtype).tiny)
        # A step that is too large is forgiven by the annealing that follows, one that is too
        # small by nothing.
        slopes = torch.where(slopes > 0, slopes * _FORGIVENESS, slopes)
        eta = self._eta_models(index, group)
        features = torch.stack([state["features"] for state in states])
        trace = eta.forward(features)
        alpha, eta_tilde = trace.projected[0]
        initial = group["initial_lr"]
        combined = combine(alpha, eta_tilde, initial, 1.0)
        # By log η: a step that is ten times too large is as wrong as one ten times too small.
        grads = combine_backward(slopes / combined, alpha, eta_tilde, initial, 1.0)
        eta.descend(trace, [grads], float(a) * group["meta_lr"])

    def _renew_step_sizes(self, index: int, group: dict[str, Any]) -> None:
        states = [self.state[p] for p in group["params"]]
        if not states:
            return
        features = gradient_statistics([_direction(state, group) for state in states])
        counts = [max(p.numel(), 1) for p in group["params"]]
        features[:, 4] /= features.new_tensor(counts).sqrt()
        trace = self._eta_models(index, group).forward(features)
        alpha, eta_tilde = trace.projected[0]
        combined = combine(alpha, eta_tilde, group["initial_lr"], 1.0)
        sizes = zip(states, features, combined, scales(group["params"]), strict=True)
        for state, own, size, scale in sizes:
            state["features"].copy_(own)
            state["step_size"].copy_(size * scale)

    def _eta_models(self, index: int, group: dict[str, Any]) -> EtaModels:
        states = [self.state[p] for p in group["params"]]
        known = self._eta.get(index)
        if known is None:
            known = EtaModels(states, group["eta_hidden"], group["projection"])
            self._eta[index] = known
        return known

    def _go_to_average(self) -> None:
        """Where the next gradient is to be taken at the average, let the parameters hold it."""
        if not self._is_at_average:
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["weights"].copy_(parameter)
                parameter.copy_(state["average"])

    def _record(self, group: dict[str, Any], loss: Any) -> None:
        if self.history is not None and group["params"]:
            sizes = [self.state[p]["step_size"] for p in group["params"]]
            self.history.record(group["calls"] - 1, group, loss, partial(summary, sizes))


def _initial_state(group: dict[str, Any], parameter: Tensor, index: int) -> dict[str, Tensor]:
    if not parameter.is_floating_point():
        raise UnsupportedGradientError(
            f"block {group['name']!r} has a parameter of {parameter.dtype}: AutoSAMT needs real "
            "floating-point parameters"
        )
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    weights = parameter.detach().to(dtype, copy=True)
    like = weights.new_zeros(())
    hidden, gain = group["eta_hidden"], GAIN[group["projection"]]
    eta_model = initial_eta_model(torch.Size(), "offset", hidden, group["seed"], index, like)
    # The logits start at their biases: every tensor with the same α and η̃.
    logits = [math.log(x / (1 - x)) / gain for x in (_ALPHA, _ETA_TILDE)]
    eta_model["eta_model"][-2 * hidden - 2 :] = like.new_tensor([0.0] * (2 * hidden) + logits)
    return {
        "step": like.new_zeros((), dtype=torch.float32),
        "exp_avg": torch.zeros_like(weights),
        "exp_avg_sq": torch.zeros_like(weights),
        "average": weights.clone(),
        "slow_average": weights.clone(),
        "weights": weights,
        "features": like.new_zeros(5),
        "step_size": like.clone(),
        **eta_model,
    }


def _update_moments(
    state: dict[str, Tensor], parameter: Tensor, betas: tuple[float, float]
) -> None:
    assert parameter.grad is not None
    gradient = parameter.grad.to(state["exp_avg"].dtype)
    state["step"].add_(1)
    state["exp_avg"].lerp_(gradient, 1 - betas[0])
    state["exp_avg_sq"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])


def _direction(state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    """d: the average gradient over the root of its average square, both without their bias."""
    done = state["step"].to(state["exp_avg"].dtype).clamp_min(1)  # before the first: zero
    first, second = (1 - beta**done for beta in group["betas"])
    root = (state["exp_avg_sq"] / second).sqrt_().add_(group["eps"])
    return (state["exp_avg"] / first).div_(root)


def _move(parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any], step: Tensor) -> None:
    direction = _direction(state, group)
    weight = parameter.to(direction.dtype)
    if group["weight_decay"]:
        weight.mul_(1 - step * group["weight_decay"])
    weight.addcmul_(direction, step, value=-1)
    if weight is not parameter:
        parameter.copy_(weight)


def _update_fused(
    parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any], step: Tensor
) -> None:
    """`_update_moments` and `_move` in one pass over memory."""
    assert parameter.grad is not None
    state["step"].add_(1)
    torch._fused_adamw_(
        *([parameter], [parameter.grad], [state["exp_avg"]], [state["exp_avg_sq"]], []),
        [state["step"]],
        lr=step,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


def _norm(tensors: list[Tensor]) -> Tensor:
    """Of all of them together."""
    return torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]).norm()


def _check(group: dict[str, Any]) -> None:
    options.check(group)
    if not float(group["lr"]) > 0:
        raise OptionError("lr must be above 0: the whole step is scaled by what becomes of it")
