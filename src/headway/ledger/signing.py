"""The key that makes a shared home trustworthy: where it comes from, and what it signs.

The key is a secret of at least 32 bytes that everybody has who may write to the home's runs, and nobody
else. It is read from the environment when it is needed, and goes nowhere: not into the home, a message,
a log or another process's arguments. `docs/design/trust.md` says what a signature proves.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import threading

from headway.model.errors import InputError
from headway.ports import Storage

VARIABLE = "HEADWAY_KEY"
FILE_VARIABLE = "HEADWAY_KEY_FILE"
LEAST = 32
"""Bytes of the shortest key."""
SIGNATURE = 32
"""Bytes of a signature: HMAC-SHA256."""
_LARGEST_FILE = 4096
_DOMAIN = b"headway ledger frame 1\n"  # so that a signature means nothing anywhere else
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_CURE = "Make one with `python -c 'import secrets; print(secrets.token_hex(32))'`."


class Key:
    """A secret that signs. It shows itself in no message, and does not travel in a pickle.

    Args:
        secret: at least 32 bytes.
    """

    __slots__ = ("_hmac",)

    def __init__(self, secret: bytes) -> None:
        self._hmac = hmac.new(secret, digestmod=hashlib.sha256)

    def sign(self, *parts: bytes) -> bytes:
        """The 32-byte signature of `parts`, one behind the other."""
        signing = self._hmac.copy()
        for part in parts:
            signing.update(part)
        return signing.digest()

    def signed(self, signature: bytes, *parts: bytes) -> bool:
        """Whether `signature` is that of `parts`; takes the same time for every wrong one."""
        return hmac.compare_digest(signature, self.sign(*parts))

    def __repr__(self) -> str:
        return "Key(…)"

    def __reduce__(self) -> str:
        raise TypeError("a key stays in the process that read it")


class Signing:
    """A key on one ledger: what it signs can stand nowhere else.

    Args:
        key: the secret.
        prefix: the ledger's key in its home, `runs/<run>/ledger`.
    """

    __slots__ = ("_head", "_key")

    def __init__(self, key: Key, prefix: str) -> None:
        name = prefix.encode()
        self._key = key
        self._head = _DOMAIN + len(name).to_bytes(4, "little") + name

    def sign(self, claim: bytes, place: bytes, payload: bytes) -> bytes:
        """The signature of a frame.

        Args:
            claim: the 64 bytes at the head of its log: which term, and whose.
            place: kind, term, seq and link of its header, 26 bytes.
            payload: all that it holds.
        """
        return self._key.sign(self._head, claim, place, payload)

    def signed(self, signature: bytes, claim: bytes, place: bytes, payload: bytes) -> bool:
        """Whether `signature` is what `sign` gives."""
        return self._key.signed(signature, self._head, claim, place, payload)


def signing_of(prefix: str) -> Signing | None:
    """What signs the ledger under `prefix`; None without a key.

    Raises:
        InputError: see `configured`.
    """
    key = configured()
    return None if key is None else Signing(key, prefix)


def trusts(storage: Storage) -> bool:
    """Whether what comes out of `storage` can be believed to be this user's own, so that a pickle in it
    may be loaded: nobody else can write there, or all that is read is signed (`ledger.read`), and what
    records name is named by a cryptographic hash.

    Raises:
        InputError: see `configured`.
    """
    return configured() is not None or storage.trusted


_lock = threading.Lock()
_read: tuple[str, str, Key] | None = None


def configured() -> Key | None:
    """The key of this process: `HEADWAY_KEY`, or what the file `HEADWAY_KEY_FILE` holds; else None.

    Raises:
        InputError: it is too short, neither hex nor base64, or its file cannot be read.
    """
    global _read  # noqa: PLW0603  # asked for each chunk: parsed once for each value
    text, file = os.environ.get(VARIABLE), os.environ.get(FILE_VARIABLE)
    if text is None and file is None:
        return None
    if text is not None and file is not None:
        raise InputError(f"{VARIABLE} and {FILE_VARIABLE} are both set. Unset one of them.")
    name, value = (VARIABLE, text) if text is not None else (FILE_VARIABLE, file)
    assert value is not None
    with _lock:
        if _read is None or _read[:2] != (name, value):
            secret = _parse(value, VARIABLE) if name == VARIABLE else _from_file(value)
            _read = name, value, Key(secret)
        return _read[2]


def _from_file(path: str) -> bytes:
    try:
        with open(path, encoding="ascii") as file:
            text = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        # Not the error's own words: those of a decoding error show what is in the file.
        why = error.strerror if isinstance(error, OSError) else "it is not hex or base64"
        raise InputError(
            f"{FILE_VARIABLE} names {path}, which cannot be read as a key: {why}. {_CURE}"
        ) from None
    return _parse(text, f"the file {path} that {FILE_VARIABLE} names")


def _parse(text: str, where: str) -> bytes:
    """The key in `text`. No error here shows any of it."""
    plain = "".join(text.split())
    if not plain:
        raise InputError(f"{where} is empty. Unset the variable to go without a key. {_CURE}")
    if _HEX.fullmatch(plain):
        secret = bytes.fromhex(plain)
    else:
        padded = plain.rstrip("=") + "=" * (-len(plain.rstrip("=")) % 4)
        try:
            secret = base64.b64decode(padded.translate({45: 43, 95: 47}), validate=True)
        except (binascii.Error, ValueError):
            raise InputError(f"{where} is neither hex nor base64. {_CURE}") from None
    if len(secret) < LEAST or len(plain) > _LARGEST_FILE:
        raise InputError(
            f"{where} has {len(secret)} bytes, and a key has {LEAST} at least. {_CURE}"
        )
    return secret
