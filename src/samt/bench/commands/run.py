"""The command `samt run`."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from samt.bench import data as datasets
from samt.bench import options as flag
from samt.bench.errors import DataError, ExperimentError, NoCellError, UserError
from samt.bench.experiments.backends import default_jobs
from samt.bench.experiments.files import SUITE, load_experiment, locate
from samt.bench.experiments.grid import Machine
from samt.bench.experiments.runner import Options, Plan, Runner
from samt.bench.experiments.store import Store
from samt.bench.experiments.supervisor import interrupt, nursery
from samt.bench.experiments.tensorboard import check_tensorboard
from samt.bench.report.live import watch_cells
from samt.bench.settings import torch_device
from samt.bench.suite.command import Half, Wish
from samt.bench.suite.command import run as run_suite
from samt.bench.suite.problem import Part
from samt.bench.terminal import complain, console, say

UNFINISHED, INTERRUPTED = 1, 130

_Names = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE|NAME...",
        help="Experiment files, names of those in the folder [bold]paper[/], that folder for "
        "all in it, or [bold]suite[/].",
        show_default=False,
    ),
]
_Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="KEY=PATTERN",
        help="Run a part: data, model, width, method or seed, for example method=samt*. "
        "May be repeated.",
        show_default=False,
    ),
]

_PANEL = "The suite"
_OF_SUITE = ("problem", "family", "half", "method", "seeds", "horizon", "part")
_NOT_OF_SUITE = (
    *("profile", "only", "threads", "device", "backend", "address", "tensorboard", "checkpoint"),
)
_Problems = Annotated[
    list[str] | None,
    typer.Option(
        "--problem",
        metavar="NAME",
        help="A problem of the suite; may be repeated.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
_Families = Annotated[
    list[str] | None,
    typer.Option(
        "--family",
        metavar="NAME",
        help="A family of the suite's problems; may be repeated.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
_Half = Annotated[
    Half,
    typer.Option(
        "--half",
        help="Problems that settings may be chosen on, or those held out.",
        rich_help_panel=_PANEL,
    ),
]
_Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME[:OPTION=VALUE,...]",
        help="A method, or NAME/ABLATION; may be repeated.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
_Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        min=1,
        help="The largest number of seeds that a problem is run with.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
_Horizons = Annotated[
    list[float] | None,
    typer.Option(
        "--horizon",
        min=0.001,
        help="A share of the problems' steps; may be repeated. By default a quarter, a half, "
        "one and two for the main methods, one for the others.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
_Part = Annotated[
    Part,
    typer.Option("--part", help="The part that methods are compared on.", rich_help_panel=_PANEL),
]


def run(
    context: typer.Context,
    names: _Names,
    results: flag.Results = "results",
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", help="Profile of the file, for example smoke.", show_default=False
        ),
    ] = None,
    only: _Only = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", min=1, help="Cells at a time; by default as many as fit.", show_default=False
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads of torch in each cell.")
    ] = 1,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda or auto; it is part of what a cell is.")
    ] = "cpu",
    backend: Annotated[
        Literal["local", "ray", "dask"],
        typer.Option("--backend", help="This machine, or a cluster by joblib's own backends."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Of a running Ray or Dask cluster; without it one is started here.",
            show_default=False,
        ),
    ] = None,
    data_dir: flag.DataDir = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard", help="Folder for TensorBoard: curves of each cell.", show_default=False
        ),
    ] = None,
    checkpoint: Annotated[
        float, typer.Option("--checkpoint", min=0, help="Seconds between checkpoints of a cell.")
    ] = 30.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which cells would run, and run none.")
    ] = False,
    problem: _Problems = None,
    family: _Families = None,
    half: _Half = "all",
    method: _Methods = None,
    seeds: _Seeds = None,
    horizon: _Horizons = None,
    part: _Part = "test",
) -> int:
    """Run experiments: every cell that has no result yet.

    A cell is one training run: data, network, method, options, seed, budget. Its result is kept
    under a checksum of all that, of the data and of the method's code. So the same command again
    runs only what is missing, after a crash, a kill or Ctrl-C too; several runners may share the
    results. What failed or was killed is tried again; what diverged is a result.

    Examples:

      samt run smoke

      samt run suite --family units --method auto-samt --method adamw --jobs 2

      samt run paper/table2.yaml --data-dir ~/data --only data=mnist --only width=300 --jobs 4

      samt run table2 --backend ray --address auto --results s3://bucket/samt
    """
    is_suite = SUITE in names
    if is_suite and len(names) > 1:
        raise ExperimentError("the suite runs by itself: samt run suite, then the others")
    _refuse_flags_of_the_other(context, is_suite)
    if is_suite:
        wish = Wish(problem or (), family or (), half, method or (), seeds, horizon or (), part)
        return run_suite(wish, results, jobs or default_jobs(1), data_dir, dry_run)
    if tensorboard is not None:
        check_tensorboard(tensorboard)
    if backend == "local" and not dry_run:
        nursery.warm()
    store = Store(results)
    machine = Machine(str(torch_device(device)), threads, data_dir or datasets.default_data_dir())
    with console.status("reading the data") if console.is_terminal else nullcontext():
        plans = _plans(names, profile, machine, only or [])
    for plan in plans:
        for reason in plan.absent.values():
            say(f"{plan.experiment.name}: left out: {reason}")
    if backend == "local" and jobs is None:
        jobs = default_jobs(threads)
    options = Options(backend, jobs, threads, address, tensorboard, checkpoint)
    runner = Runner(plans, store, options)
    if dry_run:
        return _show(runner)
    previous = [signal.signal(one, interrupt) for one in (signal.SIGINT, signal.SIGTERM)]
    try:
        with watch_cells(console, store, jobs) as board:
            runner.on_cells = board.cells
            complete = runner.execute()
    finally:
        for one, handler in zip((signal.SIGINT, signal.SIGTERM), previous, strict=True):
            signal.signal(one, handler)
    if not complete:
        command = shlex.join(["samt", *sys.argv[1:]])
        complain(f"samt: stopped; what is finished is kept, go on with: {command}")
        return INTERRUPTED
    return _conclude(runner, results)


def _refuse_flags_of_the_other(context: typer.Context, is_suite: bool) -> None:
    """Refuse what was given and would be ignored."""
    for flag_name in _NOT_OF_SUITE if is_suite else _OF_SUITE:
        source = context.get_parameter_source(flag_name)
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            where = "'samt run suite' has no" if is_suite else "only 'samt run suite' has"
            why = ": each run of the suite has one thread of this machine" if is_suite else ""
            raise ExperimentError(f"{where} --{flag_name}{why}")


def _plans(
    names: Sequence[str], profile: str | None, machine: Machine, only: Sequence[str]
) -> list[Plan]:
    plans: list[Plan] = []
    nothing: dict[str, UserError] = {}
    for path in dict.fromkeys(path for name in names for path in locate(name)):
        experiment = load_experiment(path, profile)
        if experiment.name in {*nothing, *(plan.experiment.name for plan in plans)}:
            name = experiment.name
            raise ExperimentError(f"{path}: another experiment is called {name}, too")
        try:
            plans.append(Plan.of(experiment, path, profile, machine, only))
        except (NoCellError, DataError) as error:
            nothing[experiment.name] = error
    # What --only leaves out is what was asked for.
    absent = {name: error for name, error in nothing.items() if isinstance(error, DataError)}
    if not plans:
        raise next(iter((absent or nothing).values()))
    for name, reason in absent.items():
        say(f"{name}: left out: {reason}")
    return plans


def _show(runner: Runner) -> int:
    """Say what would run."""
    pending = runner.pending()
    cells = runner.cells()
    for identity, cell in cells.items():
        state = "to run" if identity in pending else "there"
        say(f"{identity}  {state:6}  {cell.name}")
    say(f"{len(cells)} cells, {len(pending)} to run")
    undecided = runner.undecided()
    if undecided:
        say(f"more when their options are chosen: {', '.join(undecided)}")
    return 0


def _conclude(runner: Runner, results: str) -> int:
    cells = runner.cells()
    bad = 0
    counts: dict[str, int] = {}
    for identity in cells:
        summary = runner.store.summary(identity)
        status = "missing" if summary is None else str(summary["status"])
        counts[status] = counts.get(status, 0) + 1
        if summary is not None and status in ("failed", "killed", "timed-out"):
            bad += 1
            if bad <= 3:
                say(f"{status}  {cells[identity].name}  {summary['error'] or ''}".rstrip())
    undecided = runner.undecided()
    if undecided:
        say(f"options could not be chosen, since a run for that failed: {', '.join(undecided)}")
    names = " ".join(plan.experiment.name for plan in runner.plans)
    say(
        f"{', '.join(f'{number} {status}' for status, number in sorted(counts.items()))}: "
        f"samt results show {names} --results {results}"
    )
    return UNFINISHED if bad or undecided or "missing" in counts else 0
