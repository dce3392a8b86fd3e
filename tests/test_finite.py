"""Numbers that are not finite: SAMT looks at those in host memory at once, and takes the step back.

Those on an accelerator it looks at together at the end of the step. Where there is none, the CPU
plays the accelerator here.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.alternating import samt as samt_module
from samt.alternating import sweep
from samt.errors import NonFiniteLossError
from samt.tensors.finite import FiniteNumbers, Named

from .support.accelerators import NobodyLooks
from .support.batches import batch
from .support.closures import Fault, failing
from .support.comparisons import assert_same
from .support.models import MODELS

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
    device = next(model.parameters()).device
    batches = [[x.to(device) for x in batch("convolutional", n)] for n in (number, 50 + number)]
    closure, other = (samt.closure(model, loss_fn, *one) for one in batches)
    fresh = optimizer.defaults["meta_batch"] == "fresh"
    optimizer.step(closure, other if fresh else None)


def tensors(model: nn.Module, optimizer: samt.SAMT) -> dict[str, Any]:
    return copy.deepcopy({"model": model.state_dict(), "state": optimizer.state_dict()["state"]})


class LateNumbers(FiniteNumbers):
    """Looks at every number at the end of the step, as at those on an accelerator."""

    looks = True

    def check(self, numbers: Named, block: str | None = None) -> None:
        self.collected += [(torch.as_tensor(number), what, block) for number, what in numbers]

    def look(self) -> None:
        if self.looks:
            super().look()
        self.collected.clear()


@pytest.fixture
def late_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU plays the accelerator."""
    monkeypatch.setattr(samt_module, "FiniteNumbers", LateNumbers)
    monkeypatch.setattr(sweep, "_on_accelerator", lambda block: True)


def goes_wrong_in_each_evaluation(options: dict[str, Any], device: str, late: bool) -> None:
    """Let each evaluation of a step in turn give NaN, and assert that nothing has changed."""
    model = MODELS["convolutional"]().to(device)
    optimizer = samt.SAMT(samt.blocks(model), **{"lr": 0.2, "meta_lr": 0.5, **options})
    fault = Fault(math.nan)
    loss_fn = failing(fault)
    step(model, optimizer, 0, loss_fn)
    evaluations = fault.calls
    assert evaluations >= 1
    for fails_at in range(1, evaluations + 1):
        before = tensors(model, optimizer)
        passes = optimizer.passes
        fault.calls, fault.fails_at = 0, fails_at
        with pytest.raises(NonFiniteLossError, match=r"the loss is nan in block .* at step 1; "):
            step(model, optimizer, 1, loss_fn)
        assert fault.calls == (evaluations if late else fails_at)
        assert_same(tensors(model, optimizer), before)
        assert optimizer.passes == passes
    fault.fails_at = 0
    step(model, optimizer, 1, loss_fn)
    after = tensors(model, optimizer)
    assert any(not torch.equal(after["model"][n], w) for n, w in before["model"].items())


@pytest.mark.parametrize("options", MODES, ids=str)
def test_a_bad_loss_on_the_cpu_is_refused_at_once(options: dict[str, Any]) -> None:
    goes_wrong_in_each_evaluation(options, "cpu", late=False)


@pytest.mark.usefixtures("late_numbers")
@pytest.mark.parametrize("options", MODES, ids=str)
def test_a_bad_loss_that_is_seen_at_the_end_is_taken_back(options: dict[str, Any]) -> None:
    goes_wrong_in_each_evaluation(options, "cpu", late=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", MODES, ids=str)
def test_a_bad_loss_on_a_gpu_is_taken_back_in_the_same_step(options: dict[str, Any]) -> None:
    goes_wrong_in_each_evaluation(options, "cuda", late=True)


@pytest.mark.usefixtures("late_numbers")
@pytest.mark.parametrize("options", MODES, ids=str)
@pytest.mark.parametrize("blocks", [None, 1])
def test_before_the_end_of_a_step_nobody_looks_at_a_number(
    options: dict[str, Any], blocks: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LateNumbers, "looks", False)
    model = MODELS["convolutional"]()
    optimizer = samt.SAMT(samt.blocks(model, blocks), **options)
    samt.History(optimizer)
    with NobodyLooks():
        for number in range(3):
            step(model, optimizer, number, nn.functional.cross_entropy)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NobodyLooks():
        torch.ones(()).item()


@pytest.mark.usefixtures("late_numbers")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_gradient_of_a_step_without_closure_is_taken_back(bad: float) -> None:
    model = MODELS["mlp"]()
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="next", order="cyclic", meta_lr=0.5)
    for number in range(7):
        inputs, targets = batch("mlp", number)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        before = tensors(model, optimizer)
        if number in (0, 4):
            gradient = optimizer.param_groups[number % 3]["params"][0].grad
            assert gradient is not None
            kept = gradient[0].clone()
            gradient[0] = bad
            with pytest.raises(NonFiniteLossError, match=f"at step {number};"):
                optimizer.step()
            assert_same(tensors(model, optimizer), before)
            gradient[0] = kept
        optimizer.step()


@pytest.mark.usefixtures("late_numbers")
def test_a_bad_step_leaves_no_row_in_the_history() -> None:
    model = MODELS["convolutional"]()
    optimizer = samt.SAMT(samt.blocks(model))
    history = samt.History(optimizer)
    fault = Fault(math.nan)
    step(model, optimizer, 0, failing(fault))
    rows = history.rows
    fault.fails_at = fault.calls + 2
    with pytest.raises(NonFiniteLossError):
        step(model, optimizer, 1, failing(fault))
    assert history.rows == rows


@pytest.mark.usefixtures("late_numbers")
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


class OnDevice(Tensor):
    """A number that says that an accelerator holds it."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")


def on_device(number: float) -> Tensor:
    return torch.tensor(number).as_subclass(OnDevice)


def test_numbers_on_a_device_are_collected_and_looked_at_once() -> None:
    numbers = FiniteNumbers("lower lr")
    numbers.step = 7
    numbers.check([(1.0, "the loss")])
    numbers.check([(on_device(1.0), "the loss")], "first")
    numbers.check([(on_device(math.inf), "the length of the step")], "second")
    with pytest.raises(NonFiniteLossError) as caught:
        numbers.look()
    assert str(caught.value) == (
        "the length of the step is inf in block 'second' at step 7; weights and state are those "
        "of before this step: lower lr"
    )
    numbers.look()
    with pytest.raises(NonFiniteLossError, match=r"^the loss is nan at step 7; .*: lower lr$"):
        numbers.check([(torch.tensor(math.nan), "the loss")])
