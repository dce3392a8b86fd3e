"""Downloads from a real server: whole and checked, or not there."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from samt.bench.data import load
from samt.bench.data.catalogue import PUBLISHED
from samt.bench.data.download import RemoteFile, fetch
from samt.bench.errors import DataError

from .conftest import Samt
from .file_server import CONTENT, Server, remote, serving
from .grids import wait_until
from .idx_files import write_images


@pytest.fixture
def server() -> Iterator[Server]:
    """One that serves `CONTENT` as /data.gz."""
    with serving(Server({"/data.gz": CONTENT})) as running:
        yield running


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


def test_what_breaks_off_goes_on_where_it_stopped(tmp_path: Path, server: Server) -> None:
    server.breaks = [100_000, 70_000]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=170000-"]
    assert server.sent == len(CONTENT)


def test_an_earlier_process_that_was_stopped_is_continued(tmp_path: Path, server: Server) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.gz.part").write_bytes(CONTENT[:250_000])
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.sent == 50_000


@pytest.mark.parametrize("there", [b"x" * 1000, b"x" * 300_000, b"x" * 400_000])
def test_a_wrong_beginning_is_thrown_away(tmp_path: Path, server: Server, there: bytes) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.gz.part").write_bytes(there)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["data.gz"]


@pytest.mark.parametrize("odd", [{"ranges": False}, {"wrong_range": True}])
def test_servers_without_proper_ranges(tmp_path: Path, odd: dict[str, bool]) -> None:
    with serving(Server({"/data.gz": CONTENT}, breaks=[100_000], **odd)) as server:  # type: ignore[arg-type]
        assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["data.gz"]


def test_the_next_mirror_goes_on(tmp_path: Path, server: Server) -> None:
    with serving(Server({"/data.gz": CONTENT}, breaks=[200_000, 0, 0, 0])) as broken:
        assert fetch(remote(broken, server), tmp_path).read_bytes() == CONTENT
    assert server.sent == 100_000


def test_a_wrong_file_is_refused_and_kept_aside(tmp_path: Path, server: Server) -> None:
    wrong = CONTENT[:-1] + b"!" if CONTENT[-1:] != b"!" else CONTENT[:-1] + b"?"
    bad = re.escape(str(tmp_path / "set" / "data.gz.bad"))
    with serving(Server({"/data.gz": wrong})) as other:
        with pytest.raises(DataError, match=f"checksum is wrong, kept as {bad}") as error:
            fetch(remote(other), tmp_path)
        assert "\n" not in str(error.value)
        assert names(tmp_path)[1:] == ["data.gz.bad"]
        assert (tmp_path / "set" / "data.gz.bad").read_bytes() == wrong
        assert fetch(remote(other, server), tmp_path).read_bytes() == CONTENT


def test_a_server_that_sends_too_much_is_cut_short(tmp_path: Path) -> None:
    with (
        serving(Server({"/data.gz": CONTENT * 50})) as server,
        pytest.raises(DataError, match="checksum is wrong"),
    ):
        fetch(remote(server), tmp_path)
    assert (tmp_path / "set" / "data.gz.bad").stat().st_size == len(CONTENT) + 1


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
    with pytest.raises(DataError, match="cannot write"):
        fetch(remote(server), tmp_path)


def _fetch_slowly(url: str, folder: Path) -> None:
    fetch(RemoteFile("set/data.gz", "0" * 64, len(CONTENT), (url,)), folder)


def test_a_killed_download_leaves_what_arrived_and_no_lock(tmp_path: Path, server: Server) -> None:
    # A server that goes silent halfway: it accepts, sends a part, and keeps the connection.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.gz"
        process = multiprocessing.get_context("spawn").Process(
            target=_fetch_slowly, args=(url, tmp_path)
        )
        process.start()
        connection, _ = silent.accept()
        with connection:
            connection.recv(4096)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()
            connection.sendall(head + CONTENT[:200_000])
            part = tmp_path / "set" / "data.gz.part"
            wait_until(lambda: part.exists() and part.stat().st_size >= 100_000)
            with pytest.raises(DataError, match="another process is downloading"):
                fetch(remote(server), tmp_path)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
    assert not (tmp_path / "set" / "data.gz").exists()
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.sent < len(CONTENT)


class TestPrepare:
    """`samt data prepare` with MNIST of a server of our own."""

    @pytest.fixture
    def mnist(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
        write_images(tmp_path / "served")
        files = {f"/{path.name}": path.read_bytes() for path in (tmp_path / "served").iterdir()}
        with serving(Server(files)) as server:
            remotes = []
            for file in PUBLISHED["mnist"].files:
                content = files[f"/{Path(file.path).name}"]
                url = f"{server.url}/{Path(file.path).name}"
                digest = hashlib.sha256(content).hexdigest()
                remotes.append(RemoteFile(file.path, digest, len(content), (url,)))
            published = replace(PUBLISHED["mnist"], files=tuple(remotes))
            monkeypatch.setitem(PUBLISHED, "mnist", published)
            yield server

    def test_it_fetches_checks_and_shows(
        self, samt_here: Samt, mnist: Server, tmp_path: Path
    ) -> None:
        outcome = samt_here("data", "prepare", "mnist", "--data-dir", tmp_path / "data")
        assert outcome.code == 0, outcome
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_is_complete(name: str) -> None:
    published = PUBLISHED[name]
    assert published.source.startswith("https://")
    for file in published.files:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.size > 0
        assert file.urls[0].startswith("https://")
        assert all(url.endswith("/" + Path(file.path).name) for url in file.urls)


@pytest.mark.parametrize("name", ["bike", "pol", "keggdirected", "keggundirected"])
def test_real_tables_are_the_published_files(real_data_dir: Path, name: str) -> None:
    for file in PUBLISHED[name].files:
        content = (real_data_dir / file.path).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file.sha256, file.size)
