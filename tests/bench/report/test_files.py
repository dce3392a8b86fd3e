"""Tables as CSV and LaTeX, figures for print."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from samt.bench.experiments.store import Store
from samt.bench.report import style
from samt.bench.report.findings import gather
from samt.bench.report.latex import latex_table, latex_text
from samt.bench.report.paper_figures import paper_figures
from samt.bench.report.publication import write_report
from samt.bench.report.table_files import table_files
from samt.bench.report.wording import slug

from .conftest import ACCURACIES, Grid, save_grid, set_option


def test_latex_is_text_and_nothing_else() -> None:
    assert latex_text(r"a\b{c}$&#_%^~<>|") == (
        r"a\textbackslash{}b\{c\}\$\&\#\_\%\textasciicircum{}\textasciitilde{}"
        r"\textless{}\textgreater{}\textbar{}"
    )
    assert latex_text("1 ± 2 − 3\n\x00") == r"1 $\pm$ 2 $-$ 3  "


def test_latex_table(filled: Store, paper: Path) -> None:
    (one,) = gather(filled, paper=paper)
    lines = latex_table(one.grids[0]).splitlines()
    assert lines[1:5] == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"method & width 16 & width 64 \\",
        r"\midrule",
    ]
    assert lines[5] == r"SAMT & \textbf{92.00 $\pm$ 2.00} [93.00] & 96.00 $\pm$ 1.00 \\"
    assert lines[6] == r"sgd & 81.00 $\pm$ 1.00 [90.00] & \emph{1 of 3 diverged} [95.50] \\"
    assert lines[7] == r"theirs & -- & not run here [97.00] \\"


def test_a_hostile_name_cannot_leave_the_table(store: Store) -> None:
    name = "x\n\\input{/etc/passwd} & \\\\ %"
    save_grid(store, "one", {name: {(16,): [0.9]}}, data="d\n\\evil")
    (one,) = gather(store)
    text = latex_table(one.grids[0])
    assert r"\input" not in text
    assert len(text.splitlines()) == 8
    assert r"x \textbackslash{}input\{/etc/passwd\} \& " in text


def test_csv_tables(filled: Store, paper: Path) -> None:
    (one,) = gather(filled, paper=paper)
    files = dict(table_files(one))
    rows = list(csv.DictReader(io.StringIO(files["table.csv"])))
    first = next(row for row in rows if (row["method"], row["width"]) == ("SAMT", "16"))
    assert float(first["final_mean"]) == pytest.approx(92.0)
    assert float(first["final_deviation"]) == pytest.approx(2.0)
    assert float(first["published"]) == 93.0
    assert float(first["difference"]) == pytest.approx(-1.0)
    assert first["verdict"] == "agrees"
    bad = next(row for row in rows if (row["method"], row["width"]) == ("sgd", "64"))
    assert (bad["final_mean"], bad["finished"], bad["diverged"]) == ("", "2", "1")
    (difference, *_) = csv.DictReader(io.StringIO(files["table-differences.csv"]))
    assert (difference["method"], difference["against"]) == ("sgd", "SAMT")
    assert float(difference["mean"]) == pytest.approx(-11.0)
    ranks = list(csv.DictReader(io.StringIO(files["table-ranks.csv"])))
    assert [row["method"] for row in ranks] == ["SAMT", "sgd"]
    assert "table-digits-mlp-final.tex" in files
    assert "table-mnist-mlp-best.tex" in files


def test_figures_are_files_of_both_kinds_and_always_the_same(store: Store) -> None:
    lrs = (0.01, 0.1, 1.0)
    values: Grid = {f"samt:lr={lr}": {(16,): [0.9, 0.91], (64,): [0.92, 0.93]} for lr in lrs}
    cells = save_grid(store, "lr", {**ACCURACIES, **values})
    for identity, label in cells.items():
        if "=" in label:
            set_option(store, identity, "lr", float(label.split("=")[1]))
    (one,) = gather(store)
    files = dict(paper_figures(one))
    kinds = ("metric-epochs", "metric-passes", "loss-epochs", "step-sizes", "over-lr")
    assert set(files) == {
        f"lr-digits-mlp-{kind}.{form}" for kind in kinds for form in ("png", "pdf")
    }
    for name, content in files.items():
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"%PDF")
    assert files == dict(paper_figures(one))


def test_figures_of_names_that_no_font_and_no_parser_likes(store: Store) -> None:
    label = "$\\frac{1}$ 🦀 \x07 <b>"
    save_grid(store, "one", {label: {(16,): [0.9, 0.8]}}, data="../../etc/passwd")
    (one,) = gather(store)
    names = [name for name, _ in paper_figures(one)]
    assert names
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_slugs_hold_no_path() -> None:
    assert slug("a", "../b c", "", "d:1,2") == "a-b-c-d-1-2"


def test_page_and_figures_have_the_same_colours() -> None:
    css = (Path(style.__file__).parent / "assets" / "page.css").read_text(encoding="utf-8")
    for index, colour in enumerate(style.COLOURS):
        assert f"--series-{index}: light-dark({colour}," in css


def test_labels_are_no_formulas_and_no_options_of_latex(store: Store, tmp_path: Path) -> None:
    names = ("=cmd|' /C calc'!A0", "[9cm] x", "*x")
    save_grid(store, "t", {name: {(16,): [0.9, 0.91]} for name in names})
    write_report(store, tmp_path, figures=False)
    assert "16,'=cmd|" in (tmp_path / "tables" / "t.csv").read_text()
    tex = next((tmp_path / "tables").glob("*final.tex")).read_text()
    rows = tex.split(r"\midrule")[1].splitlines()
    assert not any(row.startswith(("[", "*")) for row in rows)
    assert "{[}9cm] x" in tex
