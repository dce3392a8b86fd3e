"""Downloads over https: from those whose certificate is right, and never on to http."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from samt.bench.data.download import fetch
from samt.bench.errors import DataError

from .file_server import CONTENT, Server, remote, serving


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody else has signed, with its key."""
    assert shutil.which("openssl"), "no openssl on this machine: apt-get install openssl"
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key = path.with_name("key.pem")
    words = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {key} -out {path}"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*words.split(), *subject], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[Server]:
    """An https server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(Server({"/data.gz": CONTENT}, tls=context)) as server:
        yield server


@pytest.fixture
def _trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))


def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path, secure: Server) -> None:
    with pytest.raises(DataError, match=r"certificate|SSL") as error:
        fetch(remote(secure), tmp_path)
    assert "\n" not in str(error.value)
    assert not secure.asked


@pytest.mark.usefixtures("_trusted")
def test_a_certificate_that_is_trusted_is_enough(tmp_path: Path, secure: Server) -> None:
    secure.moved["/moved/data.gz"] = "/data.gz"
    secure.url += "/moved"
    assert fetch(remote(secure), tmp_path).read_bytes() == CONTENT


@pytest.mark.usefixtures("_trusted")
def test_a_move_from_https_to_http_is_refused(tmp_path: Path, secure: Server) -> None:
    with serving(Server({"/data.gz": CONTENT})) as plain:
        secure.moved["/data.gz"] = f"{plain.url}/data.gz"
        with pytest.raises(DataError, match="redirects to a place without TLS") as error:
            fetch(remote(secure), tmp_path)
        assert not plain.asked
    assert "\n" not in str(error.value)
    assert not (tmp_path / "set" / "data.gz").exists()
