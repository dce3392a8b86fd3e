"""compile=True takes the same steps, to rounding, and keeps every promise of the eager step."""

from __future__ import annotations

import copy
import shutil
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.errors import NonFiniteLossError, OptionError

from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import Convolutional, mlp

LOSS = nn.functional.cross_entropy
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
# torch's own compiler stack warns about its own deprecations.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Scale(nn.Module):
    """One learned number: a parameter without dimensions, which compilers get wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def with_batch_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.LeakyReLU(), Scale(), nn.Linear(6, 3)
    ).double()


def trained(
    steps: int, partition: int | None, **options: Any
) -> tuple[nn.Module, samt.SAMT, samt.History, list[Tensor]]:
    torch.manual_seed(3)
    model = with_batch_norm()
    optimizer = samt.SAMT(samt.blocks(model, partition), lr=0.3, meta_lr=0.5, **options)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    history = samt.History(optimizer)
    losses = []
    for step in range(steps):
        loss = optimizer.step(samt.closure(model, LOSS, *batch("mlp", step)))
        assert isinstance(loss, Tensor)
        losses.append(loss)
        schedule.step()
    return model, optimizer, history, losses


@needs_compiler
@pytest.mark.parametrize(
    ("partition", "options"),
    [
        (None, {"step_size": "row", "meta_batch": "subset", "radius": 0.8, "weight_decay": 0.1}),
        (1, {"step_size": "element", "meta_batch": "next", "max_grad_norm": 0.5}),
    ],
    ids=str,
)
def test_compiled_steps_are_the_eager_steps(
    partition: int | None, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "samt")
    eager = trained(6, partition, **options)
    assert not caplog.messages
    model, optimizer, history, losses = trained(6, partition, compile=True, **options)
    (message,) = (record.message for record in caplog.records if record.name == "samt")
    assert message.startswith("samt compiled a sweep in ")
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
    close(losses, eager[3])
    close(model.state_dict(), eager[0].state_dict())
    close(optimizer.state_dict()["state"], eager[1].state_dict()["state"])
    assert optimizer.passes == eager[1].passes
    assert [row["eta"] for row in history.rows] == pytest.approx(
        [row["eta"] for row in eager[2].rows], rel=1e-9
    )
    # A step that fails is taken back, and the next one goes on as if it had not been.
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    inputs, targets = batch("mlp", 9)
    with pytest.raises(NonFiniteLossError, match="block"):
        optimizer.step(samt.closure(model, LOSS, inputs * torch.inf, targets))
    after = (model.state_dict(), optimizer.state_dict())
    assert_same(after, before)
    for each, its_model in ((optimizer, model), (eager[1], eager[0])):
        each.step(samt.closure(its_model, LOSS, inputs, targets))
    close(model.state_dict(), eager[0].state_dict())


def test_a_model_that_draws_random_numbers_runs_without_after_one_warning() -> None:
    weights = []
    for compiled in (False, True):
        torch.manual_seed(3)
        model = Convolutional().double()
        optimizer = samt.SAMT(samt.blocks(model), compile=compiled)
        if compiled:
            with pytest.warns(RuntimeWarning, match="draws random numbers"):
                optimizer.step(samt.closure(model, LOSS, *batch("convolutional", 0)))
        for step in range(0 if not compiled else 1, 4):
            optimizer.step(samt.closure(model, LOSS, *batch("convolutional", step)))
        weights.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    assert torch.equal(*weights)


def test_a_plain_function_is_refused() -> None:
    model = mlp()
    optimizer = samt.SAMT(samt.blocks(model), compile=True, meta_batch="same")
    inputs, targets = batch("mlp", 0)
    with pytest.raises(OptionError, match=r"samt\.closure"):
        optimizer.step(lambda: LOSS(model(inputs), targets))


def test_too_many_forms_of_step_run_without_after_one_warning() -> None:
    model = mlp()
    optimizer = samt.SAMT(samt.blocks(model), compile=True)
    losses = [nn.CrossEntropyLoss() for _ in range(10)]
    for loss_fn in losses[:8]:
        optimizer.step(samt.closure(model, loss_fn, *batch("mlp", 0)))
    with pytest.warns(RuntimeWarning, match="more than 8 forms"):
        optimizer.step(samt.closure(model, losses[8], *batch("mlp", 0)))
    optimizer.step(samt.closure(model, losses[9], *batch("mlp", 0)))
