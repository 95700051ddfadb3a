"""A ledger does what its callers rely on, on each storage that comes with headway."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import stores

from headway.ports import Storage
from headway.testing.ledger import LedgerContract


class TestLedger(LedgerContract):
    @pytest.fixture(params=stores.KINDS)
    def storage(self, request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
        return stores.fresh(request.param, request, tmp_path)
