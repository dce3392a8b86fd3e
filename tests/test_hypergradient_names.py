"""Parameter names of hypergradient descent: they follow moved parameters, and checkpoints match."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import samt

from .support.comparisons import assert_same
from .support.hypergradient_steps import Make, every_method, network, train

Groups = list[dict[str, Any]]


def names_of(optimizer: Optimizer) -> list[list[str]]:
    return [group["param_names"] for group in optimizer.state_dict()["param_groups"]]


def reordered(groups: Groups) -> Groups:
    """Both the groups and the parameters in each of them the other way round."""
    return [
        {**g, "params": g["params"][::-1], "param_names": g["param_names"][::-1]}
        for g in groups[::-1]
    ]


@every_method
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_blocks_in_another_order_are_matched_by_name(make: Make, is_wrapped: bool) -> None:
    model = network()
    model[2] = nn.Linear(6, 6)  # of the same sizes, apart from the first weight
    groups = [{**g, "weight_decay": i / 10} for i, g in enumerate(samt.blocks(model))]
    optimizer = make(groups, hypergrad_lr=1e-3)
    train(model, optimizer, 0, 1, 2)
    other = copy.deepcopy(model)
    theirs = reordered(samt.blocks(other))
    if is_wrapped:
        for group in theirs:
            group["param_names"] = [f"module.{name}" for name in group["param_names"]]
    resumed = make(theirs)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [g["name"] for g in resumed.param_groups] == ["2", "0"]
    assert names_of(resumed) == [g["param_names"] for g in theirs]
    for own, its in zip(model.parameters(), other.parameters(), strict=True):
        assert_same(optimizer.state[own], resumed.state[its])
    train(model, optimizer, 3)
    train(other, resumed, 3)
    for own, its in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own, its)
    assert [g["weight_decay"] for g in resumed.param_groups] == [0.1, 0.0]


@every_method
def test_names_that_occur_in_two_groups_are_matched_by_order(make: Make) -> None:
    models = network(), network()
    optimizer = make([{"params": [*model.named_parameters()]} for model in models])
    for number, model in enumerate(models):
        train(model, optimizer, number)
    before = copy.deepcopy([*optimizer.state.values()])
    names = names_of(optimizer)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert_same([*optimizer.state.values()], before)
    assert names_of(optimizer) == names == [[n for n, _ in network().named_parameters()]] * 2


def permute(first: list[Any], second: list[Any]) -> None:
    first.reverse()


def swap(first: list[Any], second: list[Any]) -> None:
    first[0], second[1] = second[1], first[0]


def move(first: list[Any], second: list[Any]) -> None:
    second.insert(0, first.pop(0))


def replace(first: list[Any], second: list[Any]) -> None:
    first[0] = nn.Parameter(torch.zeros_like(first[0]))


def append(first: list[Any], second: list[Any]) -> None:
    first.append(nn.Parameter(torch.zeros(2)))


def insert(first: list[Any], second: list[Any]) -> None:
    first.insert(0, nn.Parameter(torch.zeros(2)))


def trade(first: list[Any], second: list[Any]) -> None:
    first.append(nn.Parameter(torch.zeros(2)))
    second.append(first.pop(0))
    second.pop(0)


MOVES = [
    (permute, ["0.bias", "0.weight"], ["2.weight", "2.bias"]),
    (swap, ["2.bias", "0.bias"], ["2.weight", "0.weight"]),
    (move, ["0.bias"], ["0.weight", "2.weight", "2.bias"]),
    (replace, ["0.weight", "0.bias"], ["2.weight", "2.bias"]),
    (append, ["0.weight", "0.bias", "0[2]"], ["2.weight", "2.bias"]),
    (insert, ["0[0]", "0.weight", "0.bias"], ["2.weight", "2.bias"]),
    (trade, ["0.bias", "0[1]"], ["2.bias", "0.weight"]),
]


@every_method
@pytest.mark.parametrize(("change", "first", "second"), MOVES)
@pytest.mark.parametrize("when", ["built", "stepped", "loaded", "copied"])
def test_names_follow_their_parameters(
    make: Make, change: Callable[..., None], first: list[str], second: list[str], when: str
) -> None:
    model = network()
    optimizer = make(samt.blocks(model))
    if when != "built":
        train(model, optimizer, 0)
    if when == "loaded":
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    change(*[group["params"] for group in optimizer.param_groups])
    held = {p for group in optimizer.param_groups for p in group["params"]}
    for parameter in {*optimizer.state} - held:
        del optimizer.state[parameter]  # torch has no word for it
    if when == "copied":
        model, optimizer = copy.deepcopy((model, optimizer))
    if when == "stepped":
        train(model, optimizer, 1)
        assert [group["param_names"] for group in optimizer.param_groups] == [first, second]
    for _ in range(2):
        assert names_of(optimizer) == [first, second]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.add_param_group({"params": [("more", nn.Parameter(torch.zeros(2)))]})
    assert names_of(optimizer) == [first, second, ["more"]]


@every_method
def test_names_that_were_edited_stay(make: Make) -> None:
    model = network()
    optimizer = make(samt.blocks(model))
    train(model, optimizer, 0)
    optimizer.param_groups[0]["param_names"] = ["w", "b"]
    for _ in range(2):
        assert names_of(optimizer) == [["w", "b"], ["2.weight", "2.bias"]]
    optimizer.param_groups.reverse()
    assert names_of(optimizer) == [["2.weight", "2.bias"], ["w", "b"]]
    optimizer.param_groups[1]["params"].reverse()
    optimizer.param_groups[1]["param_names"].reverse()
    train(model, optimizer, 1)
    assert names_of(optimizer) == [["2.weight", "2.bias"], ["b", "w"]]
