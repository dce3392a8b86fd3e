"""The command line as people use it."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from pathlib import Path

import pytest
import torch

import samt
from samt.bench.cli import train
from samt.bench.method_specs import METHOD_OPTIONS
from samt.bench.methods import SamtMethod
from samt.bench.options import DEFAULT_METHODS
from samt.bench.results import EpochMetrics
from samt.bench.statistics import Spread
from samt.bench.training import Report, Trainer

from .conftest import Samt, checkpoint, samt_process
from .idx_files import write_images

FAST = ("--hidden", "8", "--threads", "1", "--device", "cpu", "--epochs", "2")


def plain(text: str) -> str:
    """What is written in and between the frames of a help page."""
    return " ".join(text.replace("│", " ").split())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_train_writes_settings_metrics_and_checkpoint(tmp_path: Path) -> None:
    outcome = samt_process(
        *("train", "--data", "digits", "--optimizer", "samt", "--step-size", "row", *FAST),
        cwd=tmp_path,
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert "epoch 2/2" in outcome.out
    run = tmp_path / "runs" / "digits-mlp-samt-step_size=row-seed0"
    settings = json.loads((run / "settings.json").read_text())
    assert settings["options"]["step_size"] == "row"
    assert settings["split_seed"] == 0
    table = rows(run / "metrics.csv")
    assert [row["epoch"] for row in table] == ["0", "1", "2"]
    assert table[0]["seconds"] == "0.0"
    assert float(table[2]["train_loss"]) < float(table[0]["train_loss"])
    assert 0.1 < float(table[2]["step_size[hidden1]"]) < 1
    assert float(table[2]["test_accuracy"]) == checkpoint(run)["metrics"][2]["test_metric"]
    assert table[2]["forward_passes"] == str(2 * int(table[1]["forward_passes"]))


def test_help_teaches(samt_here: Samt) -> None:
    for words in ((), ("--help",)):
        assert "compare" in samt_here(*words).out
    text = plain(samt_here("train", "--help").out)
    for word in ("--step-size", "[default: scalar]", "Examples", "SAMT_DATA_DIR", "--resume"):
        assert word in text
    text = plain(samt_here("compare", "--help").out)
    assert f"without any: {' '.join(DEFAULT_METHODS)}." in text


def test_help_names_the_step_size_of_every_method_that_has_one(samt_here: Samt) -> None:
    text = plain(samt_here("train", "--help").out)
    defaults = text.partition("--lr FLOAT")[2].partition("default: ")[2].partition("]")[0]
    named = {
        name: float(lr)
        for lr, names in re.findall(r"([\d.]+) for ([^;]+)", defaults)
        for name in names.split(", ")
    }
    has_one = {name: one["lr"].default for name, one in METHOD_OPTIONS.items() if "lr" in one}
    assert named == has_one


def test_the_version(samt_here: Samt) -> None:
    outcome = samt_here("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"samt {samt.__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "page"),
    [
        ("train --step-sise row", "samt train --help"),
        ("train surplus", "samt train --help"),
        ("data info", "samt data info --help"),
        ("results show --metrics best one", "samt results show --help"),
        ("trian", "samt --help"),
        ("--versoin", "samt --help"),
    ],
)
def test_a_mistake_names_the_page_that_helps(samt_here: Samt, command: str, page: str) -> None:
    samt_here(*command.split()).is_user_error(f"(see {page})")


def test_the_examples_of_train_fit_each_other(
    samt_here: Samt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = [line.split()[1:] for line in (train.__doc__ or "").splitlines() if "--" in line]
    first, again = examples[0], next(one for one in examples if "--resume" in one)
    assert samt_here(*first, *FAST).code == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert samt_here(*again, "--epochs", "3").code == 0
    assert list((tmp_path / "runs").iterdir()) == [run]
    assert len(checkpoint(run)["metrics"]) == 4


BAD_WORDS = [
    ("train --data digit", "did you mean 'digits'"),
    ("train --data mnist", "--data-dir"),
    ("train --data mnist --data-dir {tmp}", "https://"),
    ("train --optimizer sgd --lr -1", "lr=-1"),
    ("train --optimizer sgd --lr nan", "lr=nan"),
    ("train --lr 0.1", "method 'auto-samt' has no options"),
    ("train --optimizer samt --meta-lr -1", "meta_lr=-1"),
    ("train --step-sise row", "--step-size"),
    ("train --optimizer samt --step-size rows", "did you mean 'row'"),
    ("train --optimizer sgdd", "did you mean 'sgd'"),
    ("train --optimizer sgd --step-size row", "choose from 'lr'"),
    ("train --optimizer sgd:nesterov=true", "momentum=0.9"),
    ("train --model resnet", "did you mean 'resnet18'"),
    ("train --data diabetes --model cnn", "--model mlp"),
    ("train --optimizer dladmm --model cnn", "--model mlp"),
    ("train --optimizer dladmm --dropout 0.1", "--dropout 0"),
    ("train --optimizer dladmm:rho=0", "rho must be"),
    ("compare sgd dladmm:lr=1", "no option 'lr'"),
    ("train --optimizer samt --blocks 7", "from 1 to 2"),
    ("train --hidden 3,x", "512,512"),
    ("train --hidden 0", "widths of 1 or more"),
    ("train --epochs many", "--epochs"),
    ("train --epochs -1", "0 or more"),
    ("train --batch-size 0", "1 or more"),
    ("train --dropout 1", "below 1"),
    ("train --seed -1", "from 0"),
    ("train --threads 0", "1 or more"),
    ("train --device tpu9", "--device cpu"),
    ("train --resume --overwrite", "choose one"),
    ("train surplus", "surplus"),
    ("trian", "train"),
    ("compare samt:stepsize=row", "did you mean 'step_size'"),
    ("compare samt samt", "remove one"),
    ("compare sgd:lr=0.1 sgd:lr=-0.1", "lr=-0.1"),
    ("compare --seeds 0", "1 or more"),
    ("run suite table2", "the suite runs by itself"),
    ("run suite --threads 4", "'samt run suite' has no --threads"),
    ("run suite --device cuda", "'samt run suite' has no --device"),
    ("run table2 --problem mnist", "only 'samt run suite' has --problem"),
]


@pytest.mark.parametrize(("command", "words"), BAD_WORDS)
def test_a_mistake_is_one_line_and_code_2(
    samt_here: Samt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    samt_here(*command.format(tmp=tmp_path).split()).is_user_error(words)
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = ("train", "--optimizer", "sgd", "--lr", "nan")
    samt_process(*command, cwd=tmp_path).is_user_error("lr=nan")


def test_damaged_data_is_one_line(samt_here: Samt, tmp_path: Path) -> None:
    write_images(tmp_path / "mnist")
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    command = ("train", "--data", "mnist", "--data-dir", tmp_path, "--run-dir", tmp_path / "run")
    samt_here(*command).is_user_error("train-images", "again")
    assert not (tmp_path / "run").exists()


def test_a_message_with_line_breaks_is_still_one_line(samt_here: Samt) -> None:
    samt_here("train", "--data", "two\nlines").is_user_error("two lines")


class TestRunFolder:
    """What happens to a folder that holds a run."""

    @pytest.fixture
    def train(self, samt_here: Samt, data_dir: Path, tmp_path: Path) -> Samt:
        run = ("train", "--data", "mnist", "--data-dir", data_dir, *FAST)

        def train(*arguments: str) -> object:
            return samt_here(*run, "--run-dir", tmp_path / "run", *arguments)

        assert train("--optimizer", "samt", "--lr", "0.2").code == 0  # type: ignore[attr-defined]
        return train  # type: ignore[return-value]

    def test_is_not_touched_without_a_flag(self, train: Samt, tmp_path: Path) -> None:
        before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
        train().is_user_error("--resume", "--overwrite")
        assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before

    def test_other_settings_are_named(self, train: Samt) -> None:
        outcome = train("--resume", "--lr", "0.3", "--seed", "4", "--step-size", "row")
        outcome.is_user_error("lr (0.2, not 0.3)", "seed (0, not 4)", "step_size (scalar, not row)")
        train("--resume", "--optimizer", "adam").is_user_error("method (samt, not adam)")

    def test_other_data_are_noticed(self, train: Samt, tmp_path: Path) -> None:
        write_images(tmp_path / "other" / "mnist", train=97)
        outcome = train("--resume", "--data-dir", str(tmp_path / "other"))
        outcome.is_user_error("data_sha256")

    def test_resume_takes_what_is_not_written_from_the_run(
        self, train: Samt, samt_here: Samt, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        assert samt_here("train", "--run-dir", run, "--resume", "--epochs", "3").code == 0
        assert len(checkpoint(run)["metrics"]) == 4
        assert json.loads((run / "settings.json").read_text())["options"]["lr"] == 0.2

    def test_overwrite_replaces_the_run_and_nothing_else(self, train: Samt, tmp_path: Path) -> None:
        run = tmp_path / "run"
        (run / "notes.txt").write_text("mine")
        assert train("--overwrite", "--epochs", "1").code == 0
        assert len(checkpoint(run)["metrics"]) == 2
        assert (run / "notes.txt").read_text() == "mine"

    def test_settings_of_another_program_are_never_replaced(
        self, train: Samt, tmp_path: Path
    ) -> None:
        settings = tmp_path / "run" / "settings.json"
        settings.write_text('{"editor.fontSize": 12}')
        for flags in (("--overwrite",), ("--resume",), ()):
            train(*flags).is_user_error("not written by samt")
        assert "fontSize" in settings.read_text()

    @pytest.mark.parametrize("keep", [0, 0.5])
    def test_half_a_checkpoint_names_the_cure(
        self, train: Samt, tmp_path: Path, keep: float
    ) -> None:
        path = tmp_path / "run" / "checkpoint.pt"
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])
        train("--resume").is_user_error("damaged", "--overwrite")
        assert train("--overwrite").code == 0

    def test_the_checkpoint_of_another_run_is_refused(self, train: Samt, tmp_path: Path) -> None:
        other = (tmp_path / "run" / "checkpoint.pt").read_bytes()
        assert train("--overwrite", "--optimizer", "sgd", "--lr", "0.4").code == 0
        (tmp_path / "run" / "checkpoint.pt").write_bytes(other)
        train("--resume").is_user_error("another run", "lr (0.2, not 0.4)")

    def test_a_pickle_with_code_is_not_executed(self, train: Samt, tmp_path: Path) -> None:
        torch.save({"code": os.system}, tmp_path / "run" / "checkpoint.pt")
        train("--resume").is_user_error("damaged")


def test_a_diverged_run_is_code_1_and_its_row_is_nan(
    samt_here: Samt, data_dir: Path, tmp_path: Path
) -> None:
    run = ("train", "--data", "mnist", "--data-dir", data_dir, *FAST, "--run-dir", tmp_path / "run")
    outcome = samt_here(*run, "--optimizer", "sgd", "--lr", "1e29")
    assert outcome.code == 1
    assert "diverged" in outcome.out
    assert math.isnan(float(rows(tmp_path / "run" / "metrics.csv")[-1]["test_accuracy"]))
    assert "diverged in epoch 1: the checkpoint keeps the weights of epoch 0" in outcome.out
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert saved["status"] == "diverged"
    assert all(weight.isfinite().all() for weight in saved["model"].values())
    again = samt_here("train", "--run-dir", tmp_path / "run", "--resume")
    assert again.code == 1


def compare(samt_here: Samt, data_dir: Path, path: Path, *more: str) -> str:
    command = ("compare", "--data", "mnist", "--data-dir", data_dir, *FAST, "--run-dir", path)
    outcome = samt_here(*command, *more)
    assert outcome.code == 0, outcome
    return outcome.out


def test_compare_prints_a_table_and_writes_picture_and_csv(
    samt_here: Samt, data_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    out = compare(samt_here, data_dir, path, "--seeds", "2", "samt", "sgd:lr=0.3", "sgd:lr=1e29")
    assert "diverged" in out
    assert (path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    table = rows(path / "comparison.csv")
    assert [row["method"] for row in table] == ["samt", "sgd:lr=0.3", "sgd:lr=1e29"]
    assert [row["status"] for row in table] == ["finished", "finished", "diverged 2/2"]
    assert [row["seeds"] for row in table] == ["2", "2", "2"]
    assert table[1]["forward_passes_per_step"] == "1.0"
    assert float(table[0]["forward_passes_per_step"]) >= 2
    assert math.isnan(float(table[2]["final_test_accuracy_mean"]))

    finals = [
        float(rows(path / f"sgd-lr=0.3-seed{seed}" / "metrics.csv")[-1]["test_accuracy"])
        for seed in (0, 1)
    ]
    mean, deviation = sum(finals) / 2, abs(finals[0] - finals[1]) / math.sqrt(2)
    assert float(table[1]["final_test_accuracy_mean"]) == pytest.approx(mean)
    assert float(table[1]["final_test_accuracy_deviation"]) == pytest.approx(deviation)


def test_compare_starts_all_methods_from_the_same_loss(
    samt_here: Samt, data_dir: Path, tmp_path: Path
) -> None:
    compare(samt_here, data_dir, tmp_path / "run", "samt", "samt:step_size=row", "sgd", "adam")
    first = {rows(path)[0]["train_loss"] for path in tmp_path.glob("run/*/metrics.csv")}
    assert len(first) == 1
    assert len(list(tmp_path.glob("run/*/metrics.csv"))) == 4


def test_compare_of_methods_with_and_without_step_sizes(
    samt_here: Samt, data_dir: Path, tmp_path: Path
) -> None:
    methods = ["sgdn-hd", "dante", "dladmm"]
    out = compare(samt_here, data_dir, tmp_path / "run", *methods)
    assert "0 + 0" in out
    table = rows(tmp_path / "run" / "comparison.csv")
    assert [row["method"] for row in table] == methods
    assert all(0 <= float(row["final_test_accuracy_mean"]) <= 1 for row in table)
    alone = compare(samt_here, data_dir, tmp_path / "alone", "dladmm")
    assert "step size" not in alone
    assert (tmp_path / "alone" / "comparison.png").exists()


def test_compare_resumes_without_running_finished_methods_again(
    samt_here: Samt, data_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    compare(samt_here, data_dir, path, "sgd", "adam")
    before = {run: run.stat().st_mtime_ns for run in path.glob("*/checkpoint.pt")}
    table = (path / "comparison.csv").read_text()
    compare(samt_here, data_dir, path, "sgd", "adam", "--resume")
    assert {run: run.stat().st_mtime_ns for run in path.glob("*/checkpoint.pt")} == before
    assert (path / "comparison.csv").read_text() == table
    compare(samt_here, data_dir, path, "sgd", "adam", "samt", "--resume")
    assert len(rows(path / "comparison.csv")) == 3


def test_compare_refuses_before_it_starts(samt_here: Samt, data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    compare(samt_here, data_dir, path, "adam")
    command = ("compare", "--data", "mnist", "--data-dir", data_dir, *FAST, "--run-dir", path)
    samt_here(*command, "sgd", "adam").is_user_error("--resume")
    assert not (path / "sgd-seed0").exists()


def test_ctrl_c_in_compare_is_one_line_and_resumable(
    samt_here: Samt, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    command = ("compare", "--data", "mnist", "--data-dir", data_dir, *FAST, "--run-dir", path)

    def interrupted(self: Trainer, epoch: int, report: Report) -> EpochMetrics:
        if epoch == 2 and isinstance(self.method, SamtMethod):
            raise KeyboardInterrupt
        return train_epoch(self, epoch, report)

    train_epoch = Trainer.train_epoch
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", interrupted)
        outcome = samt_here(*command, "sgd", "samt")
    assert outcome.code == 130
    assert len(outcome.err.splitlines()) == 1
    assert "--resume" in outcome.err
    assert samt_here(*command, "sgd", "samt", "--resume").code == 0
    assert [row["status"] for row in rows(path / "comparison.csv")] == ["finished", "finished"]


def test_one_diverged_seed_is_not_averaged_away() -> None:
    spread = Spread.of([0.9, math.nan, 0.92])
    assert math.isnan(spread.mean)
    assert math.isnan(spread.deviation)


def test_regression_is_measured_as_rmse(samt_here: Samt, tmp_path: Path) -> None:
    outcome = samt_here(
        *("compare", "--data", "diabetes", *FAST, "--run-dir", tmp_path / "run", "sgd:lr=0.01")
    )
    assert outcome.code == 0
    table = rows(tmp_path / "run" / "comparison.csv")[0]
    assert 40 < float(table["final_test_rmse_mean"]) < 100
    assert float(table["best_test_rmse_mean"]) <= float(table["final_test_rmse_mean"])
