"""AutoSAMT, which needs no tuning: equal to its reference, and a citizen of any training loop."""

from __future__ import annotations

import copy
import io
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt import AutoSAMT
from samt.auto.adam_step import directions
from samt.auto.step_sizes import scales
from samt.errors import (
    CheckpointMismatchError,
    NonFiniteLossError,
    OptionError,
    UnknownOptionError,
    UnsupportedGradientError,
)
from samt.partition import Partition
from samt.reference import AutoReference

from .support.batches import Batch, batch
from .support.models import MODELS, mlp

LOSS = nn.functional.cross_entropy
OFTEN: dict[str, Any] = {"total_steps": 24, "meta_every": 3}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: Batch) -> Tensor:
    """One step as it stands in everybody's loop."""
    optimizer.zero_grad()
    loss: Tensor = LOSS(model(data[0]), data[1])
    loss.backward()
    optimizer.step()
    return loss.detach()


def assert_equal(
    actual: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 1e-10
) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name].detach(), value, rtol=1e-8, atol=atol, msg=partial("{}: {}".format, name)
        )


def compare(
    model_name: str,
    partition: Partition,
    steps: int,
    lr: float,
    scheduled: bool = True,
    **options: Any,
) -> None:
    torch.manual_seed(7)
    model = MODELS[model_name]()
    optimizer = AutoSAMT(samt.blocks(model, partition), lr, **options)
    reference = AutoReference(model, LOSS, optimizer.param_groups)
    # The gradient of a bias before a batch norm is nothing but rounding errors, which the
    # direction divides by eps.
    atol = 1e-7 if model_name == "convolutional" else 1e-10
    for step in range(steps):
        for group, own in zip(optimizer.param_groups, reference.groups, strict=True):
            group["lr"] = own["lr"] = lr * (1 - step / (2 * steps) if scheduled else 1.0)
        data = batch(model_name, step)
        rng = torch.get_rng_state()
        expected = reference.step(data)
        torch.set_rng_state(rng)
        loss = train(model, optimizer, data)
        assert_equal({"loss": loss}, {"loss": expected})
        assert_equal(dict(model.named_parameters()), reference.parameters, atol)
        for name, parameter in model.named_parameters():
            assert_equal(optimizer.state[parameter], reference.state(name), atol)
    sizes = [float(optimizer.state[p]["step_size"]) for p in model.parameters()]
    start = [0.01 * lr + 0.99 * 0.12] * len(sizes)
    moved = [size / s for size, s in zip(sizes, _scales(optimizer), strict=True)]
    learnt = any(abs(a - b) > 1e-4 for a, b in zip(moved, start, strict=True))
    assert learnt == (options.get("meta_lr") != 0)


def _direction(state: dict[str, Tensor], optimizer: AutoSAMT) -> Tensor:
    return directions([state], optimizer.param_groups[:1], state["step"].unsqueeze(0))[0]


def _scales(optimizer: AutoSAMT) -> list[float]:
    return list(scales(optimizer.param_groups).values())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("partition", [None, 1])
def test_equals_the_reference_on_every_model(model: str, partition: Partition) -> None:
    compare(model, partition, 26, 0.1, **OFTEN)


@pytest.mark.parametrize(
    "options",
    [
        {"meta_lr": 0},
        {"meta_lr": 2.0, "projection": "sigmoid"},
        {"betas": (0.0, 0.5), "eps": 1e-3},
        {"weight_decay": 0.5, "eta_hidden": 5, "seed": 3},
    ],
)
@pytest.mark.parametrize("lr", [1e-4, 1.0])
def test_equals_the_reference_with_every_option(options: dict[str, Any], lr: float) -> None:
    compare("mlp", None, 26, lr, **OFTEN, **options)


@pytest.mark.parametrize("scheduled", [True, False])
def test_equals_the_reference_without_a_number_of_steps(scheduled: bool) -> None:
    compare("mlp", None, 545, 0.1, scheduled)


