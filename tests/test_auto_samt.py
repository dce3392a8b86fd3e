"""AutoSAMT, which needs no tuning: equal to its reference, and a citizen of any training loop."""

from __future__ import annotations

import copy
import io
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt import AutoSAMT
from samt.errors import (
    CheckpointMismatchError,
    NonFiniteLossError,
    OptionError,
    UnknownOptionError,
    UnsupportedGradientError,
)
from samt.partition import Partition
from samt.reference import AutoReference

from .support.batches import Batch, batch, regression
from .support.models import MODELS, mlp

LOSS = nn.functional.cross_entropy


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
    model_name: str, partition: Partition, steps: int, freezes: bool = False, **options: Any
) -> AutoSAMT:
    torch.manual_seed(7)
    model = MODELS[model_name]()
    optimizer = AutoSAMT(samt.blocks(model, partition), **options)
    reference = AutoReference(model, LOSS, optimizer.param_groups)
    first = next(model.parameters())
    # The gradient of a bias before a batch norm is nothing but rounding errors, which the
    # direction divides by eps.
    atol = 1e-7 if model_name == "convolutional" else 1e-10
    for step in range(steps):
        if freezes:
            first.requires_grad_(step % 7 > 3)
        for group, own in zip(optimizer.param_groups, reference.groups, strict=True):
            group["lr"] = own["lr"] = options.get("lr", 1.0) * (1 - step / (2 * steps))
        data = batch(model_name, step)
        rng = torch.get_rng_state()
        expected = reference.step(data)
        torch.set_rng_state(rng)
        loss = train(model, optimizer, data)
        assert_equal({"loss": loss}, {"loss": expected})
        assert_equal(dict(model.named_parameters()), reference.weights, atol)
        for name, parameter in model.named_parameters():
            if name in reference.scale and reference.v[name].max() > 1e-20:
                assert_equal(optimizer.state[parameter], reference.state(name), atol)
    optimizer.eval()
    assert_equal(dict(model.named_parameters()), reference.x, atol)
    optimizer.train()
    assert_equal(dict(model.named_parameters()), reference.weights, atol)
    return optimizer


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("partition", [None, 1])
def test_equals_the_reference_on_every_model(model: str, partition: Partition) -> None:
    compare(model, partition, 26)


@pytest.mark.parametrize("freezes", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"learning": False},
        {"betas": (0.0, 0.5)},
        {"betas": (0.95, 0.0), "lr": 3.0},
        {"weight_decay": 0.5, "lr": 0.01},
    ],
)
def test_equals_the_reference_with_every_option(options: dict[str, Any], freezes: bool) -> None:
    optimizer = compare("mlp", None, 45, freezes, **options)
    learned = {float(state["log_step"]) for state in optimizer.state.values()}
    assert (learned == {0.0}) == (options.get("learning") is False)


def test_equals_the_reference_in_a_long_training() -> None:
    compare("mlp", None, 400)


def test_equals_the_reference_where_steps_overshoot() -> None:
    # On the same samples again and again the learned steps grow until each overshoots.
    torch.manual_seed(7)
    model, loss_fn, data = MODELS["mlp"](), nn.MSELoss(), regression(0)
    optimizer = AutoSAMT(samt.blocks(model))
    reference = AutoReference(model, loss_fn, optimizer.param_groups)
    turns = []
    for _ in range(150):
        reference.step(data)
        optimizer.zero_grad()
        loss_fn(model(data[0]), data[1]).backward()
        optimizer.step()
        assert_equal(dict(model.named_parameters()), reference.weights)
        turns.append(float(optimizer.state[next(model.parameters())]["turn"]))
    assert min(turns[50:]) < -0.95 < 0.5 < turns[-1]  # and the brake has ended it


def test_options_of_groups_and_betas_that_move() -> None:
    torch.manual_seed(7)
    model = MODELS["mlp"]()
    groups = samt.blocks(model)
    groups[0] |= {"betas": (0.8, 0.9), "weight_decay": 0.2}
    groups[1] |= {"lr": 0.3, "learning": False}
    optimizer = AutoSAMT(groups)
    reference = AutoReference(model, LOSS, optimizer.param_groups)
    for step in range(30):
        for group, own in zip(optimizer.param_groups, reference.groups, strict=True):
            group["betas"] = own["betas"] = (0.95 - 0.01 * step, group["betas"][1])
        data = batch("mlp", step)
        reference.step(data)
        train(model, optimizer, data)
        assert_equal(dict(model.named_parameters()), reference.weights)
    optimizer.param_groups[0]["betas"] = (0.1, 0.9)  # a scheduler moves it before an evaluation
    optimizer.eval()
    assert_equal(dict(model.named_parameters()), reference.x)


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_the_unit_of_the_weights_changes_nothing(unit: float) -> None:
    class InUnits(nn.Module):
        def __init__(self, unit: float) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.unit = unit
            self.matrix = nn.Parameter(torch.randn(3, 4).double() / unit)
            self.bias = nn.Parameter(torch.randn(3).double() / unit)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.matrix * self.unit, self.bias * self.unit)

    found = []
    for own in (1.0, unit):
        model = InUnits(own)
        optimizer = AutoSAMT(model)
        losses = [train(model, optimizer, batch("mlp", step)) for step in range(40)]
        found.append(torch.stack(losses))
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)


