"""Which stores a home may be on, which are refused, and what a user is told."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.objects import servers
from tests.objects.proxy import Fault, faults
from tests.objects.sessions import Told, home, judge, new_prefix, session, small_parts

from headway import compose
from headway.model.errors import InputError, StorageDenied, StorageUnavailable
from headway.ports import KeyExists, KeyMissing
from headway.storage.bucket import Kind, Refusal
from headway.storage.client import open_bucket
from headway.storage.object import ObjectStorage

pytestmark = pytest.mark.objects


def _needs(name: str) -> None:
    if servers.program(name) is None:
        pytest.skip(f"needs {name}: `make objects` installs it")


@pytest.fixture
def environment(seaweed: Any, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables that people set for an S3 of their own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", servers.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", servers.SECRET)
    monkeypatch.setenv("HEADWAY_STORE_TIMEOUT", "5")
    monkeypatch.setenv("HEADWAY_STORE_PATIENCE", "5")
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_a_home_in_a_bucket_is_made_once_and_found_again() -> None:
    url = f"s3://{servers.BUCKET}/{new_prefix()}/deep"
    with pytest.raises(StorageUnavailable, match=r"there is no home at s3://.*headway run"):
        compose.open_storage(url)
    made = compose.open_storage(url, create=True)
    assert made.url == url
    assert made.list("") == ["headway.json"]
    made.create("runs/a/b", b"content")
    found = compose.open_storage(f"{url}/")
    assert found.read("runs/a/b") == b"content"
    assert not found.trusted
    compose.prove_exclusive(found)


@pytest.mark.azure
def test_azurite_is_a_home(azurite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azurite.endpoint)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", servers.ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", servers.ACCOUNT_KEY)
    storage = compose.open_storage(f"az://{servers.BUCKET}/home", create=True)
    assert storage.list("") == ["headway.json"]
    told, prefix = Told(), new_prefix()
    bucket, url = servers.azure(azurite.endpoint, prefix), f"az://{servers.BUCKET}/{prefix}"
    with small_parts():
        session(ObjectStorage(bucket, url), told)
        judge(ObjectStorage(bucket, url), told)
    assert told.done


def test_a_store_that_ignores_conditions_is_refused() -> None:
    _needs("juicefs")
    with servers.juicefs() as server, pytest.raises(StorageDenied, match="If-None-Match") as caught:
        compose._mark(home(server.endpoint, new_prefix(), marker=False))
    assert "--home" in str(caught.value)


def test_a_small_store_that_keeps_conditions_is_a_home() -> None:
    _needs("localbucket")
    told = Told()
    with servers.localbucket() as server, small_parts():
        prefix = new_prefix()
        session(home(server.endpoint, prefix), told)
        judge(home(server.endpoint, prefix), told)
        assert _winners(home(server.endpoint, prefix)) == [1] * 10
    assert told.done


def test_of_creators_at_once_one_wins(seaweed: Any) -> None:
    assert _winners(home(seaweed.endpoint, new_prefix(), marker=False)) == [1] * 10


def _winners(storage: Any) -> list[int]:
    """How many of eight creators of one key are told that they won, ten times."""

    def race(key: str, number: int, start: threading.Barrier) -> int:
        start.wait()
        try:
            storage.create(key, bytes([number]) * 1000)
        except KeyExists:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        found = []
        for turn in range(10):
            start = threading.Barrier(8)
            jobs = [pool.submit(race, f"race/{turn}", number, start) for number in range(8)]
            found.append(sum(job.result() for job in jobs))
    return found


@pytest.mark.usefixtures("environment")
def test_what_is_missing_is_told_from_what_cannot_be_asked(
    seaweed: Any, environment: pytest.MonkeyPatch
) -> None:
    storage = home(seaweed.endpoint, new_prefix(), marker=False)
    with pytest.raises(KeyMissing):
        storage.read("a")
    with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
        compose.open_storage("s3://no-such-bucket/home")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageDenied, match=r"SignatureDoesNotMatch.*check the credentials"):
        compose.open_storage(f"s3://{servers.BUCKET}/home")
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    environment.setenv("HEADWAY_STORE_PATIENCE", "0.2")
    with pytest.raises(StorageUnavailable, match=r"connection was refused.*headway resume"):
        compose.open_storage(f"s3://{servers.BUCKET}/home")


def test_a_home_that_is_gone_is_not_an_empty_one(seaweed: Any) -> None:
    storage = home(seaweed.endpoint, new_prefix())
    for ask in (lambda: storage.read("a"), lambda: storage.list("runs")):
        with pytest.raises(StorageUnavailable, match=r"headway\.json is missing"):
            ask()


@pytest.mark.usefixtures("environment")
def test_settings_that_make_no_sense_are_refused(environment: pytest.MonkeyPatch) -> None:
    for name in ("HEADWAY_STORE_TIMEOUT", "HEADWAY_STORE_PATIENCE"):
        for value in ("soon", "0", "-1", "nan"):
            with environment.context() as one:
                one.setenv(name, value)
                with pytest.raises(InputError, match=name):
                    compose.open_storage(f"s3://{servers.BUCKET}/x")


@pytest.mark.usefixtures("environment")
def test_a_request_that_carries_much_may_take_longer(
    seaweed: Any, environment: pytest.MonkeyPatch
) -> None:
    waited = {}
    with faults(seaweed.endpoint, lambda _: Fault.FREEZE) as proxy:
        environment.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        bucket = open_bucket("s3", servers.BUCKET, new_prefix(), timeout=0.1)
        for name, size in (("small", 10), ("large", 3 << 20)):
            began = time.monotonic()
            with pytest.raises(Refusal, match="did not answer in time") as caught:
                bucket.put(name, bytes(size))
            waited[name] = time.monotonic() - began
            assert caught.value.kind is Kind.UNKNOWN
    assert proxy.happened[Fault.FREEZE] == 2
    assert waited["small"] >= 0.1
    assert waited["large"] >= 1.0


def test_google_is_asked_in_its_own_way_and_not_reached_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOOGLE_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    with pytest.raises(Refusal):
        open_bucket("gs", "bucket", "home", timeout=2).get("a", 0, 1)


def test_the_server_dies_and_comes_back_with_all_that_was_acknowledged() -> None:
    _needs("weed")
    with servers.seaweedfs() as server, small_parts():
        prefix = new_prefix()
        told = Told()
        session(home(server.endpoint, prefix), told)
        server.kill()
        with pytest.raises(StorageUnavailable):
            home(server.endpoint, prefix, patience=0.2).read("headway.json")
        back = threading.Timer(0.5, server.start, kwargs={"with_us": False})
        back.start()
        judge(home(server.endpoint, prefix, patience=60), told)
        back.join()
    assert told.done
