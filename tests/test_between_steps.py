"""What users do to an optimizer or a model between two steps: it works, or has a named error.

`torch.optim.AdamW` is the control: where it works, ours do.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import samt
from samt.baselines import Dante
from samt.errors import (
    OptionError,
    SAMTError,
    StateMismatchError,
    UninitializedParameterError,
    UnsupportedGradientError,
)

from .support.comparisons import assert_same

LOSS = nn.functional.cross_entropy
Make = Callable[[Any], Any]
KINDS: dict[str, Make] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, 1e-2),
    "samt": samt.SAMT,
    "samt, row, ball": lambda groups: samt.SAMT(groups, step_size="row", radius=10.0),
    "samt, next": lambda groups: samt.SAMT(groups, step_size="element", meta_batch="next"),
    "samt, fixed": lambda groups: samt.SAMT(groups, parts="fixed"),
    "dante": lambda groups: Dante(groups, 1e-2),
}
OURS = [kind for kind in KINDS if kind != "adamw"]
# Their state has tensors that are as large as the parameter, or as its rows.
SHAPED = ["samt, row, ball", "samt, next"]
every_kind = pytest.mark.parametrize("kind", KINDS)
ours = pytest.mark.parametrize("kind", OURS)


def data(dtype: torch.dtype = torch.float32, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, 6, generator=generator)
    return inputs.to(dtype), torch.randint(0, classes, (32,), generator=generator)


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def steps(model: nn.Module, optimizer: Any, count: int) -> None:
    """Train for some steps."""
    inputs, targets = data(next(p for p in model.parameters() if p.is_floating_point()).dtype)
    for _ in range(count):
        if isinstance(optimizer, torch.optim.AdamW):
            optimizer.zero_grad()
            LOSS(model(inputs), targets).backward()
            optimizer.step()
        else:
            optimizer.step(samt.closure(model, LOSS, inputs, targets))


def start(kind: str, count: int = 5) -> tuple[Any, Any]:
    model = network()
    optimizer = KINDS[kind](samt.blocks(model))
    steps(model, optimizer, count)
    return model, optimizer


def replace(optimizer: Optimizer, group: int, index: int, new: nn.Parameter) -> None:
    """Put a parameter in the place of another, and move the state along."""
    params = optimizer.param_groups[group]["params"]
    state = optimizer.state.pop(params[index], None)
    params[index] = new
    if state is not None:
        optimizer.state[new] = state


def everything(model: nn.Module, optimizer: Optimizer) -> Any:
    return copy.deepcopy(([p.detach() for p in model.parameters()], optimizer.state_dict()))


@every_kind
def test_a_replaced_parameter_is_trained_with_the_state_that_moved_along(kind: str) -> None:
    model, optimizer = start(kind)
    twin, other = start(kind)
    new = nn.Parameter(model[0].weight.detach().clone())
    replace(optimizer, 0, 0, new)
    model[0].weight = new
    steps(model, optimizer, 5)
    steps(twin, other, 5)
    assert_same(list(model.state_dict().values()), list(twin.state_dict().values()))


@every_kind
def test_a_grown_parameter_works_or_its_state_is_refused_by_name(kind: str) -> None:
    model, optimizer = start(kind)
    for index, name in enumerate(("weight", "bias")):
        old = getattr(model[2], name)
        new = nn.Parameter(torch.cat([old.detach(), torch.zeros(2, *old.shape[1:])]))
        replace(optimizer, 1, index, new)
        setattr(model[2], name, new)
        for key in ("exp_avg", "exp_avg_sq"):
            if key in optimizer.state.get(new, {}):
                more = torch.zeros(2, *old.shape[1:])
                optimizer.state[new][key] = torch.cat([optimizer.state[new][key], more])
    if kind in SHAPED:
        before = [p.detach().clone() for p in model.parameters()]
        with pytest.raises(StateMismatchError, match="delete optimizer") as caught:
            steps(model, optimizer, 1)
        assert "\n" not in str(caught.value)
        assert_same([p.detach() for p in model.parameters()], before)
        for parameter in model[2].parameters():
            del optimizer.state[parameter]
    before = [p.detach().clone() for p in model.parameters()]
    steps(model, optimizer, 2)
    assert all(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


@every_kind
def test_parameters_that_are_put_into_a_group_are_trained(kind: str) -> None:
    model, optimizer = start(kind)
    model.append(nn.Linear(3, 3))
    optimizer.param_groups[-1]["params"].extend(model[3].parameters())
    before = [p.detach().clone() for p in model[3].parameters()]
    steps(model, optimizer, 3)
    assert all(not torch.equal(p, b) for p, b in zip(model[3].parameters(), before, strict=True))
    if kind == "adamw":
        return
    history = samt.History(optimizer)
    steps(model, optimizer, 1)
    names = [row["parameter"] for row in history.rows if row["block"] == "2"]
    assert names[-4:] == ["2.weight", "2.bias", "2[2]", "2[3]"]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


@every_kind
def test_a_popped_group_and_a_popped_parameter_stay_where_they_are(kind: str) -> None:
    model, optimizer = start(kind)
    optimizer.param_groups.pop(0)
    del optimizer.param_groups[0]["params"][1]
    if "param_names" in optimizer.param_groups[0]:
        del optimizer.param_groups[0]["param_names"][1]
    still = [model[0].weight, model[0].bias, model[2].bias]
    before = [p.detach().clone() for p in still]
    moving = model[2].weight.detach().clone()
    steps(model, optimizer, 3)
    assert_same([p.detach() for p in still], before)
    assert not torch.equal(model[2].weight, moving)


@ours
def test_without_any_group_a_step_is_refused_by_name(kind: str) -> None:
    model, optimizer = start(kind)
    optimizer.param_groups.clear()
    with pytest.raises(OptionError, match="no blocks"):
        steps(model, optimizer, 1)


@ours
def test_a_group_that_was_appended_by_hand_is_refused_by_name(kind: str) -> None:
    model, optimizer = start(kind)
    layer = nn.Linear(3, 3)
    optimizer.param_groups.append({"params": list(layer.parameters())})
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(OptionError, match="add_param_group"):
        steps(model, optimizer, 1)
    assert_same([p.detach() for p in model.parameters()], before)


@every_kind
@pytest.mark.parametrize("how", ["clear", "new"])
def test_a_cleared_state_begins_anew(kind: str, how: str) -> None:
    model, optimizer = start(kind)
    if how == "clear":
        optimizer.state.clear()
    else:
        optimizer.state = defaultdict(dict)
    fresh = copy.deepcopy(model)
    other = KINDS[kind](samt.blocks(fresh))
    for group, own in zip(other.param_groups, optimizer.param_groups, strict=True):
        group["calls"] = own.get("calls", 0)
    steps(model, optimizer, 4)
    steps(fresh, other, 4)
    assert_same(list(model.state_dict().values()), list(fresh.state_dict().values()))


@every_kind
@pytest.mark.parametrize("count", [0, 5])
def test_a_model_that_is_converted_trains_on_in_its_new_precision(kind: str, count: int) -> None:
    model, optimizer = start(kind, count)
    model.double()
    if kind == "adamw" and count:
        return  # its state stays behind, which torch refuses or not, by the version
    before = [p.detach().clone() for p in model.parameters()]
    steps(model, optimizer, 3)
    assert all(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert all(p.dtype == torch.float64 for p in model.parameters())
    tensors = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    assert all(tensor.dtype == torch.float64 for tensor in tensors)


@ours
def test_a_model_that_is_converted_before_the_first_step_equals_one_that_always_was(
    kind: str,
) -> None:
    model, optimizer = start(kind, 0)
    model.double()
    twin = network().double()
    other = KINDS[kind](samt.blocks(twin))
    steps(model, optimizer, 4)
    steps(twin, other, 4)
    for own, their in zip(model.parameters(), twin.parameters(), strict=True):
        # The eta models were drawn in double precision and rounded to single precision.
        torch.testing.assert_close(own, their, rtol=1e-4, atol=1e-6)


EDITS: dict[str, Any] = {
    "lr": [-1.0, "much", float("nan"), None, torch.ones(2)],
    "order": ["sideways"],
}


@ours
@pytest.mark.parametrize("name", EDITS)
def test_an_edited_option_that_is_wrong_is_refused_before_anything_moves(
    kind: str, name: str
) -> None:
    for value in EDITS[name]:
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


@ours
def test_a_step_begins_at_weights_that_were_overwritten_by_hand(kind: str) -> None:
    model, optimizer = start(kind)
    best = copy.deepcopy(model.state_dict())
    steps(model, optimizer, 3)
    model.load_state_dict(best)
    with torch.no_grad():
        model[2].weight.data = torch.full((3, 16), 0.25)
    expected = LOSS(model(data()[0]), data()[1])
    loss = optimizer.step(samt.closure(model, LOSS, *data()))
    assert torch.equal(torch.as_tensor(loss), expected.detach())


CHANGES: dict[str, Callable[[Any], Any]] = {
    "groups in another order": lambda o: o.param_groups.reverse(),
    "the state of one parameter": lambda o: o.state.pop(o.param_groups[0]["params"][0], None),
    "one entry of the state": lambda o: [s.popitem() for s in o.state.values() if s],
    "a parameter in the other group": lambda o: o.param_groups[1]["params"].append(
        o.param_groups[0]["params"].pop()
    ),
    "a group without parameters": lambda o: o.param_groups[0]["params"].clear(),
    "a list in place of a list": lambda o: o.param_groups[0].update(
        params=list(o.param_groups[0]["params"])
    ),
}


@ours
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_moved_about_training_goes_on(kind: str, change: str) -> None:
    model, optimizer = start(kind)
    CHANGES[change](optimizer)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in held]
    history = samt.History(optimizer)
    steps(model, optimizer, 3)
    assert all(not torch.equal(p, b) for p, b in zip(held, before, strict=True))
    assert {row["parameter"] for row in history.rows if row["parameter"].endswith("weight")}
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again = copy.deepcopy((model, optimizer))
    steps(model, optimizer, 2)
    steps(*again, 2)
    assert_same([*model.state_dict().values()], [*again[0].state_dict().values()])


# Frozen parts.


class Adapted(nn.Module):
    """A frozen layer with a trained low-rank addition."""

    def __init__(self, width: int, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@every_kind
def test_frozen_parameters_have_no_state_and_no_influence(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Adapted(6), nn.ReLU(), Adapted(6), nn.Linear(6, 3))
    frozen = {p: p.detach().clone() for p in model.parameters() if not p.requires_grad}
    whole = KINDS[kind](samt.blocks(model, 1))
    alone = copy.deepcopy(model)
    trained = [p for p in alone.parameters() if p.requires_grad]
    part = KINDS[kind]([{"params": trained}])
    steps(model, whole, 4)
    steps(alone, part, 4)
    assert not frozen.keys() & {p for p, state in whole.state.items() if state}
    assert all(torch.equal(parameter, before) for parameter, before in frozen.items())
    if kind not in ("adamw", "dante", "samt, fixed"):
        sizes = [
            sum(t.numel() for state in o.state.values() for t in state.values())
            for o in (whole, part)
        ]
        assert sizes[0] == sizes[1]
    if kind in ("adamw", "dante", "samt, fixed"):  # no seeds that depend on the position
        for own, their in zip(model.parameters(), alone.parameters(), strict=True):
            assert torch.equal(own, their)


@every_kind
def test_frozen_integers_are_no_concern(kind: str) -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(6, 6, dtype=torch.int8), requires_grad=False)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x @ self.table.float())

    model = Quantised()
    before = model.head.weight.detach().clone()
    steps(model, KINDS[kind](samt.blocks(model)), 2)
    assert not torch.equal(model.head.weight, before)


@every_kind
def test_state_appears_when_a_parameter_is_unfrozen(kind: str) -> None:
    model = network()
    model[0].requires_grad_(False)
    optimizer = KINDS[kind](samt.blocks(model))
    before = model[0].weight.detach().clone()
    steps(model, optimizer, 3)
    assert torch.equal(model[0].weight, before)
    assert not optimizer.state.get(model[0].weight)
    model[0].requires_grad_(True)
    steps(model, optimizer, 1)
    assert not torch.equal(model[0].weight, before)
    if kind not in ("samt, fixed", "dante"):
        assert optimizer.state[model[0].weight]
    state = copy.deepcopy(optimizer.state_dict())
    steps(model, optimizer, 2)
    optimizer.load_state_dict(state)


@ours
def test_complex_and_integer_parameters_that_train_are_refused_by_name(kind: str) -> None:
    parameter = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(UnsupportedGradientError, match="complex64"):
        KINDS[kind]([parameter])


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
