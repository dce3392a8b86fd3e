"""The command `samt`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import samt
from samt.bench import data as datasets
from samt.bench import options as flag
from samt.bench.atomic import write_atomically
from samt.bench.commands import data as data_commands
from samt.bench.commands import report as report_command
from samt.bench.commands import results as results_commands
from samt.bench.commands import run as run_command
from samt.bench.comparison import Comparison, Result, folder_name, summaries_csv, summary
from samt.bench.data import Dataset
from samt.bench.errors import SettingsError, UserError, brief, is_out_of_memory
from samt.bench.method_specs import DEFAULT_METHOD, parse_spec
from samt.bench.report.progress import metric_text, watch
from samt.bench.report.tables import comparison_table
from samt.bench.results import Record, RunFolder
from samt.bench.runs import Run, resumed_settings
from samt.bench.settings import Settings, width_text
from samt.bench.terminal import complain, console, lost_output, open_streams, say
from samt.errors import SAMTError

DIVERGED, USER_ERROR, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    help="Train neural networks with SAMT, and compare it with other optimizers.",
    rich_markup_mode="rich",
    add_completion=False,
)
app.add_typer(data_commands.app, name="data")
app.command()(run_command.run)
app.add_typer(results_commands.app, name="results")
app.command()(report_command.report)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"samt {samt.__version__}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """What goes ahead of a command."""


@app.command()
def train(
    data: flag.Data = None,
    data_dir: flag.DataDir = None,
    batch_size: flag.BatchSize = None,
    model: flag.Model = None,
    hidden: flag.Hidden = None,
    dropout: flag.Dropout = None,
    optimizer: flag.Optimizer = None,
    lr: flag.InitialStepSize = None,
    weight_decay: flag.WeightDecay = None,
    step_size: flag.StepSize = None,
    head: flag.Head = None,
    projection: flag.Projection = None,
    parts: flag.Parts = None,
    meta_batch: flag.MetaBatch = None,
    meta_lr: flag.MetaStepSize = None,
    eta_hidden: flag.EtaHidden = None,
    inner_steps: flag.InnerSteps = None,
    order: flag.Order = None,
    radius: flag.Radius = None,
    relative: flag.Relative = None,
    max_grad_norm: flag.MaxGradNorm = None,
    blocks: flag.Blocks = None,
    epochs: flag.Epochs = None,
    seed: flag.Seed = None,
    device: flag.Device = None,
    threads: flag.Threads = None,
    run_dir: flag.RunDir = None,
    resume: flag.Resume = False,
    overwrite: flag.Overwrite = False,
) -> int:
    """Train one network with one optimizer.

    The run folder gets settings.json, metrics.csv (a row for each epoch, from
    epoch 0, before training) and checkpoint.pt (after each epoch).

    Examples:

      samt train --data digits --epochs 20

      samt train --run-dir runs/digits-mlp-auto-samt-seed0 --epochs 40 --resume

      samt train --data mnist --data-dir ~/data --hidden 512,512 --optimizer samt --step-size row
    """
    return _train(locals())


@app.command()
def compare(
    methods: flag.Methods = None,
    data: flag.Data = None,
    data_dir: flag.DataDir = None,
    batch_size: flag.BatchSize = None,
    model: flag.Model = None,
    hidden: flag.Hidden = None,
    dropout: flag.Dropout = None,
    epochs: flag.Epochs = None,
    seed: flag.Seed = None,
    seeds: flag.Seeds = 1,
    device: flag.Device = None,
    threads: flag.Threads = None,
    run_dir: flag.RunDir = None,
    resume: flag.Resume = False,
    overwrite: flag.Overwrite = False,
) -> int:
    """Train with several optimizers: same data, same initial weights, same batches.

    Prints a table and writes it, with a picture, into the run folder
    (comparison.csv, comparison.png); each run has a folder of its own there.
    Options of a method follow its name; docs/experiments.md lists them all.

    Examples:

      samt compare --data digits --epochs 20

      samt compare --data diabetes --seeds 5 auto-samt samt:step_size=element,lr=0.05 sgd:lr=0.01

      samt compare --data fashion-mnist --model cnn --run-dir runs/fashion --resume auto-samt adam
    """
    return _compare(locals())


_SHARED_FLAGS = (
    "data",
    "data_dir",
    "batch_size",
    "model",
    "hidden",
    "dropout",
    "epochs",
    "seed",
    "device",
    "threads",
)
_METHOD_FLAGS = (
    "lr",
    "weight_decay",
    "step_size",
    "head",
    "projection",
    "parts",
    "meta_batch",
    "meta_lr",
    "eta_hidden",
    "inner_steps",
    "order",
    "radius",
    "relative",
    "max_grad_norm",
    "blocks",
)


def _train(written: Mapping[str, Any]) -> int:
    flags = {name: written[name] for name in _METHOD_FLAGS if written[name] is not None}
    fields = _fields(written)
    optimizer, resume, overwrite = written["optimizer"], written["resume"], written["overwrite"]
    _refuse_both(resume, overwrite)
    path: Path | None = written["run_dir"]
    stored = RunFolder(path).stored_settings() if resume and path else None
    spec = parse_spec(optimizer or (stored["method"] if stored else DEFAULT_METHOD), flags)
    settings = Settings(method=spec, **fields)
    if path is None:
        path = _default_folder(settings, folder_name(spec.label, settings.seed))
        stored = RunFolder(path).stored_settings() if resume else None
    if stored is not None:
        settings = resumed_settings(settings, stored, [*fields, *(["method"] if optimizer else [])])
    run = Run(settings, _load(settings), path, resume=resume, overwrite=overwrite)
    try:
        record = _watched(run)
    except KeyboardInterrupt:
        return _interrupted(f"samt train --run-dir {shlex.quote(str(path))} --resume")
    if record.status == "diverged":
        epoch = record.last.epoch
        line = f"diverged in epoch {epoch}: the checkpoint keeps the weights of epoch {epoch - 1}"
        say(line)
    say(f"metrics and checkpoint in {path}")
    return DIVERGED if record.status == "diverged" else 0


def _compare(written: Mapping[str, Any]) -> int:
    resume, overwrite = written["resume"], written["overwrite"]
    _refuse_both(resume, overwrite)
    specs = [parse_spec(text) for text in written["methods"] or flag.DEFAULT_METHODS]
    settings = Settings(**_fields(written))
    path = written["run_dir"] or _default_folder(settings, "compare")
    comparison = Comparison(
        *(specs, settings, written["seeds"], _load(settings), path),
        resume=resume,
        overwrite=overwrite,
    )
    comparison.check()
    try:
        results = comparison.execute(_watched)
        _report(results, path, _title(settings, results))
    except KeyboardInterrupt:
        return _interrupted("the same command with --resume (and without --overwrite)")
    return 0


def _fields(written: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Settings` that were written on the command line."""
    fields = {name: written[name] for name in _SHARED_FLAGS if written[name] is not None}
    if "hidden" in fields:
        fields["hidden"] = _widths(fields["hidden"])
    return fields


