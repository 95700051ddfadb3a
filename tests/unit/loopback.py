"""A web server on loopback, for tests of fetching."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Callable
from typing import Any

SOURCE = b"from headway import task\n"
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def send(
    handler: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, /, **headers: str
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    with contextlib.suppress(ConnectionError):  # the client may have heard enough
        handler.wfile.write(body)


def missing(handler: http.server.BaseHTTPRequestHandler) -> None:
    send(handler, b"", 404)


class Site:
    """A server on loopback; `answers` maps a path to what it does, `seen` holds the requests."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.seen.append((self.path, dict(self.headers)))
                site.answers.get(self.path, missing)(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that hang up are what several tests are about

        self.server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def redirect(self, path: str, target: str, status: int = 302) -> str:
        self.answers[path] = lambda h: send(h, b"", status, Location=target)
        return self.url + path

    def file(self, path: str, body: bytes = SOURCE, **headers: str) -> str:
        self.answers[path] = lambda h: send(h, body, **headers)
        return self.url + path

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
