"""Dante: alternating gradient iterations on SAMT's blocks, against loops written out by hand."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import samt
from samt.baselines import Dante
from samt.errors import (
    CheckpointMismatchError,
    ClosureRequiredError,
    NonFiniteLossError,
    OptionError,
    UnknownOptionError,
)

from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import MODELS
from .support.saving import through_a_file

LOSS = nn.functional.cross_entropy
KINDS = list(MODELS)


def model_of(kind: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[kind]()


def layers(model: nn.Module) -> list[list[nn.Parameter]]:
    """What owns parameters, in the order of definition; tied ones do not occur here."""
    own = [list(module.parameters(recurse=False)) for module in model.modules()]
    return [parameters for parameters in own if parameters]


def iterate(layer: list[nn.Parameter], lr: float, normalized: bool) -> None:
    """One gradient iteration on a layer whose gradients are there."""
    squares = [float((p.grad**2).sum()) for p in layer if p.grad is not None]
    length = sum(squares) ** 0.5 if normalized else 1.0
    with torch.no_grad():
        for p in layer:
            if p.grad is not None and length:
                p.sub_(lr / length * p.grad)


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_is_five_iterations_on_each_layer_in_turn(
    kind: str, normalized: bool, order: str, replay: bool
) -> None:
    model, by_hand = model_of(kind), model_of(kind)
    lr = 0.1 if normalized else 0.4
    optimizer = Dante(samt.blocks(model), lr, normalized=normalized, order=order, replay=replay)
    steps = 3
    for step in range(steps):
        inputs, targets = batch(kind, step)
        torch.manual_seed(step)
        loss = optimizer.step(samt.closure(model, LOSS, inputs, targets))
        after = torch.get_rng_state()
        buffers = copy.deepcopy(dict(by_hand.named_buffers()))
        losses: list[Tensor] = []
        for layer in layers(by_hand)[:: 1 if order == "forward" else -1]:
            for _ in range(5):
                torch.manual_seed(step)  # the same dropout mask
                by_hand.zero_grad()
                value = LOSS(by_hand(inputs), targets)
                value.backward()
                if not losses:
                    buffers = copy.deepcopy(dict(by_hand.named_buffers()))
                    assert torch.equal(torch.get_rng_state(), after)
                losses.append(value.detach())
                iterate(layer, lr, normalized)
        by_hand.load_state_dict({**by_hand.state_dict(), **buffers})
        assert loss == pytest.approx(float(losses[0]), rel=1e-9)
    # The tensors of the convolutional network ahead of batch norm amplify rounding errors.
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict(), rtol=1e-8, atol=1e-9)
    assert optimizer.passes.forward == steps * 5 * len(layers(model)) + (
        steps * 5 if kind == "shared" else 0  # the layer that the loss does not see
    )


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("normalized", [True, False])
def test_with_fresh_batches_each_call_is_one_iteration(normalized: bool, order: str) -> None:
    model, by_hand, bare = (model_of("mlp") for _ in range(3))
    options: dict[str, Any] = {"normalized": normalized, "order": order, "inner_iterations": 2}
    optimizer = Dante(samt.blocks(model), 0.1, fresh_batches=True, **options)
    without_closure = Dante(samt.blocks(bare), 0.1, fresh_batches=True, **options)
    turns = [layer for layer in layers(by_hand) for _ in range(2)]
    turns = turns if order == "forward" else turns[::-1]
    for step in range(2 * len(turns) + 1):
        inputs, targets = batch("mlp", step)
        optimizer.step(samt.closure(model, LOSS, inputs, targets))
        for each in (by_hand, bare):
            each.zero_grad()
            LOSS(each(inputs), targets).backward()
        iterate(turns[step % len(turns)], 0.1, normalized)
        without_closure.step()
        torch.testing.assert_close(model.state_dict(), by_hand.state_dict(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(bare.state_dict(), by_hand.state_dict(), rtol=1e-12, atol=1e-14)
    assert optimizer.passes == (13, 13)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_iteration_on_one_block_is_sgd_bit_for_bit(dtype: torch.dtype, fresh: bool) -> None:
    results = []
    for mine in (True, False):
        model = model_of("convolutional").to(dtype)
        optimizer: torch.optim.Optimizer = (
            Dante(
                samt.blocks(model, 1),
                lr=0.3,
                inner_iterations=1,
                normalized=False,
                fresh_batches=fresh,
            )
            if mine
            else torch.optim.SGD(model.parameters(), lr=0.3)
        )
        schedule = lr_scheduler.ExponentialLR(optimizer, 0.9)
        for step in range(6):
            inputs, targets = batch("convolutional", step)
            inputs = inputs.to(dtype)
            if isinstance(optimizer, Dante):
                optimizer.step(samt.closure(model, LOSS, inputs, targets))
            else:
                optimizer.zero_grad()
                LOSS(model(inputs), targets).backward()
                optimizer.step()
            schedule.step()
        results.append(dict(model.state_dict()))
    assert_same(results[0], results[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_normalised_step_has_the_length_lr_over_the_whole_block(dtype: torch.dtype) -> None:
    model = model_of("mlp").to(dtype)
    optimizer = Dante(samt.blocks(model), 0.25, inner_iterations=1)
    before = copy.deepcopy(model)
    inputs, targets = batch("mlp", 0)
    optimizer.step(samt.closure(model, LOSS, inputs.to(dtype), targets))
    rounding = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for new, old in zip(layers(model), layers(before), strict=True):
        moved = [(a - b).detach().double().flatten() for a, b in zip(new, old, strict=True)]
        assert float(torch.cat(moved).norm()) == pytest.approx(0.25, rel=rounding)
        assert all(part.norm() > 0 for part in moved)


def test_a_zero_gradient_moves_nothing() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = Dante([weight])
    optimizer.step(lambda: weight @ torch.zeros(3))
    assert torch.equal(weight, torch.ones(3))


def test_a_scheduler_shrinks_the_steps() -> None:
    weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = Dante([weight], lr=1.0, inner_iterations=2)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)
    for _ in range(3):
        optimizer.step(lambda: weight @ slope)
        scheduler.step()
    expected = -2 * (1 + 0.5 + 0.25) * slope / 5
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=0)


def test_two_slopes_other_than_those_of_relu_work_as_well() -> None:
    """The generalised ReLU, also with a slope for positive inputs that is not 1."""

    class GeneralizedReLU(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x > 0, 1.5 * x, 0.2 * x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), GeneralizedReLU(), nn.Linear(16, 3)).double()
    optimizer = Dante(samt.blocks(model), 0.05)
    inputs, targets = batch("mlp", 0, size=64)
    losses = [optimizer.step(samt.closure(model, LOSS, inputs, targets)) for _ in range(61)]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1] < 0.2 * losses[0]


Run = tuple[nn.Module, Dante]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"normalized": False, "order": "forward"},
    {"fresh_batches": True, "inner_iterations": 2},
]


def run_of(seed: int, **options: Any) -> Run:
    model = model_of("convolutional", seed)
    return model, Dante(samt.blocks(model), 0.05, **options)


def train(run: Run, steps: Iterator[int] | range) -> None:
    for step in steps:
        torch.manual_seed(step)
        run[1].step(samt.closure(run[0], LOSS, *batch("convolutional", step)))


def saved(run: Run) -> dict[str, Any]:
    return copy.deepcopy({"model": run[0].state_dict(), "optimizer": run[1].state_dict()})


@pytest.mark.parametrize("options", OPTIONS)
def test_a_resumed_run_continues_bit_for_bit(options: dict[str, Any], tmp_path: Path) -> None:
    straight = run_of(1, **options)
    checkpoints = []
    for step in range(6):
        checkpoints.append(through_a_file(saved(straight), tmp_path))
        train(straight, range(step, step + 1))
    for step in (0, 3, 5):
        resumed = run_of(2, **options)
        resumed[0].load_state_dict(checkpoints[step]["model"])
        resumed[1].load_state_dict(checkpoints[step]["optimizer"])
        assert_same(saved(resumed), checkpoints[step])
        train(resumed, range(step, 6))
        assert_same(saved(resumed), saved(straight))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_copy_continues_bit_for_bit(
    options: dict[str, Any], copied: Callable[[Run], Run]
) -> None:
    original = run_of(1, **options)
    train(original, range(3))
    twin = copied(original)
    train(original, range(3, 5))
    train(twin, range(3, 5))
    assert_same(saved(twin), saved(original))


def test_options_of_a_group_and_a_group_added_later() -> None:
    model = model_of("mlp")
    groups = samt.blocks(model)
    optimizer = Dante([{**groups[0], "inner_iterations": 1, "normalized": False}, groups[1]])
    inputs, targets = batch("mlp", 0)
    optimizer.step(samt.closure(model, LOSS, inputs, targets))
    assert optimizer.passes.forward == 1 + 5
    late = model.get_parameter("4.weight")
    before = late.detach().clone()
    optimizer.add_param_group(groups[2])
    optimizer.step(samt.closure(model, LOSS, inputs, targets))
    assert optimizer.passes.forward == 2 * (1 + 5) + 5
    assert not torch.equal(late, before)


@pytest.mark.parametrize(
    "params",
    [
        lambda model: model.parameters(),
        lambda model: model.named_parameters(),
        lambda model: [{"params": model.parameters()}],
    ],
)
def test_plain_parameters_are_one_block(params: Callable[[nn.Module], Any]) -> None:
    results = []
    for make in (params, lambda model: samt.blocks(model, 1)):
        model = model_of("mlp")
        Dante(make(model)).step(samt.closure(model, LOSS, *batch("mlp", 0)))
        results.append(dict(model.state_dict()))
    assert_same(results[0], results[1])


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lr": -1.0}, OptionError, "lr must be"),
    ({"inner_iterations": 0}, OptionError, "1 or more"),
    ({"inner_iterations": True}, OptionError, "1 or more"),
    ({"normalized": 1}, OptionError, "True or False"),
    ({"fresh_batches": None}, OptionError, "True or False"),
    ({"order": "cyclic"}, OptionError, "choose from 'reverse', 'forward'"),
    ({"order": "revers"}, OptionError, "did you mean 'reverse'"),
]


@pytest.mark.parametrize(("options", "error", "words"), WRONG)
def test_impossible_options_are_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Dante([nn.Parameter(torch.ones(1))], **options)


def test_other_mistakes_name_the_cure() -> None:
    weight = nn.Parameter(torch.ones(1))
    with pytest.raises(UnknownOptionError, match="did you mean 'inner_iterations'"):
        Dante([weight], inner_iteration=5)  # type: ignore[call-arg]
    groups: list[dict[str, Any]] = [{"params": [weight]}, {"params": [], "fresh_batches": True}]
    with pytest.raises(OptionError, match="give it to Dante"):
        Dante(groups)
    optimizer = Dante([weight])
    with pytest.raises(ClosureRequiredError, match=r"samt\.closure.*Dante with fresh_batches=True"):
        optimizer.step()
    with pytest.raises(NonFiniteLossError, match="lower lr"):
        optimizer.step(lambda: weight.sum() * torch.inf)
    assert torch.equal(weight, torch.ones(1))
    state = torch.optim.SGD([weight], lr=0.1).state_dict()
    with pytest.raises(CheckpointMismatchError):
        optimizer.load_state_dict(state)
