"""An experiment while it runs: overall progress, time left, the running cells."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from samt.bench.errors import UserError
from samt.bench.experiments.cells import Cell
from samt.bench.experiments.store import Store
from samt.bench.report.progress import metric_text

_EVERY = 1.0  # seconds between two looks at the store
_ROWS = 12
_TELLING = 0.05  # share of a running cell that says something about its end


class Board:
    """What the store shows about a run, whoever works on it: this runner, another one, a cluster.

    Args:
        store: where the cells write.
        jobs: cells at a time, for the time left; None if it is not known.
        tell: gets each new result as a line.
    """

    def __init__(self, store: Store, jobs: int | None, tell: Callable[[str], None]) -> None:
        self._store, self._jobs, self._tell = store, jobs, tell
        self._lock = threading.Lock()
        self._cells: Mapping[str, Cell] = {}
        self._cached: set[str] | None = None
        self._results: dict[str, dict[str, Any]] = {}
        self._running: dict[str, dict[str, Any]] = {}

    def cells(self, cells: Mapping[str, Cell]) -> None:
        """Set which cells there are."""
        with self._lock:
            self._cells = cells
        self.look()

    def look(self) -> None:
        """Read what is new in the store."""
        with self._lock:
            there = self._store.identities() & self._cells.keys()
            self._running = {
                identity: note
                for identity, note in self._store.running().items()
                if identity in self._cells
            }
            read = {one: self._store.summary(one) for one in there - self._results.keys()}
            new = {identity: summary for identity, summary in read.items() if summary}
            # A cell that is tried again has no result until it is done.
            self._results = {one: self._results[one] for one in self._results.keys() & there}
            self._results |= new
            first = self._cached is None
            self._cached = self._cached or set(there)
        if first:
            return
        done = len(self._results) - len(new)
        for number, (identity, summary) in enumerate(new.items(), start=done + 1):
            self._tell(self._line(number, identity, summary))

    @property
    def counts(self) -> Counter[str]:
        """Number of cells by status."""
        return Counter(summary["status"] for summary in self._results.values())

    def seconds_left(self) -> float:
        """A guess from cells of the same kind, as far as they are; NaN if there are none yet."""
        known: dict[object, list[float]] = {}
        for identity, summary in self._results.items():
            if summary["status"] in ("finished", "diverged") and identity in self._cells:
                for kind in _kinds(self._cells[identity]):
                    known.setdefault(kind, []).append(_number(summary, "wall_seconds"))
        for identity, note in self._running.items():
            if _number(note, "share") > _TELLING and "wall" in note:
                for kind in _kinds(self._cells[identity]):
                    known.setdefault(kind, []).append(note["wall"] / note["share"])
        total = 0.0
        for identity, cell in self._cells.items():
            if identity in self._results:
                continue
            times = next((known[kind] for kind in _kinds(cell) if kind in known), None)
            if times is None:
                return math.nan
            share = _number(self._running.get(identity, {}), "share")
            total += sum(times) / len(times) * (1 - min(1.0, share))
        return total / max(1, self._jobs or len(self._running))

    def __rich__(self) -> RenderableType:
        """The picture for a terminal."""
        with self._lock:
            done, total = len(self._results), len(self._cells)
            head = Table.grid(padding=(0, 1), expand=True)
            head.add_column(no_wrap=True)
            head.add_column(ratio=1)
            head.add_column(no_wrap=True)
            head.add_row(
                f"[bold]{done}/{total}[/] cells",
                ProgressBar(total=max(total, 1), completed=done),
                duration_left(self.seconds_left()),
            )
            bad = {name: n for name, n in self.counts.items() if name != "finished"}
            parts: list[RenderableType] = [head]
            if bad:
                text = ", ".join(f"{number} {name}" for name, number in sorted(bad.items()))
                parts.append(Text(f"  {text}", style="bold red"))
            parts.append(self._running_cells())
            return Group(*parts)

    def _running_cells(self) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        for _ in range(4):
            table.add_column(no_wrap=True, overflow="ellipsis")
        notes = sorted(self._running.values(), key=lambda note: str(note.get("name")))
        for note in notes[:_ROWS]:
            metric = str(note.get("metric", ""))
            table.add_row(
                Text(f"  {note.get('name', '')}"),
                f"{_number(note, 'share'):4.0%}",
                f"loss {_number(note, 'loss'):.4g}" if "loss" in note else "",
                Text(f"{metric} {metric_text(metric, _number(note, 'value'))}" if metric else ""),
            )
        if len(notes) > _ROWS:
            table.add_row(f"  and {len(notes) - _ROWS} more", "", "", "")
        return table

    def _line(self, number: int, identity: str, summary: Mapping[str, Any]) -> str:
        part = "validation" if summary["role"] == "tuning" else "test"
        value = summary.get(f"{part}_metric")
        text = metric_text(summary["metric"], math.nan if value is None else value)
        result = f"{part} {summary['metric']} {text}"
        if summary["status"] == "failed" or not summary["metric"]:
            result = str(summary["error"])
        seconds = _number(summary, "wall_seconds")
        return (
            f"[{number}/{len(self._cells)}] {summary['status']}  {self._cells[identity].name}  "
            f"{result}  {seconds:.1f} s  {duration_left(self.seconds_left())}"
        )


def _number(note: Mapping[str, Any], name: str) -> float:
    value = note.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _kinds(cell: Cell) -> Iterator[object]:
    """From what is most alike to what is least."""
    record = cell.record
    size = (record["data"], cell.model, cell.hidden, tuple(cell.budget.items()))
    yield (*size, cell.spec.label)
    yield (*size, cell.spec.name)
    yield size
    yield None


def duration_left(seconds: float) -> str:
    """Time left as people say it.

    >>> duration_left(4000), duration_left(70), duration_left(5)
    ('about 1 h 07 min left', 'about 2 min left', 'less than a minute left')
    """
    if math.isnan(seconds):
        return "time left unknown"
    if seconds < 50:
        return "less than a minute left"
    minutes = math.ceil(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min left"
    return f"about {minutes // 60} h {minutes % 60:02} min left"


@contextmanager
def watch_cells(console: Console, store: Store, jobs: int | None) -> Iterator[Board]:
    """Show a run: a picture in a terminal, elsewhere a line for each result.

    Args:
        console: where.
        store: of the results.
        jobs: cells at a time, or None.

    Yields:
        The board; it wants to be told which cells there are.
    """

    def tell(line: str) -> None:
        if not (console.is_terminal and " finished  " in line):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    board = Board(store, jobs, tell)
    over = threading.Event()

    def look() -> None:
        while not over.wait(_EVERY):
            # A store that cannot be read for a moment; the cells themselves will tell.
            with suppress(UserError):
                board.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        if console.is_terminal:
            with Live(board, console=console, refresh_per_second=2, transient=True):
                yield board
        else:
            yield board
    finally:
        over.set()
        thread.join()
        board.look()
