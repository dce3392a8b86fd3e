"""The suite's report: cases that are worked out by hand, and what is written."""

from __future__ import annotations

import base64
import gzip
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from samt.bench import cli
from samt.bench.errors import ReportError
from samt.bench.suite import progress, scores, significance
from samt.bench.suite.block import Best, Block, number
from samt.bench.suite.compared import compared
from samt.bench.suite.methods import METHODS
from samt.bench.suite.plan import TUNING_SEEDS
from samt.bench.suite.publication import write_report
from samt.bench.suite.record import Outcome, Settings
from samt.bench.suite.report import blocks
from samt.bench.suite.store import Row, Store, export
from samt.bench.suite.summary import summary

from .suite_problems import LINES

INF, NAN = math.inf, math.nan
MADE = {"commit": "abcdef0123456789", "cpu": "a processor", "torch": "2.13"}


def table_of(finals: Mapping[str, Mapping[str, Sequence[float]]]) -> pd.DataFrame:
    """Runs by problem and label, with a final for each seed; one that is NaN diverged."""
    return pd.DataFrame(
        [
            {
                "problem": problem,
                "label": label,
                "horizon": 1.0,
                "seed": seed,
                "final": final,
                "diverged": math.isnan(final),
            }
            for problem, methods in finals.items()
            for label, values in methods.items()
            for seed, final in enumerate(values)
        ]
    )


RUNS = table_of(
    {
        "one": {"a": [1.0, 3.0], "b": [4.0, 4.0], "c": [2.0, 2.0]},
        "two": {"a": [1.0, 1.0], "b": [2.0, 2.0], "c": [NAN, 0.5]},
        "three": {"a": [0.0, 0.0], "b": [3.0, 3.0], "c": [1.0, 1.0]},
        "four": {"a": [1.0], "b": [1.0]},
    }
)


def test_means_and_ranks_keep_divergence_and_share_ties() -> None:
    cells = scores.cells(RUNS)
    assert cells.loc[("one", "a"), "mean"] == 2
    assert cells.loc[("one", "a"), "sd"] == pytest.approx(math.sqrt(2))
    assert cells.loc[("one", "a"), "se"] == pytest.approx(1)
    assert tuple(cells.loc[("two", "c"), ["n", "diverged", "mean"]]) == (2, 1, INF)
    wide = scores.means(cells, ["a", "b", "c"])
    assert list(wide.index) == ["one", "two", "three"]  # not all methods have four
    # one: a and c share 1 and 2; two: c is last; three: a, c, b.
    assert scores.mean_ranks(wide).round(6).to_dict() == {
        "a": pytest.approx((1.5 + 1 + 1) / 3),
        "b": pytest.approx((3 + 2 + 3) / 3),
        "c": pytest.approx((1.5 + 3 + 2) / 3),
    }


def test_an_ablation_is_compared_over_the_seeds_that_both_have() -> None:
    runs = table_of(
        {
            "one": {"a": [1.0, 3.0, 50.0], "b": [2.0, 4.0]},
            "two": {"a": [1.0]},
        }
    )
    cells = scores.cells(scores.on_common_seeds(runs, "b", "a"))
    assert cells["mean"].to_dict() == {("one", "a"): 2.0, ("one", "b"): 3.0}


def test_a_profile_counts_problems_within_a_factor_of_the_best() -> None:
    wide = scores.means(scores.cells(RUNS), ["a", "b", "c"])
    assert scores.ratios(wide).loc["one"].tolist() == [1, 2, 1]
    assert scores.ratios(wide).loc["two"].tolist() == [1, 2, INF]
    assert scores.ratios(wide).loc["three"].tolist() == [1, INF, INF]  # the best error is zero
    found = scores.profile(wide, [1.0, 2.0])
    assert found.loc[1.0].tolist() == pytest.approx([1, 0, 1 / 3])
    assert found.loc[2.0].tolist() == pytest.approx([1, 2 / 3, 1 / 3])


def test_leads_are_measured_by_the_standard_error_of_the_difference() -> None:
    found = scores.leads(scores.cells(RUNS), "a", "c")
    assert list(found) == ["one", "two", "three"]
    assert found["one"] == scores.Lead(0.0, 0.0, pytest.approx(1.0))  # type: ignore[arg-type]
    assert found["two"] == scores.Lead(-INF, -100.0, 0.0)
    assert found["three"] == scores.Lead(-1.0, -100.0, 0.0)
    back = scores.leads(scores.cells(RUNS), "c", "a")
    assert [one.holds for one in back.values()] == [True, False, False]
    assert back["two"].share == back["three"].share == INF


