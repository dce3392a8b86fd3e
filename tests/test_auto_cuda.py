"""AutoSAMT on a GPU: the numbers of the CPU, and nothing that waits for the device."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import samt
from samt.errors import NonFiniteLossError

from .support.batches import batch
from .support.models import MODELS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
LOSS = nn.functional.cross_entropy
Run = tuple[nn.Module, samt.AutoSAMT]


def start(device: str, dtype: torch.dtype = torch.float64) -> Run:
    torch.manual_seed(3)
    model = MODELS["mlp"]().to(device, dtype)
    return model, samt.AutoSAMT(model, weight_decay=0.1)


def train(run: Run, first: int, last: int) -> None:
    parameter = next(run[0].parameters())
    for step in range(first, last):
        inputs, targets = batch("mlp", step)
        run[1].zero_grad()
        outputs = run[0](inputs.to(parameter.device, parameter.dtype))
        LOSS(outputs.float(), targets.to(parameter.device)).backward()
        # The first step after something has changed reads what it needs to know.
        is_plain = parameter.is_cuda and step % 50 and step > first
        with nobody_waits() if is_plain else nobody_cares():
            run[1].step()


@contextmanager
def nobody_waits() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that this mode is a prototype
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@contextmanager
def nobody_cares() -> Iterator[None]:
    yield


def test_the_numbers_are_those_of_the_cpu() -> None:
    here, there = start("cpu"), start("cuda")
    train(here, 0, 60)
    train(there, 0, 60)
    for own, other in zip(here[0].parameters(), there[0].parameters(), strict=True):
        torch.testing.assert_close(other.cpu(), own, rtol=1e-5, atol=1e-7)
    inputs = batch("mlp", 99)[0]
    outputs = there[0].eval()(inputs.cuda()).cpu()
    torch.testing.assert_close(outputs, here[0].eval()(inputs), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_evaluation_and_checkpoints_change_nothing(dtype: torch.dtype) -> None:
    run = start("cuda", dtype)
    train(run, 0, 20)
    twin = copy.deepcopy(run)
    state = copy.deepcopy((run[0].state_dict(), run[1].state_dict()))
    run[0].eval()(batch("mlp", 0)[0].to("cuda", dtype))
    run[0].train()
    again = start("cuda", dtype)
    again[0].load_state_dict(state[0])
    again[1].load_state_dict(state[1])
    for each in (run, twin, again):
        train(each, 20, 30)
    for other in (twin, again):
        for p, q in zip(run[0].parameters(), other[0].parameters(), strict=True):
            assert torch.equal(p, q)


def test_a_bad_gradient_moves_nothing_and_is_told_of_later() -> None:
    run = start("cuda", torch.float32)
    train(run, 0, 7)
    before = [p.detach().clone() for p in run[0].parameters()]
    for parameter in run[0].parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    with nobody_waits():
        run[1].step()
    for p, q in zip(run[0].parameters(), before, strict=True):
        assert torch.equal(p, q)
    with pytest.raises(NonFiniteLossError, match="1 of the last steps"):
        run[1].state_dict()


def test_a_model_that_moves_takes_its_averages_along() -> None:
    run, twin = start("cpu"), start("cpu")
    train(run, 0, 20)
    train(twin, 0, 20)
    run[0].cuda()
    train(run, 20, 25)
    run[0].cpu()
    train(run, 25, 30)
    train(twin, 20, 30)
    for p, q in zip(run[0].parameters(), twin[0].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)
