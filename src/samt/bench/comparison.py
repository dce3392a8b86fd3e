"""Several methods on the same data, from the same weights, with the same batches."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from samt.bench.data import Dataset
from samt.bench.errors import SettingsError, brief
from samt.bench.method_specs import MethodSpec
from samt.bench.results import Record
from samt.bench.runs import Run
from samt.bench.settings import MOST_SEEDS, Settings
from samt.bench.statistics import Spread


@dataclass(frozen=True)
class Result:
    """The runs of one method, one for each seed."""

    label: str
    records: tuple[Record, ...]

    @property
    def diverged(self) -> int:
        """How many of the runs diverged."""
        return sum(record.status == "diverged" for record in self.records)

    @property
    def status(self) -> str:
        """What happened, for the table."""
        if not self.diverged:
            return "finished"
        if len(self.records) == 1:
            return "diverged"
        return f"diverged {self.diverged}/{len(self.records)}"


@dataclass(frozen=True)
class Summary:
    """One line of the table."""

    label: str
    status: str
    seeds: int
    final: Spread
    best: Spread
    train_loss: Spread
    seconds: Spread
    forward_per_step: float
    backward_per_step: float


def summary(result: Result) -> Summary:
    """Condense the runs of a method.

    Args:
        result: all of its runs.

    Returns:
        Means and deviations over its seeds; NaN where a run diverged.
    """
    records = result.records
    best = max if records[0].metric == "accuracy" else min

    def best_metric(record: Record) -> float:
        values = [row.test_metric for row in record.metrics]
        return best(values) if record.status != "diverged" else math.nan

    forward, backward = _passes_per_step(records)
    return Summary(
        label=result.label,
        status=result.status,
        seeds=len(records),
        final=Spread.of([record.last.test_metric for record in records]),
        best=Spread.of([best_metric(record) for record in records]),
        train_loss=Spread.of([record.last.train_loss for record in records]),
        seconds=Spread.of([record.last.seconds for record in records]),
        forward_per_step=forward,
        backward_per_step=backward,
    )


def _passes_per_step(records: Sequence[Record]) -> tuple[float, float]:
    """Counted over whole epochs only: a run may diverge in the middle of one."""
    whole = [
        (row, row.epoch * record.steps_per_epoch)
        for record in records
        for row in record.metrics
        if row.epoch > 0 and math.isfinite(row.train_loss)
    ]
    if not whole:
        return math.nan, math.nan
    row, steps = max(whole, key=lambda pair: pair[1])
    return row.forward_passes / steps, row.backward_passes / steps


def summaries_csv(summaries: Sequence[Summary], metric: str) -> str:
    """The table as CSV, numbers in full precision.

    Args:
        summaries: one for each method.
        metric: "accuracy" or "rmse".

    Returns:
        A head and one line for each method.
    """
    spreads = {
        f"final_test_{metric}": "final",
        f"best_test_{metric}": "best",
        "train_loss": "train_loss",
        "seconds": "seconds",
    }
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = [f"{name}_{part}" for name in spreads for part in ("mean", "deviation")]
    passes = ["forward_passes_per_step", "backward_passes_per_step"]
    table.writerow(["method", "status", "seeds", *columns, *passes])
    for row in summaries:
        numbers = [
            repr(getattr(getattr(row, field), part))
            for field in spreads.values()
            for part in ("mean", "deviation")
        ]
        counts = [repr(row.forward_per_step), repr(row.backward_per_step)]
        table.writerow([row.label, row.status, row.seeds, *numbers, *counts])
    return text.getvalue()


class Comparison:
    """All runs of `samt compare`, each in a folder of its own.

    Args:
        specs: the methods.
        settings: shared by all runs, except for method and seed.
        seeds: number of seeds, counted up from the one in the settings.
        data: the data set.
        path: folder of the comparison.
        resume: finished runs are read, begun ones continued.
        overwrite: runs that are there are replaced.

    Raises:
        SettingsError: a method stands twice.
    """

    def __init__(
        self,
        specs: Sequence[MethodSpec],
        settings: Settings,
        seeds: int,
        data: Dataset,
        path: Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        labels = [spec.label for spec in specs]
        for label in labels:
            if labels.count(label) > 1:
                raise SettingsError(f"method '{label}' stands twice: remove one")
        if not 1 <= seeds <= MOST_SEEDS:
            raise SettingsError(
                f"--seeds {brief(seeds)} is not possible: it must be 1 or more, and {MOST_SEEDS} "
                f"at most"
            )
        self.runs = {
            spec.label: [
                Run(
                    replace(settings, method=spec, seed=seed),
                    data,
                    path / folder_name(spec.label, seed),
                    resume=resume,
                    overwrite=overwrite,
                )
                for seed in range(settings.seed, settings.seed + seeds)
            ]
            for spec in specs
        }

    def check(self) -> None:
        """Find what is wrong with any of the runs before the first one starts."""
        for runs in self.runs.values():
            for run in runs:
                run.check()

    def execute(self, one: Callable[[Run], Record]) -> list[Result]:
        """Execute all runs, one after the other.

        Args:
            one: executes a run and returns its record.

        Returns:
            One result for each method, in the order in which they were given.
        """
        return [Result(label, tuple(one(run) for run in runs)) for label, runs in self.runs.items()]


def folder_name(label: str, seed: int) -> str:
    """Folder of a run: the method's spec in characters that every file system takes.

    Args:
        label: the method's label.
        seed: of the run.

    Returns:
        For example `samt-step_size=row-seed0`.
    """
    return f"{label.replace(':', '-').replace(',', '-')}-seed{seed}"
