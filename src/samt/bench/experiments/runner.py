"""Runs the cells of experiments: first those that choose options, then those that count."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from samt.bench.experiments.backends import Backend, workers
from samt.bench.experiments.cells import Cell
from samt.bench.experiments.environment import commit
from samt.bench.experiments.frames import entries
from samt.bench.experiments.grid import Group, Machine, groups
from samt.bench.experiments.places import file_order, ordered, place
from samt.bench.experiments.spec import Experiment
from samt.bench.experiments.store import Store
from samt.bench.experiments.supervisor import interrupt, is_done, supervise, supervise_here
from samt.bench.settings import width_text

_WAIT = 1.0  # seconds, while other runners have all that is left


@dataclass(frozen=True)
class Plan:
    """An experiment with all of its groups.

    Args:
        experiment: what is run.
        file: where it was read.
        profile: of the file, or None.
        groups: in the order of the file.
        absent: data sets that are not here, each with what is missing.
        data_dir: where it was looked for.
    """

    experiment: Experiment
    file: Path
    profile: str | None
    groups: Sequence[Group]
    absent: Mapping[str, str]
    data_dir: Path | None = None

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        file: Path,
        profile: str | None,
        machine: Machine,
        only: Sequence[str] = (),
    ) -> Plan:
        """Find the groups; the data are read for their checksums.

        Args:
            experiment: what is run.
            file: where it was read.
            profile: of the file, or None.
            machine: where cells run.
            only: as in `grid.groups`.

        Raises:
            UserError: as `grid.groups`.
        """
        found, absent = groups(experiment, machine, only)
        return cls(experiment, file, profile, found, absent, machine.data_dir)

    def record(self, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the store keeps about the experiment.

        Args:
            cells: identity, role and place of each.
        """
        definition = self.experiment.model_dump_json()
        return {
            "title": self.experiment.title,
            "file": str(self.file),
            "profile": self.profile,
            # Results are shown to others, who have no use for a path of this machine.
            "absent": {
                data: reason.replace(str(self.data_dir), "the data folder")
                for data, reason in self.absent.items()
            },
            "definition": hashlib.sha256(definition.encode()).hexdigest()[:16],
            "order": file_order(self.experiment),
            "cells": list(cells),
        }


@dataclass(frozen=True)
class Options:
    """How cells are run; nothing here changes a number.

    Args:
        backend: "local", "ray" or "dask".
        jobs: cells at a time, or None for what there is.
        threads: of torch in each cell.
        address: of a cluster.
        tensorboard: folder for TensorBoard, or None.
        checkpoint: seconds between two checkpoints of a cell.
    """

    backend: Backend = "local"
    jobs: int | None = None
    threads: int = 1
    address: str | None = None
    tensorboard: Path | None = None
    checkpoint: float = 30.0


