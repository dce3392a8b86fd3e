"""The run folder survives what happens to disks and processes."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samt.bench.atomic import write_atomically
from samt.bench.errors import CheckpointError, RunFolderError
from samt.bench.results import RunFolder

from .conftest import Samt, assert_same_run, checkpoint, samt_process
from .disks import mounted

TINY = ("--hidden", "8", "--threads", "1", "--device", "cpu", "--data", "mnist")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*(os, "fsync", fail) if step == "fsync" else (Path, "replace", fail))
    with pytest.raises(RunFolderError, match="free some space"):
        write_atomically(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A run of one epoch."""
    path = tmp_path_factory.mktemp("finished") / "run"
    outcome = samt_process(
        "train", *TINY, "--data-dir", data_dir, "--epochs", "1", "--run-dir", path
    )
    assert outcome.code == 0, outcome
    return path


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), cut=st.booleans())
def test_a_damaged_checkpoint_is_always_noticed(
    tmp_path: Path, finished_run: Path, data: st.DataObject, cut: bool
) -> None:
    whole = bytearray((finished_run / "checkpoint.pt").read_bytes())
    position = data.draw(st.integers(0, len(whole) - 1))
    if cut:
        del whole[position:]
    else:
        whole[position] ^= data.draw(st.integers(1, 255))
    (tmp_path / "checkpoint.pt").write_bytes(whole)
    record = json.loads((finished_run / "settings.json").read_text())
    try:
        payload = RunFolder(tmp_path).load(record)
    except CheckpointError:
        return
    # Bytes between the entries of the archive mean nothing; what is read must be right.
    expected = RunFolder(finished_run).load(record)
    assert repr(payload) == repr(expected)


def test_a_full_disk_is_one_line_and_the_previous_checkpoint_survives(
    tmp_path: Path, data_dir: Path, samt_here: Samt
) -> None:
    arguments = ("train", *TINY, "--data-dir", data_dir, "--epochs", "3", "--run-dir")
    assert samt_here(*arguments, tmp_path / "whole").code == 0
    size = (tmp_path / "whole" / "checkpoint.pt").stat().st_size

    disk = tmp_path / "disk"
    run = disk / "run"
    # Room for one checkpoint, but not for a second one beside it.
    with mounted(disk, f"size={size * 3 // 2}"):
        samt_here(*arguments, run).is_user_error("No space left", "--resume")
        assert len(checkpoint(run)["metrics"]) == 1
        assert not [entry for entry in run.iterdir() if entry.name.endswith(".tmp")]
        subprocess.run(["mount", "-o", f"remount,size={size * 9}", str(disk)], check=True)
        assert samt_here(*arguments, run, "--resume").code == 0
        assert_same_run(run, tmp_path / "whole")


def test_a_limit_on_file_size_is_one_line_and_the_previous_checkpoint_survives(
    finished_run: Path, data_dir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", finished_run, run], check=True)
    before = (run / "checkpoint.pt").read_bytes()
    limit = len(before) // 2
    outcome = samt_process(
        *("train", "--resume", "--epochs", "2", "--run-dir", run),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    outcome.is_user_error("no room", "--resume")
    assert (run / "checkpoint.pt").read_bytes() == before


def test_a_read_only_folder_is_one_line(tmp_path: Path, data_dir: Path, samt_here: Samt) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "ro"):
        outcome = samt_here("train", *TINY, "--data-dir", data_dir, "--run-dir", disk / "run")
        outcome.is_user_error("cannot write", "--run-dir")


def test_a_file_in_place_of_the_folder_is_one_line(
    tmp_path: Path, data_dir: Path, samt_here: Samt
) -> None:
    (tmp_path / "file").write_text("")
    arguments = ("train", *TINY, "--data-dir", data_dir, "--run-dir")
    samt_here(*arguments, tmp_path / "file").is_user_error("--run-dir")
    samt_here(*arguments, tmp_path / "file" / "run").is_user_error("--run-dir")
