"""The squared distance to the solution and its bound as CSV, LaTeX and figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from samt.bench.experiments.store import Store
from samt.bench.report.convergence_files import convergence_figures, convergence_tables
from samt.bench.report.findings import Findings, gather
from samt.bench.report.publication import write_report

from .rate_cells import ERRORS, STEPS, save_rate_cell, save_rates, save_two_seeds


def _gathered(store: Store) -> Findings:
    (found,) = gather(store)
    return found


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_of_the_errors_and_their_bounds(store: Store) -> None:
    save_two_seeds(store)
    found = _gathered(store)
    rows = _rows(dict(convergence_tables(found))["convergence-bound.csv"])
    assert list(rows[0]) == [
        *("method", "seeds", "steps", "error_mean", "error_sd", "bound", "ball_bound")
    ]
    assert [int(row["steps"]) for row in rows] == STEPS[1:].tolist()
    assert {(row["method"], row["seeds"]) for row in rows} == {("SAMT", "2")}
    (rate,) = found.rates
    columns = {"error_mean": rate.errors, "error_sd": rate.deviations, "bound": rate.limit}
    for name, values in (columns | {"ball_bound": rate.ball_limit}).items():
        np.testing.assert_array_equal([float(row[name]) for row in rows], values)


def test_csv_of_slopes_and_step_sizes(store: Store) -> None:
    save_two_seeds(store)
    found = _gathered(store)
    (row,) = _rows(dict(convergence_tables(found))["convergence-rates.csv"])
    assert (row["method"], row["steps"], row["is_below"]) == ("SAMT", "4000", "True")
    assert float(row["error_mean"]) == pytest.approx(4 / 101)
    assert float(row["slope"]) == pytest.approx(-1, abs=0.05)
    assert float(row["bound_slope"]) == found.rates[0].limit_slope
    assert float(row["smallest_share"]) == pytest.approx(0.5)
    assert float(row["largest_share"]) == 1.0


def test_csv_of_the_constants(store: Store) -> None:
    save_two_seeds(store)
    rows = _rows(dict(convergence_tables(_gathered(store)))["convergence-constants.csv"])
    values = {row["symbol"]: float(row["value"]) for row in rows}
    assert [values[one] for one in ("λ", "b", "σ²")] == pytest.approx([2, 5, 0.25])
    assert values["G²"] == pytest.approx(values["a"] * 2 * 4**2 + values["b"])


def test_latex_of_the_rates(store: Store) -> None:
    save_two_seeds(store, "SAMT_S & \\input")
    lines = dict(convergence_tables(_gathered(store)))["convergence-rates.tex"].splitlines()
    assert lines[1] == r"\begin{tabular}{lrrrrr}"
    assert lines[5].startswith(r"SAMT\_S \& \textbackslash{}input & 0.0396 & ")
    assert lines[5].endswith(r" & $-$0.97 & 0.50--1.00 \\")
    assert lines[-1] == r"\end{tabular}"


def test_what_is_not_known_is_left_empty(store: Store) -> None:
    """One seed has no deviation, no radius no ball, and the absolute form no bound."""
    shares = {"block1": 0.5}
    save_rate_cell(store, "0" * 16, 0, ERRORS, shares, radius=None, relative=False)
    save_rates(store, {"0" * 16: "SAMT"})
    found = _gathered(store)
    files = dict(convergence_tables(found))
    row = _rows(files["convergence-bound.csv"])[-1]
    assert (row["error_sd"], row["bound"], row["ball_bound"]) == ("", "", "")
    assert "& -- & -- &" in files["convergence-rates.tex"]
    assert "G²" not in files["convergence-constants.csv"]
    assert dict(convergence_figures(found))


def test_figures_are_files_of_both_kinds_and_always_the_same(store: Store) -> None:
    save_two_seeds(store)
    save_rate_cell(store, "2" * 16, 0, ERRORS, {"block1": 1.0}, parts="fixed")
    save_rates(store, {"0" * 16: "SAMT", "1" * 16: "SAMT", "2" * 16: "$\\frac{1}$ 🦀"})
    files = dict(convergence_figures(_gathered(store)))
    assert files["convergence-bound.png"].startswith(b"\x89PNG")
    assert files["convergence-bound.pdf"].startswith(b"%PDF")
    assert files == dict(convergence_figures(_gathered(store)))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, in place of their files."""
    figures = []

    def kept(name: str, draw: Callable[[], Figure]) -> Iterator[tuple[str, bytes]]:
        figures.append(draw())
        yield name, b""

    monkeypatch.setattr("samt.bench.report.convergence_files.figure_files", kept)
    return figures


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].texts]


def test_each_panel_shows_the_mean_both_bounds_and_a_slope_of_minus_one(
    store: Store, drawn: list[Figure]
) -> None:
    save_two_seeds(store)
    found = _gathered(store)
    assert dict(convergence_figures(found)) == {"convergence-bound": b""}
    (axes,) = drawn[0].axes
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_title("left")) == ("log", "log", "SAMT")
    mean, limit, ball_limit, guide = (np.asarray(line.get_ydata(), float) for line in axes.lines)
    np.testing.assert_array_equal(mean, found.rates[0].errors)
    np.testing.assert_array_equal(limit, found.rates[0].limit)
    np.testing.assert_array_equal(ball_limit, found.rates[0].ball_limit)
    x = np.asarray(axes.lines[-1].get_xdata(), float)
    assert np.diff(np.log(guide)) / np.diff(np.log(x)) == pytest.approx(-1)
    assert len(axes.collections) == 1  # the band
    names = ["mean over 2 seeds", "± standard deviation", "bound", "bound by the balls"]
    assert _legend(drawn[0]) == names


def test_the_legend_names_only_what_is_drawn(store: Store, drawn: list[Figure]) -> None:
    save_rate_cell(store, "0" * 16, 0, ERRORS, {"block1": 0.5}, radius=None)
    save_rates(store, {"0" * 16: "SAMT"})
    assert dict(convergence_figures(_gathered(store)))
    assert _legend(drawn[0]) == ["mean over 1 seed", "bound"]


def test_a_long_name_stays_above_its_panel(store: Store, drawn: list[Figure]) -> None:
    label = "samt:relative=1,radius=2,schedule=inverse,lr=0.012,meta_batch=next"
    save_two_seeds(store, label)
    assert dict(convergence_figures(_gathered(store)))
    lines = drawn[0].axes[0].get_title("left").splitlines()
    assert "".join(lines) == label
    assert max(map(len, lines)) <= 32


def test_panels_have_one_scale(store: Store, drawn: list[Figure]) -> None:
    save_two_seeds(store)
    save_rate_cell(store, "2" * 16, 0, ERRORS / 1000, {"block1": 1.0}, parts="fixed")
    save_rates(store, {"0" * 16: "SAMT", "1" * 16: "SAMT", "2" * 16: "fixed step"})
    assert dict(convergence_figures(_gathered(store)))
    first, second = drawn[0].axes
    assert first.get_ylim() == second.get_ylim()


def test_the_report_holds_them_and_only_for_that_problem(
    store: Store, filled: Store, tmp_path: Path
) -> None:
    save_two_seeds(store)
    written = write_report(filled, tmp_path / "report")
    names = {path.name for path in (*written.tables, *written.figures) if path.is_file()}
    kinds = ("bound.csv", "rates.csv", "rates.tex", "constants.csv", "bound.png", "bound.pdf")
    for kind in kinds:
        assert f"convergence-{kind}" in names
        assert f"table-{kind}" not in names
