"""Programs that came from a URL, kept in the home under the hash of their bytes, so that `resume` finds
what `run` ran.

Python imports files. In a home that is a directory the kept one is the file. A store's are copied to this
machine's place first; and there, what others may have written is not run: the user agreed to a program on
the machine where it was fetched, and nobody has on this one.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

import msgspec

from headway.engine.home import Home
from headway.ledger.signing import trusts
from headway.model.errors import InputError, UntrustedState
from headway.model.program import Program
from headway.ports import KeyExists
from headway.storage.faults import storage_error

_KEY = re.compile(r"programs/([0-9a-f]{64})/[^/\0]+")


def keep(home: Home, name: str, source: bytes) -> Path:
    """Put a program into a home; returns its file.

    Raises:
        InputError: there is a file of that hash with other bytes.
        StorageError: the home, or its place on this machine, could not be written.
    """
    key = f"programs/{hashlib.sha256(source).hexdigest()}/{name}"
    try:
        home.storage.create(key, source)
    except KeyExists:
        pass  # the digest in the key says that it is the same
    path = home.place.root / key
    if not home.place.is_home:
        _copy(home, path, source)
    return _proven(path, key)


def here(home: Home, program: Program) -> Program:
    """The same program where this machine has it: other machines keep a store's programs elsewhere.

    Raises:
        InputError: the file here has other bytes than were kept.
        UntrustedState: this machine has not got it, and others can write where it is kept.
        StorageError: the home could not be read.
    """
    key = "/".join(Path(program.path).parts[-3:])
    if home.place.is_home or _KEY.fullmatch(key) is None:
        return program
    path = home.place.root / key
    if not path.exists():
        if not trusts(home.storage):
            raise UntrustedState(
                f"this run's program came from a URL and is kept in {home.url} under {key}. Others can "
                "write there, and nobody has agreed on this machine to run it. Look at it, and copy it "
                f"to {path}; then try again. (With HEADWAY_KEY set from the beginning it would be safe.)"
            )
        _copy(home, path, home.storage.read(key))
    found = _proven(path, key)
    return msgspec.structs.replace(program, path=str(found), search=(str(found.parent),))


def _copy(home: Home, path: Path, source: bytes) -> None:
    temporary = path.parent / f".tmp-{secrets.token_hex(8)}"
    try:
        home.place.prepare()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(source)
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(error, f"write {path}") from error


def _proven(path: Path, key: str) -> Path:
    found = _KEY.fullmatch(key)
    if found is None or hashlib.sha256(path.read_bytes()).hexdigest() != found[1]:
        raise InputError(
            f"{path} is not what was fetched: somebody changed it. Delete it, and run this again."
        )
    return path
