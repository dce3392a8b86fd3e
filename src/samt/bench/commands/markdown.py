"""The commands `samt results standing | dependence`: tables for the terminal and for pages."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from samt.bench import options as flag
from samt.bench.atomic import replaced
from samt.bench.errors import ReportError, ResultsError
from samt.bench.experiments import frames
from samt.bench.experiments.store import Store
from samt.bench.report.dependence_text import dependence_text
from samt.bench.report.findings import gather
from samt.bench.report.markdown import inserted
from samt.bench.report.standing_text import standing_text
from samt.bench.standing import standings
from samt.bench.terminal import console, say

_Into = Annotated[
    Path | None,
    typer.Option(
        "--into",
        metavar="FILE",
        help="Page of documentation that gets the table, between the marks of that name.",
        show_default=False,
    ),
]


def standing(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="Experiments, each one problem; suite-* is several."
        ),
    ],
    of: Annotated[
        str, typer.Option("--of", help="The method that is judged.", metavar="METHOD")
    ] = "AutoSAMT",
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            help="Those whose best counts; may be repeated.  [default: SGD tuned, Adam tuned]",
            metavar="METHOD",
            show_default=False,
        ),
    ] = None,
    into: _Into = None,
    results: flag.Results = "results",
) -> int:
    """How a method stands against the best of others, problem by problem.

    Examples:

      samt results standing "suite-*"

      samt results standing "suite-*" --of "SAMT" --against Prodigy

      samt results standing "suite-*" --into page.md   # between <!-- suite, AutoSAMT --> and
      <!-- end of suite, AutoSAMT -->
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
    _show(text, into, f"{names[0].strip('-*')}, {of}")
    return 0


def dependence(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An experiment.")],
    into: _Into = None,
    results: flag.Results = "results",
) -> int:
    """How the result depends on a number that methods of an experiment differ in.

    Example:

      samt results dependence initial-step
    """
    [findings] = gather(Store(results), [name])
    if not findings.dependences:
        raise ResultsError(
            f"no methods of {name} differ in one number alone, with three values of it: name "
            "another experiment"
        )
    _show(dependence_text(findings.dependences), into, name)
    return 0


def _show(text: str, into: Path | None, name: str) -> None:
    if into is None:
        console.print(Markdown(text, hyperlinks=False))
        return
    try:
        page = into.read_text(encoding="utf-8")
        content = inserted(page, name, text).encode()
        with replaced(into.resolve()) as file:  # the file itself, not a link to it
            file.write(content)
    except OSError as error:
        raise ReportError(
            f"cannot write {into} ({error.strerror or error}): check --into"
        ) from error
    except ValueError as error:
        raise ReportError(f"{into}: {error}") from error
    say(f"{name} in {into}")
