"""The whole paper in its smoke profile, and its report: the two commands of a reader."""

from __future__ import annotations

import csv
from pathlib import Path

from samt.bench.experiments.files import load_experiments, locate
from samt.bench.experiments.store import Store

from .conftest import samt_process


def test_the_paper_runs_and_is_reported(tmp_path: Path) -> None:
    results, report = tmp_path / "results", tmp_path / "report"
    run = samt_process("run", "paper", "--profile", "smoke", "--results", results, timeout=900)
    assert run.code == 0, run
    statuses = {one["status"] for one in Store(str(results)).summaries().values()}
    assert statuses == {"finished"}
    outcome = samt_process("report", results, "-o", report, timeout=600)
    assert outcome.code == 0, outcome
    page = (report / "index.html").read_text(encoding="utf-8")
    for path in locate("paper"):
        [experiment] = load_experiments(path, "smoke")
        assert experiment.title in page.replace("<wbr>", "")
    # What the page may load: nothing. The tests in Chromium count its requests.
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    tables = list((report / "tables").glob("*.csv"))
    assert len(tables) >= 12
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        assert rows
        assert {len(row) for row in rows} == {len(head)}
    assert list((report / "figures").glob("*.pdf"))