def test_without_learning_it_is_adam_with_a_step_for_each_tensor() -> None:
    model = mlp()
    other = copy.deepcopy(model)
    optimizer = AutoSAMT(samt.blocks(model), meta_lr=0)
    size = 0.01 * 0.1 + 0.99 * 0.12
    adam = torch.optim.Adam(
        [
            {"params": [p], "lr": size * scale}
            for p, scale in zip(other.parameters(), _scales(optimizer), strict=True)
        ],
        betas=(0.9, 0.99),
    )
    base = [group["lr"] for group in adam.param_groups]
    for step in range(150):
        for group, lr in zip(adam.param_groups, base, strict=True):
            group["lr"] = lr * min(1.0, (step + 1) / 20) / (1 + step / 600)
        data = batch("mlp", step)
        train(model, optimizer, data)
        train(other, adam, data)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_the_slope_is_the_derivative_of_the_loss_at_the_average() -> None:
    """The slope by finite differences: all steps so far are longer by a little, gradients held."""
    torch.manual_seed(0)
    weights = torch.randn(4, 3, dtype=torch.float64)
    directions = torch.randn(60, 4, 3, dtype=torch.float64)

    def average(factor: float) -> Tensor:
        w, fast = weights.clone(), weights.clone()
        for d in directions:
            w = w - 0.01 * factor * d
            fast = fast.lerp(w, 0.05)
        return fast

    def loss(at: Tensor) -> Tensor:
        return (at.sin() * torch.arange(12, dtype=torch.float64).view(4, 3)).sum()

    at = average(1.0).requires_grad_()
    (h,) = torch.autograd.grad(loss(at), at)
    slope = (h * (at.detach() - weights)).sum()  # the slow average of an infinite window
    numeric = (loss(average(1 + 1e-6)) - loss(average(1 - 1e-6))) / 2e-6
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("stop", [0, 1, 8, 9, 10, 17])
def test_a_checkpoint_goes_on_bit_for_bit(stop: int) -> None:
    model, name = MODELS["convolutional"]().float(), "convolutional"
    optimizer = AutoSAMT(samt.blocks(model), **OFTEN)

    def data(step: int) -> Batch:
        inputs, targets = batch(name, step)
        return inputs.float(), targets

    for step in range(stop):
        train(model, optimizer, data(step))
    saved = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict(), torch.get_rng_state()), saved)
    for step in range(stop, 20):
        train(model, optimizer, data(step))
    saved.seek(0)
    weights, state, rng = torch.load(saved, weights_only=True)
    again = copy.deepcopy(model)
    again.load_state_dict(weights)
    resumed = AutoSAMT(samt.blocks(again), seed=9, **OFTEN)
    resumed.load_state_dict(state)
    torch.set_rng_state(rng)
    for step in range(stop, 20):
        train(again, resumed, data(step))
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_state_of_another_optimizer_is_refused() -> None:
    model = mlp()
    optimizer = AutoSAMT(samt.blocks(model))
    for other in (samt.SAMT(samt.blocks(model)), torch.optim.Adam(samt.blocks(model))):
        with pytest.raises(CheckpointMismatchError):
            optimizer.load_state_dict(other.state_dict())
    with pytest.raises(CheckpointMismatchError):
        samt.SAMT(samt.blocks(model)).load_state_dict(optimizer.state_dict())


