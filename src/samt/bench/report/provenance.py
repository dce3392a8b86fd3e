"""How the numbers of an experiment were made: commands, machines, versions, hours."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samt.bench.report.coverage import run_words
from samt.bench.report.wording import counted
from samt.bench.terminal import writable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Provenance:
    """Where an experiment's numbers come from.

    Args:
        commands: that run the same cells, without what changes no number.
        file: the experiment file.
        profile: of the file.
        cells: number of cells.
        statuses: number of cells by status.
        tuning: number of cells that chose options.
        seconds: of all cells together, evaluation included.
        machines: each with the number of its cells.
        versions: names and the versions that were used.
        commits: of the code; one that ends with + had changed files.
        first: day on which the first cell began; "" if none did.
        last: day on which the last one began.
    """

    commands: Sequence[str]
    file: str
    profile: str
    cells: int
    statuses: Mapping[str, int]
    tuning: int
    seconds: float
    machines: Mapping[str, int]
    versions: Mapping[str, Sequence[str]]
    commits: Sequence[str]
    first: str
    last: str


_VERSIONS = ("samt", "torch", "numpy", "python")


def provenance(
    record: Mapping[str, Any], cells: pd.DataFrame, commands: Sequence[str] = ()
) -> Provenance:
    """Collect what the cells say about themselves.

    Args:
        record: of the experiment.
        cells: of `frames.cells_frame`.
        commands: that run them; by default one for the whole file.
    """
    file, profile = (writable(str(record.get(name) or "")) for name in ("file", "profile"))
    if not commands and (words := run_words(record)):
        commands = [shlex.join(words)]
    days = sorted(str(started)[:10] for started in cells["started"].dropna())
    return Provenance(
        commands=commands,
        file=file,
        profile=profile,
        cells=len(cells),
        statuses=cells["status"].value_counts(sort=False).to_dict(),
        tuning=int((cells["role"] == "tuning").sum()),
        seconds=float(cells["wall_seconds"].sum()),
        machines=_machines(cells),
        versions={name: _distinct(cells[f"{name}_version"]) for name in _VERSIONS},
        commits=_distinct(cells["commit"]),
        first=days[0] if days else "",
        last=days[-1] if days else "",
    )


def _distinct(column: pd.Series[str]) -> list[str]:
    return list(dict.fromkeys(map(str, column.dropna())))


def _machines(cells: pd.DataFrame) -> dict[str, int]:
    found: dict[str, int] = {}
    there = cells[cells["host"].notna()]
    rows = there[["host", "cpu", "device_name", "platform"]].fillna("")
    counts = there[["cores", "threads"]].astype(float).fillna(0).astype(int)
    for texts, (cores, threads) in zip(rows.to_numpy(), counts.to_numpy(), strict=True):
        host, cpu, device, platform = map(str, texts)
        parts = (
            host,
            cpu,
            counted(int(cores), "core") if cores else "",
            "" if device == "cpu" else device,
            f"{counted(int(threads), 'thread')} a cell" if threads else "",
            platform,
        )
        name = ", ".join(filter(None, parts))
        found[name] = found.get(name, 0) + 1
    return found
