"""Downloads from a real server: whole and checked, or not there."""

from __future__ import annotations

import gzip
import hashlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samt.bench.data import DATASETS, load
from samt.bench.data.download import RemoteFile, fetch
from samt.bench.errors import DataError

from .conftest import Samt
from .file_server import Server, serving
from .idx_files import write_images

CONTENT = gzip.compress(np.random.default_rng(0).bytes(300_000), mtime=0)


@pytest.fixture
def server() -> Iterator[Server]:
    """One that serves `CONTENT` as /data.gz."""
    with serving(Server({"/data.gz": CONTENT})) as running:
        yield running


def remote(*servers: Server) -> RemoteFile:
    """A file that servers offer as /data.gz."""
    urls = tuple(f"{one.url}/data.gz" for one in servers)
    return RemoteFile("set/data.gz", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), urls)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "set").iterdir())


def test_a_file_arrives_as_it_is_stored(tmp_path: Path, server: Server) -> None:
    path = fetch(remote(server), tmp_path)
    assert path == tmp_path / "set" / "data.gz"
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["data.gz"]


def test_a_file_that_is_there_is_left_alone(tmp_path: Path, server: Server) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.gz").write_bytes(b"the user's own")
    assert fetch(remote(server), tmp_path).read_bytes() == b"the user's own"
    assert not server.asked


def test_what_breaks_off_is_tried_again(tmp_path: Path, server: Server) -> None:
    server.breaks = [100_000]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2
    assert names(tmp_path) == ["data.gz"]


def test_the_next_mirror_is_asked(tmp_path: Path, server: Server) -> None:
    with serving(Server({"/data.gz": CONTENT[:-1] + b"!"})) as other:
        assert fetch(remote(other, server), tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["data.gz"]


def test_a_wrong_file_is_refused_and_not_kept(tmp_path: Path, server: Server) -> None:
    server.files["/data.gz"] = CONTENT * 2
    with pytest.raises(DataError, match="its checksum is wrong") as error:
        fetch(remote(server), tmp_path)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == []


def test_no_server_at_all_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        file = replace(remote(), urls=(f"http://127.0.0.1:{taken.getsockname()[1]}/data.gz",))
        with pytest.raises(DataError, match="cannot download data") as error:
            fetch(file, tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_file_names_the_answer(tmp_path: Path, server: Server) -> None:
    server.files.clear()
    with pytest.raises(DataError, match="the server answers 404"):
        fetch(remote(server), tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, server: Server) -> None:
    (tmp_path / "set").write_bytes(b"a file in its place")
    with pytest.raises(DataError, match=r"cannot write .* --data-dir"):
        fetch(remote(server), tmp_path)


class TestPrepare:
    """`samt data prepare` with MNIST of a server of our own."""

    @pytest.fixture
    def mnist(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
        write_images(tmp_path / "served")
        files = {f"/{path.name}": path.read_bytes() for path in (tmp_path / "served").iterdir()}
        with serving(Server(files)) as server:
            remotes = []
            for file in DATASETS["mnist"].files:
                name = f"/{Path(file.path).name}"
                digest = hashlib.sha256(files[name]).hexdigest()
                remotes.append(
                    RemoteFile(file.path, digest, len(files[name]), (server.url + name,))
                )
            published = replace(DATASETS["mnist"], files=tuple(remotes))
            monkeypatch.setitem(DATASETS, "mnist", published)
            yield server

    def test_it_fetches_checks_and_shows(
        self, samt_here: Samt, mnist: Server, tmp_path: Path
    ) -> None:
        outcome = samt_here("data", "prepare", "mnist", "--data-dir", tmp_path / "data")
        assert (outcome.code, outcome.err) == (0, ""), outcome
        assert outcome.out.count("as published") == 4
        assert "96 samples" in outcome.out
        assert len(load("mnist", tmp_path / "data").train) == 96
        asked = len(mnist.asked)
        assert samt_here("data", "prepare", "mnist", "--data-dir", tmp_path / "data").code == 0
        assert len(mnist.asked) == asked

    def test_nothing_else_uses_the_network(
        self, samt_here: Samt, mnist: Server, tmp_path: Path
    ) -> None:
        samt_here("data", "info", "mnist", "--data-dir", tmp_path / "data")
        samt_here("data", "list", "--data-dir", tmp_path / "data")
        train = samt_here("train", "--data", "mnist", "--data-dir", tmp_path / "data")
        train.is_user_error("samt data prepare mnist")
        with pytest.raises(DataError):
            load("mnist", tmp_path / "data")
        assert not mnist.asked
        load("mnist", tmp_path / "data", download=True)
        assert len(mnist.asked) == 4

    def test_a_wrong_file_is_one_line(self, samt_here: Samt, mnist: Server, tmp_path: Path) -> None:
        mnist.files["/t10k-labels-idx1-ubyte.gz"] = b"something else"
        outcome = samt_here("data", "prepare", "mnist", "--data-dir", tmp_path / "data")
        outcome.is_user_error("cannot download t10k-labels-idx1-ubyte.gz", "try again")


@pytest.mark.parametrize("name", DATASETS)
def test_what_is_published_is_complete(name: str) -> None:
    entry = DATASETS[name]
    assert entry.source.startswith("https://")
    for file in entry.files:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.size > 0
        assert file.urls[0].startswith("https://")
        assert all(url.endswith("/" + Path(file.path).name) for url in file.urls)


@pytest.mark.parametrize("name", ["bike", "pol", "keggdirected", "keggundirected"])
def test_real_tables_are_the_published_files(real_data_dir: Path, name: str) -> None:
    for file in DATASETS[name].files:
        content = (real_data_dir / file.path).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file.sha256, file.size)