def _widths(text: str) -> tuple[int, ...]:
    if text.lower() in {"none", ""}:
        return ()
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError as error:  # Python reads no number of thousands of digits, too
        raise SettingsError(
            f"--hidden {brief(text)} cannot be read: write widths such as 300 or 512,512"
        ) from error


def _default_folder(settings: Settings, ending: str) -> Path:
    model = settings.model.replace(":", "-").replace(",", "-")
    return Path("runs") / f"{datasets.short_name(settings.data)}-{model}-{ending}"


def _refuse_both(resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise SettingsError("--resume and --overwrite exclude each other: choose one")


def _load(settings: Settings) -> Dataset:
    return datasets.load(settings.data, settings.data_dir)


def _watched(run: Run) -> Record:
    label = run.settings.method.label
    with watch(console, label) as observer:
        record = run.execute(observer)
    last = record.last
    say(
        f"{label}: {record.status} after {last.epoch} epochs, test {record.metric} "
        f"{metric_text(record.metric, last.test_metric)}, train loss {last.train_loss:.4g}, "
        f"{last.seconds:.1f} s"
    )
    return record


def _report(results: Sequence[Result], path: Path, title: str) -> None:
    from samt.bench.report.figures import comparison_png

    metric = results[0].records[0].metric
    summaries = [summary(result) for result in results]
    write_atomically(path / "comparison.csv", summaries_csv(summaries, metric).encode())
    write_atomically(path / "comparison.png", comparison_png(results, title))
    console.print(comparison_table(summaries, metric, title))
    say(f"picture: {path / 'comparison.png'}")


def _title(settings: Settings, results: Sequence[Result]) -> str:
    records = [record for result in results for record in result.records]
    epochs = max(record.last.epoch for record in records)
    seeds = len(results[0].records)
    model = f"{settings.model} {width_text(settings.hidden)}".strip()
    parts = [settings.data, model, f"{epochs} epochs"]
    return " · ".join(parts if seeds == 1 else [*parts, f"{seeds} seeds"])


def _interrupted(command: str) -> int:
    complain(f"samt: stopped; the last finished epoch is saved, continue with: {command}")
    return INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command `samt`.

    Args:
        arguments: what follows the command's name; by default what the shell gave.

    Raises:
        SystemExit: always; 0 is success, 1 a diverged run, 2 a user's mistake, 130 Ctrl-C, 141
            output that nobody reads any more.
    """
    open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=words or ["--help"], prog_name="samt", standalone_mode=False)
    except (UserError, SAMTError) as error:
        complain(f"samt: error: {error}")
        code = USER_ERROR
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        reason = lost_output(error)
        if reason is not None:
            complain(f"samt: error: the output cannot be written ({reason}): send it elsewhere")
            sys.exit(USER_ERROR)
        if is_out_of_memory(error):
            complain(
                "samt: error: this does not fit into memory: choose a smaller network, a smaller "
                "--batch-size, or a method with fewer step sizes"
            )
            sys.exit(USER_ERROR)
        # Mistakes in the command line itself: typer's own classes moved between its versions.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        page = getattr(getattr(error, "ctx", None), "command_path", "samt")
        complain(f"samt: error: {message()} (see {page} --help)")
        code = USER_ERROR
    sys.exit(code)


if __name__ == "__main__":
    main()
