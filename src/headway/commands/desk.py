"""What a command's processes and the worker that runs it tell each other, through a directory.

The worker puts a ticket there. The first process that calls `track` takes it, by renaming it, which only
one can: from then on the node's checkpoints are that process's. What it saves, and what a person should
know, it appends to the notes, which the worker passes on to the driver.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from headway.model.errors import HeadwayError
from headway.model.program import Saved, Warned

VARIABLE = "HEADWAY_EXEC"
"""Environment variable that names the directory, in all processes of a command."""

_TICKET, _TAKEN, _NOTES, _LEFT = "ticket", "taken-", "notes", "left"
_Note = Saved | Warned


class Ticket(msgspec.Struct, frozen=True):
    """Which node's checkpoints are meant, and by whom they are used; as in `AttemptSpec`."""

    home: str
    run: str
    node: str
    attempt: int
    inputs: str
    retries_left: int


class Desk:
    """The worker's side.

    Args:
        folder: an empty directory, which nobody else may enter.
        ticket: what is to be taken.
        send: takes what is noted.
    """

    def __init__(self, folder: Path, ticket: Ticket, send: Callable[[_Note], None]) -> None:
        self.folder = folder
        self._send = send
        self._read = 0
        (folder / _TICKET).write_bytes(msgspec.json.encode(ticket))

    @property
    def owner(self) -> int | None:
        """Pid of the process that took the ticket, if one did."""
        for name in os.listdir(self.folder):
            if name.startswith(_TAKEN):
                return int(name.removeprefix(_TAKEN))
        return None

    @property
    def left(self) -> bool:
        """Whether that process ended where its loop's state was saved."""
        return (self.folder / _LEFT).exists()

    def forward(self) -> None:
        """Send what was noted since the last time."""
        try:
            with open(self.folder / _NOTES, "rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[
            : new.rfind(b"\n") + 1
        ]  # a process may have been killed in the middle of a note
        self._read += len(whole)
        for line in whole.splitlines():
            self._send(msgspec.json.decode(line, type=_Note))


class Seat:
    """The side of the process that tracks.

    Args:
        folder: the directory, as `VARIABLE` names it.

    Attributes:
        ticket: which was taken.

    Raises:
        HeadwayError: another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        taken = folder / f"{_TAKEN}{os.getpid()}"
        try:
            os.rename(folder / _TICKET, taken)
        except OSError as error:
            raise HeadwayError(
                f"track() cannot save here ({error.strerror}): another process of this command called it "
                "first in this attempt, or the attempt is over. One process of a command tracks; call it "
                "in that one alone."
            ) from None
        self.ticket = msgspec.json.decode(taken.read_bytes(), type=Ticket)

    def note(self, note: _Note) -> None:
        """Tell the worker. Never raises: when the worker is gone, so is everybody who could read it."""
        line = msgspec.json.encode(note) + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            fd = os.open(self._folder / _NOTES, flags, 0o600)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)
        except OSError:
            pass

    def leave(self) -> None:
        """Tell the worker that the state is saved, and that this process ends now. Never raises."""
        try:
            (self._folder / _LEFT).touch()
        except OSError:
            pass
