"""Every option refuses what it cannot be, in the constructor and in a group, in one line."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import nn

import samt
from samt.errors import OptionError, SAMTError, UnknownOptionError

NAN, INF = math.nan, math.inf
NOT_NUMBERS: list[Any] = [NAN, INF, -INF, -1, "0.1", True, [0.1], {}, 1j, 10**400]

BAD: dict[str, list[Any]] = {
    "lr": [*NOT_NUMBERS, None, -1e-9, torch.tensor(NAN), torch.tensor(-0.1), torch.ones(9, 9)],
    "meta_lr": [*NOT_NUMBERS, None],
    "weight_decay": [*NOT_NUMBERS, None],
    "radius": [*NOT_NUMBERS, 0, 0.0],
    "max_grad_norm": [*NOT_NUMBERS, 0, 0.0],
    "relative": [value for value in NOT_NUMBERS if value is not True] + [None, 0, 0.0],
    "eta_hidden": [*NOT_NUMBERS[:-1], None, 0, 1.5, 64.0],
    "inner_steps": [*NOT_NUMBERS[:-1], None, 0, 1.5, 2.0],
    "seed": [*NOT_NUMBERS, None, 0.5, 2**41],
    "step_size": ["rows", "", None, 3, ["row"], NAN, torch.ones(9, 9), (4, 1)],
    "replay": [0, 1, None, "yes", NAN],
    "compile": [0, 1, None, "yes", NAN],
    "head": ["ofset", "", None, 3, ["dense"], NAN, torch.ones(9, 9)],
    "projection": ["tan", "", None, 3, ["tanh"], NAN, torch.ones(9, 9)],
    "parts": ["both", "", None, 3, ["full"], NAN, torch.ones(9, 9)],
    "meta_batch": ["subsets", "", None, 3, ["same"], NAN, torch.ones(9, 9)],
    "order": ["backward", "", None, 3, ["forward"], NAN, torch.ones(9, 9)],
}
GOOD: dict[str, list[Any]] = {
    "lr": [0, 0.0, 1, 1e-3, torch.tensor(0.1), torch.tensor(1)],
    "meta_lr": [0, 0.5],
    "weight_decay": [0, 1e-4],
    "radius": [None, 1, 1e-3],
    "max_grad_norm": [None, 1, 1e-3],
    "relative": [True, False, 2, 0.5],
    "eta_hidden": [1, 64],
    "inner_steps": [1, 3],
    "seed": [0, 2**40],
    "step_size": ["scalar", "row", "column", "element", lambda tensor: tensor.shape],
    "replay": [True, False],
    "compile": [True, False],
    "head": ["offset", "dense"],
    "projection": ["tanh", "sigmoid"],
    "parts": ["full", "left", "right", "fixed"],
    "meta_batch": ["same", "subset", "fresh", "next"],
    "order": ["forward", "reverse", "random", "cyclic"],
}
OPTIONS = sorted(set(inspect.signature(samt.SAMT).parameters) - {"params"})


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2))]


def in_constructor(option: str, value: Any) -> samt.SAMT:
    return samt.SAMT(parameters(), **{option: value})


def in_a_group(option: str, value: Any) -> samt.SAMT:
    return samt.SAMT([{"params": parameters(), "name": "my block", option: value}])


def in_a_later_group(option: str, value: Any) -> samt.SAMT:
    optimizer = samt.SAMT(parameters())
    optimizer.add_param_group({"params": parameters(), "name": "my block", option: value})
    return optimizer


PLACES = [in_constructor, in_a_group, in_a_later_group]


def check_message(caught: pytest.ExceptionInfo[SAMTError]) -> str:
    message = str(caught.value)
    assert "\n" not in message, "one line"
    assert len(message) < 300
    return message


def test_every_option_stands_in_these_tables() -> None:
    assert set(BAD) <= set(OPTIONS)
    assert set(OPTIONS) - {"process_group"} == set(BAD) == set(GOOD)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("option", BAD)
def test_a_value_that_an_option_cannot_have_is_refused(option: str, place: Any) -> None:
    for value in BAD[option]:
        with pytest.raises(OptionError) as caught:
            place(option, value)
        message = check_message(caught)
        assert option in message, value
        assert any(word in message for word in ("must be", "choose", "did you mean")), value
        if place is not in_constructor:
            assert "my block" in message, value


@pytest.mark.parametrize("place", PLACES[:2])
@pytest.mark.parametrize("option", GOOD)
def test_a_value_that_an_option_can_have_is_taken(option: str, place: Any) -> None:
    for value in GOOD[option]:
        group = place(option, value).param_groups[0]
        assert group[option] is value or group[option] == value


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("misspelled", "meant"),
    [
        ("learning_rate", None),
        ("metalr", "meta_lr"),
        ("stepsize", "step_size"),
        ("step_sizes", "step_size"),
        ("weight_decy", "weight_decay"),
        ("weightdecay", "weight_decay"),
        ("inner_step", "inner_steps"),
        ("max_gradnorm", "max_grad_norm"),
        ("projecton", "projection"),
        ("meta_batches", "meta_batch"),
        ("lrs", "lr"),
        ("LR", "lr"),
        ("radios", "radius"),
        ("Seed", "seed"),
    ],
)
def test_a_misspelled_option_is_answered_with_the_one_that_was_meant(
    misspelled: str, meant: str | None, place: Any
) -> None:
    with pytest.raises(UnknownOptionError, match=f"'{misspelled}'") as caught:
        place(misspelled, 0.1)
    message = check_message(caught)
    assert meant is None or f"did you mean '{meant}'? its options are " in message
    assert meant is not None or "': its options are " in message
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    "key",
    ["initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr", "lr_scale"],
)
def test_notes_of_schedulers_and_trainers_may_stand_in_a_group(key: str) -> None:
    assert in_a_group(key, 0.5).param_groups[0][key] == 0.5


@pytest.mark.parametrize(
    ("option", "typed", "meant"),
    [
        ("step_size", "rows", "row"),
        ("head", "ofset", "offset"),
        ("projection", "sigmod", "sigmoid"),
        ("parts", "rigth", "right"),
        ("meta_batch", "subsets", "subset"),
        ("order", "cycle", "cyclic"),
    ],
)
def test_a_misspelled_word_is_answered_with_the_one_that_was_meant(
    option: str, typed: str, meant: str
) -> None:
    for place in PLACES:
        with pytest.raises(OptionError, match=f"did you mean '{meant}'"):
            place(option, typed)
        with pytest.raises(OptionError, match=f"'{meant}'"):
            place(option, "xyzzy")


def returns_a_number(_: torch.Tensor) -> Any:
    return 3


def returns_fractions(_: torch.Tensor) -> Any:
    return (1.5,)


def returns_nothing(_: torch.Tensor) -> Any:
    return None


def returns_too_much(tensor: torch.Tensor) -> Any:
    return (5, *tensor.shape)


@pytest.mark.parametrize(
    "wrong", [returns_a_number, returns_fractions, returns_nothing, returns_too_much]
)
def test_a_step_size_callable_that_returns_no_fitting_shape_is_refused(wrong: Any) -> None:
    for place in PLACES:
        with pytest.raises(OptionError, match="step_size") as caught:
            place("step_size", wrong)
        check_message(caught)


def test_the_order_is_one_for_all_blocks() -> None:
    groups: list[dict[str, Any]] = [{"params": [p]} for p in parameters()]
    with pytest.raises(OptionError, match="order") as caught:
        samt.SAMT([groups[0], {**groups[1], "order": "cyclic"}])
    check_message(caught)


def test_a_missing_params_key_is_answered_with_the_right_spelling() -> None:
    groups: Any = [{"parms": parameters()}]
    with pytest.raises(SAMTError, match="'params'") as caught:
        samt.SAMT(groups)
    check_message(caught)


def test_options_are_keywords_only() -> None:
    wrong: Any = samt.SAMT
    with pytest.raises(TypeError):
        wrong(parameters(), 0.1, "row")
