"""What a piece of content is known by: a checksum, or with a key its cryptographic identity.

xxh3-128 finds every accident at the speed of memory, and no forger: other bytes of the same hash can be
made at will. So with a key a chunk is named by its BLAKE3, 32 bytes, in a record that is signed, and
whoever can write to the packs cannot put other content under it. The length tells which it is. What
that costs is in `docs/design/decisions/0006-signed-records.md`.
"""

from __future__ import annotations

from xxhash import xxh3_128_digest

from headway.ledger import signing

CHECKSUM = 16
"""Bytes of an xxh3-128."""
IDENTITY = 32
"""Bytes of a BLAKE3."""


def digest(view: bytes | memoryview) -> bytes:
    """What the record of a chunk says of `view`, contiguous bytes: 32 bytes with a key, 16 without.

    Safe from several threads; the GIL is released while it hashes.
    """
    return xxh3_128_digest(view) if signing.configured() is None else _blake3(view)


def verify(view: bytes | memoryview, expected: bytes) -> bool:
    """Whether `view` is what the record says. Each kind is checked by its own hash, with a key or
    without: `ledger.read` decides which records are believed."""
    if len(expected) == CHECKSUM:
        return xxh3_128_digest(view) == expected
    return len(expected) == IDENTITY and _blake3(view) == expected


def _blake3(view: bytes | memoryview) -> bytes:
    from blake3 import blake3

    return blake3(view).digest()
