"""The options of the optimizers: what each may be, and errors that name the cure."""

from __future__ import annotations

import functools
import reprlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

from torch import Tensor

from samt.errors import OptionError, UnknownOptionError, closest, suggestion
from samt.eta_model import HEADS, PROJECTIONS
from samt.step_size import GRANULARITIES, PARTS

META_BATCHES = ("same", "subset", "fresh", "next")
ORDERS = ("forward", "reverse", "random", "cyclic")


class Option(NamedTuple):
    """What an option may be.

    Attributes:
        wanted: the end of the sentence "the option must be …".
        is_right: a function that says whether a value is allowed.
        words: the allowed words, for an option that is a word.
    """

    wanted: str
    is_right: Callable[[Any], bool]
    words: tuple[str, ...] = ()


Options: TypeAlias = Mapping[str, Option]


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are not numbers here."""
    # The bound turns away NaN, infinity and integers that no float can hold.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of 1 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_share(value: Any) -> bool:
    """Whether a value is a number of at least 0 and below 1."""
    return is_number(value) and 0 <= value < 1


def _is_rate(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and _is_rate(value.item())
    return is_number(value) and value >= 0


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**40


def _is_pair_of_shares(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(is_share, value))


def word(*words: str) -> Option:
    """An option that is one of some words."""
    return Option("", lambda value: isinstance(value, str) and value in words, words)


RATE = Option("a finite number, 0 or more", _is_rate)
NOT_NEGATIVE = Option("a finite number, 0 or more", lambda v: is_number(v) and v >= 0)
POSITIVE = Option("a positive number", _is_positive)
SHARE = Option("a number, at least 0 and below 1", is_share)
COUNT = Option("a whole number, 1 or more", is_count)
FLAG = Option("True or False", lambda v: isinstance(v, bool))
POSITIVE_OR_NONE = Option("None or a positive number", lambda v: v is None or _is_positive(v))
BETAS = Option("two numbers, at least 0 and below 1", _is_pair_of_shares)
SEED = Option("a whole number from 0 to 2**40", _is_seed)

SAMT_OPTIONS: Options = {
    "lr": RATE,
    "step_size": Option(
        "", lambda v: callable(v) or (isinstance(v, str) and v in GRANULARITIES), GRANULARITIES
    ),
    "head": word(*HEADS),
    "projection": word(*PROJECTIONS),
    "parts": word(*PARTS),
    "meta_batch": word(*META_BATCHES),
    "meta_lr": NOT_NEGATIVE,
    "eta_hidden": COUNT,
    "inner_steps": COUNT,
    "order": word(*ORDERS),
    "radius": POSITIVE_OR_NONE,
    "relative": Option(
        "True, False or a positive number", lambda v: isinstance(v, bool) or _is_positive(v)
    ),
    "weight_decay": NOT_NEGATIVE,
    "max_grad_norm": POSITIVE_OR_NONE,
    "replay": FLAG,
    "compile": FLAG,
    "seed": SEED,
}
AUTO_SAMT_OPTIONS: Options = {
    "lr": RATE,
    "betas": BETAS,
    "weight_decay": NOT_NEGATIVE,
    "learning": FLAG,
}
DANTE_OPTIONS: Options = {
    "lr": RATE,
    "inner_iterations": COUNT,
    "normalized": FLAG,
    "order": word("reverse", "forward"),
    "fresh_batches": FLAG,
    "replay": FLAG,
}

# Options of torch's own optimizers, and why there is no need of them here.
_OF_TORCH = {
    "foreach": "tensors are batched where that is faster",
    "fused": "kernels are fused where that is faster",
    "capturable": "a step is not captured in a CUDA graph of yours",
    "differentiable": "a step cannot be differentiated through",
    "maximize": "minimize the negative of what you maximize",
    "amsgrad": "there is no maximum of past squares",
}
# What torch, its schedulers and trainers note in param groups beside options.
NOTES = frozenset(
    (
        *("params", "param_names", "name", "lr_scale"),
        *("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"),
    )
)


def as_plain_number(value: Any) -> Any:
    """The Python number that a one-element array or tensor stands for.

    Anything else stays what it is; in a pair such as `betas` each entry counts for itself.

    Examples:
        >>> import torch
        >>> as_plain_number(torch.tensor([0.5])), as_plain_number("row")
        (0.5, 'row')
    """
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else value
    if type(value) in (tuple, list):
        return type(value)(map(as_plain_number, value))
    is_array = hasattr(value, "item") and hasattr(value, "dtype")
    return value.item() if is_array and getattr(value, "size", 0) == 1 else value


def make_plain(group: dict[str, Any], options: Options) -> None:
    """Turn one-element arrays into Python numbers and lists into tuples; a tensor as `lr` stays.

    Args:
        group: the optimizer's defaults or a param group; it is changed in place.
        options: the options that there are.
    """
    for name in options:
        if name in group and not (name == "lr" and isinstance(group[name], Tensor)):
            value = as_plain_number(group[name])
            group[name] = tuple(value) if isinstance(value, list) else value


def check(group: Mapping[str, Any], options: Options) -> None:
    """Check the value of every option.

    Args:
        group: the optimizer's defaults or a complete param group.
        options: the options that there are.

    Raises:
        OptionError: a value is missing, out of range or no known word.
    """
    where = f" in block {group['name']!r}" if "name" in group else ""
    for name, option in options.items():
        if name not in group:
            raise OptionError(
                f"option '{name}' is missing{where}: add blocks with optimizer.add_param_group"
            )
        value = group[name]
        if option.is_right(value):
            continue
        if option.words:
            cure = suggestion(value if isinstance(value, str) else "", option.words)
            raise OptionError(f"unknown {name} {_short(value)}{where}: {cure}")
        raise OptionError(f"{name} must be {option.wanted}{where}, not {_short(value)}")


def refuse_unknown(
    given: Iterable[str],
    known: Iterable[str],
    owner: str,
    of_all: Collection[str] = (),
    notes: Collection[str] = (),
) -> None:
    """Refuse words that are no options.

    Args:
        given: the words that were given, as keywords or as keys of a param group.
        known: the options that there are.
        owner: the name of the optimizer's class.
        of_all: options of the optimizer that no group can have.
        notes: words that are no options and are allowed.

    Raises:
        UnknownOptionError: one of them is no option; the message lists those that there are.
        OptionError: one of them is an option of all blocks together.
    """
    known = list(known)
    for name in given:
        if name in known or name in notes:
            continue
        if name in of_all:
            raise OptionError(f"{name} is one for all blocks: give it to {owner}, not to a group")
        if name in _OF_TORCH:
            raise UnknownOptionError(
                f"'{name}' is an option of torch's optimizers alone ({_OF_TORCH[name]}): "
                "leave it out"
            )
        meant = closest(name, [*known, *of_all, *notes])
        hint = f"did you mean '{meant}'? " if meant else ""
        raise UnknownOptionError(
            f"{owner} has no option '{name}': {hint}its options are {', '.join(known)}"
        )


P = ParamSpec("P")
R = TypeVar("R")


def only(*known: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a constructor: a keyword that it does not have is a named error.

    Args:
        known: the keywords that the constructor has.
    """

    def decorate(init: Callable[P, R]) -> Callable[P, R]:
        owner = init.__qualname__.partition(".")[0]

        @functools.wraps(init)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            refuse_unknown(kwargs, known, owner)
            return init(*args, **kwargs)

        return checked

    return decorate


def _short(value: Any) -> str:
    text = reprlib.repr(value).replace("\n", " ")
    return text if len(text) <= 60 else text[:59] + "…"
