"""What somebody does to a method of hypergradient descent, or to its model, between two steps.

It works as with `torch.optim.AdamW`, or raises a named error before anything moves.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import samt
from samt.errors import (
    CheckpointMismatchError,
    StateMismatchError,
    UnsupportedGradientError,
)

from .support.comparisons import assert_same
from .support.hypergradient_steps import (
    METHODS,
    WITH_CONTROL,
    Make,
    alphas,
    data,
    every_method,
    everything,
    loss_of,
    network,
    refused,
    train,
    with_control,
)

# Parameters and their state.


def replace(model: Any, optimizer: Optimizer, new: nn.Parameter) -> None:
    """Put a parameter in the place of the first, with the state of the first."""
    parameters = optimizer.param_groups[0]["params"]
    state = optimizer.state.pop(parameters[0], None)
    parameters[0] = model[0].weight = new
    if state is not None:
        optimizer.state[new] = state


@with_control
def test_a_parameter_replaced_with_its_state_goes_on_bit_for_bit(make: Make) -> None:
    runs = []
    for replaces in (False, True):
        model = network()
        optimizer = make(samt.blocks(model), weight_decay=0.1)
        train(model, optimizer, 0, 1, 2)
        if replaces:
            replace(model, optimizer, nn.Parameter(model[0].weight.detach().clone()))
        train(model, optimizer, 3, 4)
        runs.append(everything(model, optimizer))
    assert_same(runs[0][0], runs[1][0])
    assert_same(runs[0][2], runs[1][2])


@every_method
def test_a_parameter_replaced_without_its_state_starts_anew(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters())
    train(model, optimizer, 0, 1)
    optimizer.state.pop(model[0].weight)
    replace(model, optimizer, nn.Parameter(torch.ones(6, 4)))
    train(model, optimizer, 2)
    assert not torch.equal(model[0].weight, torch.ones(6, 4))
    assert optimizer.state[model[0].weight].keys() == optimizer.state[model[2].weight].keys()


@every_method
@pytest.mark.parametrize("in_place", [False, True])
def test_state_of_another_shape_is_refused_with_its_cure(make: Make, in_place: bool) -> None:
    model = network()
    optimizer = make(samt.blocks(model))
    train(model, optimizer, 0, 1)
    wider = torch.cat([model[2].weight.detach(), torch.zeros(2, 6)])
    bias = torch.cat([model[2].bias.detach(), torch.zeros(2)])
    if in_place:
        model[2].weight.data, model[2].bias.data = wider, bias
    else:
        for name, value in (("weight", wider), ("bias", bias)):
            old, new = getattr(model[2], name), nn.Parameter(value)
            group = optimizer.param_groups[1]["params"]
            group[[p is old for p in group].index(True)] = new
            optimizer.state[new] = optimizer.state.pop(old)
            setattr(model[2], name, new)
    refused(model, optimizer, StateMismatchError, r"delete optimizer\.state\[parameter\]")
    for parameter in model[2].parameters():
        del optimizer.state[parameter]
    before = model[2].weight.detach().clone()
    train(model, optimizer, 2)
    assert not torch.equal(model[2].weight, before)
    assert optimizer.state[model[2].weight]["previous_update"].shape == (5, 6)


@every_method
def test_a_gradient_that_a_grown_parameter_left_behind_is_refused(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters())
    loss_of(model, 0).backward()
    gradient = torch.ones(3, 6)
    model[2].weight.grad = None
    model[2].weight.data = torch.zeros(3, 6)
    model[2].weight.grad = gradient
    model[2].weight.data = torch.zeros(5, 6)
    before = everything(model, optimizer)
    with pytest.raises(UnsupportedGradientError, match="zero_grad"):
        optimizer.step()
    assert_same(everything(model, optimizer)[:2], before[:2])


@with_control
def test_parameters_may_be_appended_to_a_group(make: Make) -> None:
    model = network()
    optimizer = make(samt.blocks(model))
    train(model, optimizer, 0, 1)
    model.append(nn.Linear(3, 3))
    optimizer.param_groups[-1]["params"].extend(model[3].parameters())
    before = model[3].weight.detach().clone()
    train(model, optimizer, 2, 3)
    assert not torch.equal(model[3].weight, before)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, 4)


@with_control
@pytest.mark.parametrize("what", ["parameter", "group"])
def test_what_is_popped_is_moved_no_more(make: Make, what: str) -> None:
    model = network()
    optimizer = make(samt.blocks(model))
    train(model, optimizer, 0, 1)
    if what == "group":
        optimizer.param_groups.pop(0)
    else:
        optimizer.param_groups[0]["params"].pop(0)
    weight, other = model[0].weight, model[2].weight
    before = weight.detach().clone(), other.detach().clone()
    train(model, optimizer, 2, 3)
    assert torch.equal(weight, before[0])
    assert not torch.equal(other, before[1])


@with_control
@pytest.mark.parametrize("how", ["clear", "defaultdict"])
def test_state_may_be_cleared(make: Make, how: str) -> None:
    model = network()
    optimizer = make(model.parameters())
    train(model, optimizer, 0, 1, 2)
    twin = network()
    twin.load_state_dict(model.state_dict())
    fresh = make(twin.parameters(), lr=alphas(optimizer)[0])
    if how == "clear":
        optimizer.state.clear()
    else:
        optimizer.state = defaultdict(dict)
    train(model, optimizer, 3, 4)
    train(twin, fresh, 3, 4)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


@every_method
def test_state_may_be_a_plain_dict_and_may_lack_a_parameter(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters())
    train(model, optimizer, 0, 1)
    optimizer.state = {}  # type: ignore[assignment]
    train(model, optimizer, 2)
    del optimizer.state[model[0].weight]
    model[0].requires_grad_(False)
    train(model, optimizer, 3)
    model[0].requires_grad_(True)
    train(model, optimizer, 4)
    assert len(optimizer.state) == 4


PARTS = [
    *[("adam-hd", key) for key in ("previous_update", "exp_avg", "exp_avg_sq", "step")],
    *[
        (name, key)
        for name in ("sgd-hd", "sgdn-hd")
        for key in ("previous_update", "momentum_buffer")
    ],
]


@pytest.mark.parametrize(("name", "key"), PARTS)
@pytest.mark.parametrize("how", ["stepped", "loaded", "unpickled"])
def test_state_that_was_cleared_in_part_is_refused(name: str, key: str, how: str) -> None:
    model = network()
    optimizer = METHODS[name](model.parameters())
    train(model, optimizer, 0, 1)
    if how == "loaded":
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    if how == "unpickled":
        model, optimizer = copy.deepcopy((model, optimizer))
    del optimizer.state[model[2].weight][key]
    refused(model, optimizer, StateMismatchError, rf"no '{key}'.*delete optimizer\.state")
    del optimizer.state[model[2].weight]
    train(model, optimizer, 2)
    assert key in optimizer.state[model[2].weight]


def test_momentum_that_is_switched_on_makes_its_buffer() -> None:
    model = network()
    optimizer = METHODS["sgd-hd"](model.parameters(), momentum=0)
    train(model, optimizer, 0, 1)
    optimizer.param_groups[0]["momentum"] = 0.9
    model[0].requires_grad_(False)
    train(model, optimizer, 2)
    model[0].requires_grad_(True)
    train(model, optimizer, 3)  # the buffers of model[0] come a step later
    assert all("momentum_buffer" in state for state in optimizer.state.values())
    optimizer.param_groups[0]["momentum"] = 0
    train(model, optimizer, 4)
    for state in optimizer.state.values():
        del state["momentum_buffer"]
    train(model, optimizer, 5)
    optimizer.param_groups[0]["momentum"] = 0.9
    train(model, optimizer, 6)
    del optimizer.state[model[0].bias]["previous_update"]
    refused(model, optimizer, StateMismatchError, "no 'previous_update'")


@every_method
def test_notes_of_others_in_the_state_are_left_alone(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters())
    train(model, optimizer, 0)
    optimizer.state[model[0].weight]["note"] = torch.ones(2)
    train(model, optimizer, 1)
    optimizer.load_state_dict(optimizer.state_dict())
    train(model, optimizer, 2)
    assert torch.equal(optimizer.state[model[0].weight]["note"], torch.ones(2))


# Frozen and lazy parameters.


class Quantised(nn.Module):
    """Integers that cannot be trained, and a head that can."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs @ self.base.to(inputs.dtype))


