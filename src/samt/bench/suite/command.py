"""What `samt run suite` does."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from samt.bench import data as datasets
from samt.bench.errors import ExperimentError
from samt.bench.suite.engine import run_suite
from samt.bench.suite.plan import Plan, entry, every_entry
from samt.bench.suite.problem import Part, Problem
from samt.bench.suite.record import Outcome, Settings
from samt.bench.suite.store import Store
from samt.bench.terminal import complain, console, say
from samt.errors import suggestion

UNFINISHED, INTERRUPTED = 1, 130
FILE = "suite.sqlite"

Half = Literal["all", "chosen-on", "held-out"]


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line.

    Args:
        problems: the names of problems; with none, all.
        families: the names of families; with none, all.
        half: the half of the problems.
        methods: the methods as `samt.bench.suite.plan.entry` reads them; with none, all with
            their ablations.
        seeds: the most seeds of a problem.
        horizons: the horizons of all methods that were named; with none, those of the suite.
        part: the part that methods are compared on.
    """

    problems: Sequence[str] = ()
    families: Sequence[str] = ()
    half: Half = "all"
    methods: Sequence[str] = ()
    seeds: int | None = None
    horizons: Sequence[float] = ()
    part: Part = "test"

    def plan(self, problems: Mapping[str, Problem]) -> Plan:
        """Make the plan of it.

        Args:
            problems: all problems of the suite.

        Raises:
            ExperimentError: a problem or a family is unknown, or nothing is left.
        """
        families = sorted({one.family for one in problems.values()})
        for name, known in (
            *((name, list(problems)) for name in self.problems),
            *((name, families) for name in self.families),
        ):
            if name not in known:
                raise ExperimentError(f"the suite has no '{name}': {suggestion(name, known)}")
        left = {
            name: one
            for name, one in problems.items()
            if (not self.problems or name in self.problems)
            and (not self.families or one.family in self.families)
            and (self.half == "all" or one.chosen_on == (self.half == "chosen-on"))
        }
        if not left:
            raise ExperimentError("no problem of the suite is left: ask for less at a time")
        entries = [entry(spec, self.horizons) for spec in self.methods] or every_entry()
        return Plan(left, entries, self.part, self.seeds)


def store_path(results: str) -> Path:
    """Where the store of some results lies.

    Args:
        results: a folder, or the file itself, whose name ends with .sqlite.
    """
    path = Path(results).expanduser()
    return path if path.suffix == ".sqlite" else path / FILE


def run(
    wish: Wish,
    results: str,
    jobs: int,
    data_dir: Path | None,
    dry_run: bool,
    problems: Mapping[str, Problem] | None = None,
) -> int:
    """Run the suite, or say what would run.

    Args:
        wish: what was asked for.
        results: a folder, or the file of the store.
        jobs: the number of runs at a time.
        data_dir: the folder of the data sets.
        dry_run: whether the runs are listed only.
        problems: all problems of the suite; by default those of samt.

    Returns:
        The exit code.
    """
    if problems is None:
        from samt.bench.suite.families import (  # type: ignore[import-untyped,unused-ignore]
            PROBLEMS,
        )

        problems = PROBLEMS
    plan = wish.plan(problems)
    path = store_path(results)
    if dry_run:
        return _show(plan, path)
    with Store(path, writing=True) as store:
        try:
            with _watched(jobs) as board:
                folder = data_dir or datasets.default_data_dir()
                complete = run_suite(plan, store, jobs, folder, board)
        except KeyboardInterrupt:
            command = shlex.join(["samt", *sys.argv[1:]])
            complain(f"samt: stopped; what has ended is kept, go on with: {command}")
            return INTERRUPTED
    say(f"{board.finished} runs, {board.diverged} of them diverged, {board.failed} failed: {path}")
    return 0 if complete else UNFINISHED


def _show(plan: Plan, path: Path) -> int:
    known: dict[str, Outcome] = {}
    if path.is_file():
        store = Store(path)
        known = {identity: row.outcome for identity, row in store.rows().items()}
        store.close()
    wanted = plan.wanted(known)
    for identity, run in wanted.items():
        say(f"{identity}  {'there ' if identity in known else 'to run'}  {run.name}")
    missing = sum(identity not in known for identity in wanted)
    steps = sum(run.horizon for identity, run in wanted.items() if identity not in known)
    say(
        f"{len(wanted)} runs, {missing} to run ({steps:g} horizons), "
        f"{plan.undecided(known)} more when their options are chosen"
    )
    return 0


@dataclass
class Board:
    """Tells how the suite goes: a bar in a terminal, elsewhere a line for each run."""

    jobs: int
    progress: Progress | None
    finished: int = 0
    diverged: int = 0
    failed: int = 0
    _began: float = field(default_factory=time.monotonic)
    _costs: dict[str, list[float]] = field(default_factory=dict)
    _left: dict[str, Settings] = field(default_factory=dict)
    _undecided: int = 0
    _done: float = 0.0

    def begun(self, ready: Mapping[str, Settings], undecided: int) -> None:
        """Learn what is to run now, and how many runs will follow."""
        self._left, self._undecided = dict(ready), undecided
        self._tell("")

    def ended(self, settings: Settings, result: Outcome | str) -> None:
        """Learn the outcome of a run, or why it has none."""
        self._left.pop(settings.identity, None)
        if isinstance(result, str):
            self.failed += 1
            lines = result.strip().splitlines()
            say(f"failed  {settings.name}: {lines[-1] if lines else ''}")
            return self._tell(settings.name)
        self.finished += 1
        self.diverged += result.diverged
        seconds = result.seconds or 0.0
        self._done += seconds
        self._costs.setdefault(settings.problem, []).append(seconds / settings.horizon)
        if self.progress is None:
            value = "diverged" if result.final is None else f"{result.final:.6g}"
            say(
                f"{self.finished} of {self._total()}  {settings.name}  {value}  "
                f"{seconds:.1f} s, {self._time_left()} left"
            )
        return self._tell(settings.name)

    def _total(self) -> int:
        return self.finished + self.failed + len(self._left) + self._undecided

    def _time_left(self) -> str:
        """The time that is left, if other runs of a problem take as long as those so far."""
        every = [cost for costs in self._costs.values() for cost in costs]
        if not every or not self._done:
            return "some time"
        usual = sum(every) / len(every)
        costs = {problem: sum(some) / len(some) for problem, some in self._costs.items()}
        ahead = sum(costs.get(run.problem, usual) * run.horizon for run in self._left.values())
        ahead += usual * self._undecided
        seconds = ahead * (time.monotonic() - self._began) / self._done
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min"

    def _tell(self, latest: str) -> None:
        if self.progress is not None:
            for task in self.progress.task_ids:
                self.progress.update(
                    task,
                    completed=self.finished + self.failed,
                    total=self._total(),
                    left=self._time_left(),
                    latest=latest,
                )


@contextmanager
def _watched(jobs: int) -> Iterator[Board]:
    if not console.is_terminal:
        yield Board(jobs, None)
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]} left"),
        TextColumn("{task.fields[latest]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        progress.add_task("suite", left="some time", latest="")
        yield Board(jobs, progress)
