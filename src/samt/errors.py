"""Named errors: each message is one line that says what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CheckpointMismatchError",
    "ClosureRequiredError",
    "ClosureResultError",
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
    "StateMismatchError",
    "UninitializedParameterError",
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


class ClosureResultError(SAMTError, TypeError):
    """A closure returned something else than one loss."""


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
    """`torch.amp.GradScaler` scales gradients that are needed here as they are."""


class CompileError(SAMTError, RuntimeError):
    """`compile=True` was asked for and the sweep cannot be compiled."""


class NonFiniteLossError(SAMTError, ArithmeticError):
    """A loss, a gradient or a step is NaN or infinite; weights and state are those of before."""


class StateMismatchError(SAMTError, RuntimeError):
    """The state of a parameter does not fit the parameter, which has changed its shape."""


class UninitializedParameterError(SAMTError, RuntimeError):
    """A parameter of a lazy module has no shape yet."""


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


def listed(names: Iterable[str], most: int = 6) -> str:
    """Some names in a sentence; of many names the first few.

    Examples:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    names = list(names)
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