@dataclass
class Runner:
    """Runs what is not done yet.

    Args:
        plans: experiments; a cell that stands in several of them runs once.
        store: where results are and go.
        options: how.
        on_cells: told all cells that are known to belong to the run, whenever that changes.
    """

    plans: Sequence[Plan]
    store: Store
    options: Options
    on_cells: Callable[[Mapping[str, Cell]], None] = field(default=lambda cells: None)

    def cells(self) -> dict[str, Cell]:
        """Every cell that is known now, by identity; those that choose options come first."""
        return {identity: cell for identity, (cell, _) in self._known().items()}

    def pending(self) -> dict[str, Cell]:
        """Those of `cells` that have no result, or one to be tried again."""
        return {identity: cell for identity, (cell, _) in self._pending().items()}

    def undecided(self) -> list[str]:
        """Methods whose options could not be chosen, because a deciding run has no result."""
        summaries = self._tuning_summaries()
        undecided = (
            group.variant.label
            for plan in self.plans
            for group in plan.groups
            if group.choice(summaries) is None
        )
        return list(dict.fromkeys(undecided))

    def execute(self) -> bool:
        """Run until every cell has a result.

        Returns:
            False if the run was interrupted.

        Raises:
            UserError: results cannot be written, or the backend cannot be used.
        """
        settled: set[str] = set()
        options = self.options
        supervising = supervise_here if options.backend == "local" else supervise
        with workers(options.backend, options.jobs, options.threads, options.address) as apply:
            while not interrupt.stop.is_set():
                self._register()
                pending = self._pending().items()
                left = {one: entry for one, entry in pending if one not in settled}
                if not left:
                    break
                outcomes = apply(supervising, [self._job(*entry) for entry in left.values()])
                done = zip(left, outcomes, strict=True)
                settled |= {identity for identity, outcome in done if outcome == "done"}
                if all(outcome == "elsewhere" for outcome in outcomes):
                    interrupt.stop.wait(_WAIT)
        return not interrupt.stop.is_set()

    def _known(self) -> dict[str, tuple[Cell, Plan]]:
        summaries = self._tuning_summaries()
        known: dict[str, tuple[Cell, Plan]] = {}
        for cells in (_tuning, partial(_final, summaries=summaries)):
            for plan in self.plans:
                for cell in cells(plan):
                    known.setdefault(cell.identity, (cell, plan))
        return known

    def _pending(self) -> dict[str, tuple[Cell, Plan]]:
        there = self.store.identities()
        return {
            identity: (cell, plan)
            for identity, (cell, plan) in self._known().items()
            if identity not in there
            or not is_done(self.store.summary(identity), plan.experiment.timeout)
        }

    def _tuning_summaries(self) -> dict[str, Mapping[str, Any]]:
        """Results of the cells that choose options."""
        there = self.store.identities()
        identities = (cell.identity for plan in self.plans for cell in _tuning(plan))
        found = ((one, self.store.summary(one)) for one in identities if one in there)
        return {identity: summary for identity, summary in found if summary is not None}

    def _job(self, cell: Cell, plan: Plan) -> dict[str, Any]:
        folder = self.options.tensorboard
        return {
            **cell.as_job(),
            "store": self.store.location,
            "experiment": plan.experiment.name,
            "timeout": plan.experiment.timeout,
            "checkpoint": self.options.checkpoint,
            "attempt": 1,
            "commit": commit(),
            "jobs": self.options.jobs,
            "host": socket.gethostname(),
            "tensorboard": None if folder is None else str(folder.absolute()),
        }

    def _register(self) -> None:
        """Write which cells each experiment has, and tell the observer."""
        self.on_cells(self.cells())
        summaries = self._tuning_summaries()
        for plan in self.plans:
            cells = [*_tuning(plan), *_final(plan, summaries)]
            record = plan.record([_entry(cell) for cell in cells])
            old = self.store.experiment(plan.experiment.name) or {}
            if old.get("definition") == record["definition"]:
                # Another part of the same experiment (--only), or what was run before.
                new = {place(entry) for entry in record["cells"]}
                kept = [entry for entry in entries(old) if place(entry) not in new]
                record["cells"] = ordered([*kept, *record["cells"]], record["order"])
            if record != {name: value for name, value in old.items() if name != "schema"}:
                self.store.save_experiment(plan.experiment.name, record)


def _tuning(plan: Plan) -> Iterator[Cell]:
    for group in plan.groups:
        for _, cells in group.tuning:
            yield from cells


def _final(plan: Plan, summaries: Mapping[str, Mapping[str, Any]]) -> Iterator[Cell]:
    for group in plan.groups:
        choice = group.choice(summaries)
        if choice is not None:
            yield from group.final(choice)


def _entry(cell: Cell) -> dict[str, Any]:
    return {
        "identity": cell.identity,
        "role": cell.role,
        "data": cell.record["data"],
        "model": cell.model,
        "width": width_text(cell.hidden),
        "label": cell.label,
        "seed": cell.seed,
    }