def test_copies_and_pickles_train_alike() -> None:
    model = mlp()
    optimizer = AutoSAMT(samt.blocks(model), **OFTEN)
    for step in range(11):
        train(model, optimizer, batch("mlp", step))
    both = copy.deepcopy((model, optimizer))
    for step in range(11, 20):
        train(model, optimizer, batch("mlp", step))
        train(*both, batch("mlp", step))
    for ours, theirs in zip(model.parameters(), both[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_closure_is_called_once_and_its_loss_comes_back() -> None:
    model = mlp()
    other = copy.deepcopy(model)
    optimizer, plain = AutoSAMT(samt.blocks(model), **OFTEN), AutoSAMT(samt.blocks(other), **OFTEN)
    for step in range(20):
        data = batch("mlp", step)
        loss = optimizer.step(samt.closure(model, LOSS, *data))
        assert torch.equal(loss, train(other, plain, data))
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("calls_backward", [True, False])
def test_a_closure_adds_to_the_gradients_of_earlier_micro_batches(calls_backward: bool) -> None:
    """Trainers accumulate so: the last micro-batch's closure does not zero the gradients."""
    model = mlp()
    other = copy.deepcopy(model)
    optimizer, plain = AutoSAMT(samt.blocks(model), **OFTEN), AutoSAMT(samt.blocks(other), **OFTEN)
    for step in range(8):
        inputs, targets = batch("mlp", step)
        (LOSS(model(inputs[:4]), targets[:4]) / 2).backward()

        def closure(inputs: Tensor = inputs[4:], targets: Tensor = targets[4:]) -> Tensor:
            loss: Tensor = LOSS(model(inputs), targets) / 2
            if calls_backward:
                loss.backward()
            return loss

        optimizer.step(closure)
        train(other, plain, (inputs, targets))
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("late", [0, 1])
def test_a_loss_that_is_not_finite_changes_nothing(late: int) -> None:
    model = mlp()
    blocks = samt.blocks(model)
    optimizer = AutoSAMT(blocks[: len(blocks) - late], **OFTEN)
    inputs, targets = batch("mlp", 0)
    optimizer.step(samt.closure(model, LOSS, inputs, targets))
    for block in blocks[len(blocks) - late :]:
        optimizer.add_param_group(block)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    with pytest.raises(NonFiniteLossError, match="step 1"):
        optimizer.step(samt.closure(model, LOSS, inputs * torch.nan, targets))
    torch.testing.assert_close(model.state_dict(), before[0], rtol=0, atol=0)
    torch.testing.assert_close(optimizer.state_dict()["state"], before[1]["state"], rtol=0, atol=0)
    assert optimizer.state_dict()["param_groups"] == before[1]["param_groups"]


def test_a_scheduler_on_lr_scales_the_whole_step() -> None:
    """Half of lr is half of the move, whatever lr is at first."""
    for lr in (1e-3, 1.0):
        model = mlp()
        other = copy.deepcopy(model)
        start = [p.detach().clone() for p in model.parameters()]
        whole, half = AutoSAMT(samt.blocks(model), lr), AutoSAMT(samt.blocks(other), lr)
        for group in half.param_groups:
            group["lr"] *= 0.5
        train(model, whole, batch("mlp", 0))
        train(other, half, batch("mlp", 0))
        for p, q, w in zip(model.parameters(), other.parameters(), start, strict=True):
            torch.testing.assert_close(2 * (q - w), p - w, rtol=1e-7, atol=1e-12)


def train_and_measure(model: nn.Module, optimizer: AutoSAMT, data: Batch) -> float:
    """Take a step, and return a: which part of η · d the first parameter has moved by."""
    first = next(model.parameters())
    before = first.detach().clone()
    train(model, optimizer, data)
    state = optimizer.state[first]
    whole = state["step_size"] * _direction(state, optimizer).norm()
    return float((before - first.detach()).norm() / whole)


def test_a_scheduler_stops_the_decay_where_it_is() -> None:
    """There is no jump: for 150 steps there is the decay, and then the scheduler alone."""
    model = mlp()
    optimizer = AutoSAMT(samt.blocks(model), 0.1, meta_lr=0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [150], 0.5)
    taken = []
    for step in range(200):
        taken.append(train_and_measure(model, optimizer, batch("mlp", step)))
        scheduler.step()
    decay = [1 / (1 + min(step, 150) / 600) for step in range(200)]
    expected = [
        min(1.0, (step + 1) / 20) * decay[step] * (0.5 if step >= 150 else 1.0)
        for step in range(200)
    ]
    assert taken == pytest.approx(expected, rel=1e-6)


def test_schedulers_that_write_to_initial_lr() -> None:
    """OneCycleLR begins with a 25th of its largest lr, and calls that the initial one."""
    model = mlp()
    optimizer = AutoSAMT(samt.blocks(model), 0.1, meta_lr=0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=100)
    taken = []
    for step in range(100):
        taken.append(train_and_measure(model, optimizer, batch("mlp", step)))
        scheduler.step() if step < 99 else None
    assert max(taken) <= 1 + 1e-6
    assert max(taken) > 0.9
    assert taken[0] == pytest.approx(1 / 25 / 20)


def test_parameters_without_a_gradient_are_left_alone() -> None:
    model = mlp()
    first = next(model.parameters())
    first.requires_grad_(False)
    before = first.detach().clone()
    optimizer = AutoSAMT(samt.blocks(model), weight_decay=0.1, **OFTEN)
    for step in range(20):
        train(model, optimizer, batch("mlp", step))
    torch.testing.assert_close(first, before, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_keep_float32_state(dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    optimizer = AutoSAMT(samt.blocks(model), **OFTEN)
    inputs, targets = batch("mlp", 0)
    losses = [train(model, optimizer, (inputs.to(dtype), targets)) for _ in range(24)]
    assert losses[-1] < losses[0]
    for parameter in model.parameters():
        assert parameter.dtype == dtype
        assert {v.dtype for v in optimizer.state[parameter].values()} == {torch.float32}


def test_history_sees_every_step() -> None:
    model = mlp()
    optimizer = AutoSAMT(samt.blocks(model), **OFTEN)
    history = samt.History(optimizer)
    for step in range(12):
        train(model, optimizer, batch("mlp", step))
    assert [row["step"] for row in history.rows if row["parameter"] == "0.bias"] == list(range(12))
    assert len(history.latest()) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0.0}, "lr must be a finite number above 0"),
        ({"total_steps": 0}, "total_steps must be None or a whole number"),
        ({"betas": (0.9, 1.0)}, "betas must be two numbers"),
        ({"meta_every": 1}, "meta_every must be a whole number, 2 or more"),
        ({"eps": 0.0}, "eps must be a positive number"),
        ({"projection": "tan"}, "did you mean 'tanh'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        AutoSAMT(samt.blocks(mlp()), **options)


def test_misspelled_options_are_refused() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'total_steps'"):
        AutoSAMT(samt.blocks(mlp()), total_step=3)  # type: ignore[call-arg]


def test_what_is_one_for_all_blocks_stands_in_no_group() -> None:
    groups = samt.blocks(mlp())
    groups[1]["total_steps"] = 5
    with pytest.raises(OptionError, match="one for all blocks"):
        AutoSAMT(groups)


def test_sparse_and_complex_are_refused() -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = AutoSAMT(samt.blocks(embedding))
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(UnsupportedGradientError):
        optimizer.step()
    with pytest.raises(UnsupportedGradientError):
        AutoSAMT([torch.zeros(3, dtype=torch.complex64, requires_grad=True)])


def test_a_closure_whose_backward_reaches_no_parameter_of_the_optimizer() -> None:
    """It is not called again: the graph is gone."""
    model = mlp()
    for held in ([nn.Parameter(torch.ones(2))], []):
        optimizer = AutoSAMT([{"params": held}])

        def closure() -> Tensor:
            model.zero_grad()
            inputs, targets = batch("mlp", 0)
            loss: Tensor = LOSS(model(inputs), targets)
            loss.backward()
            return loss

        optimizer.step(closure)
    assert all(p.grad is not None for p in model.parameters())
