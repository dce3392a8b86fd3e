"""From an experiment to its cells, and the choice of options on the validation part."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from samt.bench.data import short_name
from samt.bench.errors import DataError, ExperimentError, NoCellError
from samt.bench.experiments.cells import Cell, Source
from samt.bench.experiments.spec import Experiment, Method, Scalar, option_text, suffix
from samt.bench.method_specs import MethodSpec
from samt.bench.models import parse
from samt.bench.settings import width_text

Options = Mapping[str, Scalar]
Summaries = Mapping[str, Mapping[str, Any]]
WIDTHLESS = ("resnet18", "vgg11", "additive", "transformer")
ONLY = ("data", "model", "width", "method", "seed")


@dataclass(frozen=True)
class Machine:
    """Where cells run.

    Args:
        device: torch's name of it.
        threads: of torch in each cell.
        data_dir: where data sets that are files lie.
    """

    device: str = "cpu"
    threads: int = 1
    data_dir: Path | None = None


@dataclass(frozen=True)
class Variant:
    """A method with fixed options, and those that are still open."""

    label: str
    method: Method
    options: Options

    def spec(self, chosen: Options) -> MethodSpec:
        """With the open options chosen."""
        return self.method.spec({**self.options, **chosen})

    @property
    def choices(self) -> list[Options]:
        """Every combination of the open options; a single empty one if there are none."""
        names, values = self.method.tune.keys(), self.method.tune.values()
        return [
            dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)
        ]


@dataclass(frozen=True)
class Group:
    """All seeds of a method on one data set and network.

    Args:
        tuning: the cells that decide, for each choice; empty where there is nothing to choose.
        final: makes the cells that count from a choice.
    """

    variant: Variant
    tuning: Sequence[tuple[Options, Sequence[Cell]]]
    final: Callable[[Options], list[Cell]]

    def choice(self, summaries: Summaries) -> Options | None:
        """The options that do best on the validation part.

        Args:
            summaries: results of the tuning cells, by identity.

        Returns:
            The first choice with the best mean over the seeds; a choice of which a run diverged
            comes last. None if the result of a cell is not there, or it is no result.
        """
        if not self.tuning:
            return {}
        scores = []
        for options, cells in self.tuning:
            found = [summaries.get(cell.identity) for cell in cells]
            if not all(one and one["status"] in ("finished", "diverged") for one in found):
                return None
            scores.append((_score([one for one in found if one]), options))
        best = max(score for score, _ in scores)
        return next(options for score, options in scores if score == best)


def _score(summaries: Sequence[Mapping[str, Any]]) -> float:
    """Mean of the validation metric, larger is better; minus infinity if a run diverged."""
    values = [one["validation_metric"] for one in summaries]
    if any(one["status"] == "diverged" for one in summaries) or None in values:
        return -math.inf
    sign = 1 if summaries[0]["metric"] == "accuracy" else -1
    return sign * math.fsum(values) / len(values)


def groups(
    experiment: Experiment, machine: Machine, only: Sequence[str] = ()
) -> tuple[list[Group], dict[str, str]]:
    """All groups of an experiment.

    Args:
        experiment: what is run.
        machine: where.
        only: such as `data=mnist` or `method=samt*`; all of them must hold, patterns of one key
            may do so in turns.

    Returns:
        The groups in the order of the file, and the data sets that are not here, with the reason:
        their groups are left out. The data are read, for their checksums.

    Raises:
        NoCellError: nothing is left.
        ExperimentError: a pattern cannot be read.
        DataError: no data set of the experiment is here.
    """
    patterns = _patterns(only)
    builder = _Cells(experiment, machine)
    found: list[Group] = []
    absent: dict[str, DataError] = {}
    for data, model, hidden, variant in _combinations(experiment):
        place = {
            "data": short_name(data),
            "model": model,
            "width": width_text(hidden),
            "method": variant.label,
        }
        seeds = [
            seed
            for seed in experiment.seeds
            if _is_wanted({**place, "seed": str(seed)}, experiment, patterns)
        ]
        if seeds and data not in absent:
            try:
                found += builder.groups(data, model, hidden, variant, seeds)
            except DataError as error:
                absent[data] = error
    if not found and absent:
        raise next(iter(absent.values()))
    if not found:
        raise NoCellError(f"{experiment.name}: no cell is left: check exclude and --only")
    return found, {short_name(data): str(error) for data, error in absent.items()}


def _combinations(
    experiment: Experiment,
) -> Iterator[tuple[str, str, tuple[int, ...], Variant]]:
    """Data, network, hidden widths and method, in the order of the file."""
    variants = [
        Variant(label, method, options)
        for method in experiment.methods
        for label, options in method.variants()
    ]
    for data, model in itertools.product(experiment.data, experiment.model):
        # The only width of some networks is in the name of the model.
        is_widthless = parse(model)[0] in WIDTHLESS
        for hidden in [()] if is_widthless else map(tuple, experiment.width):
            for variant in variants:
                yield data, model, hidden, variant


class _Cells:
    """Makes the cells of a group."""

    def __init__(self, experiment: Experiment, machine: Machine) -> None:
        self.experiment = experiment
        self.machine = machine
        self._checksum = cache(lambda source: source.load().checksum)

    def groups(
        self, data: str, model: str, hidden: tuple[int, ...], variant: Variant, seeds: list[int]
    ) -> list[Group]:
        """One group; or one for each seed, where each has a split and must not choose by another's.

        What is test part in one split is validation part in another.
        """
        if self.experiment.split == "seed" and variant.method.tune:
            return [self._group(data, model, hidden, variant, [one], [one]) for one in seeds]
        tuning = self.experiment.tuning.seeds
        return [self._group(data, model, hidden, variant, seeds, tuning)]

    def _group(
        self,
        data: str,
        model: str,
        hidden: tuple[int, ...],
        variant: Variant,
        seeds: Sequence[int],
        tuning_seeds: Sequence[int],
    ) -> Group:
        """The cells that count are made once their options are known."""

        def cells(chosen: Options, seeds: Sequence[int], tuning: bool) -> list[Cell]:
            return [
                self._cell(data, model, hidden, variant, chosen, seed, tuning) for seed in seeds
            ]

        for seed in seeds:  # now, not when the options are known
            self._checksum(self._source(data, seed, tuning=False))
        tuning = [
            (options, cells(options, tuning_seeds, True))
            for options in (variant.choices if variant.method.tune else [])
        ]
        return Group(variant, tuning, lambda chosen: cells(chosen, seeds, False))

    def _source(self, data: str, seed: int, tuning: bool) -> Source:
        experiment = self.experiment
        split = seed if experiment.split == "seed" else int(experiment.split)
        share = experiment.validation if tuning else 0.0
        return Source(data, self.machine.data_dir, split, share)

    def _cell(
        self,
        data: str,
        model: str,
        hidden: tuple[int, ...],
        variant: Variant,
        chosen: Options,
        seed: int,
        tuning: bool,
    ) -> Cell:
        experiment, machine = self.experiment, self.machine
        source = self._source(data, seed, tuning)
        whole = variant.method.budget or experiment.budget
        budget = (experiment.tuning.budget if tuning else None) or whole
        return Cell(
            label=variant.label + (suffix(chosen) if tuning else ""),
            spec=variant.spec(chosen),
            source=source,
            data_sha256=self._checksum(source),
            model=model,
            hidden=hidden,
            dropout=experiment.dropout,
            batch_size=experiment.batch_size,
            seed=seed,
            device=machine.device,
            threads=machine.threads,
            budget=budget.model_dump(exclude_none=True),
            evaluate=experiment.evaluate,
            tuned=dict(chosen) if variant.method.tune and not tuning else None,
        )


def _patterns(only: Sequence[str]) -> dict[str, list[str]]:
    patterns: dict[str, list[str]] = {}
    for text in only:
        key, equals, pattern = text.partition("=")
        if not equals or key not in ONLY:
            raise ExperimentError(
                f"--only {text} cannot be read: write KEY=PATTERN with KEY one of {', '.join(ONLY)}"
            )
        patterns.setdefault(key, []).append(pattern)
    return patterns


def _is_wanted(
    cell: Mapping[str, str], experiment: Experiment, patterns: Mapping[str, Sequence[str]]
) -> bool:
    def agrees(key: str, value: Any) -> bool:
        text = width_text(value) if isinstance(value, list) else option_text(value)
        return cell[key] in (text, short_name(text) if key == "data" else text)

    if any(all(agrees(*item) for item in one.items()) for one in experiment.exclude):
        return False
    return all(
        any(fnmatchcase(cell[key], pattern) for pattern in several)
        for key, several in patterns.items()
    )