def test_lr_multiplies_the_step_exactly() -> None:
    for lr in (1e-3, 1.0, torch.tensor(0.25, dtype=torch.float64)):
        model = mlp()
        other = copy.deepcopy(model)
        start = [p.detach().clone() for p in model.parameters()]
        whole, half = AutoSAMT(samt.blocks(model), lr), AutoSAMT(samt.blocks(other), lr / 2)
        train(model, whole, batch("mlp", 0))
        train(other, half, batch("mlp", 0))
        for p, q, w in zip(model.parameters(), other.parameters(), start, strict=True):
            torch.testing.assert_close(2 * (q - w), p - w, rtol=1e-7, atol=1e-12)
    for group in whole.param_groups:
        group["lr"] = 0.0
    assert all(math.isclose(group["step_size"], 0.0) for group in _stepped(model, whole))


def _stepped(model: nn.Module, optimizer: AutoSAMT) -> list[dict[str, Any]]:
    train(model, optimizer, batch("mlp", 1))
    return optimizer.param_groups


def test_what_is_learned_is_the_derivative_of_the_loss_at_the_average() -> None:
    """By finite differences: all steps so far are longer by a little, gradients held."""
    torch.manual_seed(0)
    weights = torch.randn(4, 3, dtype=torch.float64)
    directions = torch.randn(60, 4, 3, dtype=torch.float64)

    def average(factor: float) -> Tensor:
        z, x = weights.clone(), weights.clone()
        for k, d in enumerate(directions, start=1):
            z = z - 0.01 * factor * d
            x = x.lerp(z, 3 / (k + 2))
        return x

    def loss(at: Tensor) -> Tensor:
        return (at.sin() * torch.arange(12, dtype=torch.float64).view(4, 3)).sum()

    at = average(1.0).requires_grad_()
    (g,) = torch.autograd.grad(loss(at), at)
    slope = (g * (at.detach() - weights)).sum()  # the lag of an infinite memory
    numeric = (loss(average(1 + 1e-6)) - loss(average(1 - 1e-6))) / 2e-6
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-9)


SCALES: dict[str, tuple[list[Tensor], list[float]]] = {
    "a vector has the scale of the matrix before it": (
        [torch.ones(3), torch.full((2, 2), 2.0), torch.ones(2), torch.ones(())],
        [0.1, 2 * 3**0.5, 2 * 3**0.5, 2 * 3**0.5],
    ),
    "matrices of zeros": ([torch.zeros(5, 4), torch.zeros(5, 2, 2)], [0.5, 0.5]),
    "tiny and huge": (
        [torch.full((2, 2), 1e-30), torch.full((2, 2), 1e30)],
        [3**0.5 * 1e-30, 3**0.5 * 1e30],
    ),
    "nothing": ([torch.zeros(0, 4), torch.zeros(3, 0)], [1.0, 1.0]),
}


@pytest.mark.parametrize("name", SCALES)
def test_scales(name: str) -> None:
    tensors, expected = SCALES[name]
    parameters = [nn.Parameter(tensor) for tensor in tensors]
    optimizer = AutoSAMT(parameters)
    found = [float(optimizer.state[p]["scale"]) for p in parameters]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stop", [0, 1, 2, 17])
def test_a_checkpoint_goes_on_bit_for_bit(stop: int) -> None:
    model, name = MODELS["convolutional"]().float(), "convolutional"
    optimizer = AutoSAMT(samt.blocks(model))

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
    resumed = AutoSAMT(samt.blocks(again))
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
    optimizer = AutoSAMT(samt.blocks(model))
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
    optimizer, plain = AutoSAMT(samt.blocks(model)), AutoSAMT(samt.blocks(other))
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
    optimizer, plain = AutoSAMT(samt.blocks(model)), AutoSAMT(samt.blocks(other))
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
    optimizer = AutoSAMT(blocks[: len(blocks) - late])
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


def test_parameters_without_a_gradient_are_left_alone() -> None:
    model = mlp()
    first = next(model.parameters())
    first.requires_grad_(False)
    before = first.detach().clone()
    optimizer = AutoSAMT(samt.blocks(model), weight_decay=0.1)
    for step in range(20):
        train(model, optimizer, batch("mlp", step))
    torch.testing.assert_close(first, before, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_keep_float32_state(dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    optimizer = AutoSAMT(samt.blocks(model))
    inputs, targets = batch("mlp", 0)
    losses = [train(model, optimizer, (inputs.to(dtype), targets)) for _ in range(24)]
    assert losses[-1] < losses[0]
    for parameter in model.parameters():
        assert parameter.dtype == dtype
        assert {v.dtype for v in optimizer.state[parameter].values()} == {torch.float32}


def test_history_sees_every_step() -> None:
    model = mlp()
    optimizer = AutoSAMT(samt.blocks(model))
    history = samt.History(optimizer)
    for step in range(12):
        train(model, optimizer, batch("mlp", step))
    assert [row["step"] for row in history.rows if row["parameter"] == "0.bias"] == list(range(12))
    assert len(history.latest()) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, "lr must be a finite number, 0 or more"),
        ({"betas": (0.9, 1.0)}, "betas must be two numbers"),
        ({"learning": 1}, "learning must be True or False"),
        ({"weight_decay": -0.1}, "weight_decay must be a finite number, 0 or more"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        AutoSAMT(samt.blocks(mlp()), **options)


def test_misspelled_options_are_refused() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'weight_decay'"):
        AutoSAMT(samt.blocks(mlp()), weight_deca=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("word", ["total_steps", "meta_every", "projection", "seed"])
def test_options_of_the_earlier_method_are_refused(word: str) -> None:
    with pytest.raises(UnknownOptionError, match=f"has no option '{word}'"):
        AutoSAMT(samt.blocks(mlp()), **{word: 1})  # type: ignore[arg-type]


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
