"""For tests: of your own storage, and of what happens to your code when a storage fails.

    headway.testing.memory      MemoryStorage: a home in memory
    headway.testing.faults      wrappers round a storage: fail, lose a reply, tear, delay, freeze, count
    headway.testing.storage     StorageContract: what every storage does (needs pytest)
    headway.testing.ledger      LedgerContract: what a ledger does on every storage (needs pytest)
    headway.testing.strategies  states and operations for Hypothesis (needs hypothesis)

`pip install 'headway[testing]'` brings pytest and Hypothesis. Nothing here is loaded by `import headway`.
"""

from __future__ import annotations

import sys

# Where pytest runs, a failed assertion of the suites shows its values, as one in a test file does.
# This has to be said before they are imported, and must not import pytest for those without it.
if "pytest" in sys.modules:
    for _suite in ("storage", "packs", "ledger"):
        sys.modules["pytest"].register_assert_rewrite(f"headway.testing.{_suite}")
