"""What a piece of content is known by: a checksum, or with a key its cryptographic identity.

xxh3-128 finds every accident at the speed of memory, and no forger: other bytes of the same hash can be
made at will. So with a key a chunk is named by its BLAKE3, 32 bytes, in a record that is signed, and
whoever can write to the packs cannot put other content under it. The length tells which it is. What
that costs is in `docs/design/decisions/0010-signed-records.md`.
"""

from __future__ import annotations

from collections.abc import Callable

from xxhash import xxh3_128_digest

from headway.ledger import signing
from headway.model.errors import UntrustedState
from headway.model.manifest import Manifest
from headway.ports import Storage

CHECKSUM = 16
"""Bytes of an xxh3-128."""
IDENTITY = 32
"""Bytes of a BLAKE3."""


def digest(view: bytes | memoryview) -> bytes:
    """What the record of a chunk says of `view`, contiguous bytes: 32 bytes with a key, 16 without.

    Safe from several threads; the GIL is released while it hashes.
    """
    return hasher()(view)


def hasher() -> Callable[[bytes | memoryview], bytes]:
    """What `digest` does now, for who asks it for thousands of small chunks."""
    return xxh3_128_digest if signing.configured() is None else _blake3


def verify(view: bytes | memoryview, expected: bytes) -> bool:
    """Whether `view` is what the record says. Each kind is checked by its own hash, with a key or
    without: `ledger.read` decides which records are believed."""
    if len(expected) == CHECKSUM:
        return xxh3_128_digest(view) == expected
    return len(expected) == IDENTITY and _blake3(view) == expected


def fits(known_by: bytes) -> bool:
    """Whether a chunk that an older record knows by `known_by` may be named by a record written now: with
    a key, not by a mere checksum."""
    return signing.configured() is None or len(known_by) == IDENTITY


def believe(storage: Storage, manifest: Manifest) -> None:
    """Refuse a record that vouches for its content by a checksum only, where there is a key and others
    can write to the packs. No headway writes such a record with a key.

    Raises:
        UntrustedState: it does.
    """
    if storage.trusted or all(fits(c.hash) for e in manifest.entries for c in e.chunks):
        return
    raise UntrustedState(
        f"checkpoint {manifest.number} in {storage.url} names its content by checksums, which do not "
        f"stop a forger, and there is a key ({signing.VARIABLE}). Put the home back from a copy, or "
        "unset the key to load it as it is."
    )


def _blake3(view: bytes | memoryview) -> bytes:
    from blake3 import blake3

    return blake3(view).digest()
