"""A step evaluates the loss many times; buffers and randomness see one evaluation."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import samt
from samt.closures import Closure

from .support.batches import batch, regression
from .support.closures import Fault, WithBackward, failing
from .support.comparisons import assert_same
from .support.models import MODELS, TwoRoutes, with_layer
from .support.modes import MODES
from .support.snapshots import everything

LOSS = nn.functional.mse_loss


class Reassigning(nn.Module):
    """Puts a new tensor in place of its buffer, as some modules do, and one in place of None."""

    count: Tensor
    cache: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("cache", None)
        self.weight = nn.Parameter(torch.full((6,), 0.7))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        self.cache = x.detach() if self.cache is None else 2 * self.cache
        return x * self.weight * self.count + self.cache.mean()


class Masking(nn.Module):
    """Multiplies by a mask, which its dropout makes."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        mask: Tensor = self.dropout(torch.ones_like(x))
        return x * mask


def outputs_of(module: nn.Module) -> list[Tensor]:
    """A list to which every call of a module, and of its copies, adds its output."""
    outputs: list[Tensor] = []
    module.register_forward_hook(lambda _, args, output: outputs.append(output.detach()))
    return outputs


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.BatchNorm1d(6),
    "batch norm, cumulative average": lambda: nn.BatchNorm1d(6, momentum=None),
    "instance norm": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten()
    ),
    "spectral norm": lambda: spectral_norm(nn.Linear(6, 6)),
    "reassigned buffer": Reassigning,
}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_buffers_and_global_rng_stand_as_after_one_evaluation(
    layer: str, mode: dict[str, Any]
) -> None:
    model = with_layer(LAYERS[layer]())
    optimizer = samt.SAMT(samt.blocks(model), lr=0.1, **mode)
    for step in range(3):
        once = copy.deepcopy(model)
        before = torch.get_rng_state()
        expected_loss = LOSS(once(regression(step)[0]), regression(step)[1])
        rng = torch.get_rng_state()
        assert not torch.equal(before, rng)
        torch.set_rng_state(before)
        other = samt.closure(model, LOSS, *regression(50 + step))
        loss = optimizer.step(
            samt.closure(model, LOSS, *regression(step)),
            other if mode.get("meta_batch") == "fresh" else None,
        )
        assert torch.equal(torch.get_rng_state(), rng)
        assert_same(dict(model.named_buffers()), dict(once.named_buffers()))
        assert isinstance(loss, Tensor)
        assert torch.equal(loss, expected_loss.detach())


@pytest.mark.parametrize("layer", LAYERS)
def test_every_evaluation_of_a_step_sees_the_same_function(layer: str) -> None:
    """With step size 0 nothing moves, so that each evaluation of the batch gives one loss."""
    model = with_layer(LAYERS[layer]())
    optimizer = samt.SAMT(samt.blocks(model), lr=0.0, parts="left", meta_batch="same")
    losses: list[Tensor] = []

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        losses.append(LOSS(outputs, targets))
        return losses[-1]

    first = []
    for _ in range(2):
        losses.clear()
        optimizer.step(samt.closure(model, loss_fn, *regression(0)))
        assert len(losses) >= 2
        assert all(torch.equal(loss, losses[0]) for loss in losses)
        first.append(losses[0].detach())
    assert not torch.equal(*first), "and the next step another"


def test_a_buffer_whose_elements_share_memory_is_no_obstacle() -> None:
    """Masks are often made by `expand`; torch refuses to copy into such a tensor."""
    model = MODELS["mlp"]()
    model.register_buffer("mask", torch.full((1,), 0.5).expand(3))
    optimizer = samt.SAMT(samt.blocks(model))
    masked = samt.closure(model, lambda o, t: LOSS(o * model.mask, t), *regression(0))
    first = optimizer.step(masked)
    second = optimizer.step(masked)
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    assert second < first
    assert torch.equal(model.get_buffer("mask"), torch.full((3,), 0.5))


@pytest.mark.parametrize("known_model", [True, False])
def test_dropout_draws_one_mask_in_a_step_and_another_in_the_next(known_model: bool) -> None:
    masking = Masking()
    masks = outputs_of(masking.dropout)
    model = with_layer(masking)
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")
    closure: Callable[[], Any] = samt.closure(model, LOSS, *regression(0))
    if not known_model:
        closure = functools.partial(closure)
    first = []
    for _ in range(3):
        masks.clear()
        optimizer.step(closure)
        assert len(masks) >= 2
        assert all(torch.equal(mask, masks[0]) for mask in masks)
        first.append(masks[0])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])


