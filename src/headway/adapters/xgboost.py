"""XGBoost: boosters in the library's own format, parameters included.

A booster that was configured once keeps some of that when a model is loaded into it, and the next round
differs. So a restored one gets a new handle, in the same Python object.
"""

from __future__ import annotations

from typing import Any

import xgboost

from headway.model.errors import InputError
from headway.ports import StateAdapter


def adapter(value: Any) -> StateAdapter | None:
    """See `adapters`."""
    return _Booster() if isinstance(value, xgboost.Booster) else None


class _Booster:
    def capture(self, value: Any, path: str) -> Any:
        return {"booster": bytes(value.__getstate__()["handle"])}

    def restore(self, value: Any, data: Any, path: str) -> Any:
        if not isinstance(data, dict) or data.keys() != {"booster"}:
            raise InputError(f"{path} is a Booster of XGBoost now, and was none in the checkpoint")
        fresh = xgboost.Booster()
        fresh.__setstate__({**vars(fresh), "handle": bytearray(data["booster"])})
        value.handle, fresh.handle = fresh.handle, value.handle
        return value
