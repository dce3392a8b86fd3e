"""Losses on an accelerator: nothing waits for them, and what they spoil is taken back all the same.

The CPU plays the accelerator here: its losses count as out of sight until their arrival.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt import evaluation, finite
from samt.errors import NonFiniteLossError

from .support.accelerators import Arrival, NobodyLooks, to_host
from .support.batches import batch
from .support.closures import Failing
from .support.comparisons import assert_same
from .support.models import MODELS


@pytest.fixture(autouse=True)
def _far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "is_read_late", lambda device: True)
    monkeypatch.setattr(evaluation, "is_read_late", lambda device: True)
    monkeypatch.setattr(finite, "_to_host", to_host)
    monkeypatch.setattr(Arrival, "has_come", True)


MODES: list[dict[str, Any]] = [
    {},
    {"meta_batch": "same", "step_size": "row", "weight_decay": 0.1},
    {"meta_batch": "next", "inner_steps": 2, "radius": 0.3},
    {"meta_batch": "next", "order": "cyclic", "step_size": "element"},
    {"meta_batch": "same", "order": "reverse", "radius": 0.01, "max_grad_norm": 0.1},
    {"meta_batch": "fresh", "lr": torch.tensor(0.2), "head": "dense", "step_size": "column"},
    {"parts": "fixed"},
]


def step(model: nn.Module, optimizer: samt.SAMT, number: int, loss_fn: Any) -> None:
    closure = samt.closure(model, loss_fn, *batch("convolutional", number))
    other = samt.closure(model, loss_fn, *batch("convolutional", 50 + number))
    fresh = optimizer.defaults["meta_batch"] == "fresh"
    optimizer.step(closure, other if fresh else None)


def tensors(model: nn.Module, optimizer: samt.SAMT) -> dict[str, Any]:
    return copy.deepcopy({"model": model.state_dict(), "state": optimizer.state_dict()["state"]})


@pytest.mark.parametrize("options", MODES, ids=str)
@pytest.mark.parametrize("blocks", [None, 1])
def test_no_step_looks_at_a_number_on_the_device(
    options: dict[str, Any], blocks: int | None
) -> None:
    model = MODELS["convolutional"]()
    optimizer = samt.SAMT(samt.blocks(model, blocks), **options)
    samt.History(optimizer)
    with NobodyLooks():
        for number in range(3):
            step(model, optimizer, number, nn.functional.cross_entropy)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NobodyLooks():
        torch.ones(()).item()


@pytest.mark.parametrize("options", MODES, ids=str)
def test_the_device_takes_back_a_step_with_a_bad_loss_and_the_next_step_names_it(
    options: dict[str, Any],
) -> None:
    model = MODELS["convolutional"]()
    optimizer = samt.SAMT(samt.blocks(model), **{"lr": 0.2, "meta_lr": 0.5, **options})
    loss_fn = Failing()
    step(model, optimizer, 0, loss_fn)
    evaluations, loss_fn.calls, loss_fn.failure = loss_fn.calls, 0, math.nan
    for count in range(evaluations):
        before = tensors(model, optimizer)
        loss_fn.calls, loss_fn.fails_at = 0, count + 1
        step(model, optimizer, 1, loss_fn)
        assert loss_fn.calls == evaluations
        assert_same(tensors(model, optimizer), before)
        with pytest.raises(NonFiniteLossError, match=rf"was nan in block .* at step {count + 1},"):
            step(model, optimizer, 2, loss_fn)
        assert_same(tensors(model, optimizer), before)
    loss_fn.fails_at = 0
    step(model, optimizer, 3, loss_fn)
    moved = [
        not torch.equal(new, old)
        for new, old in zip(model.state_dict().values(), before["model"].values(), strict=True)
    ]
    assert any(moved)


@pytest.mark.parametrize("options", MODES, ids=str)
def test_the_numbers_are_those_of_a_cpu(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS["convolutional"]()
    optimizer = samt.SAMT(samt.blocks(model), **options)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    torch.manual_seed(0)
    for number in range(3):
        step(model, optimizer, number, nn.functional.cross_entropy)
    monkeypatch.undo()
    torch.manual_seed(0)
    for number in range(3):
        step(twin, twin_optimizer, number, nn.functional.cross_entropy)
    assert_same(tensors(model, optimizer), tensors(twin, twin_optimizer))
    assert optimizer.passes == twin_optimizer.passes


def test_the_wait_for_an_error_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(Arrival, "has_come", False)
    monkeypatch.setattr(Arrival, "synchronize", lambda self: waits.append("waited"))
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = samt.SAMT([weight], meta_batch="next")

    def loss(factor: float) -> Tensor:
        return factor * weight.square().sum()

    optimizer.step(lambda: loss(math.inf))
    assert weight.item() == 2.0
    for _ in range(finite.LONGEST_DELAY):
        optimizer.step(lambda: loss(1.0))
    assert not waits
    with pytest.raises(NonFiniteLossError, match="inf in block 'block 0' at step 0"):
        optimizer.step(lambda: loss(1.0))
    assert waits == ["waited"]
    assert weight.item() < 2.0


def test_processes_that_train_together_see_an_error_at_the_same_age() -> None:
    """However fast the device of one of them is."""
    numbers = finite.FiniteNumbers()
    for step in range(finite.LONGEST_DELAY + 1):
        numbers.start_step(step, together=True)
        numbers.hear(torch.tensor(math.inf if step == 0 else 1.0), "the loss")
        numbers.end_step()
    with pytest.raises(NonFiniteLossError, match="the loss was inf at step 0"):
        numbers.start_step(step + 1, together=True)
    numbers.start_step(step + 1, together=True)


def test_a_loss_that_is_a_number_is_refused_at_once() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = samt.SAMT([weight], meta_batch="next")

    def closure() -> float:
        loss = weight.sum() * math.nan
        loss.backward()
        return loss.item()

    with pytest.raises(NonFiniteLossError, match="is nan"):
        optimizer.step(closure)
    assert weight.item() == 2.0
