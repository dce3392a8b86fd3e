"""Which runs the suite consists of, and which of them can start with what is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import yaml

from samt.bench.errors import SettingsError
from samt.bench.suite.method import Chosen, Method, Value
from samt.bench.suite.methods import METHODS, method_named
from samt.bench.suite.problem import Part, Problem
from samt.bench.suite.record import Outcome, Settings

HORIZONS = (0.25, 0.5, 1.0, 2.0)
# The methods that are run at all of them.
AT_ALL_HORIZONS = ("auto-samt", "adamw", "prodigy", "schedule-free")
SEEDS_AT_OTHER_HORIZONS = 3
# The best options of the first tuning seed that the other tuning seeds decide between.
FINALISTS, TUNING_SEEDS = 3, (0, 1, 2)
MOST_WIDER = 16  # rates beyond the grid: eight decades

Known = Mapping[str, Outcome]


@dataclass(frozen=True)
class Entry:
    """A line of the comparison.

    Args:
        label: its name in tables.
        method: the method.
        options: the options that differ from the defaults; with none, a method that has a grid
            is tuned.
        horizons: the horizons at which it is run.
    """

    label: str
    method: Method
    options: Chosen
    horizons: Sequence[float] = (1.0,)

    @property
    def tuned(self) -> bool:
        """Whether its options are chosen on the validation part."""
        return bool(self.method.grid) and not self.options


def entry(spec: str, horizons: Sequence[float] | None = None) -> Entry:
    """Read an entry as it is written on the command line.

    Args:
        spec: the name of a method, of one of its ablations behind a slash, or a name with
            options, such as `prodigy:use_bias_correction=true,safeguard_warmup=true`.
        horizons: the horizons to run it at; by default those of the suite.

    Raises:
        SettingsError: a method, an ablation or an option is unknown.
    """
    name, _, tail = spec.partition(":")
    name, _, ablation = name.partition("/")
    method = method_named(name)
    options: dict[str, Value] = {}
    if ablation:
        if ablation not in method.ablations:
            known = ", ".join(method.ablations) or "none"
            raise SettingsError(f"'{ablation}' is no ablation of '{name}': it has {known}")
        options |= method.ablations[ablation]
    for item in filter(None, tail.split(",")):
        key, equals, text = item.partition("=")
        if not equals:
            raise SettingsError(f"cannot read '{item}' in '{spec}': write {name}:option=value")
        options[key.strip()] = _scalar(text)
    method.complete(options)
    usual = HORIZONS if spec in AT_ALL_HORIZONS else (1.0,)
    return Entry(spec, method, options, tuple(horizons) if horizons else usual)


def _scalar(text: str) -> Value:
    try:
        found: Value = yaml.safe_load(text)
        return float(found) if isinstance(found, str) else found  # YAML takes 1e-2 for a text
    except (ValueError, yaml.YAMLError):
        return text


def every_entry() -> list[Entry]:
    """All methods with all of their ablations."""
    specs = [
        spec
        for method in METHODS.values()
        for spec in (method.name, *(f"{method.name}/{one}" for one in method.ablations))
    ]
    return [entry(spec) for spec in specs]


@dataclass(frozen=True)
class Plan:
    """The runs of some entries on some problems.

    Args:
        problems: the problems, by name.
        entries: the entries.
        part: the part that the entries are compared on; tuning is on the validation part always.
        most_seeds: the most seeds of a problem; by default all that it names.
    """

    problems: Mapping[str, Problem]
    entries: Sequence[Entry]
    part: Part = "test"
    most_seeds: int | None = None

    def wanted(self, known: Known) -> dict[str, Settings]:
        """The runs that are part of the suite, as far as the choices so far tell.

        Args:
            known: the outcomes that there are, by identity.

        Returns:
            All runs by their identity, whether they are known or not.
        """
        found = (
            run
            for problem in self.problems.values()
            for one in self.entries
            for run in self._runs(problem, one, known)
        )
        return {run.identity: run for run in found}

    def ready(self, known: Known) -> dict[str, Settings]:
        """The runs that can start.

        Args:
            known: the outcomes that there are, by identity.

        Returns:
            The runs by their identity; none when the suite is complete.
        """
        return {one: run for one, run in self.wanted(known).items() if one not in known}

    def undecided(self, known: Known) -> int:
        """The number of runs that are sure to follow, but whose options are not chosen yet.

        Args:
            known: the outcomes that there are, by identity.
        """
        total = 0
        for problem in self.problems.values():
            for one in self.entries:
                if not one.tuned:
                    continue
                found = tuning(problem.name, one, known)
                if found.chosen is not None:
                    continue
                if not found.refining:
                    total += _finalists(one) * (len(TUNING_SEEDS) - 1)
                total += sum(self._seeds(problem, horizon) for horizon in one.horizons)
        return total

    def _runs(self, problem: Problem, one: Entry, known: Known) -> Iterable[Settings]:
        options: Chosen | None = one.options
        if one.tuned:
            found = tuning(problem.name, one, known)
            yield from found.runs
            options = found.chosen
        if options is not None:
            yield from final(
                problem.name,
                one,
                options,
                self.part,
                lambda horizon: self._seeds(problem, horizon),
            )

    def _seeds(self, problem: Problem, horizon: float) -> int:
        most = [problem.seeds]
        if self.most_seeds is not None:
            most.append(self.most_seeds)
        if horizon != 1:
            most.append(SEEDS_AT_OTHER_HORIZONS)
        return min(most)


@dataclass(frozen=True)
class Tuning:
    """The choice of an entry's options on a problem, as far as it has come.

    Args:
        tried: the options that run with the first seed.
        runs: the runs of the tuning, as far as it is known which these are.
        chosen: the options with the best mean over the tuning seeds; None until all have run.
    """

    tried: Sequence[Chosen]
    runs: Sequence[Settings]
    chosen: Chosen | None

    @property
    def refining(self) -> bool:
        """Whether it is known which options run with the other seeds."""
        return len(self.runs) > len(self.tried)


def tuning(problem: str, one: Entry, known: Known) -> Tuning:
    """Choose the options of an entry on the validation part of a problem.

    All options of the grid run with the first seed. As long as the best of them has the largest
    or the smallest rate, the next rate in that direction is tried as well. The best three options
    then run with two more seeds.

    Args:
        problem: the name of the problem.
        one: an entry that is tuned.
        known: the outcomes that there are, by identity.
    """
    tried = list(one.method.grid)
    for room in reversed(range(MOST_WIDER + 1)):
        first = [_run(problem, one, options, TUNING_SEEDS[0]) for options in tried]
        if any(run.identity not in known for run in first):
            return Tuning(tried, first, None)
        ordered = sorted(
            range(len(tried)), key=lambda place: _score([known[first[place].identity]])
        )
        wider = beyond(tried, tried[ordered[0]]) if room else []
        if not wider:
            break
        tried += wider
    seeds = {
        place: [_run(problem, one, tried[place], seed) for seed in TUNING_SEEDS]
        for place in ordered[: _finalists(one)]
    }
    runs = [*first, *(run for some in seeds.values() for run in some[1:])]
    if any(run.identity not in known for run in runs):
        return Tuning(tried, runs, None)
    best = min(seeds, key=lambda place: _score([known[run.identity] for run in seeds[place]]))
    return Tuning(tried, runs, tried[best])


def beyond(tried: Sequence[Chosen], best: Chosen) -> list[dict[str, Value]]:
    """The options to try next if the best ones have the largest or the smallest rate so far.

    Args:
        tried: the options so far; their rates, `lr`, go 1, 3, 10, 30, …
        best: the options with the best value so far.

    Returns:
        The other options as they were tried, with the next rate; none if the best rate lies
        between others, or if there are no rates.

    Examples:
        >>> beyond([{"lr": 0.1}, {"lr": 0.3}, {"lr": 1.0}], {"lr": 1.0})
        [{'lr': 3.0}]
        >>> beyond([{"lr": 0.1}, {"lr": 0.3}, {"lr": 1.0}], {"lr": 0.3})
        []
    """
    rates = sorted({rate for one in tried if isinstance(rate := one.get("lr"), float)})
    if len(rates) < 2 or best["lr"] not in (rates[0], rates[-1]):
        return []
    following = rates[-2] * 10 if best["lr"] == rates[-1] else rates[1] / 10
    rate = float(f"{following:.3g}")
    return [{**one, "lr": rate} for one in tried if one["lr"] == best["lr"]]


def final(
    problem: str,
    one: Entry,
    options: Chosen,
    part: Part,
    seeds: Callable[[float], int],
) -> list[Settings]:
    """The runs by which an entry is compared.

    Args:
        problem: the name of the problem.
        one: the entry.
        options: its options.
        part: the part that it is judged on.
        seeds: a function from a horizon to the number of seeds.
    """
    return [
        _run(problem, one, options, seed, horizon, part)
        for horizon in one.horizons
        for seed in range(seeds(horizon))
    ]


def _run(
    problem: str,
    one: Entry,
    options: Chosen,
    seed: int,
    horizon: float = 1.0,
    part: Part = "validation",
) -> Settings:
    return Settings(
        problem=problem,
        method=one.method.name,
        version=one.method.version,
        options=one.method.complete(options),
        seed=seed,
        horizon=horizon,
        part=part,
    )


def _finalists(one: Entry) -> int:
    return min(FINALISTS, len(one.method.grid))


def _score(outcomes: Sequence[Outcome]) -> float:
    """The mean of the metric; infinite if a run diverged."""
    values = [math.inf if one.final is None else one.final for one in outcomes]
    return sum(values) / len(values)
