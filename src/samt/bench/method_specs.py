"""Methods as they are written on the command line: `name[:option=value,...]`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from samt.baselines import BCD, DLADMM, MDLAM, ScaledADMM
from samt.baselines.hypergradient_base import RULES
from samt.baselines.layerwise import LayerwiseSolver
from samt.bench.errors import SettingsError, brief
from samt.bench.schedules import SCHEDULES
from samt.errors import suggestion

DEFAULT_METHOD = "auto-samt"
MOST_WHOLE = 1_000_000  # of what an option counts

Value: TypeAlias = str | float | int | bool | None


@dataclass(frozen=True)
class Option:
    """An option of a method: its default, and how its text becomes a value.

    `parse` raises `ValueError` with the text of what the value must be.
    """

    default: Value
    parse: Callable[[str], Value]


@dataclass(frozen=True)
class MethodSpec:
    """A method with all of its options.

    Args:
        name: a key of `METHOD_OPTIONS`.
        options: every option that the method has, defaults included.
        given: those that were written down, as they were written.
    """

    name: str
    options: Mapping[str, Value]
    given: Mapping[str, str]

    @property
    def label(self) -> str:
        """The spec in its normal form, for example `samt:step_size=row`."""
        return _label(self.name, self.given)


def parse_spec(text: str, flags: Mapping[str, str] | None = None) -> MethodSpec:
    """Read a method spec.

    Args:
        text: for example `samt:step_size=row,lr=0.05`.
        flags: options from elsewhere (the flags of `samt train`); they win.

    Returns:
        The method with checked options.

    Raises:
        SettingsError: unknown method, unknown option or impossible value.
    """
    name, colon, tail = text.partition(":")
    if name not in METHOD_OPTIONS:
        raise SettingsError(f"unknown method '{name}': {suggestion(name, METHOD_OPTIONS)}")
    given: dict[str, str] = {}
    for item in tail.split(",") if colon else []:
        option, equals, value = item.partition("=")
        option = option.strip().replace("-", "_")
        if not equals or not option:
            raise SettingsError(
                f"cannot read '{item}' in '{text}': write {name}:option=value,option=value"
            )
        if option in given:
            raise SettingsError(f"option {option} stands twice in '{text}': remove one")
        given[option] = value.strip()
    given.update(flags or {})
    return MethodSpec(name, _checked(name, given), given)


def _checked(name: str, given: Mapping[str, str]) -> dict[str, Value]:
    known = METHOD_OPTIONS[name]
    values = {option: spec.default for option, spec in known.items()}
    for option, text in given.items():
        if option not in known:
            owners = [method for method, options in METHOD_OPTIONS.items() if option in options]
            elsewhere = f" (it is one of {', '.join(owners)})" if owners else ""
            if not known:
                raise SettingsError(
                    f"method '{name}' has no options{elsewhere}: leave '{option}' out"
                )
            raise SettingsError(
                f"method '{name}' has no option '{option}'{elsewhere}: {suggestion(option, known)}"
            )
        try:
            values[option] = known[option].parse(text)
        except ValueError as error:
            raise SettingsError(
                f"{option}={brief(text)} of method '{name}' must be {error}"
            ) from error
    return values


def _label(name: str, given: Mapping[str, str]) -> str:
    options = ",".join(f"{option}={value}" for option, value in given.items())
    return f"{name}:{options}" if options else name


def whole_number(text: str) -> int | None:
    """The number that a text of digits stands for; None for another text, and above a million.

    >>> whole_number("12"), whole_number("-1"), whole_number("9" * 5000)
    (12, None, None)
    """
    plain = text.isascii() and text.isdigit() and len(text.lstrip("0")) <= len(str(MOST_WHOLE))
    number = int(text.lstrip("0") or "0") if plain else None
    return None if number is None or number > MOST_WHOLE else number


def _number(
    above: float | None = None, least: float | None = None, below: float | None = None
) -> Callable[[str], float]:
    bounds = [
        *([f"above {above:g}"] if above is not None else []),
        *([f"at least {least:g}"] if least is not None else []),
        *([f"below {below:g}"] if below is not None else []),
    ]
    wanted = "a finite number, " + " and ".join(bounds)

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        fits = (
            math.isfinite(value)
            and (above is None or value > above)
            and (least is None or value >= least)
            and (below is None or value < below)
        )
        if not fits:
            raise ValueError(wanted)
        return value

    return parse


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = whole_number(text)
        if number is None or number < least:
            raise ValueError(f"a whole number of at least {least}, and {MOST_WHOLE} at most")
        return number

    return parse


_count = _whole(1)


def _choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}; {suggestion(text, words)}")
        return text

    return parse


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError("true or false")
    return text.lower() == "true"


def _or_none(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    def parse_or_none(text: str) -> Value:
        if text.lower() == "none":
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"{error}, or none") from error

    return parse_or_none


def _flag_or_number(text: str) -> Value:
    if text.lower() in {"true", "false"}:
        return _flag(text)
    try:
        return _number(above=0.0)(text)
    except ValueError as error:
        raise ValueError(f"true, false or {error}") from error


_positive = _number(above=0.0)
_not_negative = _number(least=0.0)
# The bound keeps Adam's own arithmetic in float32, where torch would raise.
_step_size = _number(least=0.0, below=1e30)
_beta = _number(least=0.0, below=1.0)

# Full-batch solvers of fully connected networks: an epoch is one iteration.
SOLVERS: dict[str, type[LayerwiseSolver]] = {
    "dladmm": DLADMM,
    "mdlam": MDLAM,
    "bcd": BCD,
    "scaled-admm": ScaledADMM,
}
# Decided by the network, the data and the run.
_NOT_FOR_SPECS = {"activation", "negative_slope", "outputs", "seed"}


def _solver_options(solver: type[LayerwiseSolver]) -> dict[str, Option]:
    """The options of a solver; whether a number fits is checked there."""
    parsers = {bool: _flag, int: _whole(0), float: _not_negative}
    return {
        name: Option(default, _choice(*solver.losses) if name == "loss" else parsers[type(default)])
        for name, default in solver.options().items()
        if name not in _NOT_FOR_SPECS
    }


def _hypergradient_options(lr: float, hypergrad_lr: float) -> dict[str, Option]:
    return {
        "lr": Option(lr, _step_size),
        "hypergrad_lr": Option(hypergrad_lr, _not_negative),
        "rule": Option("additive", _choice(*RULES)),
        "weight_decay": Option(0.0, _not_negative),
        "blocks": Option(1, _or_none(_count)),  # the published method learns one step size
    }


_SCHEDULE = {"schedule": Option("constant", _choice(*SCHEDULES))}

# The defaults are those of the constructors in samt; tests compare them.
METHOD_OPTIONS: dict[str, dict[str, Option]] = {
    "auto-samt": {},
    "samt": {
        "lr": Option(0.1, _step_size),
        "step_size": Option("scalar", _choice("scalar", "row", "column", "element")),
        "head": Option("offset", _choice("offset", "dense")),
        "projection": Option("tanh", _choice("tanh", "sigmoid")),
        "parts": Option("full", _choice("full", "left", "right", "fixed")),
        "meta_batch": Option("subset", _choice("same", "subset", "fresh", "next")),
        "meta_lr": Option(1e-2, _not_negative),
        "eta_hidden": Option(64, _count),
        "inner_steps": Option(1, _count),
        "order": Option("forward", _choice("forward", "reverse", "random", "cyclic")),
        "radius": Option(None, _or_none(_positive)),
        "relative": Option(False, _flag_or_number),
        "weight_decay": Option(0.0, _not_negative),
        "max_grad_norm": Option(None, _or_none(_positive)),
        "blocks": Option(None, _or_none(_count)),
        **_SCHEDULE,
    },
    "sgd": {
        "lr": Option(0.1, _step_size),
        "momentum": Option(0.0, _beta),
        "nesterov": Option(False, _flag),
        "weight_decay": Option(0.0, _not_negative),
        **_SCHEDULE,
    },
    "adam": {
        "lr": Option(1e-3, _step_size),
        "beta1": Option(0.9, _beta),
        "beta2": Option(0.999, _beta),
        "eps": Option(1e-8, _positive),
        "weight_decay": Option(0.0, _not_negative),
        **_SCHEDULE,
    },
    "prodigy": {
        "lr": Option(1.0, _step_size),
        "weight_decay": Option(0.0, _not_negative),
        **_SCHEDULE,
    },
    "schedule-free": {
        "lr": Option(0.0025, _step_size),
        "weight_decay": Option(0.0, _not_negative),
    },
    "sgd-hd": {**_hypergradient_options(1e-3, 1e-3), "momentum": Option(0.0, _beta)},
    "sgdn-hd": {**_hypergradient_options(1e-3, 1e-3), "momentum": Option(0.9, _beta)},
    "adam-hd": {
        **_hypergradient_options(1e-3, 1e-7),
        "beta1": Option(0.9, _beta),
        "beta2": Option(0.999, _beta),
        "eps": Option(1e-8, _positive),
    },
    "dante": {
        "lr": Option(0.1, _step_size),
        "inner_iterations": Option(5, _count),
        "normalized": Option(True, _flag),
        "order": Option("reverse", _choice("reverse", "forward")),
        "fresh_batches": Option(False, _flag),
        "blocks": Option(None, _or_none(_count)),
        **_SCHEDULE,
    },
    **{name: _solver_options(solver) for name, solver in SOLVERS.items()},
}