def curves(label: str, horizon: float, *found: Sequence[tuple[int, float | None]]) -> pd.DataFrame:
    """Runs of a method on one problem by their curves; a step takes 0.5 s, of `slow` 1 s."""
    rows = []
    for curve in found:
        steps = curve[-1][0]
        rows.append(
            {
                "problem": "p",
                "label": label,
                "horizon": horizon,
                "final": curve[-1][1],
                "diverged": curve[-1][1] is None,
                "steps": steps,
                "seconds": steps * (1.0 if label == "slow" else 0.5),
                "curve": tuple(curve),
            }
        )
    return pd.DataFrame(rows)


def test_steps_to_a_target_follow_the_averaged_curves() -> None:
    runs = pd.concat(
        [
            # Averaged: 10, 6, 4, so that 4 is the target, reached after 100 steps.
            curves("base", 1, [(0, 10.0), (50, 7.0), (100, 5.0)], [(0, 10.0), (50, 5.0), (100, 3)]),
            curves("fast", 1, [(0, 10.0), (50, 2.0), (100, 1.0)]),  # 4 at 50 · 6/8
            curves("slow", 1, [(0, 10.0), (50, 6.0), (100, 2.0)]),  # 4 after 75 steps
            curves("never", 1, [(0, 10.0), (50, 9.0), (100, 8.0)]),
            curves("never", 2, [(0, 10.0), (100, 9.0), (200, 1.0)]),  # nobody else has the time
            curves("bad", 1, [(0, 10.0), (50, 3.9), (100, 1.0)], [(0, 10.0), (7, None)]),
        ],
        ignore_index=True,
    )
    found = progress.targets(runs, "base")
    assert found["p", "base"] == progress.Target(1.0, 1.0, True)
    assert found["p", "fast"] == progress.Target(0.375, 0.375, True)
    assert found["p", "slow"] == progress.Target(0.75, 1.5, True)
    assert found["p", "never"] == progress.Target(2.0, 2.0, False)
    assert not found["p", "bad"].reached
    assert progress.targets(runs, "bad") == {}
    assert progress.geometric_mean(one.steps for one in found.values()) == pytest.approx(
        (1 * 0.375 * 0.75 * 2 * 2) ** 0.2
    )


def test_a_start_below_the_target_counts_as_one_step() -> None:
    runs = pd.concat(
        [curves("base", 1, [(0, 1.0), (100, 2.0)]), curves("slow", 1, [(0, 3.0), (100, 2.0)])],
        ignore_index=True,
    )
    assert progress.targets(runs, "base")["p", "slow"] == progress.Target(100.0, 200.0, True)
    assert progress.targets(runs, "base")["p", "base"].steps == 1


def test_pairs_are_compared_by_signs_and_by_ranks() -> None:
    finals = {
        f"p{index}": {"a": [1.0, 1.1], "b": [1.0 + index, 1.1 + index], "c": [1.0, 1.1]}
        for index in range(1, 7)
    }
    runs = table_of({**finals, "p7": {"a": [2.0, 2.1], "b": [1.0, 1.1], "c": [NAN, 1.0]}})
    cells = scores.cells(runs)
    found = significance.pair(cells, "a", "b")
    assert (found.wins, found.losses) == (6, 1)
    assert found.sign == pytest.approx(2 * (1 + 7) / 2**7)
    # Logarithms of 2.05/1.05 to 7.05/1.05, and of 2.05/1.05 the other way: the rank of that one
    # is shared with p1's, 1.5, so that the sum of the smaller side is 1.5.
    assert 0.02 < found.wilcoxon < 0.05
    same = significance.pair(cells, "a", "c")
    assert (same.wins, same.losses) == (1, 0)
    assert same.sign == 1
    assert significance.pair(cells, "a", "a") == significance.Pair(0, 0, 1.0, 1.0)


