"""A run that was stopped, in any way, continues bit for bit."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from samt.bench.data import load
from samt.bench.method_specs import SOLVERS, parse_spec
from samt.bench.results import Record
from samt.bench.runs import Run
from samt.bench.settings import Settings

from .conftest import COMMAND, ENVIRONMENT, assert_same_run, checkpoint, samt_process


class StoppedError(Exception):
    """Stands for whatever ends a process."""


class StopAt:
    """Watches a run and ends it in the middle of an epoch, or not at all."""

    def __init__(self, epoch: int | None = None) -> None:
        self.at = epoch
        self.seen: list[int] = []

    def started(self, record: Record, epochs: int) -> None:
        self.seen.append(record.last.epoch)

    def step(self, epoch: int, steps: int, loss: float, step_sizes: dict[str, float]) -> None:
        if epoch == self.at:
            raise StoppedError

    def epoch(self, record: Record) -> None:
        self.seen.append(record.last.epoch)


METHODS = [
    "samt",
    "samt:step_size=row",
    "samt:step_size=column,relative=true",
    "samt:step_size=element,order=random",
    "samt:step_size=row,head=dense,inner_steps=2",
    "samt:meta_batch=next,order=cyclic",
    "samt:meta_batch=fresh,radius=2",
    "samt:meta_batch=same,blocks=1,weight_decay=0.01,max_grad_norm=1",
    "auto-samt",
    "sgd:momentum=0.9",
    "adam",
    "sgd-hd:lr=0.01,momentum=0.9,rule=multiplicative",
    "sgdn-hd:blocks=none",
    "adam-hd",
    "prodigy",
    "schedule-free",
    "dante:inner_iterations=2,normalized=false",
    "dante:fresh_batches=true",
    *SOLVERS,
]


@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize("stop", [1, 3])
def test_stopped_in_the_middle_of_an_epoch(
    tmp_path: Path, data_dir: Path, spec: str, stop: int
) -> None:
    settings = Settings(
        method=parse_spec(spec),
        data="mnist",
        model="mlp" if spec in SOLVERS else "cnn",
        hidden=(6,),
        dropout=0.0 if spec in SOLVERS else 0.3,
        epochs=4,
        batch_size=40,
        device="cpu",
        threads=1,
    )
    data = load("mnist", data_dir)
    whole = Run(settings, data, tmp_path / "whole").execute(StopAt())
    with pytest.raises(StoppedError):
        Run(settings, data, tmp_path / "stopped").execute(StopAt(stop))
    # Twice, and with epochs added later, so that also the resumed run is resumed.
    with pytest.raises(StoppedError):
        Run(settings, data, tmp_path / "stopped", resume=True).execute(StopAt(stop + 1))
    shorter = replace(settings, epochs=stop + 1)
    Run(shorter, data, tmp_path / "stopped", resume=True).execute(StopAt())
    watcher = StopAt()
    record = Run(settings, data, tmp_path / "stopped", resume=True).execute(watcher)
    assert watcher.seen == list(range(stop + 1, 5))
    assert (record.status, whole.status) == ("finished", "finished")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def started(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """A process that is never ahead of its reader by more than a page: some eighty epochs."""
    command = [*COMMAND, *(str(argument) for argument in arguments)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=pipe, stderr=pipe, bufsize=0)
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    return process


def epochs_until(process: subprocess.Popen[bytes], epoch: int) -> None:
    """Read the output until an epoch is reported."""
    assert process.stdout is not None
    for line in process.stdout:
        if f"epoch {epoch}/".encode() in line:
            return
    raise AssertionError(process.stderr.read() if process.stderr else "")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are ended with the test."""
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        process.kill()
        process.communicate()


SHARED = (
    *("--data", "mnist", "--hidden", "16", "--batch-size", "16"),
    *("--epochs", "100", "--threads", "1", "--device", "cpu"),
)
WITH_SAMT = ("--optimizer", "samt", "--step-size", "element", "--dropout", "0.2")


@pytest.mark.parametrize(
    "method",
    [WITH_SAMT, ("--optimizer", "sgdn-hd", "--dropout", "0.2"), ("--optimizer", "dladmm")],
    ids=["samt", "sgdn-hd", "dladmm"],
)
def test_killed_again_and_again(
    tmp_path: Path,
    data_dir: Path,
    processes: list[subprocess.Popen[bytes]],
    method: tuple[str, ...],
) -> None:
    arguments: tuple[str | Path, ...]
    arguments = ("train", *SHARED, *method, "--data-dir", data_dir, "--run-dir")
    assert samt_process(*arguments, tmp_path / "whole").code == 0
    for epoch in (4, 13):
        process = started(*arguments, tmp_path / "killed", "--resume")
        processes.append(process)
        epochs_until(process, epoch)
        time.sleep(0.013)  # somewhere inside an epoch or a checkpoint
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert epoch <= len(checkpoint(tmp_path / "killed")["metrics"]) - 1 < 100
    assert samt_process(*arguments, tmp_path / "killed", "--resume").code == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_ctrl_c_says_how_to_continue_and_that_works(
    tmp_path: Path, data_dir: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    shared = (*SHARED, *WITH_SAMT)
    arguments = ("train", *shared, "--data-dir", data_dir, "--run-dir", tmp_path / "run")
    process = started(*arguments)
    processes.append(process)
    epochs_until(process, 3)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 130
    assert len(err.splitlines()) == 1
    command = err.split("continue with: samt ")[1].split()
    # The words that it said, with the settings taken from the folder, and fewer epochs.
    outcome = samt_process(*command, "--epochs", str(len(checkpoint(tmp_path / "run")["metrics"])))
    assert outcome.code == 0, outcome
    assert "finished" in outcome.out
