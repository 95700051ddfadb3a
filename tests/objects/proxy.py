"""An HTTP proxy on loopback that loses, delays and spoils what passes between a client and a store.

It knows nothing of storage: a fault is chosen for each request by whoever makes the proxy, and each fault
that happened is counted. Every request gets a connection of its own to the store.
"""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

LONG = 20.0  # seconds; nobody waits that long for a fault


class Fault(enum.Enum):
    """What becomes of a request."""

    NONE = "passes"
    LOSE_REQUEST = "the request is lost, the connection is closed"
    LOSE_REPLY = "the store acts, the reply is lost, the connection is closed"
    SLOW_REQUEST = "the store gets the request only after the client gave it up"
    SLOW_REPLY = "the store acts at once, the reply comes after the client gave it up"
    HELD = "the connection is closed, the store gets the request when it is released"
    FREEZE = "nothing happens until the client gives up"
    DELAY = "everything takes a while"
    CUT_REQUEST = "the connection breaks in the middle of the request"
    CUT_REPLY = "the store acts, the connection breaks in the middle of the reply"
    REFUSE = "503, and the store never sees the request"
    SPOIL = "the store acts, and the reply is 500"

    def __repr__(self) -> str:
        return self.name


@dataclass
class Request:
    """A request as it came.

    Attributes:
        index: which one it is, from 0.
        method, path: of its first line.
        raw: all of it.
        size: bytes of its body.
    """

    index: int
    method: str
    path: str
    raw: bytes = field(repr=False)
    size: int = 0


Choose = Callable[[Request], Fault]


class FaultProxy:
    """Stands between a client and the store at `upstream` (host, port).

    Attributes:
        choose: says what becomes of a request; may be changed at any time.
        requests: all that came.
        happened: how often each fault did happen.
        endpoint: where the client finds it.
    """

    def __init__(self, upstream: tuple[str, int], choose: Choose | None = None) -> None:
        self.choose: Choose = choose or (lambda _: Fault.NONE)
        self.requests: list[Request] = []
        self.happened: Counter[Fault] = Counter()
        self._upstream = upstream
        self._held: list[bytes] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._spawn(self._accept)

    def close(self) -> None:
        """Stop, and wait until nothing is in flight."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(LONG)

    def release(self) -> int:
        """Let the store have what was held back, in the order in which it came; returns how many."""
        with self._lock:
            held, self._held = self._held, []
        for raw in held:
            self._forward(raw)
        return len(held)

    def _spawn(self, call: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=call, args=arguments, daemon=True)
        with self._lock:
            self._threads = [old for old in self._threads if old.is_alive()]
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(LONG)
        with client, contextlib.suppress(OSError):
            raw = self._receive(client)
            if raw is None:
                return
            method, path = raw.split(b" ", 2)[:2]
            size = len(raw) - raw.index(b"\r\n\r\n") - 4
            with self._lock:
                request = Request(len(self.requests), method.decode(), path.decode(), raw, size)
                self.requests.append(request)
                fault = self.choose(request)
            self._act(fault, request, client)

    def _receive(self, client: socket.socket) -> bytes | None:
        data = b""
        while b"\r\n\r\n" not in data:
            # A connection that is kept for later and never used must not keep `close` waiting.
            while not select.select([client], [], [], 0.05)[0]:
                if self._closed.is_set():
                    return None
            piece = client.recv(65536)
            if not piece:
                return None
            data += piece
        head = data[: data.index(b"\r\n\r\n") + 4]
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body = bytearray(data[len(head) :])
        while len(body) < length:
            piece = client.recv(1 << 20)
            if not piece:
                return None
            body += piece
        return head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + bytes(body)

    def _act(self, fault: Fault, request: Request, client: socket.socket) -> None:
        raw = request.raw
        if fault is Fault.NONE:
            client.sendall(self._forward(raw))
            return
        self.happened[fault] += 1
        if fault is Fault.LOSE_REPLY:
            self._forward(raw)
        elif fault is Fault.SLOW_REQUEST:
            self._until_gone(client)
            self._forward(raw)
        elif fault is Fault.SLOW_REPLY:
            reply = self._forward(raw)
            self._until_gone(client)
            client.sendall(reply)
        elif fault is Fault.HELD:
            with self._lock:
                self._held.append(raw)
        elif fault is Fault.FREEZE:
            self._until_gone(client)
        elif fault is Fault.DELAY:
            time.sleep(0.1)
            reply = self._forward(raw)
            time.sleep(0.1)
            client.sendall(reply)
        elif fault is Fault.CUT_REQUEST:
            with socket.create_connection(self._upstream, LONG) as store:
                store.sendall(raw[: len(raw) - max(1, request.size // 2)])
                _reset(store)
        elif fault is Fault.CUT_REPLY:
            reply = self._forward(raw)
            client.sendall(reply[: len(reply) * 2 // 3])
        elif fault is Fault.REFUSE:
            client.sendall(_error(503, "SlowDown"))
        elif fault is Fault.SPOIL:
            self._forward(raw)
            client.sendall(_error(500, "InternalError"))
        if fault not in {Fault.DELAY, Fault.REFUSE, Fault.SPOIL}:
            _reset(client)

    def _until_gone(self, client: socket.socket) -> None:
        end = time.monotonic() + LONG
        while time.monotonic() < end and not self._closed.is_set():
            if select.select([client], [], [], 0.05)[0]:
                return  # it is closed: nobody sends two requests at once

    def _forward(self, raw: bytes) -> bytes:
        with socket.create_connection(self._upstream, LONG) as store:
            store.sendall(raw)
            pieces = []
            while piece := store.recv(1 << 20):
                pieces.append(piece)
        return b"".join(pieces)


def _reset(connection: socket.socket) -> None:
    """Close with a reset, as a cut connection looks."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _error(status: int, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>planted</Message></Error>".encode()
    head = f"HTTP/1.1 {status} Planted\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


@contextlib.contextmanager
def faults(upstream: str, choose: Choose | None = None) -> Iterator[FaultProxy]:
    """A proxy before the store at a URL, for the time of a block."""
    host, _, port = upstream.partition("//")[2].partition(":")
    proxy = FaultProxy((host, int(port)), choose)
    try:
        yield proxy
    finally:
        proxy.close()
