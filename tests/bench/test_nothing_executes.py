"""Files are data: nothing in them runs, nothing leaves its place, nothing calls home."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from samt.bench.experiments.store import Store

from .conftest import ENVIRONMENT, Samt
from .data_files import Harmful, pictures, zip_bytes

_SMALL = "name: t\ndata: digits\nwidth: 4\nmethods: [sgd]\nbudget: {epochs: 1}\n"
_TRAIN = ("train", "--data", "digits", "--hidden", "4", "--epochs", "1", "--threads", "1")


def _checkpoint(trace: Path) -> bytes:
    """A file of torch.save whose pickle leaves a trace."""
    buffer = io.BytesIO()
    torch.save({"model": Harmful(trace)}, buffer)
    return buffer.getvalue()


def test_these_pickles_are_harmful(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    torch.load(io.BytesIO(_checkpoint(first)), weights_only=False)
    pickle.loads(pickle.dumps(Harmful(second)))
    assert first.exists()
    assert second.exists()


@pytest.mark.parametrize("name", ["checkpoint.pt", "settings.json"])
def test_a_pickle_in_a_run_folder_is_not_loaded(name: str, tmp_path: Path, samt_here: Samt) -> None:
    run, trace = tmp_path / "run", tmp_path / "was_run"
    assert samt_here(*_TRAIN, "--run-dir", run).code == 0
    harmful = _checkpoint(trace) if name.endswith(".pt") else pickle.dumps(Harmful(trace))
    (run / name).write_bytes(harmful)
    samt_here(*_TRAIN, "--run-dir", run, "--resume").is_user_error(name)
    assert not trace.exists()


def test_an_experiment_file_makes_no_objects(tmp_path: Path, samt_here: Samt) -> None:
    file, trace = tmp_path / "t.yaml", tmp_path / "was_run"
    file.write_text(_SMALL + f"title: !!python/object/apply:os.mkdir ['{trace}']\n")
    samt_here("run", file, "--dry-run").is_user_error("line 6, title")
    assert not trace.exists()


def test_the_checkpoint_of_a_cell_is_not_unpickled(tmp_path: Path, samt_here: Samt) -> None:
    file, results = tmp_path / "grid.yaml", tmp_path / "results"
    file.write_text(_SMALL)
    listed = samt_here("run", file, "--results", results, "--dry-run")
    identity = listed.out.split()[0]
    Store(str(results)).save_checkpoint(identity, _checkpoint(tmp_path / "was_run"))
    outcome = samt_here("run", file, "--results", results, "--jobs", "1")
    assert outcome.code == 0, outcome
    assert Store(str(results)).summaries()[identity]["status"] == "finished"
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("entry", ["../../train/cat/0.jpg", "/train/cat/0.jpg"])
def test_a_zip_stays_in_its_place(entry: str, tmp_path: Path, samt_here: Samt) -> None:
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    whole = pictures()
    (folder / "a.zip").write_bytes(zip_bytes({**whole, entry: whole["train/cat/0.jpg"]}))
    samt_here("data", "info", folder / "a.zip")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder / "a.zip"]


# Ends the process at the first look at the network, in whatever library.
_WATCHED = """
import os, sys
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") or (
        event in ("socket.connect", "socket.bind") and not isinstance(arguments[1], (str, bytes))
    ):
        os.write(2, f"network: {event} {arguments}".encode())
        os._exit(99)
sys.addaudithook(watch)
"""
_OFFLINE = """
import samt
from samt.bench.cli import main
for words in sys.argv[1].split("; "):
    try:
        main(words.split())
    except SystemExit as stopped:
        assert stopped.code == 0, words
"""


def test_no_command_but_prepare_uses_the_network(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(_SMALL)
    commands = [
        "data list",
        "data info digits",
        "data info kmnist",
        "train --data digits --epochs 1 --run-dir run",
        "run grid.yaml --jobs 1 --results results",
        "results show t --results results",
        "results export --results results -o cells.csv",
        "report results -o report --no-figures",
    ]
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED + _OFFLINE, "; ".join(commands)],
        env={**os.environ, **ENVIRONMENT},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "index.html").exists()


def test_the_watch_of_the_network_sees_it(tmp_path: Path) -> None:
    for look in ("requests.get('http://127.0.0.1:9')", "socket.getaddrinfo('localhost', 1)"):
        script = f"{_WATCHED}\nimport requests, socket\n{look}"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
        assert done.returncode == 99
