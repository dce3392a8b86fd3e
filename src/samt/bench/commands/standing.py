"""The command `samt results standing`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from samt.bench import options as flag
from samt.bench.errors import ReportError, ResultsError
from samt.bench.experiments import frames
from samt.bench.experiments.store import Store
from samt.bench.report.standing_text import inserted, standing_text
from samt.bench.standing import standings

console = Console()


def standing(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="Experiments, each one problem; suite-* is several."
        ),
    ],
    of: Annotated[
        str, typer.Option("--of", help="The method that is judged.", metavar="METHOD")
    ] = "SAMT auto",
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            help="Those whose best counts; may be repeated.  [default: SGD tuned, Adam tuned]",
            metavar="METHOD",
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            metavar="FILE",
            help="Page of documentation that gets the table, between its two marks.",
            show_default=False,
        ),
    ] = None,
    results: flag.Results = "results",
) -> int:
    """How a method stands against the best of others, problem by problem.

    Examples:

      samt results standing "suite-*"

      samt results standing "suite-*" --of "SAMT paper" --against Prodigy
    """
    store = Store(results)
    others = against or ["SGD tuned", "Adam tuned"]
    known = store.experiments()
    found = [name for one in names for name in known if fnmatchcase(name, one)]
    if not found:
        raise ResultsError(
            f"no experiment '{' '.join(names)}' in {store.location}: samt results list shows all"
        )
    problems = {name: frames.cells_frame(store, name) for name in dict.fromkeys(found)}
    judged = standings(problems, of, others)
    if not judged:
        raise ResultsError(f"no problem has results of {of} and of another: run them first")
    text = standing_text(judged, others)
    if into is None:
        console.print(Markdown(text))
        return 0
    try:
        page = into.read_text(encoding="utf-8")
        into.write_text(inserted(page, names[0].strip("-*"), text), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"cannot write {into} ({error}): check --into") from error
    except ValueError as error:
        raise ReportError(f"{into}: {error}") from error
    console.print(f"{len(judged)} problems in {into}", markup=False, highlight=False)
    return 0
