"""The whole paper in its smoke profile, and its report: the two commands of a reader."""

from __future__ import annotations

import csv
from pathlib import Path

from samt.bench.experiments.files import load_experiment, locate
from samt.bench.experiments.store import Store

from ..conftest import samt_process
from .conftest import Open

_KEPT = Path(__file__).parents[3] / "docs" / "paper"


def test_the_paper_runs_and_is_reported(tmp_path: Path, open_page: Open) -> None:
    results, report = tmp_path / "results", tmp_path / "report"
    run = samt_process("run", "paper", "--profile", "smoke", "--results", results, timeout=900)
    assert run.code == 0, run
    statuses = {one["status"] for one in Store(str(results)).summaries().values()}
    assert statuses == {"finished"}
    outcome = samt_process("report", results, "-o", report, timeout=600)
    assert outcome.code == 0, outcome
    page = (report / "index.html").read_text(encoding="utf-8")
    for path in locate("paper"):
        experiment = load_experiment(path, "smoke")
        assert experiment.title in page.replace("<wbr>", "")
        for ending in ("figures/*.png", "figures/*.pdf", "tables/*.csv", "tables/*.tex"):
            kind, _, pattern = ending.partition("/")
            assert list((report / kind).glob(f"{experiment.name}-{pattern}")), experiment.name
    _is_fit_to_show(report, open_page)
    tables = list((report / "tables").glob("*.csv"))
    assert len(tables) >= 12
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        assert rows
        assert {len(row) for row in rows} == {len(head)}


def test_the_page_that_is_kept(open_page: Open) -> None:
    _is_fit_to_show(_KEPT, open_page)


def _is_fit_to_show(report: Path, open_page: Open) -> None:
    """On a phone and on a desk: nothing overflows, is loaded, or goes wrong."""
    for width in (400, 1200):
        opened = open_page(report, width)
        opened.draw_all()
        assert opened.page.locator(".plot").count() > 10
        assert opened.page.evaluate("document.documentElement.scrollWidth") == width
        assert opened.page.locator("[hidden]:visible").count() == 0
        assert opened.complaints == []
