"""What a closure may do, how often it is called, and what happens when it goes wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import samt
from samt import errors

from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import MODELS
from .support.snapshots import everything

LOSS = nn.functional.cross_entropy

# options, and how many evaluations of 3 blocks one step takes
MODES: list[tuple[dict[str, Any], int]] = [
    ({}, 6),
    ({"meta_batch": "same"}, 4),
    ({"meta_batch": "fresh"}, 6),
    ({"meta_batch": "next"}, 3),
    ({"parts": "fixed"}, 3),
    ({"inner_steps": 3}, 18),
    ({"inner_steps": 2, "meta_batch": "next", "order": "reverse"}, 6),
    ({"order": "random", "meta_batch": "same", "radius": 0.1}, 4),
    ({"order": "cyclic"}, 2),
    ({"order": "cyclic", "meta_batch": "next"}, 1),
    ({"partition": 2, "step_size": "row", "head": "dense"}, 4),
    ({"partition": 1}, 2),
    ({"partition": 1, "meta_batch": "next", "weight_decay": 0.1, "max_grad_norm": 0.1}, 1),
]
BARE: list[tuple[dict[str, Any], bool]] = [
    ({"meta_batch": "next", "partition": 1}, True),
    ({"meta_batch": "next", "order": "cyclic"}, True),
    ({"meta_batch": "next", "order": "cyclic", "step_size": "row", "radius": 0.1}, True),
    ({"parts": "fixed", "partition": 1, "weight_decay": 0.1}, True),
    ({"parts": "fixed", "order": "cyclic", "max_grad_norm": 0.05}, True),
    ({"parts": "fixed", "order": "cyclic", "meta_batch": "same"}, True),
    ({}, False),
    ({"partition": 1}, False),
    ({"order": "cyclic"}, False),
    ({"meta_batch": "same", "partition": 1}, False),
    ({"meta_batch": "next"}, False),
    ({"meta_batch": "next", "order": "random"}, False),
    ({"parts": "fixed"}, False),
    ({"meta_batch": "next", "partition": 1, "inner_steps": 2}, False),
    ({"parts": "fixed", "order": "cyclic", "inner_steps": 2}, False),
]


class Counting:
    """A plain closure that counts its calls, and does on demand what a closure may do."""

    def __init__(self, model: nn.Module, data: tuple[Tensor, Tensor], style: str = "plain") -> None:
        self.model, self.data, self.style = model, data, style
        self.calls = 0
        self.bad_call: Callable[[int, Tensor], Tensor] = lambda _, loss: loss

    def __call__(self) -> Any:
        self.calls += 1
        if "zero_grad" in self.style:
            self.model.zero_grad(set_to_none="in place" not in self.style)
        loss = LOSS(self.model(self.data[0]), self.data[1])
        loss = self.bad_call(self.calls, loss)
        if "backward" in self.style:
            loss.backward()
        return loss.item() if "float" in self.style else loss


STYLES = [
    "plain",
    "zero_grad",
    "backward",
    "zero_grad in place, backward",
    "zero_grad, backward, float",
]


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) > 30
    return message


def build(options: dict[str, Any], kind: str = "mlp") -> tuple[nn.Module, samt.SAMT]:
    torch.manual_seed(5)
    model = MODELS[kind]()
    options = {"lr": 0.2, "meta_lr": 0.5, **options}
    partition = options.pop("partition", None)
    return model, samt.SAMT(samt.blocks(model, partition), **options)


def meta_of(optimizer: samt.SAMT, model: nn.Module, style: str = "plain") -> Counting | None:
    """A plain function cannot be halved: with `subset` and `fresh` another one is given."""
    groups = optimizer.param_groups
    needed = any(g["meta_batch"] in ("subset", "fresh") and g["parts"] != "fixed" for g in groups)
    return Counting(model, batch("mlp", 99, 4), style) if needed else None


@pytest.mark.parametrize(("options", "evaluations"), MODES, ids=str)
@pytest.mark.parametrize("style", STYLES)
def test_the_loss_is_evaluated_exactly_as_often_as_passes_says(
    options: dict[str, Any], evaluations: int, style: str
) -> None:
    model, optimizer = build(options)
    assert optimizer.passes == (0, 0)
    for step in range(1, 4):
        closure, meta = Counting(model, batch("mlp", step), style), meta_of(optimizer, model, style)
        optimizer.step(closure, meta)
        assert closure.calls + (meta.calls if meta else 0) == evaluations
        assert optimizer.passes == (step * evaluations, step * evaluations)
        assert closure.calls == evaluations // (2 if meta else 1)


@pytest.mark.parametrize(("options", "evaluations"), MODES, ids=str)
def test_every_style_of_closure_gives_the_same_bits(
    options: dict[str, Any], evaluations: int
) -> None:
    results: list[Any] = []
    for style in STYLES:
        model, optimizer = build(options)
        for step in range(3):
            data = batch("mlp", step)
            expected = LOSS(model(data[0]), data[1])
            meta = meta_of(optimizer, model, style)
            loss = optimizer.step(Counting(model, data, style), meta)
            assert loss == expected
            assert isinstance(loss, float) == ("float" in style)
            assert not isinstance(loss, Tensor) or not loss.requires_grad
            assert all(p.grad is None and p.requires_grad for p in model.parameters())
        results.append(everything(model, optimizer))
        assert_same(results[-1], results[0])


def test_a_block_that_has_no_part_in_the_loss_is_counted_honestly() -> None:
    for style in STYLES:
        model, optimizer = build({"meta_batch": "same"}, "shared")
        closure = Counting(model, batch("shared", 0), style)
        optimizer.step(closure)
        assert optimizer.passes.forward == closure.calls


@pytest.mark.parametrize(("options", "allowed"), BARE, ids=str)
def test_bare_backward_and_step_works_exactly_where_nothing_is_evaluated_again(
    options: dict[str, Any], allowed: bool
) -> None:
    model, optimizer = build(options)
    twin, twin_optimizer = build(options)
    for step in range(5):
        data = batch("mlp", step)
        optimizer.zero_grad()
        LOSS(model(data[0]), data[1]).backward()
        if not allowed:
            before = everything(model, optimizer)
            with pytest.raises(errors.ClosureRequiredError, match=r"samt\.closure") as caught:
                optimizer.step()
            if options.get("inner_steps", 1) > 1:
                assert "inner_steps" in one_line(caught)
            assert_same(everything(model, optimizer), before)
            return
        assert optimizer.step() is None
        optimizer.zero_grad()
        twin_optimizer.step(samt.closure(twin, LOSS, *data))
        assert_same(everything(model, optimizer), everything(twin, twin_optimizer))


def test_bare_step_equals_the_closure_form_where_a_block_is_unused_now_and_then() -> None:
    """The eta model must meet the same gradients, whichever way they come."""
    results = []
    for bare in (True, False):
        torch.manual_seed(5)
        model = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)]).double()
        optimizer = samt.SAMT(samt.blocks(model), meta_batch="next", order="cyclic", meta_lr=0.5)
        for step in range(8):
            inputs, targets = batch("mlp", step)
            layer = model[step // 2 % 2]
            if bare:
                optimizer.zero_grad()
                LOSS(layer(inputs), targets).backward()
                optimizer.step()
                optimizer.zero_grad()
            else:
                optimizer.step(samt.closure(layer, LOSS, inputs, targets))
        results.append((dict(model.state_dict()), optimizer.state_dict()["state"]))
    assert_same(results[0], results[1])


def detached(model: nn.Module) -> Callable[[], Any]:
    data = batch("mlp", 0)
    return lambda: LOSS(model(data[0]), data[1]).item()


def under_no_grad(model: nn.Module) -> Callable[[], Any]:
    return torch.no_grad()(samt.closure(model, LOSS, *batch("mlp", 0)))


def detached_with_backward(model: nn.Module) -> Callable[[], Any]:
    closure = Counting(model, batch("mlp", 0), "backward")
    closure.bad_call = lambda _, loss: loss.detach()
    return closure


def without_return(model: nn.Module) -> Callable[[], Any]:
    closure = Counting(model, batch("mlp", 0), "backward")
    return lambda: [closure(), None][1]


def plain(model: nn.Module) -> Callable[[], Any]:
    return Counting(model, batch("mlp", 0))


def good(model: nn.Module) -> Callable[[], Any]:
    return samt.closure(model, LOSS, *batch("mlp", 0))


Maker = Callable[[nn.Module], Callable[[], Any]] | None
WRONG: dict[str, tuple[dict[str, Any], Maker, Maker, type[errors.SAMTError], str]] = {
    "a number instead of a tensor": ({}, detached, plain, errors.NoGradientError, "item"),
    "evaluated under no_grad": ({}, under_no_grad, plain, errors.NoGradientError, "return"),
    "a detached loss, then backward": (
        {},
        detached_with_backward,
        plain,
        errors.NoGradientError,
        "detach",
    ),
    "no loss returned": ({}, without_return, plain, errors.NoGradientError, "return"),
    "fresh without another batch": (
        {"meta_batch": "fresh"},
        good,
        None,
        errors.MetaBatchUnavailableError,
        "meta_closure=",
    ),
    "subset of a plain function": ({}, plain, None, errors.MetaBatchUnavailableError, "closure"),
    "subset of a closure without batch": (
        {},
        lambda model: samt.closure(model, detached(model)),
        None,
        errors.MetaBatchUnavailableError,
        "closure",
    ),
    "meta closure beside same": ({"meta_batch": "same"}, good, good, errors.OptionError, "subset"),
    "meta closure beside next": ({"meta_batch": "next"}, good, good, errors.OptionError, "subset"),
    "meta closure beside fixed": ({"parts": "fixed"}, good, good, errors.OptionError, "meta"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use_is_answered_with_the_cure_and_changes_nothing(what: str) -> None:
    options, closure, meta, error, word = WRONG[what]
    model, optimizer = build(options)
    assert closure is not None
    before = everything(model, optimizer)
    with pytest.raises(error, match=word) as caught:
        optimizer.step(closure(model), meta(model) if meta else None)
    one_line(caught)
    assert_same(everything(model, optimizer), before)


@pytest.mark.parametrize("frozen", [False, True])
def test_leftover_gradients_are_refused_and_kept(frozen: bool) -> None:
    model, optimizer = build({})
    good(model)().backward()
    kept = copy.deepcopy([p.grad for p in model.parameters()])
    model.requires_grad_(not frozen)
    with pytest.raises(errors.LeftoverGradientsError, match="zero_grad") as caught:
        optimizer.step(good(model))
    one_line(caught)
    assert_same([p.grad for p in model.parameters()], kept)
    optimizer.zero_grad()
    optimizer.step(good(model))


def test_a_meta_batch_of_one_block_only_may_be_given_in_every_call_of_cyclic_order() -> None:
    model, _ = build({})
    groups = samt.blocks(model)
    groups[1]["meta_batch"] = "fresh"
    optimizer = samt.SAMT(groups, meta_batch="next", order="cyclic")
    for _ in range(4):
        optimizer.step(good(model), good(model))
    assert optimizer.passes.forward == 5


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class Sum(nn.Module):
    """Takes its inputs as a tuple, list, dict or named tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, inputs: Any = None, **named: Tensor) -> Tensor:
        inputs = named or inputs
        parts = inputs.values() if isinstance(inputs, dict) else inputs
        return self.layer(sum(parts, torch.zeros(())))