@with_control
def test_frozen_integers_are_left_alone(make: Make) -> None:
    torch.manual_seed(0)
    model = Quantised()
    optimizer = make(model.parameters())
    before = model.head.weight.detach().clone()
    inputs, targets = data(0)
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    assert not torch.equal(model.head.weight, before)
    assert model.base not in optimizer.state


@every_method
def test_frozen_parameters_have_no_influence_until_their_first_gradient(make: Make) -> None:
    model, alone = network(), network()
    for one in (model, alone):
        one[0].requires_grad_(False)
    # Frozen, and of another precision: the α of the group is that of the others.
    model[0].double()
    other = nn.Parameter(torch.zeros(3, dtype=torch.complex64), requires_grad=False)
    optimizer = make([*model.parameters(), other], hypergrad_lr=1e-3)
    twin = make(alone[2].parameters(), hypergrad_lr=1e-3)
    model[0].float()
    train(model, optimizer, 0, 1, 2)
    train(alone, twin, 0, 1, 2)
    assert_same(dict(model.state_dict()), dict(alone.state_dict()))
    assert_same(alphas(optimizer), alphas(twin))
    assert [*optimizer.state] == [*model[2].parameters()]
    model[0].requires_grad_(True)
    before = model[0].weight.detach().clone()
    train(model, optimizer, 3)
    assert len(optimizer.state) == 4
    assert not torch.equal(model[0].weight, before)


