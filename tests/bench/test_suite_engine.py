"""The suite's engine: methods, records, the store, the plan, and a runner that is killed."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from samt.bench import cli
from samt.bench.errors import ExperimentError, ResultsError, SettingsError
from samt.bench.suite import command
from samt.bench.suite.command import Wish
from samt.bench.suite.method import Value
from samt.bench.suite.methods import METHODS, method_named
from samt.bench.suite.plan import TUNING_SEEDS, Plan, entry, every_entry, tuning
from samt.bench.suite.record import Outcome, Settings
from samt.bench.suite.store import Store, export, load
from samt.bench.suite.training import points, train

from .suite_problems import BROKEN, EXPLODING, LINES, STEPS

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(problem="lines", method="sgd", options={"lr": 0.1, "momentum": 0.9})
OUTCOME = Outcome(final=0.5, diverged=False, steps=4, seconds=1.0, curve=((0, 2.0), (4, 0.5)))
DIVERGED = Outcome(final=math.nan, diverged=True, steps=1, seconds=0.1, curve=((0, 2.0),))


def test_the_identity_of_a_run_is_its_settings_and_stays() -> None:
    assert SETTINGS.identity == "cac75b06d240cf4ab8f8"
    other = {"momentum": 0.9, "lr": 0.1}
    assert SETTINGS.model_copy(update={"options": other}).identity == SETTINGS.identity
    again = Settings.model_validate_json(SETTINGS.model_dump_json())
    assert again.identity == SETTINGS.identity
    changes = {"seed": 1, "horizon": 2.0, "part": "validation", "version": 2, "problem": "b"}
    changed = [SETTINGS.model_copy(update={name: value}) for name, value in changes.items()]
    assert len({one.identity for one in (SETTINGS, *changed)}) == len(changes) + 1
    whole, real = (METHODS["sgd"].complete({"lr": lr}) for lr in (1, 1.0))
    assert whole == real
    assert type(whole["lr"]) is float


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_and_its_divergence_is_an_outcome(name: str) -> None:
    settings = Settings(problem="lines", method=name, options=METHODS[name].complete({}), horizon=5)
    outcome = train(settings, LINES, None)
    assert not outcome.diverged
    assert outcome.steps == 5 * STEPS
    assert outcome.curve[0][0] == 0
    assert outcome.curve[-1] == (5 * STEPS, outcome.final)
    first, last = outcome.curve[0][1], outcome.final
    assert first is not None
    assert last is not None
    assert last < first
    assert outcome.state_bytes
    assert train(settings, LINES, None).curve == outcome.curve
    exploded = train(settings, EXPLODING, None)
    assert exploded.diverged
    assert exploded.final is None
    assert exploded.steps == 10


def test_weights_that_are_no_numbers_are_a_divergence_whatever_the_metric_says() -> None:
    def make(seed: int, folder: Path | None) -> object:
        task = LINES.make(seed, folder)
        return replace(task, evaluate=lambda part: 90.0)

    problem = replace(LINES, make=make)  # type: ignore[arg-type]
    options = METHODS["sgd"].complete({"lr": 1e30})
    outcome = train(Settings(problem="lines", method="sgd", options=options), problem, None)
    assert outcome.diverged


def test_points_are_dense_at_first_and_end_with_the_last_step() -> None:
    assert points(4, "test") == [1, 2, 3, 4]
    assert points(1, "validation") == [1]
    every = points(2600, "test")
    assert every[:7] == [1, 2, 5, 10, 20, 50, 100]
    assert every[-1] == 2600
    assert len(every) == 32


def test_an_average_is_judged_and_training_goes_on_from_the_last_weights() -> None:
    model = nn.Linear(2, 1)
    stepper = METHODS["dog"].stepper(model, 10, {})
    stepper.step(model(torch.ones(3, 2)).square().mean())
    stepper.step(model(torch.ones(3, 2)).square().mean())
    last = model.weight.clone()
    stepper.eval()
    assert not torch.equal(model.weight, last)
    stepper.train()
    assert torch.equal(model.weight, last)


def test_the_head_and_embeddings_are_not_for_muon() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    muon, adamw = METHODS["muon"].stepper(model, 10, {}).optimizers
    assert [one.shape for one in muon.param_groups[0]["params"]] == [(4, 4)]
    assert len(adamw.param_groups[0]["params"]) == 4


def test_mistakes_have_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="unknown method 'adam'"):
        method_named("adam")
    with pytest.raises(SettingsError, match=r"rate of method 'sgd'.*lr, momentum, schedule"):
        entry("sgd:rate=1")
    with pytest.raises(SettingsError, match="'x' is no ablation of 'sgd'"):
        entry("sgd/x")
    with pytest.raises(SettingsError, match="cannot read 'lr'"):
        entry("sgd:lr")
    monkeypatch.setattr("samt.bench.suite.method.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'needs the package dog: pip install "samt\[peers\]"'):
        METHODS["dog"].check_installed()
    METHODS["adamw"].check_installed()
    with pytest.raises(ExperimentError, match=r"the suite has no 'line'.*lines"):
        Wish(problems=["line"]).plan({"lines": LINES})
    with pytest.raises(ExperimentError, match="no problem of the suite is left"):
        Wish(half="held-out").plan({"lines": LINES})


def test_options_are_read_from_the_command_line() -> None:
    read = entry("prodigy:safeguard_warmup=true,weight_decay=1e-2")
    assert read.options == {"safeguard_warmup": True, "weight_decay": 0.01}
    assert not read.tuned
    assert entry("sgd").tuned
    assert entry("adamw").horizons == (0.25, 0.5, 1.0, 2.0)
    assert entry("adamw", (1.0,)).horizons == (1.0,)
    assert {one.label for one in every_entry()} >= set(METHODS)


def outcomes(plan: Plan, known: dict[str, Outcome], scores: Mapping[Value, float]) -> int:
    """Give each run that is ready the score of its start; return how many there were."""
    ready = plan.ready(known)
    for identity, run in ready.items():
        score = scores[run.options["start"]]
        known[identity] = (
            OUTCOME.model_copy(update={"final": score}) if math.isfinite(score) else DIVERGED
        )
    return len(ready)


def test_options_are_chosen_on_three_seeds_of_the_validation_part() -> None:
    one = replace(entry("untuned"), horizons=(1.0, 2.0))
    plan = Plan({"lines": LINES}, [one])
    known: dict[str, Outcome] = {}
    scores: dict[Value, float] = {
        "adamw-constant": 3.0,
        "adamw-cosine": 1.0,
        "sgd-cosine": math.inf,
    }
    assert plan.undecided(known) == 3 * 2 + 4
    assert outcomes(plan, known, scores) == 3  # the grid
    assert plan.undecided(known) == 4
    assert outcomes(plan, known, scores) == 6  # two more seeds of the best three
    assert tuning("lines", one, known).chosen == {"start": "adamw-cosine"}
    assert plan.undecided(known) == 0
    final = plan.ready(known)
    assert {run.part for run in final.values()} == {"test"}
    assert {tuple(run.options.values()) for run in final.values()} == {("adamw-cosine",)}
    assert sorted((run.horizon, run.seed) for run in final.values()) == [
        (1, 0), (1, 1), (2, 0), (2, 1),
    ]  # fmt: skip
    assert outcomes(plan, known, scores) == 4
    assert plan.ready(known) == {}
    assert len(plan.wanted(known)) == 13
    assert {run.seed for run in plan.wanted(known).values() if run.part == "validation"} == {
        *TUNING_SEEDS
    }


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        *((0.03, []), (1.0, [3.0]), (3.0, [3.0, 10.0]), (1e-4, [1e-3, 3e-4, 1e-4, 3e-5])),
        (1e30, [float(f"{m}e{e}") for e in range(9) for m in (3, 10)][:16]),
    ],
)
def test_rates_beyond_the_grid_are_tried_while_the_best_is_at_its_edge(
    best: float, tried: list[float]
) -> None:
    plan = Plan({"lines": LINES}, [entry("sgd")], most_seeds=1)
    known: dict[str, Outcome] = {}
    while ready := plan.ready(known):
        for identity, run in ready.items():
            rate = run.options["lr"]
            assert isinstance(rate, float)
            score = abs(math.log(rate / best))
            known[identity] = OUTCOME.model_copy(update={"final": score})
    found = tuning("lines", entry("sgd"), known)
    rates = [one["lr"] for one in found.tried]
    assert rates == [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, *tried]
    assert found.chosen is not None
    assert found.chosen["lr"] == min(rates, key=lambda rate: abs(math.log(rate / best)))  # type: ignore[operator]
    assert len(known) == len(rates) + 3 * 2 + 1


def test_a_store_keeps_every_bit_and_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "suite.sqlite"
    with pytest.raises(ResultsError, match="there is no store"):
        Store(path)
    other = SETTINGS.model_copy(update={"seed": 1})
    with Store(path, writing=True) as store:
        store.add_failure(other, "no data")
        store.add(SETTINGS, OUTCOME, {"commit": "a"})
        store.add(SETTINGS, DIVERGED, {"commit": "b"})  # the first one stays
        assert store.failures() == [(other, "no data")]
        store.add(other, DIVERGED, {"commit": "a"})
        assert store.failures() == []
        with pytest.raises(ResultsError, match="another process is writing"):
            Store(path, writing=True)
        with Store(path) as reader:
            assert reader.rows()[SETTINGS.identity].outcome == OUTCOME
        for name in ("runs.jsonl", "runs.jsonl.gz"):
            assert export(store, tmp_path / name) == 2
            with Store(tmp_path / f"{name}.sqlite", writing=True) as copy:
                assert load(copy, tmp_path / name) == 2
                assert load(copy, path) == 2
                assert copy.rows() == store.rows()
        frame = store.frame().set_index("seed")
        store.forget([other.identity])
        assert list(store.rows()) == [SETTINGS.identity]
    assert frame.loc[0, "final"] == 0.5
    assert math.isnan(frame.loc[1, "final"])
    assert list(frame.diverged) == [bool(seed) for seed in frame.index]
    assert set(frame.commit) == {"a"}
    (tmp_path / "text.jsonl").write_text("{}")
    with (
        Store(path, writing=True) as store,
        pytest.raises(ResultsError, match=r"text\.jsonl cannot be read"),
    ):
        load(store, tmp_path / "text.jsonl")
    (tmp_path / "text.sqlite").write_text("no store at all, but a text of some length")
    with pytest.raises(ResultsError, match="cannot be used as a store"):
        Store(tmp_path / "text.sqlite")


def numbers(path: Path) -> dict[str, object]:
    """What must be equal whenever and wherever the runs of a store were made."""
    with Store(path) as store:
        return {
            identity: (row.settings, row.outcome.model_copy(update={"seconds": None}))
            for identity, row in store.rows().items()
        }


def test_a_run_that_fails_is_tried_again_and_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = {"lines": LINES, "broken": BROKEN}
    wish = Wish(methods=["adamw-fixed", "momo-adam"], seeds=1)
    assert command.run(wish, str(tmp_path), 1, tmp_path, False, problems) == 1
    assert "2 runs, 0 of them diverged, 2 failed" in capsys.readouterr().out
    path = command.store_path(str(tmp_path))
    with Store(path) as store:
        assert [run.problem for run, error in store.failures()] == ["broken", "broken"]
        assert "on another disk" in store.failures()[0][1]
    assert len((tmp_path / "runs.log").read_text().splitlines()) == 2
    problems["broken"] = replace(BROKEN, make=LINES.make)
    assert command.run(wish, str(tmp_path), 1, tmp_path, True, problems) == 0
    assert "4 runs, 2 to run (2 horizons), 0 more" in capsys.readouterr().out
    assert command.run(wish, str(tmp_path), 1, tmp_path, False, problems) == 0
    assert len((tmp_path / "runs.log").read_text().splitlines()) == 4
    with Store(path) as store:
        assert store.failures() == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_killed_runner_loses_nothing_that_ended_and_runs_nothing_twice(tmp_path: Path) -> None:
    methods, kept = ["untuned", "adamw-fixed"], command.store_path(str(tmp_path / "killed"))
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (first / "kill-the-runner-at").write_text("9")
    words = [str(tmp_path / "killed"), str(first), "2", *methods]
    killed = subprocess.run(
        [sys.executable, "-m", "tests.bench.suite_runner", *words], cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    workers = {int(line) for line in (first / "runs.log").read_text().splitlines()}
    assert len(workers) == 2
    # Processes of a runner that was killed end by themselves.
    left = [psutil.Process(one) for one in workers if psutil.pid_exists(one)]
    assert psutil.wait_procs(left, timeout=60)[1] == []
    before = numbers(kept)
    assert before

    problems = {one.name: one for one in (LINES, EXPLODING)}
    wish = Wish(methods=methods, horizons=(1.0,))
    for results, folder in ((tmp_path / "killed", second), (tmp_path / "whole", tmp_path)):
        assert command.run(wish, str(results), 1, folder, False, problems) == 0
    after = numbers(kept)
    assert len((second / "runs.log").read_text().splitlines()) == len(after) - len(before)
    assert len(after) == 2 * (3 + 3 * 2 + 2 + 2)
    assert after == numbers(command.store_path(str(tmp_path / "whole")))


def test_the_command_line_asks_for_parts_of_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    families = SimpleNamespace(PROBLEMS={"lines": LINES, "exploding": EXPLODING})
    monkeypatch.setitem(sys.modules, "samt.bench.suite.families", families)
    words = [
        "run",
        "suite",
        "--results",
        str(tmp_path),
        "--data-dir",
        str(tmp_path),
        "--half",
        "held-out",
        "--seeds",
        "1",
    ]
    words += ["--method", "adamw-fixed", "--method", "sgd:lr=0.5", "--horizon", "2", "--jobs", "1"]
    for extra, code in (["--dry-run"], 0), ([], 0), (["--family", "large"], 2):
        with pytest.raises(SystemExit) as exit_:
            cli.main([*words, *extra])
        assert exit_.value.code == code
    printed = capsys.readouterr()
    assert "2 runs, 2 to run (4 horizons), 0 more when" in printed.out
    assert "2 runs, 2 of them diverged, 0 failed" in printed.out
    assert "the suite has no 'large'" in printed.err
    with Store(command.store_path(str(tmp_path))) as store:
        runs = [row.settings for row in store.rows().values()]
    assert {(run.problem, run.horizon, run.part) for run in runs} == {("exploding", 2, "test")}
    assert {run.options["lr"] for run in runs} == {0.001, 0.5}
