"""`samt report`."""

from __future__ import annotations

from pathlib import Path

from samt.bench.experiments.store import Store

from ..conftest import Samt
from ..grids import finish, write_grid
from .conftest import HEAD, write


def test_a_page_tables_and_figures(
    samt_here: Samt, filled: Store, paper: Path, tmp_path: Path
) -> None:
    outcome = samt_here("report", filled.location, "-o", tmp_path / "out", "--paper", paper)
    assert outcome.code == 0
    assert outcome.err == ""
    assert "table: 11 of 12 cells finished, 1 of 2 published numbers agree" in outcome.out
    assert (tmp_path / "out" / "index.html").is_file()
    assert (tmp_path / "out" / "tables" / "table.csv").is_file()
    assert (tmp_path / "out" / "figures" / "table-digits-mlp-metric-epochs.pdf").is_file()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_no_figures_when_they_are_not_wanted(
    samt_here: Samt, filled: Store, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert samt_here("report", filled.location, "-o", out, "--no-figures").code == 0
    assert not (out / "figures").exists()


def test_an_empty_store(samt_here: Samt, tmp_path: Path) -> None:
    outcome = samt_here("report", tmp_path / "nothing", "-o", tmp_path / "out")
    outcome.is_user_error("there is no experiment in", "samt run FILE --results")
    assert not (tmp_path / "out").exists()


def test_an_unknown_experiment(samt_here: Samt, filled: Store, tmp_path: Path) -> None:
    outcome = samt_here("report", filled.location, "-o", tmp_path / "out", "--only", "tabel")
    outcome.is_user_error("tabel", "did you mean 'table'")


def test_wrong_published_numbers(samt_here: Samt, filled: Store, tmp_path: Path) -> None:
    write(tmp_path / "paper" / "reported" / "table.csv", HEAD + "digits,mlp,16,SAMT,loss,1,\n")
    outcome = samt_here(
        "report", filled.location, "-o", tmp_path / "out", "--paper", tmp_path / "paper"
    )
    outcome.is_user_error("table.csv, line 2", "accuracy or rmse")


def test_a_folder_that_cannot_be_written(samt_here: Samt, filled: Store, tmp_path: Path) -> None:
    write(tmp_path / "out", "a file")
    outcome = samt_here("report", filled.location, "-o", tmp_path / "out", "--no-figures")
    outcome.is_user_error("cannot write", "another folder with -o")


def test_real_cells(samt_here: Samt, tmp_path: Path) -> None:
    text = "methods: [samt, sgd]\nwidth: [8, 16]\nseeds: 2\nbudget: {epochs: 2}\n"
    file, results = write_grid(tmp_path / "grid.yaml", text), tmp_path / "results"
    finish(file, results)
    write(
        tmp_path / "reported" / "grid.csv", HEAD + "digits,mlp,8,samt,accuracy,99.9,best of many\n"
    )
    outcome = samt_here("report", results, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "grid: 8 of 8 cells finished, 0 of 1 published number agrees" in outcome.out
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "published 99.90" in page
    assert "best of many" in page
    assert len(list((tmp_path / "out" / "figures").iterdir())) == 8
