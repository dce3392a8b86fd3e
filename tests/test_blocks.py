"""Splitting a model into blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import samt
from samt.errors import PartitionError

from .support.batches import batch
from .support.models import MODELS

LOSS = nn.functional.cross_entropy


class Tied(nn.Module):
    """Input and output embedding share their weight; a parameter stands on the root itself."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.encoder = nn.Linear(4, 3)
        self.decoder = nn.Linear(4, 3)
        self.decoder.weight = self.encoder.weight
        self.again = self.encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (self.encoder(x) + self.decoder(x))


def split(model: nn.Module, partition: Any = None) -> list[tuple[str, list[str]]]:
    return [(g["name"], g["param_names"]) for g in samt.blocks(model, partition)]


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.BatchNorm1d(2), nn.Linear(2, 2, bias=False))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Any], dict[str, list[str]]]] = {
    "by default, every module that owns parameters": (
        small,
        lambda _: None,
        {"0": ["0.weight", "0.bias"], "2": ["2.weight", "2.bias"], "3": ["3.weight"]},
    ),
    "one block": (
        small,
        lambda _: 1,
        {"model": ["0.weight", "0.bias", "2.weight", "2.bias", "3.weight"]},
    ),
    "two blocks": (
        small,
        lambda _: 2,
        {"0…2": ["0.weight", "0.bias", "2.weight", "2.bias"], "3": ["3.weight"]},
    ),
    "patterns, in the order of the blocks": (
        small,
        lambda _: ["3", "*.bias", "*"],
        {"3": ["3.weight"], "*.bias": ["0.bias", "2.bias"], "*": ["0.weight", "2.weight"]},
    ),
    "modules": (
        small,
        lambda model: [model[2], [model[3], model[0]]],
        {"2": ["2.weight", "2.bias"], "3+0": ["0.weight", "0.bias", "3.weight"]},
    ),
    "modules and patterns together": (
        small,
        lambda model: [[model[0], "3.*"], "*"],
        {"0+3.*": ["0.weight", "0.bias", "3.weight"], "*": ["2.weight", "2.bias"]},
    ),
    "of overlapping entries the first wins": (
        small,
        lambda _: ["0", "*.weight", "*"],
        {"0": ["0.weight", "0.bias"], "*.weight": ["2.weight", "3.weight"], "*": ["2.bias"]},
    ),
    "the model itself": (small, lambda model: [model], {"model": [*small().state_dict()][:0]}),
    "tied weights and root parameters": (
        Tied,
        lambda _: None,
        {
            "model": ["scale"],
            "encoder": ["encoder.weight", "encoder.bias"],
            "decoder": ["decoder.bias"],
        },
    ),
    "tied weights by module": (
        Tied,
        lambda model: [model.decoder, "*"],
        {"decoder": ["encoder.weight", "decoder.bias"], "*": ["scale", "encoder.bias"]},
    ),
    "a shared module": (
        MODELS["shared"],
        lambda _: None,
        {
            "model": ["unused"],
            "first": ["first.weight", "first.bias"],
            "shared": ["shared.weight", "shared.bias"],
            "last": ["last.weight", "last.bias"],
        },
    ),
}
CASES["the model itself"][2]["model"] = [name for name, _ in small().named_parameters()]


@pytest.mark.parametrize("what", CASES)
def test_blocks_hold_what_the_partition_says(what: str) -> None:
    make, partition, expected = CASES[what]
    model = make()
    assert split(model, partition(model)) == list(expected.items())
    for group in samt.blocks(model, partition(model)):
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            assert model.get_parameter(name) is parameter


@pytest.mark.parametrize(
    ("partition", "says"),
    [
        (["0"], r"leaves out 2\.weight, 2\.bias, 3\.weight: add"),
        ([], r"leaves out 0\.weight, 0\.bias, 2\.weight, 2\.bias, 3\.weight: add"),
        (["0", "nothing", "*"], "block 1 .*match"),
        (["*", "0"], "block 1 .*earlier"),
        ([nn.Linear(2, 2), "*"], "block 0"),
        ([[], "*"], "block 0"),
        (0, "from 1 to 3"),
        (-1, "from 1 to 3"),
        (4, "from 1 to 3"),
    ],
    ids=str,
)
def test_a_partition_that_does_not_fit_is_refused_in_one_line(partition: Any, says: str) -> None:
    with pytest.raises(PartitionError, match=says) as caught:
        samt.blocks(small(), partition)
    assert "\n" not in str(caught.value)


