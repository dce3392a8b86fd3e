"""Files of others are data: nothing in them runs, nothing leaves its place, nothing calls home."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from samt.bench.experiments.store import Store

from .attacks import ATTACKS
from .conftest import ENVIRONMENT, Samt
from .data_files import Harmful, cifar_files, pictures, tar_bytes, zip_bytes


def _checkpoint(trace: Path) -> bytes:
    """A file of torch.save whose pickle leaves a trace."""
    buffer = io.BytesIO()
    torch.save({"model": Harmful(trace)}, buffer)
    return buffer.getvalue()


def _npz(trace: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Harmful(trace), None], dtype=object), y=np.arange(2))
    return buffer.getvalue()


def _yaml(trace: Path) -> bytes:
    return f"name: !!python/object/apply:os.mkdir ['{trace}']\n".encode()


_HARMFUL: dict[str, Any] = {
    "run checkpoint": _checkpoint,
    "run settings": lambda trace: pickle.dumps(Harmful(trace)),
    "npz": _npz,
    "experiment": _yaml,
    "cifar10 archive": lambda trace: tar_bytes(
        {name: pickle.dumps(Harmful(trace)) for name in cifar_files()}, "cifar-10-batches-bin"
    ),
    "cell": lambda trace: pickle.dumps(Harmful(trace)),
    "curve": lambda trace: pickle.dumps(Harmful(trace)),
}


@pytest.mark.parametrize("name", _HARMFUL)
def test_a_pickle_in_the_place_of_a_file_is_not_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAMT_DATA_DIR", raising=False)
    trace, attack = tmp_path / "was_run", ATTACKS[name]
    attack.prepare(tmp_path).write_bytes(_HARMFUL[name](trace))
    for number in range(len(attack.commands)):
        attack.run(tmp_path, number)
    assert not trace.exists()


def test_those_pickles_are_harmful(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    torch.load(io.BytesIO(_checkpoint(first)), weights_only=False)
    pickle.loads(pickle.dumps(Harmful(second)))
    assert first.exists()
    assert second.exists()


def test_the_checkpoint_of_a_cell_is_not_unpickled(tmp_path: Path, samt_here: Samt) -> None:
    file, results = tmp_path / "grid.yaml", tmp_path / "results"
    file.write_text("name: t\ndata: digits\nwidth: 4\nmethods: [sgd]\nbudget: {epochs: 1}\n")
    listed = samt_here("run", file, "--results", results, "--dry-run")
    identity = listed.out.split()[0]
    Store(str(results)).save_checkpoint(identity, _checkpoint(tmp_path / "was_run"))
    outcome = samt_here("run", file, "--results", results, "--jobs", "1")
    assert outcome.code == 0, outcome
    assert Store(str(results)).summaries()[identity]["status"] == "finished"
    assert not (tmp_path / "was_run").exists()


_OUTSIDE = ["../../outside/0.jpg", "/outside/0.jpg", "train/cat/../../../outside/0.jpg"]
_WINDOWS = ["C:\\outside\\0.jpg", "..\\..\\outside\\0.jpg", "\\\\host\\outside\\0.jpg"]


@pytest.mark.parametrize("entry", [*_OUTSIDE, *_WINDOWS])
def test_a_zip_stays_in_its_place(entry: str, tmp_path: Path, samt_here: Samt) -> None:
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    whole = pictures()
    (folder / "a.zip").write_bytes(zip_bytes({**whole, entry: whole["train/cat/0.jpg"]}))
    outcome = samt_here("data", "info", folder / "a.zip")
    # A name that begins with a dot is passed over, as that of any hidden file.
    assert outcome.code == (0 if entry.startswith("..\\") else 2)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == [folder / "a.zip"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_an_archive_are_refused(
    kind: bytes, tmp_path: Path, samt_here: Samt
) -> None:
    extra = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    extra.type, extra.linkname = kind, "/etc/passwd"
    content = tar_bytes(cifar_files(count=1), "cifar-10-batches-bin", extra)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    samt_here("data", "info", "cifar10", "--data-dir", tmp_path).is_user_error("link or device")


def test_a_link_in_a_zip_is_refused(tmp_path: Path, samt_here: Samt) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zip_bytes(pictures()))
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("train/cat/link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    samt_here("data", "info", path).is_user_error("symbolic link")


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
    (tmp_path / "grid.yaml").write_text(
        "name: t\ndata: digits\nwidth: 4\nmethods: [sgd]\nseeds: 2\nbudget: {epochs: 1}\n"
    )
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
