"""Autocast and gradient scaling with AutoSAMT; `test_dtypes` has the published method."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt

from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import MODELS

LOSS = nn.functional.cross_entropy
Run = tuple[nn.Module, samt.AutoSAMT]


def start(kind: str = "mlp", **options: Any) -> Run:
    torch.manual_seed(5)
    model = MODELS[kind]().float()
    return model, samt.AutoSAMT(samt.blocks(model), **options)


def loss_of(run: Run, step: int, kind: str = "mlp") -> Tensor:
    inputs, targets = batch(kind, step)
    run[1].zero_grad()
    return LOSS(run[0](inputs.float()).float(), targets)


def state_of(run: Run) -> Any:
    return copy.deepcopy((dict(run[0].state_dict()), run[1].state_dict()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
def test_autocast_around_all_of_it_equals_autocast_around_the_model(
    kind: str, dtype: torch.dtype
) -> None:
    results = []
    for around in (True, False):
        run = start(kind)
        torch.manual_seed(6)
        outputs: list[torch.dtype] = []
        run[0].register_forward_hook(lambda *args, o=outputs: o.append(args[2].dtype))
        # One autocast for all steps keeps its casts of the weights, unless somebody drops them.
        with torch.autocast("cpu", dtype) if around else nullcontext():
            for step in range(20):
                with nullcontext() if around else torch.autocast("cpu", dtype):
                    loss = loss_of(run, step, kind)
                loss.backward()
                run[1].step()
        assert outputs == [dtype] * 20
        results.append(state_of(run))
    assert_same(results[0], results[1])


def test_autocast_around_a_closure_reaches_the_model_alone() -> None:
    run, twin = start(), start()
    for step in range(20):
        inputs, targets = batch("mlp", step)
        with torch.autocast("cpu", torch.bfloat16):
            run[1].step(samt.closure(run[0], LOSS, inputs.float(), targets))
            loss = LOSS(twin[0](inputs.float()), targets)
        twin[1].zero_grad()
        loss.backward()
        twin[1].step()
    assert_same(state_of(run)[0], state_of(twin)[0])


@pytest.mark.parametrize("unscaled_first", [False, True])
def test_a_gradient_scaler_changes_no_number_and_loses_nothing_when_it_skips(
    unscaled_first: bool,
) -> None:
    run, twin = start(), start()
    optimizer = run[1]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=5)
    scales = set()
    for step in range(20):
        for overflows in (True, False) if step in (0, 4, 7, 9, 12) else (False,):
            before = state_of(run)
            scaler.scale(loss_of(run, step) * (torch.inf if overflows else 1)).backward()
            if unscaled_first:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(run[0].parameters(), 1e6)
            scaler.step(optimizer)
            scaler.update()
            scales.add(scaler.get_scale())
            if overflows:
                assert_same(state_of(run), before)
        loss_of(twin, step).backward()
        twin[1].step()
    assert len(scales) > 3, "it shrank and grew"
    torch.testing.assert_close(state_of(run)[0], state_of(twin)[0], rtol=1e-4, atol=1e-6)
    assert optimizer.passes == twin[1].passes == (20, 20)


def test_float16_autocast_with_a_gradient_scaler_learns() -> None:
    run = start("convolutional")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    losses = []
    for _ in range(80):
        with torch.autocast("cpu", torch.float16):
            loss = loss_of(run, 0, "convolutional")
        scaler.scale(loss).backward()
        scaler.step(run[1])
        scaler.update()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    for parameter in run[0].parameters():
        assert {tensor.dtype for tensor in run[1].state[parameter].values()} == {torch.float32}
