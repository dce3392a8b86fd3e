"""Run folders that are taken, removed, or not to be written, while a run goes on."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from samt.bench.atomic import write_atomically
from samt.bench.data import load
from samt.bench.errors import RunFolderError
from samt.bench.method_specs import parse_spec
from samt.bench.results import Record, RunFolder
from samt.bench.runs import Run
from samt.bench.settings import Settings

from .conftest import Samt, assert_same_run

WORDS = ("--data", "mnist", "--hidden", "4", "--threads", "1", "--device", "cpu", "--epochs", "2")


def test_a_second_process_in_a_run_folder_is_refused_until_the_first_one_is_gone(
    tmp_path: Path, data_dir: Path, samt_here: Samt
) -> None:
    run = tmp_path / "run"
    holds = (
        "import sys, time, pathlib; from samt.bench.results import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).taken(): print(flush=True); time.sleep(600)"
    )
    first = subprocess.Popen([sys.executable, "-c", holds, run], stdout=subprocess.PIPE)
    try:
        assert first.stdout is not None
        assert first.stdout.readline()
        train = ("train", *WORDS, "--data-dir", data_dir, "--run-dir", run)
        samt_here(*train).is_user_error("another process is training in", "--run-dir")
        assert list(run.iterdir()) == []
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert samt_here(*train).code == 0
    finally:
        first.kill()
        first.communicate()


class Removing:
    """Removes the folder of the run after its first epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def started(self, record: Record, epochs: int) -> None:
        """Not yet."""

    def step(self, epoch: int, steps: int, loss: float, step_sizes: dict[str, float]) -> None:
        """Not yet."""

    def epoch(self, record: Record) -> None:
        if self.folder.name == "removed":
            shutil.rmtree(self.folder)


def test_a_run_whose_folder_is_removed_ends_in_one_line_and_can_be_done_again(
    tmp_path: Path, data_dir: Path
) -> None:
    settings = Settings(parse_spec("sgd"), "mnist", hidden=(4,), epochs=2, device="cpu", threads=1)
    data, whole, removed = load("mnist", data_dir), tmp_path / "whole", tmp_path / "removed"
    Run(settings, data, whole).execute(Removing(whole))
    with pytest.raises(RunFolderError, match=r"cannot write .*removed.*--run-dir") as caught:
        Run(settings, data, removed).execute(Removing(removed))
    assert "\n" not in str(caught.value)
    assert not removed.exists()
    Run(settings, data, removed, resume=True).execute(Removing(whole))
    assert_same_run(removed, whole)


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()  # the one error of reading that root gets, too
    with pytest.raises(RunFolderError, match="cannot read") as caught:
        RunFolder(tmp_path).load({})
    assert "--overwrite" not in str(caught.value)


def test_what_a_killed_write_left_is_removed_and_what_is_being_written_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "table.csv"
    killed, current = (f".table.csv.{digit * 32}.tmp" for digit in "ab")
    others = [".table.csv.tmp", f".other.csv.{'c' * 32}.tmp", "table.csv.bak"]
    for name in (killed, current, *others):
        (tmp_path / name).write_bytes(b"half")
    with (tmp_path / current).open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        write_atomically(path, b"whole")
    left = {one.name for one in tmp_path.iterdir()}
    assert left == {"table.csv", current, *others}
    assert path.read_bytes() == b"whole"


def test_a_read_only_file_is_not_replaced() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, user = Path(name), os.geteuid()
        path = folder / "page.md"
        path.write_bytes(b"kept")
        path.chmod(0o444)
        folder.chmod(0o777)
        if user == 0:
            os.seteuid(65534)  # to root nothing is read-only
        try:
            with pytest.raises(RunFolderError, match="Permission denied"):
                write_atomically(path, b"new")
        finally:
            os.seteuid(user)
        assert path.read_bytes() == b"kept"
        assert list(folder.iterdir()) == [path]