def test_welch_over_seeds_is_corrected_for_the_number_of_problems() -> None:
    clear = {"a": [1.0, 1.1, 0.9], "b": [5.0, 5.1, 4.9]}
    unclear = {"a": [1.0, 2.0, 3.0], "b": [1.5, 2.5, 3.5]}
    runs = table_of({"x": clear, "y": {"a": clear["b"], "b": clear["a"]}, "z": unclear})
    assert significance.welch(runs, "a", "b") == (["x"], ["y"])
    # p = 0.0214 alone, three times that with two more problems.
    near = {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}
    assert significance.welch(table_of({"n": near}), "a", "b") == (["n"], [])
    assert significance.welch(table_of({"n": near, "u": unclear, "v": unclear}), "a", "b") == (
        [],
        [],
    )
    assert significance.welch(table_of({"n": {"a": [1.0], "b": [2.0]}}), "a", "b") == ([], [])


PROBLEMS = {
    one.name: one
    for one in (
        replace(LINES, name="first", family="classic", metric="error in %"),
        replace(LINES, name="second", family="finetuning", chosen_on=False),
    )
}


def row(problem: str, method: str, final: float, **changes: object) -> Row:
    """A run that falls in a straight line from 10 to its end in 100 steps."""
    options = METHODS[method].complete(changes.pop("options", {}))  # type: ignore[arg-type]
    changes.setdefault("version", METHODS[method].version)
    settings = Settings(
        problem=problem,
        method=method,
        options=options,
        **changes,  # type: ignore[arg-type]
    )
    steps = round(100 * settings.horizon)
    bad = math.isnan(final)
    curve = ((0, 10.0), (steps // 2, (10 + final) / 2), (steps, final))
    outcome = Outcome(
        final=final, diverged=bad, steps=steps, seconds=steps, curve=curve, state_bytes=8.0
    )
    return Row(settings, outcome, MADE)


def stored() -> list[Row]:
    """Two problems: AdamW tuned, AutoSAMT, an ablation of it, Prodigy, which diverges once."""
    rows = []
    for problem in PROBLEMS:
        for options in METHODS["adamw"].grid:
            good = options == {"lr": 1e-3, "weight_decay": 0.1, "warmup": 0.0}
            rows += [
                row(
                    problem,
                    "adamw",
                    4.0 if good else 8.0,
                    seed=s,
                    part="validation",
                    options=options,
                )
                for s in TUNING_SEEDS
            ]
            rows += [
                row(problem, "adamw", 5.0 + s / 5 if good else 1.0, seed=s, options=options)
                for s in (0, 1)
            ]
        for seed in (0, 1):
            rows.append(row(problem, "auto-samt", 4.0, seed=seed))
            rows.append(row(problem, "auto-samt", 3.0, seed=seed, horizon=2.0))
            rows.append(row(problem, "auto-samt", 12.0, seed=seed, options={"meta_lr": 0.0}))
            rows.append(
                row(problem, "prodigy", NAN if seed and problem == "first" else 6.0, seed=seed)
            )
        rows.append(row(problem, "prodigy", 0.0, version=0))
    return rows


def test_the_report_says_what_the_runs_say() -> None:
    failed = Settings(problem="second", method="dog")
    found = compared(stored(), PROBLEMS, failures=[(failed, "Traceback\nno disk")])
    assert found.labels == ["auto-samt", "adamw", "prodigy"]
    assert found.ablations == ["auto-samt:meta_lr=0.0"]
    assert found.outdated == 2
    made = summary(found)
    ours, tuned, prodigy = made.lines
    assert [one.label for one in made.lines] == found.labels
    assert (ours.rank, tuned.rank, prodigy.rank) == (1, 2, 3)
    assert (tuned.tuning, ours.tuning, ours.copies) == (30, 0, 2)
    assert (ours.holds, prodigy.holds, ours.beside) == (2, 0, 2)
    assert ours.worst_points
    assert ours.worst_points[0] == pytest.approx(-1.1)
    assert prodigy.worst_points == (INF, "first")
    assert prodigy.worst_share
    assert prodigy.worst_share[0] == pytest.approx(100 * 0.9 / 5.1)
    assert ours.steps == pytest.approx(4.9 / 6)
    assert prodigy.missed == 2

    parts = {name: one.markdown() for name, one in blocks(found).items()}
    assert (
        "| first | error in % | chosen on | **4.00 ± 0.00** | 5.10 ± 0.14 | 1 of 2 div"
        in (parts["suite problems"])
    )
    assert (
        "| auto-samt | 1.00 | 1 of 1 |  | −21.57 (second) | 0.82 | 0.82 | 2.0 | 0 |"
        in (parts["suite summary, held out"])
    )
    assert "| auto-samt | 100 | 100 |" in parts["suite profile"]
    assert "Made with torch 2.13 on a processor." in parts["suite methods"]
    assert "| adamw | 2 | 0 | 0.500 | 0.500 |" in parts["suite tests"]
    assert (
        "auto-samt:meta_lr=0.0 | 3.000 | 2.45 | 0 | 2 | 0.500 | 2: first, second |"
        in (parts["suite ablations"])
    )
    assert "- first: 1 of 2 seeds diverged with prodigy" in parts["suite failures"]
    assert "- second: no outcome (no disk) with dog" in parts["suite failures"]
    assert "ends no better than it began with auto-samt:meta_lr=0.0" in parts["suite failures"]
    assert "| auto-samt:meta_lr=0.0 |" not in parts["suite fine-tuning"]
    assert "| auto-samt | −3.00 |" in parts["suite fine-tuning"]
    assert (
        "chosen on the validation parts of 1 problem, first. Held out: 1 problem, second"
        in (parts["suite methods"])
    )
    # Twice the horizon exists for one method alone.
    assert "2 runs of other versions of their methods are left out." in parts["suite summary"]
    with pytest.raises(ReportError, match="no run on the validation part is there: samt run"):
        compared([row("first", "prodigy", 1.0)], PROBLEMS, part="validation")


def test_pages_are_written_from_the_store_and_from_its_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(tmp_path / "suite.sqlite", writing=True) as store:
        for one in stored():
            store.add(*one)
        export(store, tmp_path / "runs.jsonl.gz")
    texts = []
    for name in ("suite.sqlite", "runs.jsonl.gz"):
        into, page = tmp_path / "page.md", tmp_path / "out" / "index.html"
        into.write_text("a\n<!-- suite problems -->\nold\n<!-- end of suite problems -->\nb\n")
        write_report(tmp_path / name, into, page, problems=PROBLEMS)
        texts.append((into.read_text(), page.read_text().replace(name, "")))
    assert texts[0] == texts[1]
    assert "old" not in texts[0][0]
    assert re.fullmatch(r"a\n<!-- suite problems -->\n\n\| problem .*\nb\n", texts[0][0], re.DOTALL)
    html = texts[0][1]
    packed = re.search(r'<script id="plotly" type="text/plain">([^<]*)</script>', html)
    assert packed is not None
    assert b"plotly.js" in gzip.decompress(base64.b64decode(packed[1]))[:200]
    assert len(html) < 3_000_000
    assert not re.search(r'(src|href)="http', html)
    assert html.count("<details>") == 2
    assert "commit abcdef0123" in html
    (tmp_path / "page.md").write_text("no mark")
    with pytest.raises(ReportError, match="has no mark such as <!-- suite summary -->"):
        write_report(tmp_path / "suite.sqlite", tmp_path / "page.md", None, problems=PROBLEMS)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(tmp_path / "absent.sqlite")])
    assert exit_.value.code == 2
    assert "there is no store" in capsys.readouterr().err


def test_the_page_on_choosing_has_marks_for_every_part() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to-choose.md").read_text(encoding="utf-8")
    begun, ended = (
        re.findall(rf"^<!-- {word}(suite .*) -->$", page, re.M) for word in ("", "end of ")
    )
    assert begun == ended
    assert len(set(begun)) == len(begun)
    parts = blocks(compared(stored(), PROBLEMS))
    assert {one for one in parts if "," not in one} <= set(begun) <= set(parts)


def test_a_block_escapes_what_is_no_markup_of_its_own() -> None:
    block = Block("t", ["a", "b"], [["<i>", Best("1 ± 2")]], ["note_"])
    assert block.markdown().splitlines()[2:] == ["| &#60;i&#62; | **1 ± 2** |", "", "note&#95;"]
    assert Block("t", notes=["x", "y"]).markdown() == "- x\n- y"
    assert [number(one) for one in (-0.004, -INF, 1234.5)] == ["−0.004", "−∞", "1234.50"]
