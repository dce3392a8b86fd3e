"""A report on disk: the page, tables, figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from samt.bench.atomic import write_atomically
from samt.bench.errors import ReportError, RunFolderError
from samt.bench.experiments.store import Store
from samt.bench.report.findings import Findings, gather


@dataclass(frozen=True)
class Written:
    """What a report consists of.

    Args:
        page: the interactive page.
        tables: CSV and LaTeX.
        figures: PNG and PDF.
        findings: what they tell.
    """

    page: Path
    tables: Sequence[Path]
    figures: Sequence[Path]
    findings: Sequence[Findings]


def write_report(
    store: Store,
    folder: Path,
    only: Sequence[str] = (),
    paper: Path | None = None,
    *,
    figures: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> Written:
    """Write everything that a publication shows.

    Args:
        store: where the results lie.
        folder: gets `index.html`, `tables` and `figures`; files of the same names are replaced.
        only: names of experiments; all of them by default.
        paper: folder with `reported` and `notes`, as in `findings.gather`.
        figures: draw those for print, which takes most of the time.
        progress: told what is being done.

    Raises:
        ReportError: there is nothing to report, or it cannot be written.
        ResultsError: results cannot be read.
    """
    from samt.bench.report.convergence_files import convergence_figures, convergence_tables
    from samt.bench.report.page import page
    from samt.bench.report.paper_figures import paper_figures
    from samt.bench.report.table_files import table_files

    progress("reading results")
    found = gather(store, only, paper)
    # A page is shown to others, who need not know this machine's folders.
    location = store.local.name if store.local is not None else store.location
    text = page(found, location, dict(store.damaged))
    # Names of files, which may be of another encoding, stand in it, too.
    index = _write(folder / "index.html", text.encode(errors="replace"))
    tables = [
        _write(folder / "tables" / name, content.encode())
        for one in found
        for name, content in (*table_files(one), *convergence_tables(one))
    ]
    drawn: list[Path] = []
    for one in found if figures else ():
        progress(f"drawing {one.name}")
        drawn += _write_all(folder / "figures", paper_figures(one))
        drawn += _write_all(folder / "figures", convergence_figures(one))
    return Written(index, tables, drawn, found)


def _write_all(folder: Path, files: Iterable[tuple[str, bytes]]) -> list[Path]:
    return [_write(folder / name, content) for name, content in files]


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content, durable=False)
    except (OSError, RunFolderError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or cause
        raise ReportError(
            f"cannot write {path} ({reason}): free some space, or choose another folder with -o"
        ) from error
    return path
