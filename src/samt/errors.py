"""Named errors: each message is one line that says what is wrong and what to do about it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, ParamSpec, TypeVar

__all__ = [
    "CheckpointMismatchError",
    "ClosureRequiredError",
    "CompileError",
    "DuplicateParameterError",
    "GradScalerUnsupportedError",
    "LeftoverGradientsError",
    "MetaBatchUnavailableError",
    "MissingPackageError",
    "NoGradientError",
    "NonFiniteLossError",
    "OptionError",
    "PartitionError",
    "SAMTError",
    "UnknownOptionError",
    "UnsupportedGradientError",
]


class SAMTError(Exception):
    """Base class of everything that samt raises on purpose."""


class OptionError(SAMTError, ValueError):
    """An option has a value that it cannot have."""


class UnknownOptionError(SAMTError, TypeError):
    """An option that does not exist, most often a misspelled one."""


class DuplicateParameterError(SAMTError, ValueError):
    """A parameter stands in two blocks, or twice in one."""


class PartitionError(SAMTError, ValueError):
    """A model cannot be split into blocks in the way that was asked for."""


class ClosureRequiredError(SAMTError, RuntimeError):
    """`step()` was called without a closure in a mode that evaluates the loss again."""


class MetaBatchUnavailableError(SAMTError, RuntimeError):
    """The samples of the meta batch S′ cannot be had from the closures that were given."""


class MissingPackageError(SAMTError, ImportError):
    """A convenience needs a package that is not installed; the optimizer needs torch alone."""


class LeftoverGradientsError(SAMTError, RuntimeError):
    """Gradients were accumulated outside the closure."""


class NoGradientError(SAMTError, RuntimeError):
    """A closure gave neither `.grad` fields nor a loss to differentiate."""


class UnsupportedGradientError(SAMTError, TypeError):
    """A parameter or gradient is sparse, sharded, complex or not a floating-point tensor."""


class GradScalerUnsupportedError(SAMTError, RuntimeError):
    """`torch.amp.GradScaler` scales gradients, which the eta models would read."""


class CompileError(SAMTError, RuntimeError):
    """`compile=True` was asked for and the sweep cannot be compiled."""


class NonFiniteLossError(SAMTError, ArithmeticError):
    """A loss, a gradient or a step is NaN or infinite; weights and state are those of before."""


class CheckpointMismatchError(SAMTError, ValueError):
    """A state dict was written by an optimizer of another structure."""


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that was probably meant, whatever its case; None if there is none.

    Examples:
        >>> closest("LR", ["lr", "seed"]), closest("momentum", ["lr", "seed"])
        ('lr', None)
    """
    by_lower_case = {option.lower(): option for option in known}
    close = get_close_matches(word.lower(), by_lower_case, n=1, cutoff=cutoff)
    return by_lower_case[close[0]] if close else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the closest known word, or all of them.

    Args:
        word: what was written.
        known: what could have been meant.

    Returns:
        ``"did you mean 'row'?"`` or ``"choose from 'row', 'column'"``.
    """
    options = list(known)
    meant = closest(word, options)
    if meant:
        return f"did you mean '{meant}'?"
    return "choose from " + ", ".join(f"'{option}'" for option in options)


# Options of torch's own optimizers, and why there is no need of them here.
_OF_TORCH = {
    "foreach": "tensors are batched where that is faster",
    "fused": "kernels are fused where that is faster",
    "capturable": "a step is not captured in a CUDA graph of yours",
    "differentiable": "a step cannot be differentiated through",
    "maximize": "minimize the negative of what you maximize",
    "amsgrad": "there is no maximum of past squares",
}


def refuse_options_of_torch(words: Iterable[str], known: Iterable[str]) -> None:
    """Answer options that torch's optimizers have and this one has not.

    Args:
        words: the options that were given.
        known: those that this optimizer has.

    Raises:
        UnknownOptionError: one of them is an option of torch alone.
    """
    for word in words:
        if word in _OF_TORCH and word not in known:
            raise UnknownOptionError(
                f"'{word}' is an option of torch's optimizers alone ({_OF_TORCH[word]}): "
                "leave it out"
            )


P = ParamSpec("P")
R = TypeVar("R")


def explain_unknown_options(init: Callable[P, R]) -> Callable[P, R]:
    """Decorate a constructor: a misspelled keyword is answered with the word that was meant."""
    known = _options(init)

    @functools.wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        refuse_options_of_torch(kwargs, known)
        for word in kwargs:
            if word not in known:
                raise UnknownOptionError(_about_unknown_option(args[0], word, kwargs, known))
        return init(*args, **kwargs)

    return checked


def _options(init: Callable[..., object]) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(init).parameters.items()
        if name != "self" and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY
    ]


def _about_unknown_option(
    made: object, word: str, given: Iterable[str], known: Sequence[str]
) -> str:
    """What to say of a word that is no option here: `samt.SAMT` has presets, and it may be of one.

    Args:
        made: the optimizer that is being made.
        word: what was written.
        given: all options that were written.
        known: those that this optimizer has.
    """
    presets: dict[str, Any] = getattr(made, "_presets", {})
    all_options = {name: _options(one.__init__) for name, one in presets.items()}
    # Dante is built on a preset and is none.
    own = next((name for name, options in all_options.items() if options == known), None)
    others = {name: options for name, options in all_options.items() if own and name != own}
    for name, theirs in others.items():
        if word in theirs:
            alone = [f"'{one}'" for one in given if one in known and one not in theirs]
            without = f" and leave out {', '.join(alone)}" if alone else ""
            return (
                f"preset='{own}' has no option '{word}', but preset='{name}' has: leave it out, "
                f"or write preset='{name}'{without}"
            )
    meant = closest(word, [*known, *(one for theirs in others.values() for one in theirs)])
    for name, theirs in others.items():
        if meant in theirs and meant not in known:
            return f"unknown option '{word}': did you mean '{meant}', which preset='{name}' has?"
    return f"unknown option '{word}': {suggestion(word, known)}"
