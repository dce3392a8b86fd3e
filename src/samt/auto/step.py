"""The mathematics of AutoSAMT: what is learned, and by how much a step moves.

Everything that somebody may want to change about the method stands here and in
`samt.auto.advance`, and its twin in `samt.reference.auto_samt`. The numbers of tensors (their step
sizes and what these are learned from) are vectors with one entry for each tensor on an accelerator,
which is never waited for, and Python numbers on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch

# What is added to the root of v, in parts of what all gradients are like: a tensor whose gradients
# are smaller than that has rounding errors for gradients, such as a bias before a batch norm.
EPS = 1e-6
BOUND = 9.0  # of the logarithm of a step size
FIRST_LESSON = 3  # before this step the average has gone nowhere
TINY = 1e-30  # instead of a division by zero
TREND, TREND_FROM = 0.98, 50  # the decay of the trend, for one step; the first step that uses it
TURN, TURNING = 0.1, 0.9  # the weight of the newest turn in their average; where the brake begins


@dataclass(frozen=True)
class Recipe:
    """The constants of the method, and one switch for each of its ingredients.

    Nobody has to choose among them. They are here for the ablations, each of which is a subclass
    of `AutoSAMT` with another `recipe`.

    Attributes:
        start: the step size of a tensor at first, in parts of its scale.
        warmup: the number of steps over which the step grows to its full size.
        power: the averaging weight of step k is k to this power.
        memory: the decay of the lag, for one step.
        lesson: how fast step sizes are learned in the end.
        early_lesson: how much faster they are learned at first.
        early: the number of steps in which that falls by a factor of e.
        growth: the largest lesson of a trend.
        brake: the largest lesson of gradients that point back and forth.
        forgets: how fast the peak of the gradients is forgotten at first.
        outlier: the largest size of a gradient, in parts of its tensor's usual size, that is not
            scaled down, once the warm-up is over.
        shrinks: the largest step, in parts of the scale, of which weight decay takes its whole
            part. Learned steps can become as large as the weights where gradients have no noise.
        shares: whether each tensor also learns from the cosine of all tensors together.
        fades: whether steps shrink with the size of the gradients.
        limits: whether an unusually large gradient is scaled down, and its step as well.
        waits: whether the learning waits while the average moves by what older, larger steps did.
        averages: whether x is an average of z; otherwise x, y and z are the same.
        is_relative: whether steps are relative to the size of the first weights.
    """

    start: float = 0.003
    warmup: int = 20
    power: float = 2.0
    memory: float = 0.98
    lesson: float = 0.02
    early_lesson: float = 0.3
    early: float = 150.0
    growth: float = 0.02
    brake: float = 0.03
    forgets: float = 0.1
    outlier: float = 10.0
    shrinks: float = 0.02
    shares: bool = True
    fades: bool = True
    limits: bool = True
    waits: bool = True
    averages: bool = True
    is_relative: bool = True


# The numbers of a tensor that its state keeps; see `samt.auto.state.complete_state`.
NUMBERS = (
    *("log_step", "weight_sum", "weight", "ahead", "lag_sum", "trend", "trend_square"),
    *("level", "peak", "step_size", "dot", "turn"),
)


class OnHost:
    """The arithmetic of one tensor's numbers, which are Python numbers."""

    exp: Callable[[Any], Any] = staticmethod(math.exp)
    sqrt: Callable[[Any], Any] = staticmethod(math.sqrt)

    @staticmethod
    def clamp(number: Any, low: float, high: float = math.inf) -> Any:
        """The number, or the bound that it exceeds."""
        return max(low, min(high, number))

    @staticmethod
    def maximum(one: Any, other: Any) -> Any:
        """The larger of two numbers."""
        return max(one, other)

    @staticmethod
    def cosine(dot: Any, square: Any, lag: Any) -> Any:
        """⟨g, s⟩ / (‖g‖ ‖s‖), and 0 where one of them is zero."""
        size = math.sqrt(square) * math.sqrt(lag)
        return max(-1.0, min(1.0, dot / size)) if size > 0 else 0.0