class Annealing(nn.Module):
    """Sets attributes when it is evaluated, and computes with them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.seen: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = (*self.seen, len(x))
        self.last = x.detach().mean()
        return x * (1 + self.last) / self.calls


class CountingLoss:
    """A loss function that is an object, and weighs the loss by the number of its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return LOSS(outputs, targets) / self.calls


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("mode", [{}, *MODES[1:3], *MODES[4:]], ids=str)
def test_attributes_stand_as_after_one_evaluation(mode: dict[str, Any], replay: bool) -> None:
    model, loss_fn = with_layer(Annealing()), CountingLoss()
    optimizer = samt.SAMT(samt.blocks(model), lr=0.1, replay=replay, **mode)
    for step in range(3):
        (once, once_loss), rng = copy.deepcopy((model, loss_fn)), torch.get_rng_state()
        inputs, targets = regression(step, 8 - step)
        expected = once_loss(once(inputs), targets)
        torch.set_rng_state(rng)
        loss = optimizer.step(samt.closure(model, loss_fn, inputs, targets))
        assert isinstance(loss, Tensor)
        assert torch.equal(loss, expected.detach())
        for held, alone in ((model[2], once[2]), (loss_fn, once_loss)):  # type: ignore[index]
            assert held.calls == alone.calls == step + 1
        assert model[2].seen == once[2].seen == tuple(8 - s for s in range(step + 1))  # type: ignore[index]
        assert torch.equal(model[2].last, once[2].last)  # type: ignore[index]


@pytest.mark.parametrize(
    "options", [{}, {"head": "dense", "step_size": "row"}, {"order": "random"}]
)
def test_building_the_optimizer_moves_neither_the_global_rng_nor_the_model(
    options: dict[str, Any],
) -> None:
    model = MODELS["convolutional"]()
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    optimizer = samt.SAMT(samt.blocks(model), **options)
    optimizer.load_state_dict(optimizer.state_dict())
    assert torch.equal(torch.get_rng_state(), rng)
    assert_same(dict(model.state_dict()), dict(before))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_meta_batch_may_come_from_another_model_whose_buffers_stay() -> None:
    model = with_layer(nn.BatchNorm1d(6))
    twin = with_layer(nn.BatchNorm1d(6))
    for name, parameter in model.named_parameters():  # the same weights, other buffers
        owner, _, leaf = name.rpartition(".")
        setattr(twin.get_submodule(owner), leaf, parameter)
    before = copy.deepcopy(dict(twin.named_buffers()))
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="fresh")
    meta = samt.closure(twin, LOSS, *regression(1))
    optimizer.step(samt.closure(model, LOSS, *regression(0)), meta)
    assert_same(dict(twin.named_buffers()), before)
    assert int(model.get_buffer("2.num_batches_tracked")) == 1


@pytest.mark.parametrize("style", [Closure, WithBackward])
@pytest.mark.parametrize("route", [0, 1])
@pytest.mark.parametrize("mode", MODES[:3], ids=str)
def test_a_block_unused_in_this_batch_is_left_alone(
    style: type[Closure], route: int, mode: dict[str, Any]
) -> None:
    model = TwoRoutes().double()
    model.route = route
    optimizer = samt.SAMT(samt.blocks(model), lr=0.1, weight_decay=0.1, **mode)
    unused = model.routes[1 - route]
    kept = copy.deepcopy(unused.state_dict())
    state = [copy.deepcopy(optimizer.state[p]["eta_model"]) for p in unused.parameters()]
    inputs, targets = regression(0)
    outputs = outputs_of(model.dropout)
    once = copy.deepcopy(model)
    rng = torch.get_rng_state()
    once(inputs)
    after = torch.get_rng_state()
    torch.set_rng_state(rng)
    optimizer.step(style(model, LOSS, (inputs, targets)))
    assert torch.equal(torch.get_rng_state(), after)
    assert_same(dict(model.named_buffers()), dict(once.named_buffers()))
    assert len(outputs) >= 2, "one of the copy, and then those of the step"
    assert torch.equal(outputs[1], outputs[0])
    assert_same(dict(unused.state_dict()), dict(kept))
    assert_same([optimizer.state[p]["eta_model"] for p in unused.parameters()], state)
    assert not torch.equal(model.last.weight, once.last.weight)


