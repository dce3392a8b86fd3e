"""Everything that a report tells about one experiment."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samt.bench.errors import ReportError
from samt.bench.experiments.frames import cells_frame, experiment_record
from samt.bench.experiments.store import Store
from samt.bench.report.choices import Choices, choices
from samt.bench.report.convergence import Rate, rates
from samt.bench.report.coverage import Coverage, beside, coverage
from samt.bench.report.discrepancies import Discrepancies, discrepancies
from samt.bench.report.grids import Grid, grids
from samt.bench.report.mean_curves import MeanCurve, mean_curves
from samt.bench.report.provenance import Provenance, provenance
from samt.bench.report.reported import folders, notes, published_numbers
from samt.bench.report.sensitivity import Dependence, dependences
from samt.bench.statistics import Difference, MeanRank, mean_ranks, paired_differences
from samt.bench.terminal import writable
from samt.errors import suggestion


@dataclass(frozen=True)
class Findings:
    """One experiment, measured and published.

    Args:
        name: of the experiment.
        title: for people.
        labels: all methods, in the order of the experiment.
        grids: final numbers.
        choices: what was tried on the validation part.
        curves: mean over seeds.
        dependences: of the final metric on an option.
        rates: of convergence, where the solution is known.
        ranks: of each method, the best first.
        differences: to the best method of each place.
        discrepancies: what could not be reproduced.
        coverage: how much of the file was run; None if nobody knows.
        beside: titles of the experiments of the same folder that have no result at all.
        notes: paragraphs of plain text.
        provenance: how the numbers were made.
    """

    name: str
    title: str
    labels: Sequence[str]
    grids: Sequence[Grid]
    choices: Sequence[Choices]
    curves: Sequence[MeanCurve]
    dependences: Sequence[Dependence]
    rates: Sequence[Rate]
    ranks: Sequence[MeanRank]
    differences: Sequence[Difference]
    discrepancies: Discrepancies
    coverage: Coverage | None
    beside: Sequence[str]
    notes: Sequence[str]
    provenance: Provenance


def gather(store: Store, only: Sequence[str] = (), paper: Path | None = None) -> list[Findings]:
    """Read what a report tells.

    Args:
        store: where the results lie.
        only: names of experiments; all of them by default.
        paper: folder with `reported` and `notes`; by default the one of each experiment's file,
            then `paper` here, then the package's.

    Returns:
        One for each experiment: first those of which a number stands beside a published one, then
        the others; of each first those that are called table; then by name, in which numbers count
        as numbers.

    Raises:
        ReportError: there is no experiment, or not the one that is asked for, or published
            numbers cannot be read.
    """
    known = store.experiments()
    if not known:
        raise ReportError(
            f"there is no experiment in {store.location}: run one with samt run FILE --results "
            f"{store.location}"
        )
    for name in only:
        if name not in known:
            raise ReportError(
                f"there is no experiment '{name}' in {store.location}: {suggestion(name, known)}"
            )
    wanted = sorted((name for name in known if not only or name in only), key=_natural)
    gathered = [_findings(store, name, known, paper) for name in wanted]
    # A publication's tables are what its readers look for first.
    return sorted(
        gathered,
        key=lambda one: (not one.discrepancies.compared, not one.name.startswith("table")),
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """So that table2 comes before table10."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def _findings(store: Store, name: str, known: Collection[str], paper: Path | None) -> Findings:
    record = experiment_record(store, name)
    cells = cells_frame(store, name)
    file = record.get("file")
    places = folders(file if isinstance(file, str) else None, paper)
    published, absent = published_numbers(name, places), _absent(record)
    tables = grids(cells, published, absent)
    final = cells[cells["role"] == "final"]
    covered = coverage(record, cells)
    made = provenance(record, cells, covered.commands if covered else ())
    labels = list(dict.fromkeys([*final["label"], *(one.method for one in published)]))
    return Findings(
        name=name,
        title=writable(str(record.get("title") or name)),
        labels=labels,
        grids=tables,
        choices=choices(cells),
        curves=mean_curves(store, cells),
        dependences=dependences(cells, tables),
        rates=rates(store, cells),
        ranks=mean_ranks(cells),
        differences=paired_differences(cells),
        discrepancies=discrepancies(tables, cells, absent),
        coverage=covered,
        beside=beside(made.file, made.profile, known),
        notes=notes(name, places),
        provenance=made,
    )


def _absent(record: Mapping[str, Any]) -> dict[str, str]:
    """Data sets that were not there, with the reason."""
    absent = record.get("absent")
    found = absent.items() if isinstance(absent, Mapping) else ()
    return {writable(str(data)): writable(" ".join(str(reason).split())) for data, reason in found}
