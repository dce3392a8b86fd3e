"""A real HTTP server of files: with ranges, without, or one that breaks off midway."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from samt.bench.data.download import RemoteFile

CONTENT = np.random.default_rng(0).bytes(300_000)
_CHUNK = 1 << 16


@dataclass
class Server:
    """What it serves, how it behaves, and what it was asked.

    Args:
        files: content by path.
        ranges: answer requests for the rest of a file with the rest.
        breaks: close the connection after this many bytes, once for each entry.
        wrong_range: answer with a rest that starts elsewhere.
        moved: where a path is now, by path.
        tls: to speak https with.
    """

    files: dict[str, bytes]
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    wrong_range: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    sent: int = 0
    url: str = ""


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve on a free port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.asked.append((self.path, wanted))
            if self.path in server.moved:
                self.send_response(302)
                self.send_header("Location", server.moved[self.path])
                self.end_headers()
                return
            content = server.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int(wanted[6:-1]) if wanted and server.ranges else 0
            if wanted and start >= len(content):
                self.send_error(416)
                return
            if wanted and server.wrong_range:
                start = max(0, start - 5)
            self._send(content[start:], start, len(content))

        def _send(self, content: bytes, start: int, size: int) -> None:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content)))
            # Old servers call a .gz file an encoding of another: it must be kept as it is.
            self.send_header("Content-Encoding", "x-gzip")
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.end_headers()
            if server.breaks:
                content = content[: server.breaks.pop(0)]
                self.close_connection = True
            # Counted before: who has read the last byte may ask for the sum at once.
            for first in range(0, len(content), _CHUNK):
                server.sent += len(content[first : first + _CHUNK])
                self.wfile.write(content[first : first + _CHUNK])

        def log_message(self, *arguments: object) -> None:
            """Nothing on the terminal."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        if server.tls is not None:
            running.socket = server.tls.wrap_socket(running.socket, server_side=True)
        scheme = "https" if server.tls else "http"
        server.url = f"{scheme}://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            running.shutdown()
            thread.join()


def remote(*servers: Server, content: bytes = CONTENT) -> RemoteFile:
    """A file that servers offer as /data.gz."""
    urls = tuple(f"{one.url}/data.gz" for one in servers)
    return RemoteFile("set/data.gz", hashlib.sha256(content).hexdigest(), len(content), urls)
