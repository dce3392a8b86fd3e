"""The commands `samt results list | show | export | merge | prune`."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from samt.bench import options as flag
from samt.bench import statistics
from samt.bench.errors import ResultsError, SettingsError
from samt.bench.experiments import export, frames
from samt.bench.experiments.merge import merge
from samt.bench.experiments.store import STATUSES, Store
from samt.bench.report import result_tables as tables
from samt.bench.terminal import complain, console, say
from samt.errors import suggestion

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    help="Results of experiments: what there is, tables, export, merging, tidying up.",
    no_args_is_help=True,
)

_PREFIX = re.compile(r"[0-9a-f]{4,16}")


@app.command("list")
def list_command(results: flag.Results = "results") -> int:
    """All experiments, and how many of their cells have finished, failed and so on."""
    store = Store(results)
    counts = frames.counts_frame(store)
    if len(counts):
        console.print(tables.counts_table(counts, store.location))
    _report_damage(store)
    if not len(counts):
        raise ResultsError(
            f"there are no results in {store.location}: check --results, or start with samt run"
        )
    return 0


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|IDENTITY",
            help="An experiment, or a cell: its 16 digits or the first of them, at least 4.",
        ),
    ],
    results: flag.Results = "results",
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            help="What ranks and differences look at: the test metric at the end (final), or at "
            "its best evaluation (best), which no one can know without the test part.",
            metavar="final|best",
        ),
    ] = "final",
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="Method that the others are compared with; without it, the best one each time.",
            metavar="METHOD",
        ),
    ] = None,
) -> int:
    """Tables of an experiment, or everything about one cell.

    Where a run of a method did not finish, there is no mean: nan.

    Examples:

      samt results show fashion --against sgd

      samt results show 3f9a
    """
    if metric not in ("final", "best"):
        raise SettingsError(f"--metric {metric} is not possible: write final or best")
    store = Store(results)
    if name in store.experiments() or not _PREFIX.fullmatch(name):
        _show_experiment(store, name, cast("statistics.Metric", metric), against)
    else:
        _show_cell(store, name)
    _report_damage(store)
    return 0


@app.command("export")
def export_command(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file; replaced if it is there.")
    ],
    results: flag.Results = "results",
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="Without it, the ending of the file.", metavar="csv|parquet|json"
        ),
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves", help="A row for each evaluation instead of each cell.")
    ] = False,
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", help="Only the cells of this one.", metavar="NAME"),
    ] = None,
) -> int:
    """Write all cells, or their curves, as one table. docs/results.md explains the columns.

    Examples:

      samt results export -o cells.csv

      samt results export --curves --experiment fashion -o curves.parquet
    """
    form = form or output.suffix.removeprefix(".")
    if form not in export.FORMATS:
        raise SettingsError(
            f"--format {form or 'is missing and'} is not possible: "
            f"{suggestion(form, export.FORMATS)}"
        )
    store = Store(results)
    frame = frames.cells_frame(store, experiment)
    if curves:
        there = frame[~frame["status"].isin(frames.PENDING)]
        frame = frames.curves_frame(store, there["identity"])
    export.write(frame, form, output)
    say(f"{len(frame)} rows in {output}")
    _report_damage(store)
    return 0


@app.command("merge")
def merge_command(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Folders or URLs of results; only read."),
    ],
    results: flag.Results = "results",
    redefined: Annotated[
        bool,
        typer.Option(
            "--redefined",
            help="Also into tables of experiments whose file has changed since, as after a method "
            "was added. What the change was is for you to judge.",
        ),
    ] = False,
) -> int:
    """Copy results of other locations into --results.

    What is here stays, unless it failed and there it finished. Doing it again changes nothing.

    Example:

      samt results merge node1/results node2/results --results results
    """
    stores = [Store(source) for source in sources]
    for store in stores:
        if not store.identities() and not store.experiments():
            raise ResultsError(f"{store.location} holds no results: check the path")
    target = Store(results)
    for store in stores:
        done = merge(store, target, redefined=redefined)
        say(
            f"{store.location}: {done.copied} copied, {done.replaced} replaced, {done.kept} kept, "
            f"{len(store.damaged)} damaged, "
            f"{done.experiments} experiments new or changed"
        )
        for name in done.other:
            say(
                f"{name} is defined otherwise there: its cells are here, its table is not "
                f"(--redefined puts them into one)"
            )
        _report_damage(store)
    return 0


@app.command()
def prune(
    results: flag.Results = "results",
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            help="Remove the results that have one of these, separated by commas.",
            metavar="|".join(STATUSES),
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove results by status; without --status, leftovers and damaged files.

    Leftovers are temporary files and heartbeats of processes that were killed, curves without a
    result, results without a readable curve, and checkpoints of cells that are done.

    Examples:

      samt results prune --dry-run

      samt results prune --status failed,killed --yes
    """
    store = Store(results)
    paths, identities = [], _with_status(store, status.split(",")) if status else []
    if not status:
        store.experiments()  # finds damaged ones
        paths, identities = store.leftovers(), _without_curve(store)
    for path in paths:
        reason = store.damaged.get(path)
        say(f"{path} ({reason})" if reason else path)
    for identity, text in identities:
        say(f"{identity}  {text}")
    found = _counted(len(paths), "file") + " and " + _counted(len(identities), "result")
    if dry_run or not (paths or identities):
        say(f"{found} to remove")
    elif yes or _agrees(f"remove {found}?"):
        for path in paths:
            store.delete(path)
        for identity, _ in identities:
            store.remove(identity)
        say(f"{found} removed")
    else:
        say("nothing removed")
    return 0


