"""Numbers that are not finite, or nearly so: a named error, and nothing has changed."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.baselines import SGDHD, AdamHD, Dante, SGDNesterovHD
from samt.errors import NonFiniteLossError, SAMTError

from .support.comparisons import assert_same

LOSS = nn.functional.mse_loss
Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]

AUTO_SAMT: dict[str, Make] = {
    "auto-samt": samt.AutoSAMT,
}
ALTERNATING: dict[str, Make] = {
    "samt": samt.SAMT,
    "row": lambda b: samt.SAMT(b, step_size="row", max_grad_norm=1.0, meta_batch="same"),
    "next": lambda b: samt.SAMT(b, meta_batch="next", head="dense", radius=0.5),
    "cyclic": lambda b: samt.SAMT(b, meta_batch="next", order="cyclic", relative=True),
    "fixed": lambda b: samt.SAMT(b, parts="fixed", order="cyclic"),
    "dante": Dante,
}
HYPERGRADIENT: dict[str, Make] = {
    "sgd-hd": SGDHD,
    "sgdn-hd": lambda b: SGDNesterovHD(b, rule="multiplicative", weight_decay=0.1),
    "adam-hd": AdamHD,
}
ALL = {**AUTO_SAMT, **ALTERNATING, **HYPERGRADIENT}
STEADY = ("fixed", "dante")  # no eta models
BARE = {name: ALL[name] for name in ("auto-samt", "cyclic", "fixed", *HYPERGRADIENT)}


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A network with a block of one element at its end."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Linear(1, 1, bias=False)
    ).to(dtype)


def data(step: int, size: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(size, 3, generator=generator, dtype=dtype)
    return inputs, torch.sin(inputs[:, :1])


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    return copy.deepcopy((model.state_dict(), optimizer.state_dict()))


def step(
    model: nn.Module, optimizer: Any, batch: tuple[Tensor, Tensor], loss_fn: Any = LOSS
) -> None:
    if isinstance(optimizer, samt.SAMT | samt.AutoSAMT | Dante):
        optimizer.step(samt.closure(model, loss_fn, *batch))
    else:
        plain_step(model, optimizer, batch, loss_fn)


def plain_step(
    model: nn.Module, optimizer: Any, batch: tuple[Tensor, Tensor], loss_fn: Any = LOSS
) -> None:
    optimizer.zero_grad()
    loss_fn(model(batch[0]), batch[1]).backward()
    optimizer.step()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("done", [0, 6, 9])
@pytest.mark.parametrize("name", ALL)
def test_an_input_that_is_not_finite_changes_nothing(name: str, done: int, bad: float) -> None:
    model = network()
    optimizer = ALL[name](samt.blocks(model))
    for number in range(done):
        step(model, optimizer, data(number))
    before = everything(model, optimizer)
    inputs, targets = data(done)
    targets[1] = bad
    # With AutoSAMT the loss is that of all blocks.
    where = "" if name in AUTO_SAMT else " in block '[023]'"
    says = rf" is -?(nan|inf){where} at step {done};"
    with pytest.raises(NonFiniteLossError, match=says) as caught:
        step(model, optimizer, (inputs, targets))
    assert "\n" not in str(caught.value)
    assert_same(everything(model, optimizer), before)
    step(model, optimizer, data(done))
    assert not torch.equal(model.state_dict()["0.weight"], before[0]["0.weight"]) or name in (
        "cyclic",
        "fixed",
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("done", [0, 6, 9])
@pytest.mark.parametrize("name", BARE)
def test_a_gradient_that_is_not_finite_is_refused_with_its_block(
    name: str, done: int, bad: float
) -> None:
    """The loop is the plain one, in which nobody shows the loss; 1e30 has no square in float32."""
    model = network()
    optimizer: Any = BARE[name](samt.blocks(model))
    for number in range(done):
        plain_step(model, optimizer, data(number))
    before = everything(model, optimizer)
    optimizer.zero_grad()
    LOSS(model(data(done)[0]), data(done)[1]).backward()
    block = optimizer.param_groups[done % 3 if name in ("cyclic", "fixed") else 1]
    block["params"][0].grad[0] = bad
    # With `next` the eta models learn from it first.
    what = rf"(norm of the gradient|eta models) is (nan|inf) in block '{block['name']}'"
    with pytest.raises(NonFiniteLossError, match=rf"{what} at step {done};"):
        optimizer.step()
    assert_same(everything(model, optimizer), before)


class RootOf(torch.autograd.Function):
    """A function whose value is finite and whose gradient is not, like a root at zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * math.inf


