"""A proxy on loopback that counts the requests which pass through it."""

from __future__ import annotations

import collections
import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

_REQUEST = re.compile(rb"^(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n", re.MULTILINE)


class Counting:
    """What was asked of the server behind the proxy.

    Attributes:
        endpoint: the proxy's URL.
        requests: "METHOD /path" of each, in the order in which they began.
    """

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def methods(self) -> dict[str, int]:
        """How many requests of each method there were."""
        return dict(collections.Counter(text.partition(" ")[0] for text in self.requests))

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._server.hostname, self._server.port))
            except OSError:
                return
            for source, target, counted in ((client, server, True), (server, client, False)):
                threading.Thread(
                    target=self._pass_on, args=(source, target, counted), daemon=True
                ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if counted:
                    # The client sends a request's head in one piece, which begins with its line.
                    for method, path in _REQUEST.findall(data):
                        with self._lock:
                            self.requests.append(f"{method.decode()} {path.decode()}")
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def counting(server: str) -> Iterator[Counting]:
    """A proxy in front of `server`, a URL."""
    proxy = Counting(server)
    try:
        yield proxy
    finally:
        proxy.close()