def test_of_many_parameters_that_are_left_out_the_first_are_named() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    with pytest.raises(PartitionError, match=r"leaves out 0\.weight, .*2\.bias and 4 more: add"):
        samt.blocks(model, [])


@pytest.mark.parametrize("partition", ["0", 2.0, True])
def test_a_partition_of_another_kind_is_refused_in_one_line(partition: Any) -> None:
    """A single word would be taken apart into letters, True for one block."""
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(PartitionError) as caught:
        samt.blocks(model, partition)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("partition", [None, 1, ["*"]])
def test_a_model_without_parameters_is_refused(partition: Any) -> None:
    with pytest.raises(PartitionError, match="no parameters"):
        samt.blocks(nn.Sequential(nn.ReLU(), nn.Flatten()), partition)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    widths=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12),
    tie=st.booleans(),
    data=st.data(),
)
def test_any_number_of_blocks_covers_every_parameter_once_and_in_order(
    widths: list[tuple[bool, bool]], tie: bool, data: st.DataObject
) -> None:
    layers = [nn.Linear(1, 1, bias=bias) for bias, _ in widths]
    model: nn.Module = nn.Sequential(*(layers if tie else []))
    for index, (layer, (_, nested)) in enumerate(zip(layers, widths, strict=True)):
        model.add_module(f"layer{index}", nn.Sequential(nn.ReLU(), layer) if nested else layer)
    if tie:
        layers[-1].weight = layers[0].weight
    owners = len(samt.blocks(model))
    count = data.draw(st.integers(1, owners))
    groups = samt.blocks(model, count)
    assert len(groups) == count
    names = [name for group in groups for name in group["param_names"]]
    parameters = [parameter for group in groups for parameter in group["params"]]
    expected = list(model.named_parameters())
    assert names == [name for name, _ in expected]
    assert all(p is q for p, (_, q) in zip(parameters, expected, strict=True))
    assert all(group["params"] for group in groups)
    assert len({group["name"] for group in groups}) == count
    modules = [len({name.rpartition(".")[0] for name in g["param_names"]}) for g in groups]
    assert max(modules) - min(modules) <= 1


@pytest.mark.parametrize("partition", [None, 1, 2, ["*.bias", "*"]])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_blocks_serve_every_torch_optimizer(
    partition: Any, optimizer: type[torch.optim.Optimizer]
) -> None:
    results = []
    for grouped in (True, False):
        torch.manual_seed(0)
        model = MODELS["mlp"]()
        params: Any = samt.blocks(model, partition) if grouped else model.parameters()
        other = optimizer(params, lr=0.1)  # type: ignore[call-arg]
        inputs, targets = batch("mlp", 0)
        LOSS(model(inputs), targets).backward()
        other.step()
        results.append([p.detach() for p in model.parameters()])
    torch.testing.assert_close(results[0], results[1])


def test_a_list_of_blocks_may_be_used_twice() -> None:
    model = MODELS["mlp"]()
    groups = samt.blocks(model)
    keys = [set(group) for group in groups]
    samt.SAMT(groups, lr=0.3)
    assert [set(group) for group in groups] == keys, "the caller's dicts are left alone"
    again = samt.SAMT(groups, lr=0.5, step_size="row", meta_batch="next")
    assert {group["lr"] for group in again.param_groups} == {0.5}


@pytest.mark.parametrize("make", [Tied, MODELS["shared"], small])
def test_tied_and_shared_parameters_are_trained_once(make: Callable[[], nn.Module]) -> None:
    model = make()
    names = [name for group in samt.blocks(model) for name in group["param_names"]]
    assert names == [name for name, _ in model.named_parameters()]
    optimizer = samt.SAMT(samt.blocks(model), lr=0.05)
    dtype = next(model.parameters()).dtype
    inputs = torch.randn(16, 4 if make is not small else 2, dtype=dtype)
    targets = inputs[:, :2].argmax(1)
    closure = samt.closure(model, LOSS, inputs, targets)
    losses = [float(optimizer.step(closure)) for _ in range(20)]  # type: ignore[arg-type]
    assert losses[-1] < losses[0]
