"""The storages that come with headway do what every storage does."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import stores

from headway.ports import Storage
from headway.testing.faults import Count
from headway.testing.memory import MemoryStorage
from headway.testing.storage import StorageContract


class TestStorage(StorageContract):
    @pytest.fixture(params=["local", "memory"])
    def storage(self, request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
        return stores.fresh(request.param, request, tmp_path)

    def test_what_only_this_user_can_write_is_trusted(self, storage: Storage) -> None:
        assert storage.trusted


@pytest.mark.objects
class TestBucket(StorageContract):
    folders = False
    deletes_at_once = False
    slow = True

    @pytest.fixture
    def storage(self, request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
        return stores.fresh("s3", request, tmp_path)

    def test_what_others_may_have_written_is_not_trusted(self, storage: Storage) -> None:
        assert not storage.trusted


@pytest.mark.azure
@pytest.mark.slow
class TestAzure(TestBucket):
    @pytest.fixture
    def storage(self, request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
        return stores.fresh("azure", request, tmp_path)


class TestWrapper(StorageContract):
    """One that does nothing changes nothing."""

    @pytest.fixture
    def storage(self) -> Storage:
        return Count(MemoryStorage())
