"""Homes of every kind, for suites that run on each of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from headway.ports import Storage
from headway.storage.local import LocalStorage
from headway.testing.memory import MemoryStorage

_numbers = itertools.count()
KINDS = [
    "local",
    "memory",
    pytest.param("s3", marks=pytest.mark.objects),
    pytest.param("azure", marks=[pytest.mark.objects, pytest.mark.azure, pytest.mark.slow]),
]


def fresh(kind: str, request: pytest.FixtureRequest, place: Path) -> Storage:
    """An empty home.

    Args:
        kind: one of `KINDS`.
        request: of the fixture that wants it.
        place: an empty directory.
    """
    if kind == "memory":
        return MemoryStorage()
    if kind == "local":
        home = place / "home"
        home.mkdir()
        return LocalStorage(home)
    if kind == "azure":
        return on_azure(request.getfixturevalue("azurite").endpoint)
    return on_s3(request.getfixturevalue("seaweed").endpoint)


def on_s3(endpoint: str) -> Storage:
    """An empty home on an S3 server."""
    from tests.objects.servers import BUCKET, s3

    prefix = f"test-{next(_numbers)}"
    return _home(s3(endpoint, prefix, timeout=10), f"s3://{BUCKET}/{prefix}")


def on_azure(endpoint: str) -> Storage:
    """An empty home on an Azure server."""
    from tests.objects.servers import BUCKET, azure

    prefix = f"test-{next(_numbers)}"
    return _home(azure(endpoint, prefix), f"az://{BUCKET}/{prefix}")


def _home(bucket: Any, url: str) -> Storage:
    from headway.storage.object import Limits, ObjectStorage

    return ObjectStorage(bucket, url, limits=Limits(patience=10))
