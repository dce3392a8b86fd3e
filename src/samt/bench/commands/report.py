"""The command `samt report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samt.bench.experiments.store import Store
from samt.bench.report.wording import counted
from samt.bench.suite.problem import Part
from samt.bench.suite.store import is_suite
from samt.bench.terminal import say

if TYPE_CHECKING:
    from samt.bench.report.findings import Findings

_Results = Annotated[
    str,
    typer.Argument(
        metavar="[RESULTS]",
        help="Where results lie: a folder, or any URL that fsspec knows.",
        envvar="SAMT_RESULTS",
    ),
]
_Output = Annotated[
    Path,
    typer.Option(
        "-o", "--output", metavar="DIR", help="Folder of the report; its files are replaced."
    ),
]
_Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="NAME",
        help="Report this experiment; may be repeated.",
        show_default=False,
    ),
]
_Paper = Annotated[
    Path | None,
    typer.Option(
        "--paper",
        metavar="DIR",
        help="Folder with reported/NAME.csv, the published numbers, and notes/NAME.md; without "
        "it, the folder of each experiment's file, then paper.",
        show_default=False,
    ),
]
_Into = Annotated[
    Path | None,
    typer.Option(
        "--into",
        metavar="FILE",
        help="Page of documentation that gets the tables of a store of the suite, between the "
        "marks of their names.",
        show_default=False,
    ),
]
_Part = Annotated[
    Part,
    typer.Option("--part", help="The part that methods of the suite are compared on."),
]
_Figures = Annotated[
    bool, typer.Option("--figures/--no-figures", help="Draw the figures for print as well.")
]


def report(
    results: _Results = "results",
    output: _Output = Path("report"),
    only: _Only = None,
    paper: _Paper = None,
    figures: _Figures = True,
    into: _Into = None,
    part: _Part = "test",
) -> int:
    """Our numbers beside the published ones: a page, tables, figures.

    index.html is one file that works offline: tables, interactive curves, step
    sizes, ranks, and what could not be reproduced. tables/ holds CSV and LaTeX,
    figures/ PNG and PDF.

    Examples:

      samt report results -o report

      samt report s3://bucket/samt -o report --only table2 --no-figures

      samt report results/suite.sqlite -o docs/suite --into docs/how-to-choose.md
    """
    if is_suite(results):
        from samt.bench.suite.publication import write_report as write_suite_report

        write_suite_report(Path(results), into, output / "index.html", part)
        return 0
    from samt.bench.report.publication import write_report

    store = Store(results)
    written = write_report(*(store, output, only or (), paper), figures=figures, progress=say)
    for one in written.findings:
        say(f"{one.name}: {_verdict(one)}")
    for path, reason in store.damaged.items():
        say(f"left out: {path}: {reason}")
    folders = [
        f"{counted(len(paths), 'file')} in {paths[0].parent}"
        for paths in (written.tables, written.figures)
        if paths
    ]
    say(f"{written.page}; {'; '.join(folders)}")
    return 0


def _verdict(findings: Findings) -> str:
    found, made = findings.discrepancies, findings.provenance
    finished = f"{made.statuses.get('finished', 0)} of {counted(made.cells, 'cell')} finished"
    if not found.compared:
        return f"{finished}, no published number to compare with"
    agree = found.compared - len(found.gaps)
    verb = "agrees" if found.compared == 1 else "agree"
    return f"{finished}, {agree} of {counted(found.compared, 'published number')} {verb}"
