"""AutoSAMT on an accelerator: nothing waits for a number, and a bad one moves nothing.

The CPU plays the accelerator here: its numbers count as out of sight until their arrival.
`test_numerical_faults` asks what moves and what does not.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.auto.finite import LONGEST_DELAY, FiniteNumbers
from samt.errors import NonFiniteLossError

from .support.accelerators import Arrival, NobodyLooks, play_accelerator
from .support.batches import batch
from .support.models import MODELS

LOSS = nn.functional.cross_entropy


@pytest.fixture(autouse=True)
def _far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    play_accelerator(monkeypatch)


def test_no_step_looks_at_a_number_on_the_device() -> None:
    model = MODELS["convolutional"]()
    optimizer = samt.AutoSAMT(samt.blocks(model), total_steps=24, meta_every=3)
    samt.History(optimizer)
    with NobodyLooks():
        for number in range(9):
            optimizer.step(samt.closure(model, LOSS, *batch("convolutional", number)))
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NobodyLooks():
        torch.ones(()).item()


def test_the_wait_for_an_error_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(Arrival, "has_come", False)
    monkeypatch.setattr(Arrival, "synchronize", lambda self: waits.append("waited"))
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = samt.AutoSAMT([weight])

    def loss(factor: float) -> Tensor:
        return factor * weight.square().sum()

    optimizer.step(lambda: loss(math.inf))
    assert weight.item() == 2.0
    for _ in range(LONGEST_DELAY):
        optimizer.step(lambda: loss(1.0))
    assert not waits
    with pytest.raises(NonFiniteLossError, match="the loss was inf at step 0, which"):
        optimizer.step(lambda: loss(1.0))
    assert waits == ["waited"]
    assert weight.item() < 2.0


def test_processes_that_train_together_see_an_error_at_the_same_age() -> None:
    """However fast the device of one of them is, the others wait for the same step."""
    numbers = FiniteNumbers()
    for step in range(LONGEST_DELAY + 1):
        numbers.start_step(step, together=True)
        numbers.hear(torch.tensor(math.inf if step == 0 else 1.0), "the loss")
        numbers.end_step()
    with pytest.raises(NonFiniteLossError, match="the loss was inf at step 0"):
        numbers.start_step(step + 1, together=True)
    numbers.start_step(step + 1, together=True)


def test_a_loss_that_is_a_number_is_refused_at_once() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = samt.AutoSAMT([weight])

    def closure() -> float:
        loss = weight.sum() * math.nan
        loss.backward()
        return loss.item()

    with pytest.raises(NonFiniteLossError, match="is nan"):
        optimizer.step(closure)
    assert weight.item() == 2.0
