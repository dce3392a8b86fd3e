"""The methods by name. A SAMT method is an engine, a mode and a granularity."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec

import samt

BASELINE = "sgd"
ENGINES = {"reference": "SAMT reference", "eager": "SAMT", "compiled": "SAMT compiled"}
MODES = {
    "subset": "exact `subset`",
    "same": "exact `same`",
    "next": "`next`, per layer",
    "whole": "`next`, whole model",
}
GRANULARITIES = ("scalar", "element")


@dataclass(frozen=True)
class Method:
    """One way of taking a step.

    Args:
        key: name on the command line and in the CSV file.
        title: name on the page.
        package: that it needs beside torch, as one imports it.
        engine: of a SAMT method: a key of `ENGINES`; empty for other optimizers.
        mode: of a SAMT method: a key of `MODES`.
        granularity: of a SAMT method: `scalar` or `element`.
    """

    key: str
    title: str
    package: str = "torch"
    engine: str = ""
    mode: str = ""
    granularity: str = ""

    @property
    def compiled(self) -> bool:
        """Its first steps wait for the compiler."""
        return self.engine == "compiled"

    @property
    def missing(self) -> str:
        """Why it cannot be measured here; empty if it can."""
        if find_spec(self.package) is None:
            return f"{self.package} is not installed"
        if self.compiled and "compile" not in inspect.signature(samt.SAMT).parameters:
            return "this samt has no option compile"
        return ""


_OTHERS = (
    Method(BASELINE, "torch SGD"),
    Method("sgd-momentum", "torch SGD, momentum"),
    Method("auto-samt", "AutoSAMT"),
    Method("adam", "torch Adam"),
    Method("adam-foreach", "torch Adam, foreach"),
    Method("adam-fused", "torch Adam, fused"),
    Method("prodigy", "Prodigy", "prodigyopt"),
    Method("schedulefree-sgd", "Schedule-Free SGD", "schedulefree"),
    Method("schedulefree-adamw", "Schedule-Free AdamW", "schedulefree"),
    Method("gdtuo-adam", "GDTUO, Adam / SGD", "gradient_descent_the_ultimate_optimizer"),
    Method("gdtuo-sgd", "GDTUO, SGD / SGD", "gradient_descent_the_ultimate_optimizer"),
)


def _samt_method(engine: str, mode: str, granularity: str) -> Method:
    title = f"{ENGINES[engine]}, {MODES[mode]}, {granularity}"
    return Method(
        f"{engine}-{mode}-{granularity}",
        title,
        engine=engine,
        mode=mode,
        granularity=granularity,
    )


METHODS: dict[str, Method] = {method.key: method for method in _OTHERS} | {
    method.key: method
    for engine in ENGINES
    for granularity in GRANULARITIES
    for mode in MODES
    for method in [_samt_method(engine, mode, granularity)]
}


def select(patterns: Sequence[str], known: Iterable[str]) -> list[str]:
    """The names that match one of the patterns, in the order of the known ones.

    Args:
        patterns: as in a shell: `*`, `?`.
        known: all names.

    Raises:
        ValueError: a pattern matches none; the message names those that are close.
    """
    names = list(known)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"'{pattern}' matches nothing: {samt.errors.suggestion(pattern, names)}"
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