class OnDevice:
    """The arithmetic of the numbers of many tensors, which are vectors on an accelerator."""

    exp: Callable[[Any], Any] = staticmethod(torch.exp)
    sqrt: Callable[[Any], Any] = staticmethod(torch.sqrt)
    clamp: Callable[..., Any] = staticmethod(torch.clamp)
    maximum: Callable[[Any, Any], Any] = staticmethod(torch.maximum)

    @staticmethod
    def cosine(dot: Any, square: Any, lag: Any) -> Any:
        """⟨g, s⟩ / (‖g‖ ‖s‖), and 0 where one of them is zero."""
        size = square.sqrt() * lag.sqrt()
        return torch.where(size > 0, dot / size, 0).nan_to_num(0.0).clamp(-1, 1)


Arithmetic: TypeAlias = type[OnHost] | type[OnDevice]


class Clock(NamedTuple):
    """What depends on the number of a tensor's step alone, and on β and β₂.

    Attributes:
        k: the number of the step, from 1.
        at_first: 1 at first, and less by a factor of e after `Recipe.early` steps.
        has_way: 1 where the average has gone somewhere, otherwise 0.
        warm: the part of its full size that a step has.
        correction: 1 − β₂^k.
        correction_before: the same of the step before.
        decay: 1 − β₂.
        lag_weight: the weight of the newest way in the lag.
        numbers: the numbers of the state that the count alone decides, by key.
    """

    k: Any
    at_first: Any
    has_way: Any
    warm: Any
    correction: Any
    correction_before: Any
    decay: Any
    lag_weight: Any
    numbers: dict[str, Any]


def tick(
    k: Any, before: Mapping[str, Any], beta: Any, beta2: Any, recipe: Recipe, of: Arithmetic
) -> Clock:
    """The averaging weights of the next step, and what else tensors at the same step share.

    Args:
        k: the number of the step, from 1.
        before: the numbers that the state keeps.
        beta: β.
        beta2: β₂.
        recipe: the constants.
        of: the arithmetic of one tensor's numbers, or of those of many in vectors.
    """
    warm = of.clamp(k / recipe.warmup, 0.0, 1.0)
    part = k**recipe.power * warm**2
    now: dict[str, Any] = {"weight_sum": before["weight_sum"] + part}
    now["weight"] = part / now["weight_sum"] if recipe.averages else k / k
    now["ahead"] = (1 - beta) * (1 - now["weight"])
    now["lag_sum"] = recipe.memory * (before["lag_sum"] + now["weight"])
    return Clock(
        k=k,
        at_first=of.exp(k / -recipe.early),
        has_way=(k >= FIRST_LESSON) * 1.0,
        warm=warm,
        correction=1 - beta2**k,
        correction_before=1 - beta2 ** (k - 1),
        decay=1 - beta2,
        lag_weight=recipe.memory * now["weight"] / now["lag_sum"],
        numbers=now,
    )


class Looked(NamedTuple):
    """What a step finds out about a tensor, and the options of its group.

    Attributes:
        cosine: cos(g, s).
        shared: the cosine of all tensors together.
        dot: ⟨g, s⟩.
        turn: the cosine of the ⟨g, s⟩ of all tensors with those that they had last.
        blame: the tensor's part in what the step does to the loss, from 0 to 1.
        square: ‖g‖² over the number of elements.
        lag: ‖s‖² over the number of elements.
        scale: the scale of the tensor, over √L for L matrices.
        lr: the factor on the learned step.
        learns: how much of its usual lesson a tensor learns, from 0 to 1.
    """

    cosine: Any
    shared: Any
    dot: Any
    turn: Any
    blame: Any
    square: Any
    lag: Any
    scale: Any
    lr: Any
    learns: Any