@pytest.mark.parametrize("form", ["tuple", "list", "dict", "named tuple"])
def test_every_second_sample_of_any_form_of_batch(form: str) -> None:
    inputs, targets = batch("mlp", 0, 5)
    pair = (inputs, inputs.square())
    forms: dict[str, Any] = {
        "tuple": pair,
        "list": list(pair),
        "dict": {"left": pair[0], "right": pair[1]},
        "named tuple": Pair(*pair),
    }
    model = Sum()
    half = samt.closure(model, LOSS, forms[form], targets).every_second()
    assert isinstance(half.batch[0], type(forms[form]))
    expected = LOSS(model.layer((inputs + inputs.square())[[0, 2, 4]]), targets[[0, 2, 4]])
    assert torch.equal(half(), expected)
    samt.SAMT(samt.blocks(model)).step(samt.closure(model, LOSS, forms[form], targets))


@pytest.mark.parametrize("meta_batch", ["same", "next"])
def test_micro_batches_may_be_accumulated_inside_the_closure(meta_batch: str) -> None:
    model = MODELS["mlp"]()
    other = copy.deepcopy(model)
    both = [samt.SAMT(samt.blocks(m), meta_batch=meta_batch) for m in (model, other)]
    for step in range(3):
        inputs, labels = batch("mlp", step)

        def in_two(inputs: Tensor = inputs, labels: Tensor = labels) -> Tensor:
            whole = torch.zeros((), dtype=inputs.dtype)
            for x, y in zip(inputs.split(4), labels.split(4), strict=True):
                loss = LOSS(model(x), y) / 2
                loss.backward()
                whole += loss.detach()
            return whole

        both[0].step(in_two)
        both[1].step(samt.closure(other, LOSS, inputs, labels))
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
