"""What each option of SAMT may be; the messages name the cure."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from samt.errors import (
    OptionError,
    UnknownOptionError,
    closest,
    refuse_options_of_torch,
    suggestion,
)
from samt.eta_model import HEADS, PROJECTIONS
from samt.step_size import GRANULARITIES, PARTS

META_BATCHES = ("same", "subset", "fresh", "next")
ORDERS = ("forward", "reverse", "random", "cyclic")


def _number(value: Any) -> bool:
    # The bound turns away NaN, infinity and integers that no float can hold.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def _size(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and _number(value.item()) and value.item() >= 0
    return _number(value) and value >= 0


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _betas(value: Any) -> bool:
    pair = isinstance(value, tuple | list) and len(value) == 2
    return pair and all(_number(beta) and 0 <= beta < 1 for beta in value)


# option: (what it must be, whether a value is that)
_NUMBERS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "lr": ("a finite number, 0 or more", _size),
    "meta_lr": ("a finite number, 0 or more", lambda v: _number(v) and v >= 0),
    "weight_decay": ("a finite number, 0 or more", lambda v: _number(v) and v >= 0),
    "eta_hidden": ("a whole number, 1 or more", _count),
    "inner_steps": ("a whole number, 1 or more", _count),
    "radius": ("None or a positive number", lambda v: v is None or _positive(v)),
    "max_grad_norm": ("None or a positive number", lambda v: v is None or _positive(v)),
    "relative": ("True, False or a positive number", lambda v: isinstance(v, bool) or _positive(v)),
    "replay": ("True or False", lambda v: isinstance(v, bool)),
    "compile": ("True or False", lambda v: isinstance(v, bool)),
    "total_steps": ("None or a whole number, 1 or more", lambda v: v is None or _count(v)),
    "meta_every": ("a whole number, 2 or more", lambda v: _count(v) and v >= 2),
    "eps": ("a positive number", _positive),
    "betas": ("two numbers, from 0 to below 1", _betas),
    "seed": (
        "a whole number from 0 to 2**40",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 2**40,
    ),
}
_WORDS: dict[str, Iterable[str]] = {
    "step_size": GRANULARITIES,
    "head": HEADS,
    "projection": PROJECTIONS,
    "parts": PARTS,
    "meta_batch": META_BATCHES,
    "order": ORDERS,
}


def _short(value: Any) -> str:
    text = reprlib.repr(value).replace("\n", " ")
    return text if len(text) <= 60 else text[:59] + "…"


def check(options: dict[str, Any], preset: str) -> None:
    """Check the value of every option.

    Args:
        options: the optimizer's defaults or a complete param group.
        preset: of the optimizer.

    Raises:
        OptionError: a value is out of range or no known word.
    """
    where = f" in block {options['name']!r}" if "name" in options else ""
    if options["preset"] != preset:
        raise OptionError(
            f"preset {_short(options['preset'])}{where} is not that of this class, {preset!r}: "
            "build samt.SAMT, which has both"
        )
    for name, (wanted, is_right) in _NUMBERS.items():
        if name in options and not is_right(options[name]):
            raise OptionError(f"{name} must be {wanted}{where}, not {_short(options[name])}")
    for name, words in _WORDS.items():
        if name not in options:
            continue
        value = options[name]
        if name == "step_size" and callable(value):
            continue
        if not isinstance(value, str) or value not in words:
            cure = suggestion(value if isinstance(value, str) else "", words)
            raise OptionError(f"unknown {name} {_short(value)}{where}: {cure}")


def check_spelling(group: dict[str, Any], known: Iterable[str]) -> None:
    """Refuse a key of a param group that is nearly, but not quite, an option.

    Keys that resemble none are let through: schedulers and users keep notes in groups.

    Raises:
        UnknownOptionError: with the word that was probably meant.
        OptionError: it is an option, but not one of a group.
    """
    known = ["params", "param_names", "name", *known]
    refuse_options_of_torch(group, known)
    if "process_group" in group:
        raise OptionError("process_group is one for all blocks: give it to the optimizer")
    for key in group:
        if key in known or key in ("initial_lr", "max_lr", "min_lr"):  # notes of torch's schedulers
            continue
        meant = closest(key, known, cutoff=0.8)
        if meant:
            raise UnknownOptionError(
                f"unknown option '{key}' in block {group.get('name', '')!r}: "
                f"did you mean '{meant}'?"
            )
