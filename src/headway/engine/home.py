"""An open home: what is durable, and where its files on this machine are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from headway.engine.keys import run_prefix
from headway.engine.place import Place
from headway.ports import Storage


@dataclass(frozen=True, slots=True)
class Home:
    """An open home.

    Attributes:
        storage: what keeps everything durable.
        url: its absolute path, or its URL.
        place: its locks and live logs on this machine.
    """

    storage: Storage
    url: str
    place: Place = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", Place(self.url))

    def directory(self, run_id: str) -> Path:
        """Where a run's locks and live logs are on this machine."""
        return self.place.run(run_id)

    def forget(self, run_id: str) -> None:
        """Delete a run, with all that it has here.

        Raises:
            StorageError: the home could not be written.
        """
        self.storage.delete(run_prefix(run_id))
        self.place.forget(run_id)