@pytest.mark.parametrize("name", [*AUTO_SAMT, *ALTERNATING])
def test_a_finite_loss_with_a_gradient_that_is_not_changes_nothing(name: str) -> None:
    model = network()
    optimizer = ALL[name](samt.blocks(model))
    for number in range(6):
        step(model, optimizer, data(number))
    for fails_at in range(3):
        before, calls = everything(model, optimizer), 0

        def loss_fn(outputs: Tensor, targets: Tensor, fails_at: int = fails_at) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > fails_at:
                outputs = RootOf.apply(outputs)  # type: ignore[no-untyped-call]
            return LOSS(outputs, targets)

        try:
            step(model, optimizer, data(6), loss_fn)
        except NonFiniteLossError:
            assert_same(everything(model, optimizer), before)
        else:
            assert calls <= fails_at


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", [n for n in ALTERNATING if n not in ("fixed", "dante")])
def test_a_poisoned_eta_model_moves_no_weight(name: str, bad: float) -> None:
    model = network()
    optimizer = ALL[name](samt.blocks(model))
    for number in range(2):
        step(model, optimizer, data(number))
    block = optimizer.param_groups[2]
    optimizer.state[block["params"][0]]["eta_model"][-1] = bad
    for number in range(2, 20):
        before = copy.deepcopy(model.state_dict())
        try:
            step(model, optimizer, data(number))
        except NonFiniteLossError as error:
            text = str(error)
            break
        assert all(p.isfinite().all() for p in model.parameters())
    else:
        raise AssertionError("nobody noticed")
    assert "in block '3' at step" in text
    assert_same(dict(model.state_dict()), dict(before))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*AUTO_SAMT, *ALTERNATING])
def test_no_scale_of_inputs_losses_and_weights_makes_a_number_that_is_none(
    name: str, dtype: torch.dtype
) -> None:
    """Each step is finite, or an error that leaves everything as it was."""
    scales = itertools.product([0, 1e-30, 1, 1e30], [1e-30, 1, 1e30], [1e-30, 1, 1e20])
    for of_inputs, of_loss, of_weights in scales:
        model = network(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(of_weights)
        optimizer = ALL[name](samt.blocks(model))
        for number in range(7):
            inputs, targets = data(number, dtype=dtype)
            before = everything(model, optimizer)
            try:
                step(
                    model,
                    optimizer,
                    (inputs * of_inputs, targets),
                    lambda o, t, s=of_loss: s * LOSS(o, t),
                )
            except SAMTError:
                assert_same(everything(model, optimizer), before)
                break
            for tensors in ([*model.parameters()], *(s.values() for s in optimizer.state.values())):
                assert all(tensor.isfinite().all() for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", HYPERGRADIENT)
def test_at_any_scale_hypergradient_descent_learns_from_finite_numbers_alone(
    name: str, dtype: torch.dtype
) -> None:
    """A step learns a finite α from finite gradients, or leaves everything as it was."""
    scales = itertools.product([0, 1e-30, 1, 1e30], [1e-30, 1, 1e15], [1, 1e25], [1e-30, 0.1, 1e30])
    refused = 0
    for of_inputs, of_loss, of_weights, lr in scales:
        model = network(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(of_weights)
        optimizer = HYPERGRADIENT[name]([{**block, "lr": lr} for block in samt.blocks(model)])
        for number in range(4):
            inputs, targets = data(number, dtype=dtype)
            before, message = everything(model, optimizer), ""
            try:
                batch = (inputs * of_inputs, targets)
                plain_step(model, optimizer, batch, lambda o, t, s=of_loss: s * LOSS(o, t))
            except NonFiniteLossError as error:
                message = str(error)
            if message:
                assert re.search(rf" is -?(nan|inf) in block '[023]' at step {number};", message)
                assert_same(everything(model, optimizer), before)
                refused += 1
                break
            numbers = [g["lr"] for g in optimizer.param_groups]
            numbers += [p.grad for p in model.parameters() if p.grad is not None]
            assert all(one.isfinite().all() for one in numbers)
    assert 0 < refused < 72


def test_tiny_gradients_teach_no_huge_lesson() -> None:
    """The norms of the gradients underflow before the products do."""
    model = network()
    optimizer = samt.AutoSAMT(samt.blocks(model))
    for number in range(18):
        scale = 1.0 if number < 8 else 1e-26
        step(model, optimizer, data(number), lambda o, t, s=scale: s * LOSS(o, t))
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(abs(float(state["log_step"])) < 6 for state in optimizer.state.values())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [0, 1])
def test_a_batch_of_one_is_a_batch_and_an_empty_one_an_error(name: str, size: int) -> None:
    model = network()
    optimizer = ALL[name](samt.blocks(model))
    step(model, optimizer, data(0))
    before = everything(model, optimizer)
    if size:
        step(model, optimizer, data(1, size))
        assert all(p.isfinite().all() for p in model.parameters())
        return
    nothing = torch.empty(0, 3), torch.empty(0, 1)
    if name in HYPERGRADIENT:  # they see gradients alone, which are zeros
        step(model, optimizer, nothing)
        assert all(p.isfinite().all() for p in model.parameters())
        return
    with pytest.raises(NonFiniteLossError):
        optimizer.step(samt.closure(model, LOSS, *nothing))  # type: ignore[arg-type]
    assert_same(everything(model, optimizer), before)


def test_dante_does_not_normalise_a_gradient_whose_length_overflows_to_zero() -> None:
    model = network()
    optimizer = Dante(samt.blocks(model), fresh_batches=True)
    weight = model.get_parameter("3.weight")
    weight.grad = torch.full_like(weight, 1e30)
    optimizer.step()  # of one element, the length is there
    assert weight.item() != network().get_parameter("3.weight").item()
    first = Dante(samt.blocks(model[0]), fresh_batches=True)  # type: ignore[index]
    before = everything(model, first)
    for parameter in first.param_groups[0]["params"]:
        parameter.grad = torch.full_like(parameter, 1e30)
    with pytest.raises(NonFiniteLossError, match="norm of the gradient is inf"):
        first.step()
    assert_same(everything(model, first), before)