@pytest.mark.parametrize("mode", MODES[:3], ids=str)
def test_both_closure_styles_agree_where_a_block_is_unused(mode: dict[str, Any]) -> None:
    results = []
    for style in (Closure, WithBackward):
        torch.manual_seed(3)
        model = TwoRoutes().double()
        optimizer = samt.SAMT(samt.blocks(model), lr=0.1, **mode)
        for step in range(4):
            model.route = step % 2
            optimizer.step(style(model, LOSS, regression(step)))
        results.append([copy.deepcopy(model.state_dict()), optimizer.state_dict()])
    assert_same(results[0], results[1])


def test_a_parameter_outside_the_optimizer_gets_no_gradient_even_where_a_block_is_unused() -> None:
    outside = nn.Linear(3, 3).double()
    model = nn.Sequential(TwoRoutes(), outside).double()
    optimizer = samt.SAMT(samt.blocks(model[0]), lr=0.1)
    other = torch.optim.SGD(outside.parameters(), lr=0.1)
    optimizer.step(samt.closure(model, LOSS, *regression(0)))
    assert all(p.grad is None and p.requires_grad for p in outside.parameters())
    kept = copy.deepcopy(outside.state_dict())
    other.step()
    assert_same(dict(outside.state_dict()), dict(kept))


FAILURES: list[BaseException | float] = [ValueError("no"), KeyboardInterrupt(), math.nan, math.inf]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize(
    "options",
    [
        {"step_size": "row", "weight_decay": 0.1},
        {"meta_batch": "next", "inner_steps": 2, "radius": 0.3},
        {"meta_batch": "fresh", "order": "cyclic", "step_size": "element", "head": "dense"},
        {"meta_batch": "same", "order": "random", "radius": 0.01, "max_grad_norm": 0.1},
        {"parts": "fixed", "order": "reverse"},
    ],
    ids=str,
)
def test_a_failure_in_any_evaluation_leaves_no_trace(
    options: dict[str, Any], failure: BaseException | float
) -> None:
    model = MODELS["convolutional"]()
    model.get_parameter("head.bias").requires_grad_(False)
    optimizer = samt.SAMT(samt.blocks(model), lr=0.2, meta_lr=0.5, **options)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    fault = Fault(failure)
    loss_fn = failing(fault)

    def step(model: nn.Module, optimizer: samt.SAMT, number: int) -> None:
        closure = samt.closure(model, loss_fn, *batch("convolutional", number))
        other = samt.closure(model, loss_fn, *batch("convolutional", 50 + number))
        optimizer.step(closure, other if options.get("meta_batch") == "fresh" else None)

    torch.manual_seed(0)
    step(model, optimizer, 0)
    evaluations = fault.calls
    expected: type[BaseException] = samt.errors.NonFiniteLossError
    if isinstance(failure, BaseException):
        expected = type(failure)
    for fails_at in range(1, evaluations + 1):
        before = everything(model, optimizer)
        fault.calls, fault.fails_at = 0, fails_at
        with pytest.raises(expected) as caught:
            step(model, optimizer, 1)
        assert fault.calls == fails_at
        assert "\n" not in str(caught.value)
        assert_same(everything(model, optimizer), before)
    fault.fails_at = 0
    for number in (1, 2):
        step(model, optimizer, number)
    rng = torch.get_rng_state()
    torch.manual_seed(0)
    for number in (0, 1, 2):
        step(twin, twin_optimizer, number)
    assert torch.equal(torch.get_rng_state(), rng)
    assert_same(everything(model, optimizer), everything(twin, twin_optimizer))


def test_a_failure_of_a_closure_with_backward_leaves_no_gradient() -> None:
    model = with_layer(nn.BatchNorm1d(6))
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")
    before = everything(model, optimizer)
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        inputs, targets = regression(0)
        loss: Tensor = LOSS(model[1](model[0](inputs)), inputs.new_ones(8, 6) * targets.mean())  # type: ignore[index]
        loss.backward()
        if calls == 4:
            raise RuntimeError("fourth call")
        return loss

    with pytest.raises(RuntimeError, match="fourth"):
        optimizer.step(closure)
    assert_same(everything(model, optimizer), before)


def test_a_failed_step_leaves_no_rows_in_the_history() -> None:
    model = MODELS["mlp"]()
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="next")
    history = samt.History(optimizer)
    fault = Fault(math.nan)
    fault.fails_at = 6
    closure = samt.closure(model, failing(fault), *batch("mlp", 0))
    optimizer.step(closure)
    rows = history.rows
    with pytest.raises(samt.errors.NonFiniteLossError):
        optimizer.step(closure)
    assert history.rows == rows
    optimizer.step(closure)
    assert [row["step"] for row in history.rows] == [0] * 6 + [1] * 6
