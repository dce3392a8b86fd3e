"""The runs that are compared, each with the label of its line in the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from samt.bench.errors import ReportError
from samt.bench.suite.method import Chosen, Method
from samt.bench.suite.methods import METHODS
from samt.bench.suite.plan import Known, Tuning, beyond, entry, tuning
from samt.bench.suite.store import Row, frame

if TYPE_CHECKING:
    from samt.bench.suite.problem import Part, Problem
    from samt.bench.suite.record import Settings

OURS, TUNED = "auto-samt", "adamw"


@dataclass(frozen=True)
class Compared:
    """What a report is made from.

    Args:
        runs: a row for each run that counts: the columns of `store.frame`, with `label`, and
            `family`, `metric` and `chosen_on` of its problem.
        problems: the problems that have runs, by name, in the order of the suite.
        labels: the labels of the methods as they are meant to be compared, ours first.
        ablations: the labels of ablations, and of methods with options that somebody asked for.
        tuning: a row for each method that is tuned and each problem: the number of `runs`, the
            `options` that they chose, and whether the rate is at the `edge` of those tried.
        failures: the runs that gave no outcome, with the reason.
        outdated: the number of runs of other versions of their methods; they do not count.
    """

    runs: pd.DataFrame
    problems: Mapping[str, Problem]
    labels: Sequence[str]
    ablations: Sequence[str]
    tuning: pd.DataFrame
    failures: Sequence[tuple[Settings, str]]
    outdated: int

    def half(self, chosen_on: bool) -> Compared:
        """The same of one half of the problems.

        Args:
            chosen_on: True for the half of the problems on which settings may be chosen.
        """
        kept = {name: one for name, one in self.problems.items() if one.chosen_on == chosen_on}
        return replace(
            self,
            problems=kept,
            runs=self.runs[self.runs["problem"].isin(list(kept))],
            tuning=self.tuning[self.tuning["problem"].isin(list(kept))],
            failures=[one for one in self.failures if one[0].problem in kept],
        )


def compared(
    rows: Iterable[Row],
    problems: Mapping[str, Problem],
    part: Part = "test",
    failures: Sequence[tuple[Settings, str]] = (),
) -> Compared:
    """Choose the runs that count, and name them.

    A method that is tuned counts with the options that its tuning runs choose.

    Args:
        rows: the runs of a store.
        problems: all problems of the suite, by name.
        part: the part that methods are compared on.
        failures: the runs that gave no outcome, with the reason.

    Raises:
        ReportError: nothing is left.
    """
    every = [row for row in rows if row.settings.problem in problems]
    current = [
        row
        for row in every
        if row.settings.method in METHODS
        and row.settings.version == METHODS[row.settings.method].version
    ]
    known = {row.settings.identity: row.outcome for row in current}
    choices = _Choices(known)
    labelled = [
        (row, label)
        for row in current
        if row.settings.part == part and (label := choices.label(row.settings)) is not None
    ]
    if not labelled:
        raise ReportError(f"no run on the {part} part is there: samt run suite makes them")
    runs = frame(row for row, _ in labelled)
    runs["label"] = [label for _, label in labelled]
    for column in ("family", "metric", "chosen_on"):
        runs[column] = [getattr(problems[name], column) for name in runs["problem"]]
    present = set(runs["label"])
    order = [name for name in METHODS if name in present]
    others = sorted(present - set(order))
    runs = _ordered(runs, {"problem": list(problems), "label": [*order, *others]})
    return Compared(
        runs,
        {name: one for name, one in problems.items() if name in set(runs["problem"])},
        order,
        others,
        _tuning(known, choices, dict.fromkeys(runs["problem"])),
        failures,
        len(every) - len(current),
    )


def _ordered(runs: pd.DataFrame, orders: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The runs in the order of problems and labels, then of horizons and seeds."""
    places = {
        f"place of {column}": runs[column].map({name: place for place, name in enumerate(names)})
        for column, names in orders.items()
    }
    by = [*places, "horizon", "seed"]
    return runs.assign(**places).sort_values(by, ignore_index=True).drop(columns=list(places))


class _Choices:
    """The label of a run."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._tunings: dict[tuple[str, str], Tuning] = {}

    def label(self, run: Settings) -> str | None:
        """The label; None for a run that tried options which were not chosen."""
        method = METHODS[run.method]
        options = dict(run.options)
        if method.grid:
            found = self.tuning(run.problem, run.method)
            if found.chosen is not None and options == method.complete(found.chosen):
                return run.method
            if options in [method.complete(one) for one in found.tried]:
                return None
        elif options == method.complete({}):
            return run.method
        for name, one in method.ablations.items():
            if options == method.complete(one):
                return f"{run.method}/{name}"
        return _spelled(method, options)

    def tuning(self, problem: str, name: str) -> Tuning:
        """How a method was tuned on a problem."""
        if (problem, name) not in self._tunings:
            self._tunings[problem, name] = tuning(problem, entry(name), self._known)
        return self._tunings[problem, name]


def _spelled(method: Method, options: Chosen) -> str:
    usual = method.complete({})
    changed = {key: value for key, value in options.items() if usual.get(key) != value}
    return f"{method.name}:" + ",".join(f"{key}={value}" for key, value in changed.items())


def _tuning(known: Known, choices: _Choices, problems: Iterable[str]) -> pd.DataFrame:
    """The tuning of each method on each problem: what was run, and what was chosen."""
    found = []
    for problem in problems:
        for name in (name for name, method in METHODS.items() if method.grid):
            one = choices.tuning(problem, name)
            found.append(
                {
                    "label": name,
                    "problem": problem,
                    "runs": sum(run.identity in known for run in one.runs),
                    "options": {} if one.chosen is None else _differing(one.tried, one.chosen),
                    "edge": one.chosen is not None and bool(beyond(one.tried, one.chosen)),
                }
            )
    return pd.DataFrame(found, columns=["label", "problem", "runs", "options", "edge"])


def _differing(tried: Sequence[Chosen], options: Chosen) -> Chosen:
    """Those of the options in which the tried ones differ."""
    return {
        name: value
        for name, value in options.items()
        if len({each.get(name) for each in tried}) > 1
    }
