"""Saving and loading: a resumed run is the run that was never interrupted, bit for bit."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import samt
from samt.errors import CheckpointMismatchError
from samt.partition import Partition

from .support.batches import batch
from .support.comparisons import assert_same
from .support.models import MODELS
from .support.saving import Run, load, saved, through_a_file

LOSS = nn.functional.cross_entropy


def build(
    seed: int, *, kind: str = "mlp", partition: Partition = None, **options: Any
) -> tuple[nn.Module, samt.SAMT]:
    torch.manual_seed(seed)
    model = MODELS[kind]()
    options = {"lr": 0.2, "meta_lr": 0.5, "seed": seed, **options}
    return model, samt.SAMT(samt.blocks(model, partition), **options)


def train(run: Run, steps: Iterable[int], kind: str = "mlp") -> None:
    model, optimizer = run
    groups = optimizer.param_groups
    fresh = any(g["meta_batch"] == "fresh" and g["parts"] != "fixed" for g in groups)
    for step in steps:
        torch.manual_seed(step)
        other = samt.closure(model, LOSS, *batch(kind, 100 + step)) if fresh else None
        optimizer.step(samt.closure(model, LOSS, *batch(kind, step)), other)


def last_dimension(tensor: Tensor) -> torch.Size:
    return tensor.shape[-1:]


OPTIONS: list[dict[str, Any]] = [
    {},
    *({"step_size": value} for value in ("row", "column", "element", last_dimension)),
    *({"step_size": value, "head": "dense"} for value in ("scalar", "row")),
    {"projection": "sigmoid", "step_size": "row"},
    *({"parts": value, "step_size": "row"} for value in ("left", "right", "fixed")),
    *({"meta_batch": value, "step_size": "row"} for value in ("same", "fresh", "next")),
    {"meta_batch": "next", "head": "dense", "step_size": "element", "radius": 0.2},
    *({"inner_steps": 2, "meta_batch": value} for value in ("subset", "next")),
    *({"order": order} for order in ("reverse", "random", "cyclic")),
    *({"order": order, "meta_batch": "next"} for order in ("random", "cyclic")),
    *({"radius": value, "meta_batch": "same"} for value in (0.05, 1e3)),
    *({"relative": value} for value in (True, 3.0)),
    {"weight_decay": 0.1},
    {"max_grad_norm": 0.05},
    {"lr": torch.tensor(0.2)},
    {"eta_hidden": 8, "meta_lr": 0.1},
    *({"partition": value, "meta_batch": "next"} for value in (1, 2, ["*.bias", "*"])),
    {"kind": "convolutional", "step_size": "row"},
    {"kind": "shared", "meta_batch": "next"},
]


def name_of(options: dict[str, Any]) -> str:
    values = (getattr(value, "__name__", value) for value in options.values())
    return ",".join(f"{key}={value}" for key, value in zip(options, values, strict=True))


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_a_resumed_run_continues_bit_for_bit(options: dict[str, Any], tmp_path: Path) -> None:
    kind = options.get("kind", "mlp")
    straight = build(1, **options)
    checkpoints = []
    for step in range(4):
        checkpoints.append(through_a_file(saved(*straight), tmp_path))
        train(straight, [step], kind)
    weight = list(straight[0].state_dict())[-1]
    assert not torch.equal(checkpoints[0]["model"][weight], checkpoints[3]["model"][weight])
    for step in (0, 2, 3):
        resumed = build(2, **options)
        load(resumed, checkpoints[step])
        assert_same(saved(*resumed), checkpoints[step])
        train(resumed, range(step, 4), kind)
        assert_same(saved(*resumed), saved(*straight))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
@pytest.mark.parametrize("options", [{}, {"meta_batch": "next", "step_size": "row", "radius": 1}])
def test_a_copy_of_model_and_optimizer_continues_bit_for_bit(
    copied: Callable[[Run], Run], options: dict[str, Any]
) -> None:
    for step in (0, 2):
        original = build(1, kind="convolutional", **options)
        train(original, range(step), "convolutional")
        twin = copied(original)
        before = saved(*twin)
        train(original, range(step, 4), "convolutional")
        assert_same(saved(*twin), before)  # nothing is shared
        train(twin, range(step, 4), "convolutional")
        assert_same(saved(*twin), saved(*original))


def test_blocks_and_parameters_are_matched_by_name() -> None:
    model, optimizer = build(1, step_size="row", meta_batch="next", radius=1.0)
    train((model, optimizer), range(3))
    other_model, _ = build(2)
    groups = samt.blocks(other_model)[::-1]
    for index, group in enumerate(groups):
        group["params"].reverse()
        group["param_names"].reverse()
        group["lr"] = 7.0 + index
    options = {"step_size": "row", "meta_batch": "next", "radius": 1.0}
    other = samt.SAMT(groups, order="reverse", **options)  # type: ignore[arg-type]
    other_model.load_state_dict(model.state_dict())
    other.load_state_dict(optimizer.state_dict())
    for group in other.param_groups:
        assert group["lr"] == 0.2
        group["order"] = "reverse"  # of the reversed blocks: the order of the first run
    by_name = dict(other_model.named_parameters())
    for name, parameter in model.named_parameters():
        assert_same(other.state[by_name[name]], optimizer.state[parameter])
    train((model, optimizer), range(3, 6))
    train((other_model, other), range(3, 6))
    # Block sums in the other order round differently in the last bit.
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(by_name[name], parameter, rtol=1e-12, atol=1e-14)


def test_without_names_the_order_decides() -> None:
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = MODELS["mlp"]()
        runs.append((model, samt.SAMT(model.parameters(), meta_lr=0.5, seed=seed)))
    train(runs[0], range(2))
    load(runs[1], saved(*runs[0]))
    for run in runs:
        train(run, range(2, 4))
    assert_same(saved(*runs[1]), saved(*runs[0]))


def of_torch(kind: type[torch.optim.Optimizer]) -> dict[str, Any]:
    model = MODELS["mlp"]()
    optimizer = kind(samt.blocks(model))  # type: ignore[call-arg]
    model(batch("mlp", 0)[0]).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def edited(edit: Callable[[dict[str, Any]], Any], **options: Any) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        state = copy.deepcopy(build(1, **options)[1].state_dict())
        edit(state)
        return state

    return make


def append_block(state: dict[str, Any]) -> None:
    first = state["param_groups"][0]
    state["param_groups"].append({**first, "params": [], "param_names": ["a"]})


# options of the optimizer, then those of the one that was saved, or how to make the state dict
Foreign = dict[str, Any] | Callable[[], dict[str, Any]]
FOREIGN: dict[str, tuple[dict[str, Any], Foreign]] = {
    "other step size": ({}, {"step_size": "row"}),
    "other square step size": ({"step_size": "column"}, {"step_size": "row"}),
    "other head": ({"step_size": "row"}, {"head": "dense", "step_size": "row"}),
    "other meta batch": ({"meta_batch": "next"}, {}),
    "other meta batch, the other way": ({}, {"meta_batch": "next"}),
    "other width": ({}, {"eta_hidden": 8}),
    "no eta model": ({}, {"parts": "fixed"}),
    "no ball": ({"radius": 1.0}, {}),
    "other model": ({}, {"kind": "shared"}),
    "fewer blocks": ({}, {"partition": 2}),
    "more blocks": ({"partition": 1}, {}),
    "other split": ({"partition": ["*.bias", "*"]}, {"partition": 2}),
    "of Adam": ({}, functools.partial(of_torch, torch.optim.Adam)),
    "of SGD": ({}, functools.partial(of_torch, torch.optim.SGD)),
    "of SGD, no eta model": ({"parts": "fixed"}, functools.partial(of_torch, torch.optim.SGD)),
    "empty": ({}, dict),
    "no state": ({}, edited(lambda state: state.update(state={}))),
    "a number for a tensor": ({}, edited(lambda state: state["state"][0].update(eta_model=3))),
    "one tensor too few": (
        {"meta_batch": "next"},
        edited(lambda state: state["state"][1].pop("eta_model"), meta_batch="next"),
    ),
    "one block too many": ({}, edited(append_block)),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_state_dict_is_refused_and_changes_nothing(what: str) -> None:
    options, foreign = FOREIGN[what]
    run, twin = build(1, **options), build(1, **options)
    train(run, range(2))
    train(twin, range(2))
    before = saved(*run)
    state = foreign() if callable(foreign) else build(1, **foreign)[1].state_dict()
    with pytest.raises(CheckpointMismatchError) as caught:
        run[1].load_state_dict(state)
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message, "says what to do"
    assert_same(saved(*run), before)
    train(run, range(2, 4))
    train(twin, range(2, 4))
    assert_same(saved(*run), saved(*twin))


def test_a_checkpoint_from_before_an_option_existed_still_loads() -> None:
    run, twin = build(1), build(1)
    train(run, range(2))
    old = saved(*run)
    for group in old["optimizer"]["param_groups"]:
        del group["max_grad_norm"], group["relative"]
    load(twin, old)
    train(run, range(2, 4))
    train(twin, range(2, 4))
    for one, other in zip(run[0].parameters(), twin[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_learning_rate_scheduler_is_resumed_with_the_optimizer(tmp_path: Path) -> None:
    def scheduled(seed: int) -> tuple[Run, torch.optim.lr_scheduler.LRScheduler]:
        run = build(seed)
        return run, torch.optim.lr_scheduler.ExponentialLR(run[1], 0.7)

    def go_on(pair: tuple[Run, torch.optim.lr_scheduler.LRScheduler], steps: range) -> None:
        for step in steps:
            train(pair[0], [step])
            pair[1].step()

    straight, resumed = scheduled(1), scheduled(2)
    go_on(straight, range(2))
    checkpoint = {**saved(*straight[0]), "scheduler": straight[1].state_dict()}
    checkpoint = through_a_file(checkpoint, tmp_path)
    load(resumed[0], checkpoint)
    resumed[1].load_state_dict(checkpoint["scheduler"])
    go_on(straight, range(2, 4))
    go_on(resumed, range(2, 4))
    assert_same(saved(*resumed[0]), saved(*straight[0]))
    assert straight[0][1].param_groups[0]["lr"] == pytest.approx(0.2 * 0.7**4)


def test_the_state_dict_is_complete_before_the_first_step() -> None:
    more: dict[str, Any] = {"meta_batch": "next", "radius": 1.0, "step_size": "row"}
    for options in ({}, more):
        run = build(1, **options)
        before = run[1].state_dict()["state"]
        shapes = {i: {k: v.shape for k, v in s.items()} for i, s in before.items()}
        assert len(shapes) == 6
        train(run, range(2))
        after = run[1].state_dict()["state"]
        assert {i: {k: v.shape for k, v in s.items()} for i, s in after.items()} == shapes


@pytest.mark.parametrize("step", [0, 2])
def test_loading_ones_own_state_dict_changes_nothing(step: int) -> None:
    """Accelerate does it when it prepares an optimizer."""
    run, twin = build(1, meta_batch="next"), build(1, meta_batch="next")
    train(run, range(step))
    train(twin, range(step))
    for _ in range(2):
        run[1].load_state_dict(run[1].state_dict())
    assert_same(saved(*run), saved(*twin))
    train(run, range(step, 4))
    train(twin, range(step, 4))
    assert_same(saved(*run), saved(*twin))


def test_loading_ones_own_state_dict_works_with_empty_blocks() -> None:
    model = MODELS["mlp"]()
    empty: list[dict[str, Any]] = [
        {"name": name, "params": [], "param_names": []} for name in ("one", "two")
    ]
    optimizer = samt.SAMT([*samt.blocks(model), *empty])
    optimizer.load_state_dict(optimizer.state_dict())
    assert [group["name"] for group in optimizer.param_groups][3:] == ["one", "two"]


def test_loading_twice_equals_loading_once() -> None:
    run, twin = build(1, step_size="row"), build(2, step_size="row")
    early = saved(*run)
    train(run, range(3))
    late = saved(*run)
    load(twin, late)
    train(twin, [9])
    load(twin, early)
    load(twin, late)
    assert_same(saved(*twin), late)
    train(twin, range(3, 5))
    train(run, range(3, 5))
    assert_same(saved(*twin), saved(*run))


@pytest.mark.parametrize("options", [{}, {"meta_batch": "next", "radius": 1.0, "lr": None}])
def test_training_after_loading_leaves_the_loaded_dict_alone(options: dict[str, Any]) -> None:
    if "lr" in options:
        options = {**options, "lr": torch.tensor(0.2)}
    run = build(1, **options)
    train(run, range(2))
    checkpoint = saved(*run)
    kept = copy.deepcopy(checkpoint)
    twin = build(2, **options)
    load(twin, checkpoint)
    train(twin, range(2, 4))
    if isinstance(twin[1].param_groups[0]["lr"], Tensor):
        twin[1].param_groups[0]["lr"].fill_(3.0)
    assert_same(checkpoint, kept)


def test_hooks_of_the_user_still_run() -> None:
    run, twin = build(1), build(2)
    train(run, range(2))
    seen: list[str] = []

    def before_saving(_: torch.optim.Optimizer) -> None:
        seen.append("before saving")

    def after_saving(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        seen.append("after saving")
        return {**state, "note": "kept"}

    def before_loading(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        seen.append(f"before loading: {state['note']}")
        groups = [{**group, "lr": 0.125} for group in state["param_groups"]]
        return {**state, "param_groups": groups}

    def after_loading(optimizer: torch.optim.Optimizer) -> None:
        first = optimizer.param_groups[0]["params"][0]
        source = run[1].param_groups[0]["params"][0]
        assert_same(optimizer.state[first], run[1].state[source])
        seen.append("after loading")

    run[1].register_state_dict_pre_hook(before_saving)
    run[1].register_state_dict_post_hook(after_saving)
    twin[1].register_load_state_dict_pre_hook(before_loading)
    twin[1].register_load_state_dict_post_hook(after_loading)
    twin[1].load_state_dict(run[1].state_dict())
    assert seen == ["before saving", "after saving", "before loading: kept", "after loading"]
    assert {group["lr"] for group in twin[1].param_groups} == {0.125}
    seen.clear()
    with pytest.raises(CheckpointMismatchError):
        twin[1].load_state_dict({**build(1, parts="fixed")[1].state_dict(), "note": "bad"})
    twin[1].load_state_dict(run[1].state_dict())
    assert seen.count("after loading") == 1


@pytest.mark.parametrize(
    "method", ["state_dict", "load_state_dict", "add_param_group", "zero_grad"]
)
def test_argument_names_equal_those_of_torch(method: str) -> None:
    own = inspect.signature(getattr(samt.SAMT, method)).parameters
    assert list(own) == list(inspect.signature(getattr(torch.optim.Optimizer, method)).parameters)
    assert list(inspect.signature(samt.SAMT.step).parameters)[:2] == ["self", "closure"]
    assert list(inspect.signature(samt.SAMT).parameters)[:2] == ["params", "lr"]
