"""The commands `samt data list | info | prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from samt.bench import data as datasets
from samt.bench import options as flag
from samt.bench.data import DATASETS, Dataset, Entry, find, prepare
from samt.bench.data.download import is_official
from samt.bench.data.own import OWN_DATA
from samt.bench.terminal import console, say

app = typer.Typer(
    help="\n\n".join(("Data sets: which there are, what they hold, fetching them.", *OWN_DATA)),
    no_args_is_help=True,
)

_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A name from samt data list, or a path of your own.")
]
_Validation = Annotated[
    float, typer.Option("--validation", help="Share of the training part to split off.")
]
_SplitSeed = Annotated[
    int,
    typer.Option("--split-seed", help="Seed of the split, or number of the published split."),
]


@app.command("list")
def list_command(data_dir: flag.DataDir = None) -> int:
    """All registered data sets, and which of them are here."""
    folder = data_dir or datasets.default_data_dir()
    table = Table(title=Text(f"data sets, files in {folder}"), title_justify="left", box=SIMPLE)
    for column in ("name", "task", "what it is", "here", "download"):
        table.add_column(column, no_wrap=column != "what it is")
    for entry in DATASETS.values():
        size = sum(file.size for file in entry.files)
        download = _bytes(size) if size else "–"
        table.add_row(entry.name, entry.task, entry.title, _presence(entry, folder), download)
    console.print(table)
    return 0


@app.command()
def info(
    name: _Name,
    data_dir: flag.DataDir = None,
    validation: _Validation = 0.0,
    split_seed: _SplitSeed = 0,
) -> int:
    """What a data set holds: shapes, classes, parts, checksums, licence.

    Examples:

      samt data info fashion-mnist --data-dir ~/data

      samt data info houses.csv --validation 0.1
    """
    entry = find(name)
    folder = data_dir or datasets.default_data_dir()
    if entry is not None:
        _describe(entry, folder)
        if _presence(entry, folder) != "yes":
            _line("here", f"{_presence(entry, folder)}: {entry.source}, {_cure(entry)}")
            return 0
    _show(datasets.load(name, folder, validation=validation, split_seed=split_seed))
    return 0


@app.command("prepare")
def prepare_command(name: _Name, data_dir: flag.DataDir = None) -> int:
    """Fetch a data set if it is not here, read all of it, and decode images for later.

    Downloads are checked against the published checksums. Files that are there already are never
    replaced.

    Examples:

      samt data prepare mnist --data-dir ~/data

      samt data prepare photographs.zip
    """
    entry = find(name)
    folder = data_dir or datasets.default_data_dir()
    if entry is not None:
        prepare(entry, folder)
        _describe(entry, folder)
    _show(datasets.load(name, folder))
    return 0


def _describe(entry: Entry, folder: Path) -> None:
    """What is known without reading the data."""
    _line("name", f"{entry.name}: {entry.title}")
    _line("source", entry.source)
    _line("licence", entry.licence)
    for path in entry.find(folder):
        if path is not None:
            _line("file", f"{path} ({_checked(entry, path)})")


def _checked(entry: Entry, path: Path) -> str:
    file = next((file for file in entry.files if Path(file.path).name == path.name), None)
    if file is None:
        return "no published checksum"
    if is_official(file, path):
        return f"as published, sha256 {file.sha256}"
    return f"not byte by byte the published file, whose sha256 is {file.sha256}"


def _show(data: Dataset) -> None:
    """What the loaded data hold."""
    shape = " x ".join(map(str, data.sample_shape))
    _line("task", f"{data.task}, inputs of {shape}, {data.outputs} outputs")
    if data.classes:
        names = ", ".join(name if name.strip() else repr(name) for name in data.classes[:20])
        _line("classes", names + (", …" if len(data.classes) > 20 else ""))
    if data.task == "regression":
        _line("target", f"standardised; one unit is {data.target_scale:.6g} of the file's")
    for part, split in data.parts.items():
        text = f"{len(split)} samples"
        if data.task == "classification":
            if split.targets.ndim > 1:
                text += f" of {split.targets.shape[1]} targets"
            counts = split.targets.flatten().bincount(minlength=data.outputs)
            text += f", {int(counts.min())} to {int(counts.max())} of each class"
        _line(part, text)
    drawn = "comes with the data" if data.split_seed is None else f"number {data.split_seed}"
    _line("split", drawn)
    for note in data.notes:
        _line("note", note)
    _line("checksum", f"sha256 {data.fingerprint} of all numbers")


def _presence(entry: Entry, folder: Path) -> str:
    paths = entry.find(folder)
    there = sum(path is not None for path in paths)
    if there == len(paths):
        return "yes"
    return f"{there} of {len(paths)} files" if there else "no"


def _cure(entry: Entry) -> str:
    if entry.files:
        return f"or run samt data prepare {entry.name}"
    return f"put {entry.places[0][0]} into the folder that --data-dir names"


def _line(head: str, text: str) -> None:
    say(f"{head:11}{text}")


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"
