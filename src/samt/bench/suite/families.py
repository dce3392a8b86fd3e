"""All problems of the suite, by family and by name.

Settings of our own methods may be chosen on the validation parts of half of the problems; the
others are held out until the end.

- classic: chosen on fashion, deep, scaled, tiny-batch, bike, cnn, characters; held out mnist,
  digits, dropout, large-batch, pol, kegg, resnet.
- units: chosen on weights-1e-2, weights-1e2, inputs-1e3, targets-1e-2; held out weights-1e-4,
  weights-1e4, inputs-1e-3, targets-1e3, targets-raw.
- finetuning: chosen on finetune-same, finetune-other, finetune-text; held out finetune-shifted,
  finetune-head, finetune-lora.
- architectures: chosen on lstm, gpt-code, words, sines; held out gpt-english, factorisation,
  autoencoder, graph, vision-transformer.
- regimes: chosen on convex, long, label-noise, smooth, batch-1024; held out least-squares,
  short, little-data, physics, batch-norm, batch-4.
"""

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
