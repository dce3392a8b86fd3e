"""Numbers on the command line and in experiment files that nobody should write."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from samt.bench import cli
from samt.bench.errors import is_out_of_memory

from .conftest import Samt

HUGE = (str(10**20), str(10**400), "9" * 5000)
VALUES = ("-1", "0", "1e400", "nan", *HUGE, "", "١٢", "1_000")
_SAMT = ("train", "--optimizer", "samt:meta_batch=same")
_RUN = ("run", "{}/small.yaml", "--dry-run", "--results", "{}/results")
# The words of a command, and those of its options that take a number.
COMMANDS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("train",), ("--batch-size", "--hidden", "--dropout", "--lr", "--seed", "--threads")),
    (("train", "--data", "digits"), ("--weight-decay", "--blocks", "--model")),
    (_SAMT, ("--meta-lr", "--eta-hidden", "--inner-steps", "--radius", "--relative")),
    (_SAMT, ("--max-grad-norm",)),
    (("train",), ("--epochs",)),
    (("compare", "sgd"), ("--seeds",)),
    (_RUN, ("--jobs", "--threads", "--checkpoint")),
    (("data", "info", "digits"), ("--validation", "--split-seed")),
]
OPTIONS = [(words, option) for words, options in COMMANDS for option in options]
LONG = {"--epochs", "--seeds"}  # numbers that are possible would be trained
_EXPERIMENT = "name: t\ndata: digits\nmethods: [sgd]\n"
FIELDS = [
    *("width: [{}]", "seeds: {}", "seeds: [{}]", "batch_size: {}", "dropout: {}", "evaluate: {}"),
    *("validation: {}", "timeout: {}", "split: {}", "model: 'cnn:{}'"),
    *("tuning: {{seeds: {}}}", "methods: [{{method: sgd, options: {{lr: {}}}}}]"),
    *("budget: {{epochs: {}}}", "budget: {{passes: {}}}", "budget: {{seconds: {}}}"),
]


def assert_is_answered(samt: Samt, words: list[str]) -> None:
    """It is done, or refused in one line that fits a screen."""
    outcome = samt(*words)
    if outcome.code != 0:
        outcome.is_user_error()
        assert len(outcome.err) < 500, outcome.err


@pytest.mark.parametrize(("words", "option"), OPTIONS)
def test_any_number_for_an_option_is_taken_or_refused(
    samt_here: Samt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    option: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(_EXPERIMENT + "budget: {epochs: 0}\nwidth: [4]\n")
    for number, value in enumerate(VALUES):
        if option in LONG and value in {"١٢", "1_000"}:
            continue
        more = {option: f"cnn:{value}" if option == "--model" else value}
        if words[0] in {"train", "compare"}:
            run = {"--run-dir": str(number), "--epochs": "0", "--hidden": "4", "--threads": "1"}
            more = {**run, "--device": "cpu", **more}
        ending = [f"{name}={one}" for name, one in more.items()]
        assert_is_answered(samt_here, [word.format(tmp_path) for word in words] + ending)


@pytest.mark.parametrize("field", FIELDS)
def test_any_number_in_an_experiment_file_is_taken_or_refused(
    samt_here: Samt, tmp_path: Path, field: str
) -> None:
    path = tmp_path / "small.yaml"
    for value in (*VALUES, ".inf", ".nan", "1e308", "true"):
        lines = {line.split(":")[0]: line for line in _EXPERIMENT.splitlines()}
        written = field.format(value)
        lines = {"budget": "budget: {epochs: 0}", **lines, written.split(":")[0]: written}
        path.write_text("\n".join(lines.values()) + "\n")
        words = ["run", str(path), "--dry-run", "--results", str(tmp_path / "results")]
        assert_is_answered(samt_here, words)


@pytest.mark.parametrize(
    ("option", "value"),
    [*itertools.product(["--hidden", "--epochs", "--batch-size", "--seed", "--seeds"], HUGE)],
)
def test_a_number_that_no_machine_holds_is_refused(
    samt_here: Samt, tmp_path: Path, option: str, value: str
) -> None:
    run = ("--run-dir", tmp_path / "run", f"{option}={value}")
    samt_here("compare", "sgd", *run).is_user_error(option)
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_into_memory_is_one_line(
    samt_here: Samt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)  # beyond the addresses that there are

    monkeypatch.setattr(cli, "_load", load)
    samt_here("train").is_user_error("does not fit into memory", "--batch-size")
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
