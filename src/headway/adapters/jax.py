"""JAX: arrays of every dtype, and keys of random generators. They cannot change: a restored one is new."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes

from headway.checkpoint.capture import MADE
from headway.model.errors import InputError
from headway.ports import StateAdapter


def adapter(value: Any) -> StateAdapter | None:
    """See `adapters`."""
    return _Array() if isinstance(value, jax.Array) else None


def maker() -> StateAdapter:
    """See `adapters`."""
    return _Array()


class _Array:
    exchanged = True

    def capture(self, value: Any, path: str) -> Any:
        if isinstance(value, jax.core.Tracer):
            raise InputError(
                f"{path} is a value inside of jax.jit, which is none yet: track what comes out"
            )
        if value.is_deleted():
            raise InputError(
                f"{path} was donated to a call of JAX, or deleted: track what came out of it"
            )
        if not value.is_fully_addressable:
            raise InputError(
                f"{path} is spread over several processes, which headway does not save yet"
            )
        key = dtypes.issubdtype(value.dtype, dtypes.prng_key)
        plain = np.asarray(jax.random.key_data(value) if key else value)
        found: dict[str, Any] = {
            MADE: "jax",
            "key": str(jax.random.key_impl(value)) if key else None,
        }
        found["weak"] = bool(not key and value.weak_type)
        if plain.dtype.isbuiltin == 1:
            return {**found, "data": plain}
        # bfloat16, float8, int4: NumPy knows these only by another package
        raw = np.ascontiguousarray(plain).reshape(-1).view(np.uint8)
        return {**found, "data": raw, "dtype": plain.dtype.name, "shape": list(plain.shape)}

    def restore(self, value: Any, data: Any, path: str) -> Any:
        plain = data["data"]
        if "dtype" in data:
            plain = plain.view(jnp.dtype(data["dtype"])).reshape(data["shape"])
        if jnp.asarray(plain).dtype != plain.dtype:
            raise InputError(
                f"{path} has the dtype {plain.dtype} in the checkpoint, which JAX has not here: set "
                "jax_enable_x64 as it was then"
            )
        made = jnp.array(plain)
        if data["weak"]:
            made = _weak(made)
        if data["key"] is not None:
            made = jax.random.wrap_key_data(made, impl=data["key"])
        if isinstance(value, jax.Array) and value.committed and value.shape == made.shape:
            made = jax.device_put(made, value.sharding)
        return made


def _weak(made: Any) -> Any:
    """The same, but of a weak type, as what came out of Python's own numbers."""
    from jax._src.lax.lax import _convert_element_type

    return _convert_element_type(made, made.dtype, weak_type=True)
