"""A real HTTP server of files, which may break off midway."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Server:
    """What it serves, how it behaves, and what it was asked.

    Args:
        files: content by path.
        breaks: close the connection after this many bytes, once for each entry.
        asked: the paths that were asked for, in order.
        url: the address of the server.
    """

    files: dict[str, bytes]
    breaks: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve on a free port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            content = server.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            # Old servers call a .gz file an encoding of another: it must be kept as it is.
            self.send_header("Content-Encoding", "x-gzip")
            self.end_headers()
            if server.breaks:
                content = content[: server.breaks.pop(0)]
                self.close_connection = True
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Nothing on the terminal."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        server.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            running.shutdown()
            thread.join()