def _show_experiment(
    store: Store, name: str, metric: statistics.Metric, against: str | None
) -> None:
    cells = frames.cells_frame(store, name)
    record = frames.experiment_record(store, name)
    say(f"{name}: {record['title']}" if record.get("title") else name)
    counts = cells["status"].value_counts()
    say(f"{_counted(len(cells), 'cell')}: {', '.join(f'{n} {one}' for one, n in counts.items())}")
    absent = record.get("absent")
    for data, reason in absent.items() if isinstance(absent, dict) else ():
        say(f"without {data}: {reason}")
    summaries = statistics.summarise(cells)
    labels = dict.fromkeys(one.label for one in summaries)
    if against is not None and against not in labels:
        hint = suggestion(against, labels) if labels else "no cell of it has a result yet"
        raise ResultsError(f"--against {against}: no such method in {name}: {hint}")
    for _, group in groupby(summaries, lambda one: (one.data, one.model, one.width)):
        console.print(tables.group_table(list(group)))
    if (tuned := tables.tuned_table(cells)) is not None:
        console.print(tuned)
    if len(labels) > 1:
        what = f"{metric} test metric"
        console.print(tables.ranks_table(statistics.mean_ranks(cells, metric), what))
        if differences := statistics.paired_differences(cells, metric, against):
            console.print(tables.differences_table(differences, what))
    if repeated := statistics.repeated_seeds(cells):
        say(
            f"{_counted(repeated, 'cell')} repeat a seed with other code, versions or device; "
            f"each seed counts once, with the mean of its cells"
        )


def _show_cell(store: Store, prefix: str) -> None:
    done, alive = store.identities(), store.running()
    known = sorted(one for one in done | alive.keys() if one.startswith(prefix))
    if len(known) > 1:
        raise ResultsError(f"{prefix} begins {', '.join(known[:5])}: write more digits")
    if not known:
        names = store.experiments()
        hint = suggestion(prefix, names) if names else "samt results list shows what there is"
        raise ResultsError(f"no experiment and no cell '{prefix}' in {store.location}: {hint}")
    summary = store.summary(known[0])
    if summary is None:
        reason = "is damaged: run samt results prune" if known[0] in done else "comes: it runs now"
        raise ResultsError(f"the result of cell {known[0]} {reason}")
    trace = summary.pop("traceback", None)
    curve = store.curve(known[0])
    for name, value in tables.facts(summary):
        say(f"{name:28}  {value}")
    if trace:
        say(str(trace).rstrip())
    if len(curve):
        console.print(tables.curve_table(curve, str(summary.get("metric") or "")))


def _with_status(store: Store, wanted: list[str]) -> list[tuple[str, str]]:
    """Identities with a line about each; never of a cell that is being worked on."""
    for one in wanted:
        if one not in STATUSES:
            raise SettingsError(f"--status {one} is not possible: {suggestion(one, STATUSES)}")
    cells, alive = frames.cells_frame(store), store.running()
    found = cells[cells["status"].isin(wanted) & ~cells["identity"].isin(list(alive))]
    return _described(found)


def _without_curve(store: Store) -> list[tuple[str, str]]:
    cells = frames.cells_frame(store)
    return _described(cells[[not _has_curve(store, one) for one in cells["identity"]]])


def _has_curve(store: Store, identity: str) -> bool:
    try:
        store.curve(identity)
    except ResultsError:
        return False
    return True


def _described(cells: pd.DataFrame) -> list[tuple[str, str]]:
    names = ("status", "data", "model", "width", "label", "seed")
    return [
        (row["identity"], "  ".join(str(row[name]) for name in names if str(row[name])))
        for row in cells.to_dict("records")
    ]


def _agrees(question: str) -> bool:
    if not sys.stdin.isatty():
        raise SettingsError("nobody can be asked here: add --yes, or --dry-run to see what goes")
    try:
        return console.input(f"{question} (y/N) ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _report_damage(store: Store) -> None:
    for path, reason in store.damaged.items():
        complain(f"samt: left out {path}: {reason}")
