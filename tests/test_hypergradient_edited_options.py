"""Options, precision, modes and closures of hypergradient descent that change between two steps.

As in `test_hypergradient_between_steps`, `torch.optim.AdamW` is the control.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import samt
from samt.baselines import AdamHD
from samt.errors import DuplicateParameterError, OptionError, UnknownOptionError

from .support.comparisons import assert_same
from .support.hypergradient_steps import (
    Make,
    alphas,
    data,
    every_method,
    loss_of,
    network,
    refused,
    train,
    with_control,
)

# Options.


@every_method
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("lr", -0.1, "lr must be"),
        ("lr", math.nan, "lr must be"),
        ("lr", torch.ones(2), "lr must be"),
        ("lr", "fast", "lr must be"),
        ("hypergrad_lr", -1, "hypergrad_lr must be"),
        ("hypergrad_lr", None, "hypergrad_lr must be"),
        ("weight_decay", math.inf, "weight_decay must be"),
        ("rule", "additiv", "did you mean 'additive'"),
    ],
)
def test_an_option_that_is_edited_is_checked_before_anything_moves(
    make: Make, option: str, value: Any, words: str
) -> None:
    model = network()
    optimizer = make(samt.blocks(model))
    train(model, optimizer, 0)
    optimizer.param_groups[1][option] = value
    refused(model, optimizer, OptionError, f"{words}.* in block '2'|{words}")
    del optimizer.param_groups[1][option]
    refused(model, optimizer, OptionError, f"'{option}' is missing in block '2'")
    optimizer.param_groups[1][option] = {"rule": "additive"}.get(option, 0.01)
    train(model, optimizer, 1)


NUMBERS = [np.float32(0.25), np.float64(0.25), np.array([0.25]), torch.tensor([0.25])]


@every_method
@pytest.mark.parametrize("number", NUMBERS, ids=["float32", "float64", "array", "tensor"])
@pytest.mark.parametrize("option", ["lr", "weight_decay", "hypergrad_lr"])
def test_numbers_of_numpy_and_one_element_tensors_are_numbers(
    make: Make, option: str, number: Any
) -> None:
    runs = []
    for value in (0.25, number):
        for place in ("call", "group", "later", "edited"):
            model = network()
            groups = samt.blocks(model)
            if place == "group":
                groups = [{**group, option: value} for group in groups]
            optimizer = make(
                groups[:1] if place == "later" else groups,
                **({option: value} if place in ("call", "later") else {}),
            )
            if place == "later":
                optimizer.add_param_group({**groups[1], option: value})
            if place == "edited":
                for group in optimizer.param_groups:
                    group[option] = value
            train(model, optimizer, 0, 1)
            assert type(optimizer.param_groups[0]["weight_decay"]) in (int, float)
            runs.append([p.detach().clone() for p in model.parameters()])
    for run in runs[1:]:
        assert_same(run, runs[0])


@pytest.mark.parametrize("betas", [np.array([0.5, 0.9]).tolist(), (np.float32(0.5), 0.9)])
def test_betas_may_come_from_numpy(betas: Any) -> None:
    optimizer = AdamHD(network().parameters(), betas=betas)
    assert tuple(optimizer.param_groups[0]["betas"]) == (0.5, 0.9)


@every_method
def test_an_unknown_option_is_named_wherever_it_stands(make: Make) -> None:
    model = network()
    groups = samt.blocks(model)
    with pytest.raises(UnknownOptionError, match=r"its options are .*hypergrad_lr"):
        make(groups, nonsense=1)
    with pytest.raises(UnknownOptionError, match=r"did you mean 'weight_decay'.*hypergrad_lr"):
        make([groups[0], {**groups[1], "weight_deacy": 0.1}])
    with pytest.raises(UnknownOptionError, match="leave it out"):
        make(groups, foreach=True)
    optimizer = make(groups[:1])
    with pytest.raises(UnknownOptionError, match="did you mean 'hypergrad_lr'"):
        optimizer.add_param_group({**groups[1], "hypergrad_rl": 0.1})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({**groups[1], "initial_lr": 0.1, "max_lr": 1.0})  # of a scheduler


@every_method
def test_a_parameter_that_is_there_already_is_refused(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters())
    with pytest.raises(DuplicateParameterError):
        optimizer.add_param_group({"params": [model[0].weight]})
    assert len(optimizer.param_groups) == 1


@every_method
def test_one_tensor_given_to_all_groups_as_lr_is_an_alpha_for_each(make: Make) -> None:
    runs = []
    for shared in (True, False):
        model = network()
        optimizer = make(samt.blocks(model), hypergrad_lr=1e-3)
        train(model, optimizer, 0, 1)
        lr = torch.tensor(0.05)
        for group in optimizer.param_groups:
            group["lr"] = lr if shared else 0.05
        train(model, optimizer, 2, 3)
        assert lr == torch.tensor(0.05)
        runs.append((alphas(optimizer), dict(model.state_dict())))
    assert len({*runs[0][0]}) == 2
    assert_same(runs[0], runs[1])


@every_method
def test_an_alpha_that_was_learned_to_be_negative_is_no_wrong_option(make: Make) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = make([weight], hypergrad_lr=1.0)
    for sign in (1, -1, -1):
        weight.grad = sign * torch.ones(3)
        optimizer.step()
        learned = alphas(optimizer)
    assert learned[0] < 0
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    weight.grad = None
    optimizer.step()
    assert alphas(optimizer) == learned


# Conversions.


@with_control
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_may_be_converted_before_the_first_step(make: Make, dtype: torch.dtype) -> None:
    runs = []
    for converts_late in (True, False):
        model = network() if converts_late else network().to(dtype)
        optimizer = make(model.parameters())
        model.to(dtype)
        train(model, optimizer, 0, 1, 2)
        runs.append([p.detach().clone() for p in model.parameters()])
        assert all(p.dtype == dtype for p in model.parameters())
    rounding = 1e-6 if dtype == torch.float64 else 0.0  # of α, which was made in float32
    for one, other in zip(*runs, strict=True):
        torch.testing.assert_close(one, other, rtol=rounding, atol=rounding)


@every_method
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_state_and_alpha_follow_a_model_that_is_converted_later(
    make: Make, dtype: torch.dtype
) -> None:
    model = network()
    optimizer = make(model.parameters())
    train(model, optimizer, 0, 1, 2)
    twin = copy.deepcopy((model, optimizer))
    model.to(dtype)
    train(model, optimizer, 3, 4)
    for state in optimizer.state.values():
        assert {v.dtype for v in state.values() if isinstance(v, Tensor)} == {dtype}
    wide = torch.promote_types(dtype, torch.float32)
    assert optimizer.param_groups[0]["lr"].dtype == wide
    train(*twin, 3, 4)
    near = 1e-6 if dtype == torch.float64 else 0.05
    for one, other in zip(model.parameters(), twin[0].parameters(), strict=True):
        torch.testing.assert_close(one.float(), other, rtol=near, atol=near)


@every_method
def test_a_group_that_is_moved_in_part_is_refused(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters())
    train(model, optimizer, 0)
    elsewhere = nn.Parameter(torch.zeros(6, 4, device="meta"))
    optimizer.param_groups[0]["params"].append(elsewhere)
    refused(model, optimizer, OptionError, "several devices")
    optimizer.param_groups[0]["params"].pop()
    optimizer.add_param_group({"params": [elsewhere]})
    train(model, optimizer, 1)


# Modes.


@with_control
def test_the_default_device_does_not_matter(make: Make) -> None:
    runs = []
    for device in ("meta", None):
        model = network()
        batches = [data(number) for number in range(3)]
        torch.set_default_device(device)
        try:
            optimizer = make(model.parameters())
            for inputs, targets in batches:
                model.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
        finally:
            torch.set_default_device(None)
        runs.append(dict(model.state_dict()))
        assert all(p.device.type == "cpu" for p in optimizer.state)
    assert_same(runs[0], runs[1])


@with_control
def test_an_optimizer_may_be_made_in_inference_mode(make: Make) -> None:
    model = network()
    with torch.inference_mode():
        optimizer = make(model.parameters())
    before = model[0].weight.detach().clone()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for number in range(2):
        train(model, optimizer, number)
        scheduler.step()
    assert not torch.equal(model[0].weight, before)


@every_method
@pytest.mark.parametrize("given", ["call", "group"])
def test_a_tensor_that_was_made_in_inference_mode_may_be_lr(make: Make, given: str) -> None:
    model = network()
    with torch.inference_mode():
        lr = torch.tensor([0.1])
        optimizer = make(model.parameters(), lr=lr if given == "call" else 0.2)
    if given == "group":
        optimizer.param_groups[0]["lr"] = lr
    assert alphas(optimizer)[0] == pytest.approx(0.1)
    train(model, optimizer, 0)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.5)
    train(model, optimizer, 1)


@every_method
def test_a_step_in_inference_mode_leaves_state_for_steps_outside(make: Make) -> None:
    model = network()
    optimizer = make(model.parameters())
    loss_of(model, 0).backward()
    with torch.inference_mode():
        optimizer.step()
    train(model, optimizer, 1)


@with_control
@pytest.mark.parametrize("returns", ["tuple", "vector", "nothing"])
def test_a_closure_may_return_anything(make: Make, returns: str) -> None:
    model = network()
    optimizer = make(model.parameters())
    inputs, targets = data(0)

    def closure() -> Any:
        optimizer.zero_grad()
        losses = nn.functional.cross_entropy(model(inputs), targets, reduction="none")
        losses.mean().backward()
        made.append({"tuple": (losses.mean(), {"right": 1}), "vector": losses}.get(returns))
        return made[0]

    made: list[Any] = []
    before = model[0].weight.detach().clone()
    assert optimizer.step(closure) is made[0]
    assert not torch.equal(model[0].weight, before)


@with_control
@pytest.mark.parametrize("what", ["step", "training"])
@pytest.mark.filterwarnings("ignore")
def test_what_is_compiled_steps_eagerly(make: Make, what: str) -> None:
    runs = []
    batches = [data(number) for number in range(3)]
    for compiles in (True, False):
        torch._dynamo.reset()
        model = network()
        optimizer = make(model.parameters())

        def training(number: int, model: Any = model, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            inputs, targets = batches[number]
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

        step: Any = optimizer.step
        if compiles and what == "step":
            step = torch.compile(optimizer.step, backend="eager")
        if compiles and what == "training":
            training = torch.compile(training, backend="eager")
        for number in range(3):
            if what == "training":
                training(number)
            else:
                loss_of(model, number).backward()
                step()
                model.zero_grad()
        runs.append(dict(model.state_dict()))
    for one, other in zip(runs[0].values(), runs[1].values(), strict=True):
        torch.testing.assert_close(one, other)
