"""SAMT and AutoSAMT are two classes, with options and state of their own; both can be derived."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import samt
from samt.baselines import Dante
from samt.errors import CheckpointMismatchError, UnknownOptionError

from .support.comparisons import assert_same
from .support.optimizers import OPTIMIZERS

LOSS = nn.functional.mse_loss
WITH_DANTE: dict[str, Callable[..., Any]] = {**OPTIMIZERS, "dante": Dante}
# An allowed value of every option that one of the two has and the other has not.
SAMT_ALONE: dict[str, Any] = {
    "step_size": "row",
    "head": "offset",
    "parts": "left",
    "meta_batch": "next",
    "inner_steps": 2,
    "order": "reverse",
    "radius": 1.0,
    "relative": True,
    "max_grad_norm": 1.0,
    "replay": False,
    "compile": False,
    "projection": "sigmoid",
    "meta_lr": 0.1,
    "eta_hidden": 8,
    "seed": 3,
}
AUTO_SAMT_ALONE: dict[str, Any] = {
    "betas": (0.5, 0.5),
    "learning": False,
}


def model_of() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))


def blocks() -> list[dict[str, Any]]:
    return samt.blocks(model_of())


def loss_of(model: nn.Module) -> Callable[[], Any]:
    return samt.closure(model, LOSS, torch.eye(3), torch.tensor([[1.0], [-2.0], [0.5]]))


def options_of(make: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(make).parameters) - {"params", "process_group"}


def test_the_tables_above_hold_every_option_that_one_has_alone() -> None:
    assert options_of(samt.SAMT) - options_of(samt.AutoSAMT) == set(SAMT_ALONE)
    assert options_of(samt.AutoSAMT) - options_of(samt.SAMT) == set(AUTO_SAMT_ALONE)


@pytest.mark.parametrize(
    ("kind", "options"), [("samt", SAMT_ALONE), ("auto-samt", AUTO_SAMT_ALONE)]
)
def test_each_has_its_options_in_its_groups(kind: str, options: dict[str, Any]) -> None:
    for group in OPTIMIZERS[kind](blocks(), **options).param_groups:
        assert options.items() <= group.items()


FOREIGN = [
    *(("auto-samt", word) for word in SAMT_ALONE),
    *(("samt", word) for word in AUTO_SAMT_ALONE),
    *(("dante", word) for word in ("betas", "learning", "step_size", "meta_lr")),
    *((kind, "zzz") for kind in WITH_DANTE),
]


@pytest.mark.parametrize("place", ["the call", "the first group", "a later group", "a new group"])
@pytest.mark.parametrize(("kind", "word"), FOREIGN)
def test_an_option_that_there_is_not_is_refused_with_those_that_there_are(
    kind: str, word: str, place: str
) -> None:
    make = WITH_DANTE[kind]
    option = {word: {**SAMT_ALONE, **AUTO_SAMT_ALONE, "meta_lr": 0.1, "zzz": 1}[word]}
    first, second = blocks()
    tries: dict[str, Callable[[], Any]] = {
        "the call": lambda: make([first, second], **option),
        "the first group": lambda: make([{**first, **option}, second]),
        "a later group": lambda: make([first, {**second, **option}]),
        "a new group": lambda: make([first]).add_param_group({**second, **option}),
    }
    with pytest.raises(UnknownOptionError) as caught:
        tries[place]()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{make.__name__} has no option '{word}': ")
    listed = message.partition("its options are ")[2].split(", ")
    assert options_of(make) <= set(listed)
    assert word not in listed


@pytest.mark.parametrize(
    ("kind", "word", "meant"),
    [
        ("samt", "meta_bach", "meta_batch"),
        ("samt", "hed", "head"),
        ("auto-samt", "weight_deca", "weight_decay"),
        ("auto-samt", "learnin", "learning"),
        ("dante", "normalised", "normalized"),
    ],
)
def test_a_misspelled_option_is_answered_with_the_one_that_was_meant(
    kind: str, word: str, meant: str
) -> None:
    groups = blocks()
    with pytest.raises(UnknownOptionError, match=f"'{word}': did you mean '{meant}'\\?"):
        WITH_DANTE[kind](groups, **{word: 1})
    groups[1][word] = 1
    with pytest.raises(UnknownOptionError, match=f"'{word}': did you mean '{meant}'\\?"):
        WITH_DANTE[kind](groups)


def test_groups_that_come_one_by_one_keep_their_options() -> None:
    groups = blocks()
    groups[1]["step_size"] = "row"
    model, twin = model_of(), model_of()
    runs = []
    for each, as_given in ((model, iter), (twin, list)):
        own = [{**g, "params": n["params"]} for g, n in zip(groups, samt.blocks(each), strict=True)]
        optimizer = samt.SAMT(as_given(own))
        assert [group["step_size"] for group in optimizer.param_groups] == ["scalar", "row"]
        for _ in range(3):
            optimizer.step(loss_of(each))
        runs.append((each.state_dict(), optimizer.state_dict()))
    assert_same(runs[0], runs[1])


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_copy_is_of_the_same_class(kind: str) -> None:
    optimizer = OPTIMIZERS[kind](blocks())
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert type(copied) is type(optimizer)
        assert copied.passes == optimizer.passes == samt.Passes(0, 0)


def test_the_state_of_one_is_refused_by_the_other() -> None:
    one, other = (make(blocks()) for make in OPTIMIZERS.values())
    for optimizer, state in ((one, other.state_dict()), (other, one.state_dict())):
        before = copy.deepcopy(optimizer.state_dict())
        with pytest.raises(CheckpointMismatchError):
            optimizer.load_state_dict(state)
        assert_same(optimizer.state_dict(), before)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_both_take_a_closure(kind: str) -> None:
    model = nn.Linear(3, 1)
    optimizer = OPTIMIZERS[kind](samt.blocks(model))
    losses = [float(optimizer.step(loss_of(model))) for _ in range(100)]
    assert losses[-1] < losses[0] / 2
    assert optimizer.passes.forward >= 100


class OfSAMT(samt.SAMT):
    """A class that somebody derived."""


class OfAutoSAMT(samt.AutoSAMT):
    """A class that somebody derived."""


class WithNote(samt.SAMT):
    """A class with a keyword of its own."""

    def __init__(self, params: Any, *, note: str, **options: Any) -> None:
        super().__init__(params, **options)
        self.note = note


class AutoWithNote(samt.AutoSAMT):
    """A class with a keyword of its own."""

    def __init__(self, params: Any, *, note: str, **options: Any) -> None:
        super().__init__(params, **options)
        self.note = note


DERIVED: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
    "samt": (OfSAMT, samt.SAMT, {}),
    "auto-samt": (OfAutoSAMT, samt.AutoSAMT, {}),
    "samt, with a keyword": (WithNote, samt.SAMT, {"note": "mine"}),
    "auto-samt, with a keyword": (AutoWithNote, samt.AutoSAMT, {"note": "mine"}),
}


@pytest.mark.parametrize("name", DERIVED)
def test_a_class_that_somebody_derived_takes_the_same_steps(name: str) -> None:
    derived, base, own = DERIVED[name]
    runs = []
    for make, options in ((derived, own), (base, {})):
        model = model_of()
        optimizer = make(samt.blocks(model), lr=0.05, **options)
        for _ in range(4):
            optimizer.step(loss_of(model))
        model, optimizer = pickle.loads(pickle.dumps((model, optimizer)))
        for _ in range(2):
            optimizer.step(loss_of(model))
        assert type(optimizer) is make
        runs.append((model.state_dict(), optimizer.state_dict()))
    assert_same(runs[0], runs[1])


@pytest.mark.parametrize("name", DERIVED)
def test_a_class_that_somebody_derived_refuses_what_its_base_refuses(name: str) -> None:
    derived, _, own = DERIVED[name]
    with pytest.raises(
        UnknownOptionError, match=r"has no option 'zzz': its options are .*\bweight_decay, "
    ):
        derived(blocks(), zzz=1, **own)
    with pytest.raises(UnknownOptionError, match=f"{derived.__name__} has no option 'zzz'"):
        derived([{**group, "zzz": 1} for group in blocks()], **own)
