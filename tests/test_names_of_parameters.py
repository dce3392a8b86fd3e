"""Parameters that somebody moves about keep their names, so that checkpoints fit them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import samt
from samt.baselines import Dante

from .support.comparisons import assert_same

LOSS = nn.functional.cross_entropy


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def step(model: nn.Module, optimizer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, 6, generator=generator)
    optimizer.step(samt.closure(model, LOSS, inputs, torch.arange(16) % 3))


def swap(optimizer: Any) -> None:
    first, second, *_ = optimizer.param_groups
    first["params"], second["params"] = second["params"], first["params"]


MOVES: dict[str, Callable[[Any], Any]] = {
    "swapped": swap,
    "reversed": lambda o: o.param_groups[0]["params"].reverse(),
    "rotated": lambda o: o.param_groups[1]["params"].append(o.param_groups[1]["params"].pop(0)),
    "moved": lambda o: o.param_groups[1]["params"].append(o.param_groups[0]["params"].pop()),
}


@pytest.mark.parametrize("moved_before", [0, 3])
@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("make", [samt.SAMT, Dante])
def test_a_parameter_that_is_moved_keeps_its_name_and_its_state(
    make: Any, name: str, moved_before: int
) -> None:
    model = network()
    optimizer = make(samt.blocks(model))
    for _ in range(moved_before):
        step(model, optimizer)
    MOVES[name](optimizer)
    for _ in range(3):
        step(model, optimizer)
    named = dict(model.named_parameters())
    for group in optimizer.param_groups:
        for parameter_name, parameter in zip(group["param_names"], group["params"], strict=True):
            assert named[parameter_name] is parameter
    if name == "moved":
        return  # the blocks are others now
    twin = copy.deepcopy(model)
    other = make(samt.blocks(twin))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for parameter_name, parameter in twin.named_parameters():
        expected = optimizer.state.get(named[parameter_name], {})
        assert_same(dict(other.state.get(parameter, {})), dict(expected))


def test_names_that_somebody_edits_are_kept() -> None:
    model = network()
    optimizer = samt.SAMT(samt.blocks(model))
    optimizer.param_groups[0]["param_names"] = ["weights of the first layer", "its biases"]
    step(model, optimizer)
    history = samt.History(optimizer)
    optimizer.param_groups[0]["lr"] = 0.2
    step(model, optimizer)
    assert optimizer.param_groups[0]["param_names"][0] == "weights of the first layer"
    assert len(history.rows) == 6


@pytest.mark.parametrize("note", ["name", "calls", "passes"])
def test_a_note_that_is_deleted_begins_anew(note: str) -> None:
    model = network()
    optimizer = samt.SAMT(samt.blocks(model))
    step(model, optimizer)
    del optimizer.param_groups[1][note]
    step(model, optimizer)
    assert note in optimizer.param_groups[1]


def test_a_note_that_is_no_number_is_refused_before_anything_moves() -> None:
    model = network()
    optimizer = samt.SAMT(samt.blocks(model))
    optimizer.param_groups[1]["calls"] = None
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(samt.errors.OptionError, match="'2' has something else than a number"):
        step(model, optimizer)
    assert_same([parameter.detach() for parameter in model.parameters()], before)


def test_what_next_needs_of_the_last_step_belongs_together() -> None:
    results = []
    for keys in (
        ["previous_lr"],
        ["previous_features"],
        ["previous_gradient", "previous_features", "previous_lr"],
    ):
        model = network()
        optimizer = samt.SAMT(samt.blocks(model), meta_batch="next")
        for _ in range(3):
            step(model, optimizer)
        for key in keys:
            del optimizer.state[model[0].weight][key]
        for _ in range(3):
            step(model, optimizer)
        results.append(list(model.parameters()))
    for result in results[1:]:
        assert_same(result, results[0])


def test_a_state_that_was_set_behind_its_name_counts() -> None:
    results = []
    for through_data in (True, False):
        model = network()
        optimizer = samt.SAMT(samt.blocks(model))
        step(model, optimizer)
        state = optimizer.state[model[0].weight]
        fresh = torch.zeros_like(state["eta_model"])
        if through_data:
            state["eta_model"].data = fresh
        else:
            state["eta_model"] = fresh
        for _ in range(3):
            step(model, optimizer)
        results.append([*model.parameters(), state["eta_model"].clone()])
    assert_same(results[0], results[1])


def test_a_tensor_that_is_no_parameter_is_refused_by_name() -> None:
    model = network()
    optimizer = samt.SAMT(samt.blocks(model))
    optimizer.param_groups[0]["params"].append(model[0].weight * 2)
    with pytest.raises(samt.errors.OptionError, match="computed from others"):
        step(model, optimizer)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any("forward" in vars(module) for module in model.modules())


class Result:
    """Neither a number nor a tensor."""


ODD = {"text": "loss", "set": {1.0}, "object": Result(), "complex": 1j, "tensor": torch.tensor(1j)}


@pytest.mark.parametrize("result", ODD.values(), ids=ODD)
def test_odd_results_of_a_closure_are_refused_by_name(result: Any) -> None:
    model = network()
    optimizer = samt.SAMT(samt.blocks(model), meta_batch="same")

    def closure() -> Any:
        optimizer.zero_grad()
        model(torch.ones(4, 6)).sum().backward()
        return result

    with pytest.raises(samt.errors.ClosureResultError, match="return one number"):
        optimizer.step(closure)