@with_control
def test_a_lazy_parameter_may_get_its_shape_before_the_first_step(make: Make) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.LazyLinear(6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = make(model.parameters())
    model(data(0)[0])
    before = model[0].weight.detach().clone()
    train(model, optimizer, 0, 1)
    assert not torch.equal(model[0].weight, before)


@with_control
def test_a_step_before_a_lazy_parameter_has_its_shape_leaves_it_out(make: Make) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LazyLinear(3))
    optimizer = make(model.parameters())
    model[0](data(0)[0]).sum().backward()
    optimizer.step()
    train(model, optimizer, 1, 2)
    assert len(optimizer.state) == 4


# Checkpoints.


@with_control
def test_a_checkpoint_with_other_names_in_the_same_order_fits(make: Make) -> None:
    model = network()
    optimizer = make(model.named_parameters())
    train(model, optimizer, 0, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    other = network()
    other.load_state_dict(model.state_dict())
    resumed = make([(f"inner.{name}", p) for name, p in other.named_parameters()])
    resumed.load_state_dict(saved)
    train(model, optimizer, 2, 3)
    train(other, resumed, 2, 3)
    assert_same(dict(model.state_dict()), dict(other.state_dict()))
    if make is not WITH_CONTROL["torch"]:
        assert resumed.param_groups[0]["param_names"][0] == "inner.0.weight"


def other_shape(model: nn.Module) -> list[nn.Parameter]:
    return [*nn.Linear(5, 6).parameters(), *list(model.parameters())[2:]]


def moved(model: nn.Module, size: int = 4) -> Iterator[dict[str, Any]]:
    """Groups with the names of a network, but for one, in another order."""
    named = [(name.replace("0.bias", "other"), p) for name, p in model.named_parameters()]
    named = [named[1], named[2], named[3], named[0]]
    for start in range(0, 4, size):
        yield {"params": named[start : start + size]}


@every_method
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (other_shape, r"has shape \(6, 4\), its parameter \(6, 5\)"),
        (lambda model: list(model.parameters())[:3], "groups of"),
        (lambda model: [{"params": [p]} for p in model.parameters()], "groups of"),
        (lambda model: [*moved(model)], "it has 0.weight, 0.bias.*optimizer has other, 2.weight"),
        (lambda model: [*moved(model, 2)], r"it has 0.weight, 0.bias.*optimizer has other"),
    ],
)
def test_a_checkpoint_of_other_parameters_is_refused(
    make: Make, parameters: Callable[[nn.Module], Any], words: str
) -> None:
    model = network()
    groups = parameters(model)
    is_split = len(groups) == 2 and isinstance(groups[0], dict)
    optimizer = make(samt.blocks(model) if is_split else model.named_parameters())
    train(model, optimizer, 0, 1)
    saved = optimizer.state_dict()
    other = make(parameters(network()))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(CheckpointMismatchError, match=words) as caught:
        other.load_state_dict(saved)
    assert "\n" not in str(caught.value)
    assert_same(other.state_dict(), before)


@pytest.mark.parametrize("ours", METHODS)
@pytest.mark.parametrize("theirs", WITH_CONTROL)
def test_a_checkpoint_of_another_method_is_refused(ours: str, theirs: str) -> None:
    model = network()
    other = WITH_CONTROL[theirs](model.parameters())
    train(model, other, 0)
    optimizer = METHODS[ours](network().parameters())
    if (ours == "adam-hd") == (theirs == "adam-hd") and theirs != "torch":
        optimizer.load_state_dict(other.state_dict())  # both have what the other has
        return
    with pytest.raises(CheckpointMismatchError, match="no state dict of"):
        optimizer.load_state_dict(other.state_dict())
    wrong: dict[str, Any]
    for wrong in ({}, {"state": {}, "param_groups": None}):
        with pytest.raises(CheckpointMismatchError, match="no state dict of"):
            optimizer.load_state_dict(wrong)
