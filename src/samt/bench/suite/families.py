"""All problems of the suite, by family and by name."""

from __future__ import annotations

from samt.bench.errors import ExperimentError
from samt.bench.suite.problem import Problem
from samt.bench.suite.problems import architectures, classic, finetuning, regimes, units
from samt.errors import suggestion

FAMILIES: dict[str, tuple[Problem, ...]] = {
    "classic": classic.PROBLEMS,
    "units": units.PROBLEMS,
    "finetuning": finetuning.PROBLEMS,
    "architectures": architectures.PROBLEMS,
    "regimes": regimes.PROBLEMS,
}
PROBLEMS: dict[str, Problem] = {one.name: one for family in FAMILIES.values() for one in family}


class UnknownProblemError(ExperimentError):
    """The suite has no problem of this name."""


def problem(name: str) -> Problem:
    """The problem of a name.

    Args:
        name: a key of `PROBLEMS`.

    Raises:
        UnknownProblemError: there is none.
    """
    if name not in PROBLEMS:
        raise UnknownProblemError(
            f"unknown problem '{name}' of the suite: {suggestion(name, PROBLEMS)}"
        )
    return PROBLEMS[name]
