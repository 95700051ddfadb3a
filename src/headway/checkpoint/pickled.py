"""Pickles in a state: made when `save(state, pickle=True)` asks for them, and loaded only where nobody
else can have put them.

Loading a pickle runs code that its bytes name. So they are loaded from a home that nobody else can write
to, or from records that are signed with the key that there is (`ledger.signing.trusts`); and where they
could not be loaded, they are not made either.
"""

from __future__ import annotations

import pickle
from typing import Any

from headway.ledger.signing import VARIABLE, trusts
from headway.model.errors import CheckpointError, InputError, UntrustedState
from headway.ports import Storage


class Pickles:
    """Makes and loads the pickles of one home."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def allow(self, what: str) -> None:
        """Refuse when others can have put a pickle there.

        Raises:
            UntrustedState: they can.
        """
        if not trusts(self._storage):
            raise UntrustedState(
                f"{what}: loading it runs code that the home names, and others can write to "
                f"{self._storage.url}. Make a directory yours alone (`chmod go-w`), or sign what is in the "
                f"home from its beginning on ({VARIABLE}); or save the numbers, strings and arrays that "
                "such values are made of."
            )

    def dump(self, value: Any, path: str) -> bytes:
        """The value at `path` of a state as a pickle.

        Raises:
            UntrustedState: it could not be loaded from this home again.
            InputError: it cannot be pickled.
        """
        self.allow(f"{path} cannot be saved with pickle=True")
        try:
            return pickle.dumps(value, protocol=5)
        except Exception as error:
            raise InputError(
                f"{path} cannot be saved, not with pickle=True either: {type(error).__name__}: {error}. "
                "Leave it out, or save what it can be made from again."
            ) from error

    def load(self, data: memoryview) -> Any:
        """The value of a pickle; runs what it names. Ask `allow` before.

        Raises:
            CheckpointError: its class has changed, or is not there any more. Not `CheckpointCorrupt`, for
                which an older checkpoint would stand in: the bytes are what was saved.
        """
        self.allow("a value that was saved with pickle=True is not loaded")
        try:
            return pickle.loads(data)
        except Exception as error:
            raise CheckpointError(
                f"a value that was saved with pickle=True cannot be loaded: {type(error).__name__}: "
                f"{error}. Is its class still where it was when it was saved?"
            ) from error
