"""Options, names, devices and modes that change between steps: it works, or has a named error.

`torch.optim.AdamW` is the control: where it works, ours do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import samt
from samt.baselines import Dante
from samt.errors import OptionError, SAMTError, StateMismatchError, UninitializedParameterError

from .support.between_steps import KINDS, LOSS, data, every_kind, network, ours, start, steps
from .support.comparisons import assert_same

# Options that are edited.


def everything(model: nn.Module, optimizer: Optimizer) -> Any:
    return copy.deepcopy(([p.detach() for p in model.parameters()], optimizer.state_dict()))


EDITS: dict[str, Any] = {
    "lr": [-1.0, "much", float("nan"), None, torch.ones(2)],
    "order": ["sideways"],
}


@ours
@pytest.mark.parametrize("name", EDITS)
def test_an_edited_option_that_is_wrong_is_refused_before_anything_moves(
    kind: str, name: str
) -> None:
    for value in EDITS[name] if kind != "auto-samt" or name == "lr" else ():
        model, optimizer = start(kind)
        before = everything(model, optimizer)
        saved = optimizer.param_groups[1][name]
        optimizer.param_groups[1][name] = value
        with pytest.raises(OptionError, match=name):
            steps(model, optimizer, 1)
        optimizer.param_groups[1][name] = saved
        assert_same(everything(model, optimizer), before)


@ours
def test_an_option_of_all_blocks_is_the_same_in_all_groups(kind: str) -> None:
    model, optimizer = start(kind)
    if "replay" not in optimizer.param_groups[0]:
        return  # AutoSAMT has no such option
    optimizer.param_groups[1]["replay"] = False
    with pytest.raises(OptionError, match="replay is one for all blocks"):
        steps(model, optimizer, 1)
    optimizer.param_groups[0]["replay"] = False
    steps(model, optimizer, 1)


def test_the_shape_of_step_sizes_cannot_change_later() -> None:
    model, optimizer = start("samt")
    optimizer.param_groups[0]["step_size"] = "row"
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(OptionError, match="cannot change"):
        steps(model, optimizer, 1)
    assert_same([p.detach() for p in model.parameters()], before)


@pytest.mark.parametrize("edit", [{"meta_batch": "next"}, {"radius": 0.5}, {"parts": "fixed"}])
def test_options_that_need_other_state_may_be_edited(edit: dict[str, Any]) -> None:
    model, optimizer = start("samt")
    for group in optimizer.param_groups:
        group.update(edit)
    before = [p.detach().clone() for p in model.parameters()]
    steps(model, optimizer, 3)
    assert all(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


# Numbers.

NUMBERS = [
    {"lr": torch.tensor([0.1])},
    {"lr": torch.tensor(0.1)},
    {"lr": np.float32(0.1)},
    {"lr": np.float64(0.1)},
    {"lr": np.array(0.1)},
    {"lr": 1},
]


@pytest.mark.parametrize("options", NUMBERS, ids=repr)
@pytest.mark.parametrize("make", [torch.optim.AdamW, samt.SAMT, Dante])
def test_anything_with_one_value_is_a_number(
    make: Callable[..., Optimizer], options: dict[str, Any]
) -> None:
    results = []
    for chosen in (options, {"lr": float(options["lr"])}):
        model = network()
        optimizer = make(samt.blocks(model), **chosen)
        steps(model, optimizer, 2)
        for group in optimizer.param_groups:
            group["lr"] = options["lr"] if chosen is options else float(options["lr"])
        steps(model, optimizer, 2)
        results.append(list(model.parameters()))
    for own, their in zip(*results, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": np.float32(0.125)},
        {"seed": np.int64(3)},
        {"inner_steps": np.int32(2)},
        {"meta_lr": torch.tensor([0.5])},
        {"replay": np.bool_(False)},
        {"relative": np.float64(3.0)},
    ],
    ids=repr,
)
def test_numbers_of_numpy_become_numbers_of_python(options: dict[str, Any], tmp_path: Any) -> None:
    ((name, value),) = options.items()
    model = network()
    optimizer = samt.SAMT(samt.blocks(model), **options)
    found = optimizer.param_groups[0][name]
    assert type(found) in (int, float, bool)
    assert found == value.item()
    steps(model, optimizer, 1)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))


# Devices and modes.


@every_kind
def test_the_default_device_is_no_concern(kind: str) -> None:
    model, (twin, other) = network(), start(kind, 3)
    torch.set_default_device("meta")
    try:
        optimizer = KINDS[kind](samt.blocks(model))
    finally:
        torch.set_default_device(None)
    inputs, targets = data()
    torch.set_default_device("meta")
    try:
        for _ in range(3):
            if kind == "adamw":
                optimizer.zero_grad()
                LOSS(model(inputs), targets).backward()
                optimizer.step()
            else:
                optimizer.step(samt.closure(model, LOSS, inputs, targets))
        state = optimizer.state_dict()
        optimizer.load_state_dict(state)
    finally:
        torch.set_default_device(None)
    assert_same([*model.state_dict().values()], [*twin.state_dict().values()])
    del other


@every_kind
def test_an_optimizer_may_be_made_in_inference_mode(kind: str) -> None:
    model, (twin, _) = network(), start(kind, 3)
    with torch.inference_mode():
        optimizer = KINDS[kind](samt.blocks(model))
    steps(model, optimizer, 3)
    assert_same([*model.state_dict().values()], [*twin.state_dict().values()])


@every_kind
def test_lazy_modules_train_once_they_have_a_shape(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    optimizer = KINDS[kind](samt.blocks(model))
    if kind != "adamw":
        with pytest.raises(UninitializedParameterError, match="call the model once"):
            optimizer.step(samt.closure(model, LOSS, *data()))
    optimizer.state_dict()
    model(data()[0])
    before = [p.detach().clone() for p in model.parameters()]
    steps(model, optimizer, 2)
    assert all(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


# Names when loading.


def renamed(blocks: list[dict[str, Any]], rename: Callable[[str], str]) -> list[dict[str, Any]]:
    return [{**b, "param_names": [rename(name) for name in b["param_names"]]} for b in blocks]


@ours
@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: name.replace(".", "._checkpoint_wrapped_module."),
        lambda name: f"encoder.layer{name}",
    ],
)
def test_names_are_a_help_and_no_condition(kind: str, rename: Callable[[str], str]) -> None:
    model, optimizer = start(kind)
    twin = copy.deepcopy(model)
    other = KINDS[kind](renamed(samt.blocks(twin), rename))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert other.param_groups[0]["param_names"][0] == rename("0.weight")
    steps(model, optimizer, 3)
    steps(twin, other, 3)
    assert_same([*twin.state_dict().values()], [*model.state_dict().values()])


@ours
def test_wrapped_names_are_matched_by_name_in_another_order(kind: str) -> None:
    model, optimizer = start(kind)
    twin = copy.deepcopy(model)
    blocks = renamed(samt.blocks(twin), lambda name: f"module.{name}")
    for block in blocks:
        block["params"].reverse()
        block["param_names"].reverse()
    other = KINDS[kind](blocks)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for name, parameter in twin.named_parameters():
        expected = optimizer.state.get(model.get_parameter(name), {})
        assert_same(dict(other.state.get(parameter, {})), dict(expected))


def test_an_averaged_model_has_the_names_of_its_model() -> None:
    model, optimizer = start("samt")
    averaged = torch.optim.swa_utils.AveragedModel(model)
    other = samt.SAMT(samt.blocks(averaged))
    other.load_state_dict(optimizer.state_dict())
    for own, their in zip(averaged.module.parameters(), model.parameters(), strict=True):
        assert_same(dict(other.state[own]), dict(optimizer.state[their]))


def test_names_that_stand_in_other_places_are_refused_with_both_lists() -> None:
    _, optimizer = start("samt")
    twin = network()
    blocks = samt.blocks(twin)
    blocks[0]["param_names"], blocks[1]["param_names"] = ["0.weight", "2.bias"], ["other", "0.bias"]
    with pytest.raises(samt.errors.CheckpointMismatchError) as caught:
        samt.SAMT(blocks).load_state_dict(optimizer.state_dict())
    message = str(caught.value)
    assert "0.weight, 0.bias, 2.weight, 2.bias" in message
    assert "0.weight, 2.bias, other, 0.bias" in message
    assert "\n" not in message


@ours
def test_a_checkpoint_fits_before_and_after_a_layer_is_unfrozen(kind: str) -> None:
    frozen, trained = network(), network()
    frozen[0].requires_grad_(False)
    optimizers = [KINDS[kind](samt.blocks(model)) for model in (frozen, trained)]
    for model, optimizer in zip((frozen, trained), optimizers, strict=True):
        steps(model, optimizer, 3)
    states = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    fresh = copy.deepcopy(optimizers[1].state.get(trained[0].weight, {}))
    optimizers[1].load_state_dict(states[0])
    assert_same(dict(optimizers[1].state.get(trained[0].weight, {})), dict(fresh))
    optimizers[0].load_state_dict(states[1])
    for model, optimizer in zip((frozen, trained), optimizers, strict=True):
        steps(model, optimizer, 2)
    assert torch.equal(frozen[0].weight, network()[0].weight)


# Compiled steps.


@pytest.mark.filterwarnings("ignore")  # torch warns of something else while it compiles
@pytest.mark.parametrize("kind", ["samt", "samt, next", "dante"])
def test_a_step_that_is_called_from_compiled_code_runs_as_it_is(kind: str) -> None:
    (model, optimizer), (twin, other) = start(kind), start(kind)
    inputs, targets = data()
    step: Any = torch.compile(optimizer.step)
    step(samt.closure(model, LOSS, inputs, targets))

    def train_step(inputs: Tensor, targets: Tensor) -> Any:
        return optimizer.step(samt.closure(model, LOSS, inputs, targets))

    compiled: Any = torch.compile(train_step)
    compiled(inputs, targets)
    steps(twin, other, 2)
    assert_same([*model.state_dict().values()], [*twin.state_dict().values()])


def test_every_error_here_is_one_of_samt() -> None:
    for error in (StateMismatchError, UninitializedParameterError):
        assert issubclass(error, SAMTError)
