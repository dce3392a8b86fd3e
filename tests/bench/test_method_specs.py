"""Method specs: what is written becomes checked options, or one line that helps."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import samt
from samt.baselines import SGDHD, AdamHD, Dante, SGDNesterovHD
from samt.bench.errors import SettingsError
from samt.bench.method_specs import METHOD_OPTIONS, SOLVERS, parse_spec

# Not for the command line: what it sets itself, and what has no text form.
_NOT_ON_THE_COMMAND_LINE = {
    "self",
    "params",
    "seed",
    "process_group",
    "replay",
    "compile",
}
_CONSTRUCTORS: dict[str, Any] = {
    "samt": samt.SAMT,
    "auto-samt": samt.AutoSAMT,
    "sgd-hd": SGDHD,
    "sgdn-hd": SGDNesterovHD,
    "adam-hd": AdamHD,
    "dante": Dante,
}


@pytest.mark.parametrize("name", _CONSTRUCTORS)
def test_the_options_are_those_of_the_constructor_with_its_defaults(name: str) -> None:
    parameters = inspect.signature(_CONSTRUCTORS[name]).parameters
    constructor = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in _NOT_ON_THE_COMMAND_LINE
    }
    command_line: dict[str, Any] = {
        name: option.default for name, option in METHOD_OPTIONS[name].items()
    }
    for only_here in ("blocks", "schedule"):
        command_line.pop(only_here, None)
    if "beta1" in command_line:
        command_line["betas"] = command_line.pop("beta1"), command_line.pop("beta2")
    # There is nothing to choose.
    assert command_line == ({} if name == "auto-samt" else constructor)


def test_the_options_of_the_solvers_are_read_from_their_constructors() -> None:
    assert parse_spec("dladmm").options == {
        **{"loss": "cross_entropy", "rho": 1e-6, "tau": 1.0, "theta": 1.0},
        **{"scheduled": True, "tolerance": 1e-3, "weight_std": 0.1},
    }
    spec = parse_spec("dladmm:rho=0.01,scheduled=false,loss=squared")
    assert spec.options["rho"] == 0.01
    assert spec.options["scheduled"] is False
    assert spec.options["loss"] == "squared"
    assert parse_spec("scaled-admm:warm_start=0").options["warm_start"] == 0
    for name in SOLVERS:
        assert not {"inputs", "hidden", "seed", "self"} & METHOD_OPTIONS[name].keys()


def test_options_are_read_and_the_rest_has_its_default() -> None:
    spec = parse_spec("samt:step_size=row,lr=0.05,radius=2,relative=true,blocks=1")
    assert spec.name == "samt"
    assert spec.options["step_size"] == "row"
    assert spec.options["lr"] == 0.05
    assert spec.options["radius"] == 2.0
    assert spec.options["relative"] is True
    assert spec.options["blocks"] == 1
    assert spec.options["meta_lr"] == 0.01
    assert parse_spec("samt:relative=0.5").options["relative"] == 0.5
    assert parse_spec("samt:radius=none").options["radius"] is None


def test_dashes_are_as_good_as_underscores() -> None:
    assert parse_spec("samt:step-size=row") == parse_spec("samt:step_size=row")


def test_flags_win_over_the_spec() -> None:
    assert parse_spec("sgd:lr=1,momentum=0.9", {"lr": "2"}).options["lr"] == 2.0


def test_the_label_is_the_spec() -> None:
    assert parse_spec("samt").label == "samt"
    assert parse_spec("sgd:momentum=0.9", {"lr": "2"}).label == "sgd:momentum=0.9,lr=2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sgdd", "did you mean 'sgd'"),
        ("samt:stepsize=row", "did you mean 'step_size'"),
        ("samt:step_size=rows", "did you mean 'row'"),
        ("sgd:step_size=row", "choose from 'lr'"),
        ("samt:lr=-1", "at least 0"),
        ("samt:lr=nan", "finite"),
        ("sgd:lr=inf", "finite"),
        ("adam:lr=1e38", "below 1e"),
        ("adam:lr=fast", "finite"),
        ("adam:beta1=1", "below 1"),
        ("samt:inner_steps=0", "whole number"),
        ("samt:inner_steps=1.5", "whole number"),
        ("samt:relative=0", "true, false or"),
        ("samt:radius=0", "or none"),
        ("samt:radius=-1", "or none"),
        ("sgd:nesterov=yes", "true or false"),
        ("sgd-hd:rule=add", "one of additive, multiplicative"),
        ("sgd-hd:hypergrad_lr=-1", "at least 0"),
        ("dante:order=cyclic", "reverse"),
        ("dante:inner_iterations=0", "whole number"),
        ("dladmm:rho=-1", "at least 0"),
        ("scaled-admm:warm_start=-1", "whole number of at least 0"),
        ("dladmm:loss=hinge", "cross_entropy, squared"),
        ("dladmm:lr=0.1", "no option 'lr'"),
        ("sgd:lr", "write sgd:option=value"),
        ("sgd:", "write sgd:option=value"),
        ("sgd:lr=1,lr=2", "twice"),
        ("", "choose from"),
    ],
)
def test_mistakes_name_the_cure(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse_spec(text)


_PIECES = [*METHOD_OPTIONS, *METHOD_OPTIONS["samt"], ":", ",", "=", "row", "-1", "nan", "²", "\n"]


@given(st.lists(st.sampled_from(_PIECES) | st.text(max_size=3), max_size=8).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        spec = parse_spec(text)
    except SettingsError:
        return
    assert parse_spec(spec.label).options == spec.options
