"""pandas and Polars: frames and series in Arrow's format. They are values: a restored one is new."""

from __future__ import annotations

import io
import sys
from typing import Any

from headway.checkpoint.capture import MADE
from headway.model.errors import InputError
from headway.ports import StateAdapter

_KINDS = {
    "pandas.DataFrame": "pandas",
    "pandas.Series": "pandas",
    "polars.DataFrame": "polars",
    "polars.Series": "polars",
}


def adapter(value: Any) -> StateAdapter | None:
    """See `adapters`."""
    return _Frame() if _kind(value) is not None else None


def maker() -> StateAdapter:
    """See `adapters`."""
    return _Frame()


class _Frame:
    exchanged = True

    def capture(self, value: Any, path: str) -> Any:
        kind = _kind(value)
        assert kind is not None
        frame = value.to_frame() if kind.endswith("Series") else value
        try:
            data = _from_pandas(frame) if kind.startswith("pandas") else _from_polars(frame)
        except ImportError as error:
            raise InputError(
                f"{path} is a {kind}, which needs Arrow: pip install pyarrow"
            ) from error
        except Exception as error:  # of many kinds, and all of them are about this frame
            raise InputError(
                f"{path} is a {kind} that Arrow cannot hold: {type(error).__name__}: {error}. Give its "
                "columns one type each"
            ) from error
        return {MADE: "frames", "kind": kind, "data": data, "name": getattr(value, "name", None)}

    def restore(self, value: Any, data: Any, path: str) -> Any:
        kind = data["kind"]
        if kind not in _KINDS:
            raise InputError(
                f"{path} is a {kind} in the checkpoint, which this headway does not know"
            )
        if _KINDS[kind] == "pandas":
            import pyarrow as pa

            with pa.ipc.open_stream(data["data"]) as reader:
                frame = reader.read_all().to_pandas()
        else:
            import polars as pl

            frame = pl.read_ipc(io.BytesIO(data["data"]))
        if kind == "pandas.Series":
            return frame.iloc[:, 0].rename(data["name"])
        return frame.to_series() if kind == "polars.Series" else frame


def _kind(value: Any) -> str | None:
    """Which of `_KINDS` a value is; not those derived from them, which have more."""
    for kind in _KINDS:
        package, _, name = kind.partition(".")
        if type(value) is getattr(sys.modules.get(package), name, ...):
            return kind
    return None


def _from_pandas(frame: Any) -> bytes:
    import pyarrow as pa

    table = pa.Table.from_pandas(frame)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _from_polars(frame: Any) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return buffer.getvalue()
