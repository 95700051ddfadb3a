"""What `torch.distributed.checkpoint` has to know of a checkpoint, as data: it would pickle it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from headway.model.errors import CheckpointError

_FORMAT = 1


def described(metadata: Metadata) -> dict[str, Any]:
    """Metadata as data. Its `storage_data` is a mapping of indices to names."""
    return {
        "format": _FORMAT,
        "version": metadata.version,
        "planner": metadata.planner_data,
        "entries": {name: _entry(entry) for name, entry in metadata.state_dict_metadata.items()},
        "items": [
            [index.fqn, None if index.offset is None else [*index.offset], name]
            for index, name in metadata.storage_data.items()
        ],
    }


def metadata_of(data: Any, items: Mapping[str, Any]) -> Metadata:
    """The metadata that `described` made this of.

    Args:
        data: what it made.
        items: the contents, by name.

    Raises:
        CheckpointError: it is nothing that `described` made.
    """
    try:
        if data["format"] != _FORMAT:
            raise ValueError(f"format {data['format']}")
        entries = {
            name: BytesStorageMetadata() if entry is None else _tensor(entry)
            for name, entry in data["entries"].items()
        }
        names = {}
        for fqn, offset, name in data["items"]:
            _fits(entries[fqn], offset, items[name], name)
            names[MetadataIndex(fqn, offset)] = name
        return Metadata(entries, data["planner"], names, version=data["version"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            "the newest checkpoint is described in a way that this headway does not know "
            f"({type(error).__name__}: {error}). Was it saved by a newer one? Then use that."
        ) from error


def _entry(entry: Any) -> dict[str, Any] | None:
    if isinstance(entry, BytesStorageMetadata):
        return None
    return {
        "dtype": str(entry.properties.dtype).removeprefix("torch."),
        "requires_grad": bool(entry.properties.requires_grad),
        "pin_memory": bool(entry.properties.pin_memory),
        "size": [*entry.size],
        "chunks": [[[*chunk.offsets], [*chunk.sizes]] for chunk in entry.chunks],
    }


def _tensor(entry: Mapping[str, Any]) -> TensorStorageMetadata:
    dtype = vars(torch).get(
        entry["dtype"]
    )  # not getattr: asked for some names, PyTorch imports a module
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"no dtype {entry['dtype']!r}")
    return TensorStorageMetadata(
        TensorProperties(
            dtype,
            requires_grad=bool(entry["requires_grad"]),
            pin_memory=bool(entry["pin_memory"]),
        ),
        torch.Size(entry["size"]),
        [
            ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
            for offsets, sizes in entry["chunks"]
        ],
    )


def _fits(entry: Any, offset: Any, content: Any, name: str) -> None:
    """See that a content is what the entry says."""
    if isinstance(entry, BytesStorageMetadata):
        fits = isinstance(content, bytes)
    else:
        sizes = {chunk.offsets: chunk.sizes for chunk in entry.chunks}
        form = (entry.properties.dtype, sizes[torch.Size(offset)])
        fits = isinstance(content, torch.Tensor) and (content.dtype, content.shape) == form
    if not fits:
        raise ValueError(f"{name} is another thing than it says")
