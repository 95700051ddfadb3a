"""Real object stores on loopback, for as long as a test needs them."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from obstore.store import AzureStore, S3Store

from headway.storage.bucket import Bucket, Kind, Refusal
from headway.storage.client import ObstoreBucket

KEY, SECRET, BUCKET = "test-key", "test-secret", "headway"


_WITH_US = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


@dataclass
class Server:
    """A store in a process group of its own.

    Attributes:
        endpoint: its URL.
        command: what runs it; its data stay in `place` when it is killed, and `start` goes on there.
    """

    endpoint: str
    command: Sequence[str]
    place: Path
    environment: dict[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] = lambda: True  # whether it is up
    process: subprocess.Popen[bytes] | None = None

    def start(self, *, with_us: bool = True) -> None:
        """Run it, and wait until it answers.

        Args:
            with_us: it ends when this thread does, for a test session that is killed stops nothing.
        """
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*(_WITH_US if with_us else ()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                cwd=self.place,
                start_new_session=True,
            )
        end = time.monotonic() + 60
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > end:
                text = (self.place / "log").read_text(errors="replace")
                raise RuntimeError(f"{self.command[0]} did not come up:\n{text[-3000:]}")
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """`kill -9`, its data stay."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


def s3(
    endpoint: str,
    prefix: str = "",
    *,
    bucket: str = BUCKET,
    timeout: float = 5,
    retries: int = 0,
) -> Bucket:
    """A client of an S3 server, as `open_bucket` makes it, without the environment."""
    client: Any = {"allow_http": True, "timeout": timedelta(seconds=timeout)}
    options: Any = {
        "prefix": prefix or None,
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": KEY,
        "secret_access_key": SECRET,
        "client_options": client,
        "retry_config": {"max_retries": retries, "retry_timeout": timedelta(seconds=timeout)},
    }
    plain = S3Store(bucket, disable_bulk_delete=True, **options)
    return ObstoreBucket(S3Store(bucket, **options), plain)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def has_bucket(endpoint: str) -> bool:
    """Whether a server is up, and has made its bucket."""
    try:
        s3(endpoint, timeout=1).get("nothing", 0, 1)
    except Refusal as refusal:
        return refusal.kind is Kind.MISSING
    return True


def program(name: str) -> str | None:
    """The path of a server's program: in this Python's environment, or on the PATH."""
    environment = Path(sys.prefix)
    for place in (environment / "bin", environment / "azurite" / "node_modules" / ".bin"):
        if (place / name).exists():
            return str(place / name)
    return shutil.which(name)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, nor 10,000 above them: some servers take that one too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            if port > 55_000:
                port -= 30_000
            try:
                with socket.socket() as again:
                    again.bind(("127.0.0.1", port)) if port != low.getsockname()[1] else None
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


@contextlib.contextmanager
def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.place, ignore_errors=True)


@contextlib.contextmanager
def seaweedfs(
    address: str = "127.0.0.1",
    inside: Sequence[str] = (),
    ready: Callable[[str], bool] | None = None,
) -> Iterator[Server]:
    """A SeaweedFS with the bucket `BUCKET`.

    Args:
        address: where it listens.
        inside: a command's beginning, such as `ip netns exec NAME`.
        ready: whether the bucket at an endpoint answers; needed where this process cannot see it.
    """
    weed = program("weed")
    assert weed is not None
    place = Path(tempfile.mkdtemp(prefix="headway-weed-"))
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (place / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (place / "data").mkdir()
    names = ["s3.port", "s3.port.iceberg", "master.port", "filer.port", "volume.port", "admin.port"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [
        *inside,
        weed,
        "mini",
        f"-dir={place / 'data'}",
        f"-ip={address}",
        f"-ip.bind={address}",
        *[f"-{name}={port}" for name, port in ports.items()],
        f"-s3.config={place / 's3.json'}",
        "-s3.port.lance=0",  # else several servers choose the same one
        f"-bucket={BUCKET}",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
    ]
    endpoint = f"http://{address}:{ports['s3.port']}"
    up = partial(ready or has_bucket, endpoint)
    with _running(Server(endpoint, command, place, ready=up)) as server:
        yield server


ACCOUNT = "devstoreaccount1"  # the one that Azurite comes with, and its key, which everybody knows
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


def azure(endpoint: str, prefix: str = "", *, timeout: float = 10) -> Bucket:
    """A client of Azurite's container `BUCKET`."""
    options: Any = {"allow_http": True, "timeout": timedelta(seconds=timeout)}
    store = AzureStore(
        BUCKET,
        prefix=prefix or None,
        endpoint=endpoint,
        account_name=ACCOUNT,
        account_key=ACCOUNT_KEY,
        client_options=options,
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=timeout)},
    )
    return ObstoreBucket(store)


@contextlib.contextmanager
def azurite() -> Iterator[Server]:
    """An Azurite with the container `BUCKET`."""
    name = program("azurite-blob")
    assert name is not None
    place = Path(tempfile.mkdtemp(prefix="headway-azurite-"))
    (port,) = free_ports(1)
    command = [name, "--location", str(place), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    up = partial(_listens, port)
    with _running(Server(f"http://127.0.0.1:{port}/{ACCOUNT}", command, place, ready=up)) as server:
        _make_container(server.endpoint)
        yield server


def _make_container(endpoint: str) -> None:
    """What obstore cannot do: a request that is signed by hand."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    listed = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    resource = f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    text = f"PUT\n{chr(10) * 11}{listed}{resource}"
    signature = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), "sha256").digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
    url = f"{endpoint}/{BUCKET}?restype=container"
    httpx.put(url, headers=headers, content=b"").raise_for_status()


@contextlib.contextmanager
def juicefs() -> Iterator[Server]:
    """A JuiceFS gateway, which ignores conditions."""
    name = program("juicefs")
    assert name is not None
    place = Path(tempfile.mkdtemp(prefix="headway-juicefs-"))
    meta = f"sqlite3://{place / 'meta.db'}"
    subprocess.run(
        [name, "format", "--storage", "file", "--bucket", f"{place}/data/", meta, BUCKET],
        check=True,
        capture_output=True,
    )
    (port,) = free_ports(1)
    command = [name, "gateway", "--no-usage-report", "--log", str(place / "own"), meta]
    endpoint = f"http://127.0.0.1:{port}"
    environment = {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET}
    command.append(endpoint.removeprefix("http://"))
    ready = partial(has_bucket, endpoint)
    with _running(Server(endpoint, command, place, environment, ready)) as server:
        yield server


@contextlib.contextmanager
def localbucket() -> Iterator[Server]:
    """A small server that has conditional writes, and no way to delete several objects at once."""
    name = program("localbucket")
    assert name is not None
    place = Path(tempfile.mkdtemp(prefix="headway-localbucket-"))
    (place / "data" / BUCKET).mkdir(parents=True)
    (port,) = free_ports(1)
    command = [name, "--port", str(port), str(place / "data")]
    endpoint = f"http://127.0.0.1:{port}"
    with _running(Server(endpoint, command, place, ready=partial(has_bucket, endpoint))) as server:
        yield server
