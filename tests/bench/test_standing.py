"""How a method stands against the best of others: by hand on small tables."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from samt.bench.errors import ResultsError
from samt.bench.report.markdown import inserted
from samt.bench.report.standing_text import standing_text
from samt.bench.standing import Standing, mean_ranks, standings

from .conftest import samt_process
from .standing_cells import cells

OTHERS = ("SGD", "Adam")


def judged(metric: str, values: dict[str, list[float]]) -> Standing:
    others = [label for label in values if label != "ours"]
    [found] = standings({"one": cells(metric, values)}, "ours", others)
    return found


def test_the_lead_is_over_the_better_of_the_others() -> None:
    one = judged("accuracy", {"ours": [0.9, 0.92], "SGD": [0.8, 0.8], "Adam": [0.90, 0.94]})
    assert one.best == "Adam"
    assert one.lead == pytest.approx(-1.0)
    # Deviations 0.01 √2 and 0.02 √2, each divided by √2: errors of 0.01 and 0.02.
    assert one.error == pytest.approx(100 * math.hypot(0.01, 0.02))
    assert one.verdict == "at or above"


def test_less_is_better_for_an_rmse() -> None:
    one = judged("rmse", {"ours": [0.2, 0.2], "SGD": [0.3, 0.3], "Adam": [0.25, 0.25]})
    assert (one.best, one.verdict) == ("Adam", "at or above")
    assert one.lead == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("metric", "own", "verdict"),
    [
        ("accuracy", 0.5, "at or above"),
        ("accuracy", 0.4901, "below"),
        ("accuracy", 0.4899, "far below"),
        ("rmse", 0.5, "at or above"),
        ("rmse", 0.5249, "below"),
        ("rmse", 0.5251, "far below"),
    ],
)
def test_what_is_far(metric: str, own: float, verdict: str) -> None:
    values = {"ours": [own, own], "SGD": [0.5, 0.5]}
    assert judged(metric, values).verdict == verdict


@pytest.mark.parametrize("metric", ["accuracy", "rmse"])
def test_runs_that_diverged(metric: str) -> None:
    nan = math.nan
    lost = judged(metric, {"ours": [0.9, nan], "SGD": [0.1, 0.1]})
    assert (lost.lead, lost.verdict) == (-math.inf, "far below")
    won = judged(metric, {"ours": [0.9, 0.9], "SGD": [nan, 0.1], "Adam": [nan, nan]})
    assert (won.best, won.lead, won.verdict) == (None, math.inf, "at or above")
    assert "1 of 2 diverged" in standing_text([lost], OTHERS)
    assert "inf" not in standing_text([lost, won], OTHERS)


def test_mean_ranks_over_problems() -> None:
    first = cells("accuracy", {"ours": [0.9], "SGD": [0.8], "Adam": [0.9]})
    second = cells("rmse", {"ours": [0.9], "SGD": [0.8], "Adam": [math.nan]})
    ranks = mean_ranks(standings({"a": first, "b": second}, "ours", OTHERS))
    assert [(one.label, one.mean, one.n) for one in ranks] == [
        ("ours", 1.75, 2),  # 1.5 and 2
        ("SGD", 2.0, 2),  # 3 and 1
        ("Adam", 2.25, 2),  # 1.5 and 3
    ]


def test_the_table_says_what_it_counts() -> None:
    first = cells("accuracy", {"ours": [0.9, 0.92], "SGD": [0.8, 0.8]})
    first.loc[first["label"] == "SGD", "passes"] = 4.0
    problems = {
        "a": first,
        "b": cells("rmse", {"ours": [0.9, 0.9], "SGD": [0.8, 0.8]}),
        "c": cells("accuracy", {"SGD": [0.8, 0.8]}),
    }
    text = standing_text(standings(problems, "ours", ["SGD"]), ["SGD"])
    assert "| a | accuracy in % | **91.00 ± 1.41** | 80.00 ± 0.00 | +11.00 (± 1.00) |" in text
    assert "| b | RMSE | 0.9000 ± 0.0000 | 0.8000 ± 0.0000 | −0.1000 (± 0.0000) |" in text
    assert "| mean rank | 1 is best | 1.50 | 1.50 |  |" in text
    assert "| passes | forward and backward | × 1.0 | × 2.5 |  |" in text
    assert "on 1 of 2 problems" in text
    assert "by more on 1 (b)." in text


def test_a_problem_that_a_method_lacks_ranks_nobody() -> None:
    """Coming first of two is another thing than coming first of three."""
    problems = {
        "a": cells("rmse", {"ours": [2.0], "SGD": [1.0], "Adam": [3.0]}),
        "b": cells("rmse", {"ours": [1.0], "SGD": [2.0]}),
    }
    text = standing_text(standings(problems, "ours", ["SGD"]), ["SGD"])
    assert "| mean rank | 1 is best, over the 1 that all have | 2.00 | 1.00 | 3.00 |  |" in text
    problems["a"] = cells("rmse", {"ours": [2.0], "Adam": [3.0]})
    text = standing_text(standings(problems, "ours", OTHERS), OTHERS)
    assert "| mean rank | 1 is best, over the 0 that all have |  |  |  |  |" in text


def test_what_is_no_problem_or_no_method() -> None:
    two = pd.concat([cells("rmse", {"ours": [1.0], "SGD": [1.0]}, width) for width in "12"])
    with pytest.raises(ResultsError, match="several data sets or networks"):
        standings({"two": two}, "ours", ["SGD"])
    one = {"one": cells("rmse", {"ours": [1.0], "SGD": [1.0]})}
    with pytest.raises(ResultsError, match=r"no method 'our' .*did you mean 'ours'"):
        standings(one, "our", ["SGD"])
    with pytest.raises(ResultsError, match="no method 'Adan'"):
        standings(one, "ours", ["SGD", "Adan"])


def test_a_page_without_marks() -> None:
    for page in ("", "<!-- x -->", "<!-- end of x -->", "<!-- end of x --><!-- x -->"):
        with pytest.raises(ValueError, match="are not there: write them"):
            inserted(page, "x", "text")


def test_the_suite_from_run_to_page(tmp_path: Path) -> None:
    """The smoke profile of the suite, judged, as a user would."""
    place = ("--results", str(tmp_path / "results"))
    ran = samt_process("run", "problems", "--profile", "smoke", *place)
    assert ran.code == 0, ran.err
    part = samt_process("run", "problems", "--profile", "smoke", "--only", "data=diabetes", *place)
    assert "left out" not in part.out + part.err
    assert "suite-diabetes-smoke --results" in part.out
    none = samt_process("run", "problems", "--profile", "smoke", "--only", "data=mnist", *place)
    assert (none.code, "check exclude and --only" in none.err) == (2, True)
    absent = samt_process("run", "problems", "--only", "data=pol", "--data-dir", tmp_path, *place)
    assert (absent.code, "samt data prepare pol" in absent.err) == (2, True)
    shown = samt_process("results", "standing", "suite-*", *place)
    assert shown.code == 0, shown.err
    assert "of 3 problems" in " ".join(shown.out.split())
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- suite, AutoSAMT -->\n<!-- end of suite, AutoSAMT -->\nrest\n")
    wrote = samt_process("results", "standing", "suite-*", "--into", str(page), *place)
    assert "suite, AutoSAMT in " in wrote.out
    text = page.read_text()
    assert "| suite-digits-smoke | accuracy in % |" in text
    assert "| suite-diabetes-smoke | RMSE |" in text
    assert text.endswith("<!-- end of suite, AutoSAMT -->\nrest\n")
    for arguments, cure in (
        (("suite-*", "--of", "AutoSAM"), "did you mean"),
        (("nothing",), "samt results list shows all"),
        (("suite-*", "--into", str(tmp_path / "none.md")), "check --into"),
    ):
        refused = samt_process("results", "standing", *arguments, *place)
        assert refused.code == 2
        assert cure in refused.err
        assert len(refused.err.splitlines()) == 1


def test_a_dependence_from_run_to_page(tmp_path: Path) -> None:
    place = ("--results", str(tmp_path / "results"))
    file = tmp_path / "steps.yaml"
    file.write_text(
        "name: steps\ndata: digits\nwidth: 4\nbudget: {epochs: 1}\nmethods:\n"
        "- {method: sgd, label: SGD, options: {lr: [0.001, 0.01, 0.1]}}\n"
        "- {method: adam, label: Adam, options: {lr: [0.01, 0.1, 1.0]}}\n"
    )
    assert samt_process("run", str(file), *place).code == 0
    page = tmp_path / "page.md"
    page.write_text("<!-- steps -->\n<!-- end of steps -->")
    wrote = samt_process("results", "dependence", "steps", "--into", str(page), *place)
    assert wrote.code == 0, wrote.err
    lines = page.read_text().splitlines()
    assert "digits, mlp, width 4: test accuracy in %, by `lr`" in lines
    assert "| lr | 0.001 | 0.01 | 0.1 | 1 | range |" in lines
    sgd, adam = (
        [part.strip() for part in line.split("|")[1:-1]]
        for line in lines
        if line.startswith(("| SGD", "| Adam"))
    )
    assert (sgd[0], sgd[4], adam[0], adam[1]) == ("SGD", "", "Adam", "")
    values = [float(text) for text in adam[2:5]]
    assert float(adam[5]) == pytest.approx(max(values) - min(values), abs=0.011)
    refused = samt_process("results", "dependence", "step", *place)
    assert (refused.code, "did you mean 'steps'" in refused.err) == (2, True)


def test_the_tables_of_the_documentation_are_those_of_the_results(tmp_path: Path) -> None:
    """`make suite` writes them; nobody types them."""
    root = Path(__file__).parents[2]
    page, results = root / "docs" / "how-to-choose.md", str(root / "docs" / "suite" / "results")
    copy = tmp_path / "page.md"
    copy.write_text(page.read_text())
    into = ("--results", results, "--into", str(copy))
    for command in (
        ("standing", "suite-*"),
        ("standing", "suite-*", "--of", "AutoSAMT told"),
        ("dependence", "initial-step"),
    ):
        assert samt_process("results", *command, *into).code == 0
    assert copy.read_text() == page.read_text()
