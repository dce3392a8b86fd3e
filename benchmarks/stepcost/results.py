"""Rows, and the CSV file beside the page that holds them."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import torch

import samt

from .methods import METHODS
from .models import ALL_MODELS
from .worker import Settings

MIB = 2**20


@dataclass(frozen=True)
class Conditions:
    """Rows of one table can be compared if these are equal.

    Args:
        machine: processor or GPU.
        torch: its version.
        device: name of the torch device.
        threads: of torch.
        batch_size: samples.
        code: digest of the source of samt's core.
    """

    machine: str
    torch: str
    device: str
    threads: int
    batch_size: int
    code: str

    @classmethod
    def here(cls, settings: Settings, batch_size: int) -> Conditions:
        """Those of this machine and this source tree."""
        machine = _machine(settings.device)
        version, threads = torch.__version__, settings.threads
        return cls(machine, version, settings.device, threads, batch_size, _digest())


@dataclass(frozen=True)
class Row:
    """One method on one model.

    Args:
        model: a key of `ALL_MODELS`.
        method: a key of `METHODS`.
        conditions: what the numbers depend on.
        date: on which it was measured.
        rounds: turns that the ratio is the median of; 0: it comes from the first step.
        steps: in each turn.
        milliseconds: per step, median.
        ratio: to a turn of torch SGD just before, median; None if it was not measured.
        low: first quartile of the ratios.
        high: third quartile of the ratios.
        forward: passes in a step.
        backward: passes in a step.
        kept_mib: tensors that live through a step.
        step_mib: the most that a step allocates beside them.
        settling_s: what the first steps of a compiled method take beyond later ones.
        busy: share of the processors that other programs used meanwhile.
        note: why it was not measured, or what samt warned of.
    """

    model: str
    method: str
    conditions: Conditions
    date: str
    rounds: int = 0
    steps: int = 0
    milliseconds: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    forward: float | None = None
    backward: float | None = None
    kept_mib: float | None = None
    step_mib: float | None = None
    settling_s: float | None = None
    busy: float | None = None
    note: str = ""


def today() -> str:
    """The date, as ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV file, so that there is a whole one at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_ROW, *_CONDITIONS])
        for row in rows:
            values = [getattr(row, name) for name in _ROW]
            values += [getattr(row.conditions, name) for name in _CONDITIONS]
            writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    unfinished.replace(path)


def load(path: Path) -> list[Row]:
    """Rows of a file that `save` has written, of models and methods that there still are."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [_row(cells) for cells in csv.DictReader(file)]
    return [row for row in rows if row.model in ALL_MODELS and row.method in METHODS]


def _row(cells: dict[str, str]) -> Row:
    conditions = Conditions(**{n: _parsed(cells[n], t) for n, t in _CONDITIONS.items()})
    return Row(**{n: _parsed(cells.get(n, ""), t) for n, t in _ROW.items()}, conditions=conditions)


def _parsed(text: str, kind: Any) -> Any:
    if kind == float | None:
        return float(text) if text else None
    return kind(text)


def _columns(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


_CONDITIONS = _columns(Conditions)
_ROW = {name: kind for name, kind in _columns(Row).items() if name != "conditions"}


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """New rows in place of old ones of the same model and method."""
    rows = {(row.model, row.method): row for row in old}
    rows |= {(row.model, row.method): row for row in new}
    return list(rows.values())


@cache
def _machine(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cores = f"{os.cpu_count()} cores"
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {cores}"


@cache
def _digest() -> str:
    """Of the core and of the benchmarks: after a change of either, nothing is resumed."""
    core, here = Path(samt.__file__).parent, Path(__file__).parent
    measured = ("networks.py", "models.py", "steppers.py", "worker.py", "memory.py", "rounds.py")
    digest = hashlib.sha256()
    networks = core / "bench" / "models.py"
    for path in [*sorted(core.glob("*.py")), networks, *(here / name for name in measured)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:10]