def learn(
    clock: Clock, before: Mapping[str, Any], looked: Looked, recipe: Recipe, of: Arithmetic
) -> dict[str, Any]:
    """The numbers of a tensor in its next step, those of its clock apart.

    Two of them are not kept in the state: "part", the part of the gradient that is left where it
    is unusually large, and "decay", λ′ / λ, the part of the weights that is added to d.

    Args:
        clock: what `tick` found.
        before: the numbers that the state keeps.
        looked: what the step found out about gradient and lag.
        recipe: the constants.
        of: the arithmetic of one tensor's numbers, or of those of many in vectors.
    """
    now: dict[str, Any] = {"part": clock.k / clock.k}
    if recipe.limits:
        now["part"] = _part(clock, before, looked, recipe, of)
    root = of.sqrt(looked.square) * now["part"]
    # The root of the mean of v / (1 − β₂^k), and the largest that it was.
    now["level"] = before["level"] + clock.decay * (root**2 - before["level"])
    size = of.sqrt(now["level"] / clock.correction)
    now["peak"] = of.maximum(size, before["peak"] * (1 - recipe.forgets * clock.at_first))
    fade = size / of.clamp(now["peak"], TINY)
    limit = of.clamp(size / of.clamp(root, TINY), 0.0, 1.0) if recipe.limits else 1.0

    now |= _trend(clock, before, looked.cosine)
    now["dot"] = looked.dot
    now["turn"] = before["turn"] + TURN * (looked.turn - before["turn"])
    learns = clock.has_way * looked.learns
    if recipe.waits:
        learns = learns * _freshness(before, looked, root / of.clamp(size, TINY), of)
    lesson = _lesson(clock, now, looked, recipe, of)
    now["log_step"] = of.clamp(before["log_step"] + lesson * learns, -BOUND, BOUND)

    eta = looked.lr * clock.warm * recipe.start * of.exp(now["log_step"]) * limit
    if recipe.is_relative:
        eta = eta * looked.scale
    if recipe.fades:
        eta = eta * fade
    now["step_size"] = eta
    whole = recipe.shrinks * before["scale"] / of.clamp(eta, TINY)
    now["decay"] = fade / before["scale"] * of.clamp(whole, 0.0, 1.0)
    return now


def _part(
    clock: Clock, before: Mapping[str, Any], looked: Looked, recipe: Recipe, of: Arithmetic
) -> Any:
    """What is left of a gradient: at most `Recipe.outlier` times what the tensor's usually are.

    One bad batch would otherwise stay in v and in the peak for thousands of steps.
    """
    usual = of.sqrt(before["level"] / of.clamp(clock.correction_before, TINY))
    part = of.clamp(recipe.outlier * usual / of.clamp(of.sqrt(looked.square), TINY), 0.0, 1.0)
    return part + (1 - part) * ((clock.k <= recipe.warmup) | (usual <= TINY))


def _trend(clock: Clock, before: Mapping[str, Any], cosine: Any) -> dict[str, Any]:
    """The averages of the cosine and of its square."""
    memory = clock.has_way * (1 - TREND)
    return {
        "trend": before["trend"] + memory * (cosine - before["trend"]),
        "trend_square": before["trend_square"] + memory * (cosine**2 - before["trend_square"]),
    }


def _freshness(before: Mapping[str, Any], looked: Looked, size: Any, of: Arithmetic) -> Any:
    """How much of the way that the average takes comes from steps of today's size, at most 1.

    In ordinary trainings the last step of z is longer than that of x, and this is 1. Where steps
    have become a thousand times smaller, x still walks to where z is, and whether that is a good
    way says nothing about today's steps.

    Args:
        before: the numbers that the state keeps.
        looked: what the step found out about gradient and lag.
        size: the root mean square of the gradient, in parts of r.
        of: the arithmetic of the numbers.
    """
    step = before["step_size"] * of.clamp(size, 0.0, 1.0)
    way = before["weight"] * of.sqrt(looked.lag)
    return of.clamp((step + TINY) / (way + TINY), 0.0, 1.0)


def _lesson(
    clock: Clock, now: Mapping[str, Any], looked: Looked, recipe: Recipe, of: Arithmetic
) -> Any:
    """By how much m changes in a step in which everything is learned."""
    rate = recipe.lesson + recipe.early_lesson * clock.at_first
    lesson = -rate * (looked.cosine + looked.shared * recipe.shares)
    count = of.clamp(clock.k - FIRST_LESSON + 1, 1.0)
    spread = of.sqrt(now["trend_square"] * (1 - TREND**count))
    steadiness = -now["trend"] / of.clamp(spread, TINY)
    grows = of.clamp(steadiness - 0.5, 0.0, 0.5) * (clock.k > TREND_FROM)
    return lesson + recipe.growth * grows - _brake(clock, now, looked, recipe, of)


def _brake(
    clock: Clock, now: Mapping[str, Any], looked: Looked, recipe: Recipe, of: Arithmetic
) -> Any:
    """By how much m shrinks where steps are so long that the gradient turns round in each.

    The average of z doesn't move then, and no cosine with its way says that steps are too long.
    Where gradients are noisy, they hardly ever turn in each step. Each tensor gives way as much as
    it moves the loss.
    """
    turns = of.clamp((-now["turn"] - TURNING) / (1 - TURNING), 0.0, 1.0)
    return recipe.brake * looked.blame * turns * (clock.k > TREND_FROM)
