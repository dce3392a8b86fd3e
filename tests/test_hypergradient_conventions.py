"""Hypergradient descent keeps torch's conventions: state, groups, schedulers, refusals."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import samt
from samt.baselines import SGDHD, AdamHD, SGDNesterovHD
from samt.baselines.hypergradient_base import HypergradientDescent
from samt.errors import OptionError, UnknownOptionError, UnsupportedGradientError

from .support.comparisons import assert_same
from .support.hypergradient import METHODS, RULES, alpha_of, build, train
from .support.saving import through_a_file

KINDS: list[type[HypergradientDescent]] = [SGDHD, SGDNesterovHD, AdamHD]


def saved(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", METHODS)
def test_a_resumed_run_continues_bit_for_bit(kind: str, rule: str, tmp_path: Path) -> None:
    straight = build(kind, 1, rule=rule)
    checkpoints = []
    for step in range(5):
        checkpoints.append(through_a_file(saved(*straight), tmp_path))
        train(straight[0], straight[1], range(step, step + 1))
    for step in (0, 3, 4):
        model, optimizer = build(kind, 2, rule=rule, lr=0.7)
        model.load_state_dict(checkpoints[step]["model"])
        optimizer.load_state_dict(checkpoints[step]["optimizer"])
        assert_same(saved(model, optimizer), checkpoints[step])
        train(model, optimizer, range(step, 5))
        assert_same(saved(model, optimizer), saved(*straight))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
@pytest.mark.parametrize("kind", METHODS)
def test_a_copy_continues_bit_for_bit_and_shares_nothing(
    kind: str, copied: Callable[[Any], Any]
) -> None:
    original = build(kind, 1)
    train(*original, range(2))
    twin: tuple[nn.Module, HypergradientDescent] = copied(original)
    before = saved(*twin)
    train(*original, range(2, 4))
    assert_same(saved(*twin), before)
    train(*twin, range(2, 4))
    assert_same(saved(*twin), saved(*original))


@pytest.mark.parametrize("kind", METHODS)
def test_a_parameter_without_gradient_is_not_moved_and_not_learned_from(kind: str) -> None:
    make, options = METHODS[kind]
    one, other = (nn.Parameter(torch.randn(5, dtype=torch.float64)) for _ in range(2))
    optimizer = make([one, other], **{**options, "hypergrad_lr": 0.01}, weight_decay=0.1)

    def step(*with_gradient: Tensor) -> float:
        before = alpha_of(optimizer)
        for parameter in (one, other):
            used = any(parameter is p for p in with_gradient)
            parameter.grad = torch.full_like(parameter, 0.3) if used else None
        optimizer.step()
        return alpha_of(optimizer) - before

    assert step(one) == 0
    assert optimizer.state[other] == {}
    assert step(one, other) != 0
    kept = other.detach().clone()
    state = copy.deepcopy(optimizer.state[other])
    step(one)
    assert torch.equal(other, kept)
    assert not optimizer.state[other]["previous_update"].any()
    state["previous_update"].zero_()
    assert_same(optimizer.state[other], state)
    # Only `other` now: nothing moved it in the last step, so that α has no part in its loss.
    assert step(other) == 0
    assert not torch.equal(other, kept)
    assert step(other) != 0
    moved = [one.detach().clone(), other.detach().clone()]
    assert step() == 0
    assert torch.equal(moved[0], one)
    assert torch.equal(moved[1], other)


@pytest.mark.parametrize("kind", METHODS)
def test_a_group_added_later_learns_from_its_own_start(kind: str) -> None:
    make, options = METHODS[kind]
    model, _ = build(kind, 0)
    groups = samt.blocks(model)
    optimizer = make(groups[:2], **{**options, "hypergrad_lr": 0.01})
    train(model, optimizer, range(3))
    late = model.get_parameter("4.weight")
    before, alphas = late.detach().clone(), [alpha_of(optimizer, i) for i in range(2)]
    optimizer.add_param_group({**groups[2], "lr": 0.02})
    assert [alpha_of(optimizer, i) for i in range(3)] == [*alphas, 0.02]
    train(model, optimizer, range(3, 4))
    assert alpha_of(optimizer, 2) == 0.02  # there was no update before
    assert not torch.equal(late, before)
    train(model, optimizer, range(4, 5))
    assert alpha_of(optimizer, 2) != 0.02


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["sgd", "sgd, momentum", "nesterov", "adam"])
def test_zero_gradients_leave_alpha_and_weights_as_they_are(kind: str, rule: str) -> None:
    make, options = METHODS[kind]
    weight = nn.Parameter(torch.randn(4))
    before = weight.detach().clone()
    optimizer = make([weight], rule=rule, **options)
    for _ in range(3):
        weight.grad = torch.zeros(4)
        optimizer.step()
    assert torch.equal(weight, before)
    assert alpha_of(optimizer) == pytest.approx(options["lr"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_closure_the_gradients_and_empty_groups_are_as_in_torch(kind: Any) -> None:
    weight = nn.Parameter(torch.randn(4))
    optimizer = kind([{"params": [weight]}, {"params": []}], weight_decay=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    before = weight.detach().clone()
    loss = optimizer.step(closure)
    assert loss == (before**2).sum()
    assert weight.grad is not None
    assert torch.equal(weight.grad, 2 * before)  # weight decay did not write into it
    assert not torch.equal(weight, before)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.step() is None


def test_a_tensor_as_lr_is_shared_with_nobody() -> None:
    lr = torch.tensor(0.1)
    weights = [nn.Parameter(torch.randn(3)) for _ in range(2)]
    optimizer = SGDHD([{"params": [w]} for w in weights], lr=lr, hypergrad_lr=0.1)
    for _ in range(2):
        weights[0].grad, weights[1].grad = torch.ones(3), torch.ones(3) / 2
        optimizer.step()
    assert lr == 0.1
    assert alpha_of(optimizer, 0) == pytest.approx(0.1 + 0.1 * 3)
    assert alpha_of(optimizer, 1) == pytest.approx(0.1 + 0.1 * 3 / 4)


SCHEDULES: dict[str, tuple[Callable[..., Any], bool]] = {
    "exponential": (lambda o: lr_scheduler.ExponentialLR(o, 0.5), True),
    "step": (lambda o: lr_scheduler.StepLR(o, 1, 0.5), True),
    "multiplicative": (lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.5), True),
    "lambda": (lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch), False),
}


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedulers_multiply_what_was_learned_or_replace_it(schedule: str, kind: str) -> None:
    make, multiplies = SCHEDULES[schedule]
    model, optimizer = build(kind, 0)
    scheduler = make(optimizer)
    for epoch in range(1, 4):
        train(model, optimizer, range(2 * epoch, 2 * epoch + 2))
        learned = alpha_of(optimizer)
        scheduler.step()
        start = METHODS[kind][1]["lr"]
        expected = 0.5 * learned if multiplies else start * 0.5**epoch
        assert alpha_of(optimizer) == pytest.approx(expected, rel=1e-6)
        assert not math.isclose(learned, start * 0.5 ** (epoch - 1), rel_tol=1e-4)


def test_a_number_may_be_assigned_to_lr() -> None:
    model, optimizer = build("sgd", 0)
    train(model, optimizer, range(2))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        group["hypergrad_lr"] = 0.0
    before = nn.utils.parameters_to_vector(model.parameters())
    train(model, optimizer, range(2, 3))
    assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), before)


def test_alpha_is_learned_in_float32_for_a_bfloat16_model() -> None:
    weight = nn.Parameter(torch.full((64,), 1.0, dtype=torch.bfloat16))
    optimizer = SGDHD([weight], lr=0.1, hypergrad_lr=1e-6)
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert optimizer.param_groups[0]["lr"].dtype == torch.float32
    assert alpha_of(optimizer) - 0.1 == pytest.approx(2 * 64e-6, rel=1e-3)  # bfloat16: 0
    assert weight.dtype == torch.bfloat16
    torch.testing.assert_close(weight.detach().float(), torch.full((64,), 0.7), rtol=0, atol=6e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_gradients_are_refused_before_anything_moves(kind: Any) -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    other = nn.Parameter(torch.randn(3))
    optimizer = kind([other, *embedding.parameters()])
    (embedding(torch.tensor([1, 2])) * other).sum().backward()
    before = other.detach().clone()
    with pytest.raises(UnsupportedGradientError, match="sparse=False"):
        optimizer.step()
    assert torch.equal(other, before)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lr": -0.1}, OptionError, "lr must be"),
    ({"lr": math.nan}, OptionError, "lr must be"),
    ({"lr": torch.ones(2)}, OptionError, "lr must be"),
    ({"hypergrad_lr": math.inf}, OptionError, "hypergrad_lr must be"),
    ({"weight_decay": -1}, OptionError, "weight_decay must be"),
    ({"rule": "additiv"}, OptionError, "did you mean 'additive'"),
    ({"hypergrad": 1e-3}, UnknownOptionError, "did you mean 'hypergrad_lr'"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("options", "error", "words"), WRONG)
def test_impossible_options_are_refused(
    kind: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    weight = nn.Parameter(torch.ones(1))
    with pytest.raises(error, match=words):
        kind([weight], **options)
    optimizer = kind([weight])
    with pytest.raises(error, match=words):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], **options})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SGDHD, {"momentum": 1.0}),
        (SGDNesterovHD, {"momentum": -0.1}),
        (AdamHD, {"betas": (0.9, 1.0)}),
        (AdamHD, {"betas": (0.9,)}),
        (AdamHD, {"eps": -1e-8}),
    ],
)
def test_impossible_moments_are_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        kind([nn.Parameter(torch.ones(1))], **options)


@pytest.mark.parametrize("kind", KINDS)
def test_complex_parameters_are_refused(kind: Any) -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(UnsupportedGradientError, match="complex64"):
        kind([weight])
