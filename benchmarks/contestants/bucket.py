"""A home in a bucket: headway on SeaweedFS, beside what obstore alone does with the same bytes.

The server runs here, on loopback, its data on the disk that is measured. Runs in the environment of
obstore; headway too.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from benchmarks.contestants import big
from benchmarks.contestants.headway_states import opened
from benchmarks.contestants.protocol import Measured, Round, serve

BUCKET, KEY, SECRET = "bench", "headway", "on-loopback-only"
PART, PARTS = 16 << 20, 4  # bytes of a part, and how many are under way at once
SMALL = 20  # saves of 1 KiB a turn
PATIENCE = 60.0
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def saves(place: Path, options: dict[str, Any]) -> Iterator[Round]:
    """Save and restore the state with headway, then put and get as many bytes with obstore alone.

    A turn: seconds of headway's save and restore, of obstore's put and get, of a save of 1 KiB (the
    median of some), of obstore's put of 1 KiB, and the requests of a save of 1 KiB, median and mean.
    """
    layers = options["layers"]
    with _server(place) as port, _counting(port) as counter:
        os.environ.update(
            AWS_ACCESS_KEY_ID=KEY,
            AWS_SECRET_ACCESS_KEY=SECRET,
            AWS_REGION="us-east-1",
            AWS_ALLOW_HTTP="true",
        )
        alone = S3Store(
            BUCKET, endpoint=f"http://127.0.0.1:{port}", virtual_hosted_style_request=False
        )
        number = 0

        def native(content: bytes) -> list[float]:
            put = big.seconds(
                lambda: obstore.put(
                    alone,
                    "alone",
                    content,
                    chunk_size=PART,
                    max_concurrency=PARTS,
                    use_multipart=True,
                )
            )
            ranges = range(0, len(content), PART)
            ends = [min(start + PART, len(content)) for start in ranges]
            got: list[Any] = []
            get = big.seconds(
                lambda: got.extend(
                    obstore.get_ranges(alone, "alone", starts=list(ranges), ends=ends)
                )
            )
            if b"".join(map(bytes, got)) != content:
                raise AssertionError("obstore gave back something else")
            return [put, get]

        def round_() -> Measured:
            nonlocal number
            number += 1
            weights = big.state(layers, version=number)
            content = b"".join(each.tobytes() for each in weights.values())
            with _home(port, number) as cp:
                save = big.seconds(lambda: cp.save(weights))
            live = big.blank(layers)
            with _home(port, number) as cp:
                load = big.seconds(lambda: cp.load(into=live))
            big.prove_equal(live, layers, version=number)
            weights.clear()
            live.clear()
            put, get = native(content)
            del content
            big.release()
            small = os.urandom(1024)
            with _home(port, "small") as cp:
                cp.write(small)
                commit = statistics.median(
                    big.seconds(lambda: cp.write(small)) for _ in range(SMALL)
                )
            with _home(counter.port, "counted") as cp:
                cp.write(small)
                counts = [counter.requests]
                for _ in range(SMALL):
                    cp.write(small)
                    counts.append(counter.requests)
            each = [after - before for before, after in itertools.pairwise(counts)]
            bare = statistics.median(
                big.seconds(lambda: obstore.put(alone, "small", small)) for _ in range(SMALL)
            )
            requests = [statistics.median(each), statistics.fmean(each)]
            return [save, load, put, get, commit, bare, *requests]

        yield round_


def _home(port: int, name: object) -> Any:
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    return opened(f"s3://{BUCKET}/home/bench-{name}")


@contextlib.contextmanager
def _server(place: Path) -> Iterator[int]:
    """A SeaweedFS with a bucket, on ports of its own, killed at the end; gives the port of its S3."""
    identity = {
        "name": "bench",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = place / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    (place / "server").mkdir()
    names = ("s3.port", "master.port", "filer.port", "volume.port", "s3.port.iceberg", "admin.port")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    command = [
        str(Path(sys.executable).parent / "weed"),
        "mini",
        f"-dir={place / 'server'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.config={config}",
        f"-bucket={BUCKET}",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    libc = ctypes.CDLL(None)
    server = subprocess.Popen(
        command,
        stdout=sys.stderr,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        cwd=place,
        # It goes with us, however we go.
        preexec_fn=lambda: libc.prctl(  # noqa: PLW1509  # no other thread runs yet
            _DEATH_SIGNAL, signal.SIGKILL
        ),
    )
    try:
        _await(ports["s3.port"], server)
        yield ports["s3.port"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _await(port: int, server: subprocess.Popen[bytes]) -> None:
    """Until the bucket answers."""
    store = S3Store(
        BUCKET,
        endpoint=f"http://127.0.0.1:{port}",
        access_key_id=KEY,
        secret_access_key=SECRET,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "3s"},
        retry_config={"max_retries": 0},
    )
    until = time.monotonic() + PATIENCE
    while True:
        try:
            obstore.put(store, "ready", b"ready")
        except Exception as error:  # of any kind: it is not there yet
            if server.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the server does not answer: {error}") from error
            time.sleep(0.1)
        else:
            return


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, and of which the ones 10,000 above are (weed's gRPC listens there)."""
    found: list[int] = []
    port = 20_000 + os.getpid() % 5_000
    while len(found) < count:
        port += 1
        try:
            for each in (port, port + 10_000):
                with contextlib.closing(socket.socket()) as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        found.append(port)
    return found


class _Counter(ThreadingHTTPServer):
    """Passes requests on, and counts them."""

    daemon_threads = True
    requests = 0

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.target = target
        self.port = self.server_address[1]
        self.lock = threading.Lock()


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Counter

    def _pass_on(self) -> None:
        with self.server.lock:
            self.server.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target)
        with contextlib.closing(connection):
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                connection.putheader(name, value)  # the host's too: it is signed
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815  # the base class's

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _counting(target: int) -> Iterator[_Counter]:
    with _Counter(target) as counter:
        thread = threading.Thread(target=counter.serve_forever)
        thread.start()
        try:
            yield counter
        finally:
            counter.shutdown()
            thread.join()


if __name__ == "__main__":
    serve({"saves": saves})
