"""`samt.AutoSAMT` makes the optimizer of the preset that is meant."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import samt
from samt.baselines import Dante
from samt.errors import CheckpointMismatchError, OptionError, UnknownOptionError

PAPER_ALONE: dict[str, Any] = {
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
}
BOTH: dict[str, Any] = {"lr": 0.2, "meta_lr": 0.1, "eta_hidden": 8, "weight_decay": 0.1, "seed": 3}


def blocks() -> list[dict[str, Any]]:
    return samt.blocks(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)))


@pytest.mark.parametrize("options", [{}, BOTH, {"total_steps": 10, "betas": (0.5, 0.5)}])
def test_without_an_option_of_the_paper_alone_it_is_auto(options: dict[str, Any]) -> None:
    optimizer = samt.AutoSAMT(blocks(), preset=None, **options)
    assert type(optimizer) is samt.AutoSAMT
    assert options.items() <= optimizer.param_groups[1].items()


@pytest.mark.parametrize("name", PAPER_ALONE)
def test_an_option_of_the_paper_alone_means_the_paper(name: str) -> None:
    assert type(samt.AutoSAMT(blocks(), **{name: PAPER_ALONE[name]})) is samt.SAMT


def test_every_option_of_the_paper_alone_is_in_the_list_above() -> None:
    paper, auto = (
        set(inspect.signature(preset).parameters) for preset in (samt.SAMT, samt.AutoSAMT)
    )
    assert paper - auto == set(PAPER_ALONE)


def test_so_does_one_in_a_group() -> None:
    assert type(samt.AutoSAMT([{**blocks()[0], "step_size": "row"}])) is samt.SAMT


def test_a_preset_can_be_asked_for() -> None:
    assert type(samt.AutoSAMT(blocks(), preset="paper")) is samt.SAMT
    assert type(samt.AutoSAMT(blocks(), 0.2, preset="auto")) is samt.AutoSAMT
    wrong: Any
    for wrong in ("papre", 3, ""):
        with pytest.raises(OptionError, match="unknown preset"):
            samt.AutoSAMT(blocks(), preset=wrong)
    with pytest.raises(OptionError, match="not that of this class, 'auto': build samt"):
        samt.AutoSAMT(blocks(), preset="paper")
    with pytest.raises(OptionError, match="not that of this class, 'paper'"):
        samt.SAMT([{**blocks()[0], "preset": "auto"}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"preset": "auto", "step_size": "row"},
            "preset='auto' has no option 'step_size', but preset='paper' has: leave it out, or "
            "write preset='paper'",
        ),
        (
            {"preset": "paper", "total_steps": 3},
            "preset='paper' has no option 'total_steps', but preset='auto' has: leave it out, or "
            "write preset='auto'",
        ),
        (
            {"step_size": "row", "radius": 1.0, "total_steps": 3},
            "preset='paper' has no option 'total_steps', but preset='auto' has: leave it out, or "
            "write preset='auto' and leave out 'step_size', 'radius'",
        ),
        (
            {"meta_bach": "next"},
            "unknown option 'meta_bach': did you mean 'meta_batch', which preset='paper' has?",
        ),
        (
            {"step_sizes": "row"},
            "unknown option 'step_sizes': did you mean 'step_size', which preset='paper' has?",
        ),
        (
            {"step_size": "row", "total_step": 3},
            "unknown option 'total_step': did you mean 'total_steps', which preset='auto' has?",
        ),
        ({"step_size": "row", "hed": 3}, "unknown option 'hed': did you mean 'head'?"),
        ({"sed": 3}, "unknown option 'sed': did you mean 'seed'?"),
    ],
)
def test_a_wrong_option_is_answered_from_both(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError) as caught:
        samt.AutoSAMT(blocks(), **options)
    assert str(caught.value) == message


def test_a_class_of_one_preset_knows_the_other() -> None:
    misspelled: dict[str, Any] = {"meta_bach": "next"}
    with pytest.raises(UnknownOptionError, match="which preset='paper' has"):
        samt.AutoSAMT(blocks(), **misspelled)

    class Mine(samt.AutoSAMT):
        """A class that somebody derived."""

    with pytest.raises(UnknownOptionError, match="which preset='paper' has"):
        Mine(blocks(), **misspelled)


def test_a_baseline_that_is_built_on_a_preset_has_none() -> None:
    for word in ("total_steps", "meta_every"):
        options: dict[str, Any] = {word: 3}
        with pytest.raises(UnknownOptionError, match=f"^unknown option '{word}': ") as caught:
            Dante(blocks(), **options)
        assert "preset" not in str(caught.value)


def test_a_word_like_none_lists_the_options_of_its_preset() -> None:
    options: dict[str, Any] = {"zzz": 1}
    with pytest.raises(UnknownOptionError, match=r"choose from .*'total_steps'") as caught:
        samt.AutoSAMT(blocks(), **options)
    assert "step_size" not in str(caught.value)


@pytest.mark.parametrize("preset", ["auto", "paper"])
def test_both_are_samt(preset: str) -> None:
    optimizer = samt.AutoSAMT(blocks(), preset=preset)
    assert isinstance(optimizer, samt.AutoSAMT)
    assert f"preset: {preset}" in repr(optimizer)
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert type(copied) is type(optimizer)
        assert copied.passes == optimizer.passes == samt.Passes(0, 0)


def test_the_state_of_one_is_refused_by_the_other() -> None:
    auto, paper = (samt.AutoSAMT(blocks(), preset=preset) for preset in ("auto", "paper"))
    with pytest.raises(CheckpointMismatchError):
        auto.load_state_dict(paper.state_dict())
    with pytest.raises(CheckpointMismatchError):
        paper.load_state_dict(auto.state_dict())


@pytest.mark.parametrize("preset", ["auto", "paper"])
def test_both_take_a_closure(preset: str) -> None:
    model = nn.Linear(3, 1)
    optimizer = samt.AutoSAMT(samt.blocks(model), preset=preset)
    loss = samt.closure(
        *(model, nn.functional.mse_loss), torch.eye(3), torch.tensor([[1.0], [-2.0], [0.5]])
    )
    losses = [float(optimizer.step(loss)) for _ in range(100)]
    assert losses[-1] < losses[0] / 2
    assert optimizer.passes.forward >= 100


def test_auto_has_no_meta_batch() -> None:
    model = nn.Linear(3, 1)
    optimizer = samt.AutoSAMT(samt.blocks(model))
    loss = samt.closure(model, nn.functional.mse_loss, torch.eye(3), torch.zeros(3, 1))
    with pytest.raises(OptionError, match="leave meta_closure out"):
        optimizer.step(loss, loss)
    assert optimizer.passes == (0, 0)
