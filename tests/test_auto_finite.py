"""Losses and gradients that are not finite: AutoSAMT names them, and waits for no accelerator."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.auto.auto_samt import LOOK_EVERY
from samt.errors import NonFiniteLossError

from .support.accelerators import NobodyLooks, play_accelerator
from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import MODELS

LOSS = nn.functional.cross_entropy
Run = tuple[nn.Module, samt.AutoSAMT]


@pytest.fixture(params=[torch.float64, torch.float32, torch.bfloat16], ids=str)
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A model and its optimizer on what plays an accelerator."""
    play_accelerator(monkeypatch)
    torch.manual_seed(3)
    model = MODELS["mlp"]().to(request.param)
    return model, samt.AutoSAMT(samt.blocks(model), weight_decay=0.1)


def gradients(run: Run, step: int, spoil: Callable[[Tensor], Any] | None = None) -> None:
    inputs, targets = batch("mlp", step)
    run[1].zero_grad()
    LOSS(run[0](inputs.to(next(run[0].parameters()).dtype)).float(), targets).backward()
    if spoil is not None:
        spoil(run[0].get_parameter("2.weight").grad)  # type: ignore[arg-type]


def everything(run: Run) -> Any:
    state = {p: dict(state) for p, state in run[1].state.items()}
    return copy.deepcopy(([p.detach() for p in run[0].parameters()], list(state.values())))


@pytest.mark.parametrize("done", [0, 1, 7])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_a_bad_step_on_an_accelerator_moves_nothing_and_is_told_of_later(
    run: Run, bad: float, done: int
) -> None:
    wide = next(run[0].parameters()).dtype == torch.float64
    bad = 1e200 if wide and bad == 1e30 else bad
    for step in range(done):
        gradients(run, step)
        with NobodyLooks():
            run[1].step()
    before = everything(run)
    for _ in range(2):
        gradients(run, done, lambda g: g.view(-1)[:1].fill_(bad))
        with NobodyLooks():
            run[1].step()
        assert_same(everything(run), before)
    gradients(run, done)
    with NobodyLooks():
        run[1].step()
    assert not torch.equal(everything(run)[1][0]["lead"], before[1][0]["lead"])
    with pytest.raises(NonFiniteLossError, match=f"2 of the last .* step {done + 3} had"):
        run[1].state_dict()
    run[1].state_dict()  # it is told once


def test_every_fiftieth_step_looks(run: Run) -> None:
    for step in range(LOOK_EVERY):
        gradients(run, step, (lambda g: g.fill_(math.nan)) if step == 3 else None)
        with NobodyLooks():
            run[1].step()
    gradients(run, 0)
    before = everything(run)
    with pytest.raises(NonFiniteLossError, match="1 of the last steps before step 50"):
        run[1].step()
    assert_same(everything(run), before)
    run[1].step()


def test_an_accelerator_takes_the_same_steps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters without a gradient, groups with options and a late group are in it."""
    twin = copy.deepcopy(run)
    for _, optimizer in (run, twin):
        optimizer.param_groups[1]["lr"] = 0.5
        optimizer.param_groups[2].update(betas=(0.8, 0.9), learning=False)
    for step in range(40):
        for each, plays in ((run, True), (twin, False)):
            play_accelerator(monkeypatch, plays)
            each[0].get_parameter("0.weight").requires_grad_(step % 5 < 3)
            gradients(each, step)
            each[1].step()
    low = next(run[0].parameters()).dtype == torch.bfloat16
    tolerance = 2e-2 if low else 2e-3 if next(run[0].parameters()).dtype == torch.float32 else 1e-8
    for p, q in zip(run[0].parameters(), twin[0].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(run[1].param_groups, twin[1].param_groups, strict=True):
        assert isinstance(ours["step_size"], Tensor)
        assert float(ours["step_size"]) == pytest.approx(theirs["step_size"], rel=0.2)


def test_a_scheduler_and_a_history_make_an_accelerator_wait_for_nothing(run: Run) -> None:
    model, optimizer = run
    history = samt.History(optimizer)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 40, cycle_momentum=False)
    for step in range(6):
        gradients(run, step)
        with NobodyLooks():
            optimizer.step()
        scheduler.step()
    assert len(history.rows) == 6 * len(list(model.parameters()))


def test_a_loss_of_a_closure_on_an_accelerator(run: Run) -> None:
    before = everything(run)

    def closure() -> Tensor:
        gradients(run, 0)
        return torch.tensor(math.nan)

    with NobodyLooks():
        run[1].step(closure)
    assert_same(everything(run), before)
    with pytest.raises(NonFiniteLossError, match="1 of the last"):
        run[1].state_dict()


@pytest.mark.parametrize("as_number", [True, False])
def test_a_loss_on_the_host_is_refused_at_once(as_number: bool) -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = samt.AutoSAMT([weight])

    def closure() -> Any:
        loss = weight.sum() * math.nan
        loss.backward()
        return loss.item() if as_number else loss

    with pytest.raises(NonFiniteLossError, match="the loss is nan at step 0"):
        optimizer.step(closure)
    assert weight.item() == 2.0


def test_a_closure_that_returns_more_than_a_loss() -> None:
    weight = nn.Parameter(torch.tensor([2.0, 3.0]))
    optimizer = samt.AutoSAMT([weight])
    loss, extra = optimizer.step(lambda: (weight.square().sum(), {"accuracy": 1}))
    loss = loss.detach()
    assert extra == {"accuracy": 1}
    assert loss.item() == 13
    assert weight[0] < 2
    with pytest.raises(samt.errors.ClosureResultError, match=r"loss\.mean\(\)"):
        optimizer.step(weight.square)
