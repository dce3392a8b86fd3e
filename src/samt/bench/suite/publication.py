"""Writes the report of the suite: into pages of documentation, and as a page of its own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from samt.bench.atomic import write_atomically
from samt.bench.errors import ReportError
from samt.bench.report.markdown import inserted
from samt.bench.suite.compared import compared
from samt.bench.suite.problem import Part, Problem
from samt.bench.suite.report import blocks
from samt.bench.suite.store import Store, read
from samt.bench.terminal import say


def write_report(
    results: Path,
    into: Path | None,
    page: Path | None,
    part: Part = "test",
    problems: Mapping[str, Problem] | None = None,
) -> None:
    """Write what the suite says.

    Args:
        results: a store, or a file that was exported from one.
        into: a page of documentation; each part of the report stands between the two marks of its
            name, such as `<!-- suite summary -->` and `<!-- end of suite summary -->`.
        page: the file of the page of its own.
        part: the part that methods are compared on.
        problems: all problems of the suite; by default those of samt.

    Raises:
        ReportError: there are no runs, or a file cannot be written, or a page has no mark.
    """
    rows = read(results)
    failures = []
    if results.suffix == ".sqlite":
        with Store(results) as store:
            failures = store.failures()
    if problems is None:
        from samt.bench.suite.families import PROBLEMS  # type: ignore[import-untyped,unused-ignore]

        problems = PROBLEMS
    found = compared(rows, problems, part, failures)
    words = ["samt", "report", str(results), *(["--output", str(page.parent)] if page else [])]
    words += ["--into", str(into)] if into else []
    try:
        if page is not None:
            from samt.bench.suite.page import page as rendered

            page.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(page, rendered(found, shlex.join(words)).encode())
            say(f"{page}")
        parts = {name: one.markdown() for name, one in blocks(found).items()}
        if into is not None:
            text = into.read_text(encoding="utf-8")
            marked = [name for name in parts if f"<!-- {name} -->" in text]
            if not marked:
                raise ReportError(f"{into} has no mark such as <!-- {next(iter(parts))} -->")
            for name in marked:
                text = inserted(text, name, parts[name])
            write_atomically(into.resolve(), text.encode())  # the file itself, not a link to it
            say(f"{', '.join(marked)} in {into}")
    except OSError as error:
        raise ReportError(f"cannot write the report: {error}") from error
    except ValueError as error:
        raise ReportError(f"{into}: {error}") from error
    if into is None and page is None:
        for name, text in parts.items():
            say(f"{name}\n\n{text}\n")
