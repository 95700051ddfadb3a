"""Homes of every kind, for suites that run on each of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from headway.ports import Storage
from headway.storage.local import LocalStorage
from headway.testing.memory import MemoryStorage

_numbers = itertools.count()
KINDS = ["local", "memory", pytest.param("s3", marks=pytest.mark.objects)]


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
    endpoint: str = request.getfixturevalue("seaweed").endpoint
    return on_s3(endpoint)


def on_s3(endpoint: str) -> Storage:
    """An empty home on an S3 server."""
    from tests.objects.servers import BUCKET, s3

    from headway.storage.object import Limits, ObjectStorage

    prefix = f"test-{next(_numbers)}"
    bucket = s3(endpoint, prefix, timeout=10)
    return ObjectStorage(bucket, f"s3://{BUCKET}/{prefix}", limits=Limits(patience=10))
