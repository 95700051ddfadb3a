"""An auditor that notes everything which a restore has no business to do.

Run as a program, so that the hook, which cannot be taken out again, and a limit of memory end with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEVER = ("socket.", "subprocess.", "pickle.", "marshal.", "ctypes.dlopen", "code.__new__", "exec")
_NEVER_TOO = {"os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"}
_NEVER_TOO |= {"compile", "import", "function.__new__", "os.symlink", "os.link", "os.chown"}
_PATHS = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.chmod": 1, "os.truncate": 1}
_PATHS |= {"os.rename": 2, "shutil.rmtree": 1, "shutil.move": 2}


class Guard:
    """Notes events while it is armed.

    Args:
        allowed: directories below which files may be written.
    """

    def __init__(self, allowed: Iterable[Path]) -> None:
        self.events: list[str] = []
        self._allowed = tuple(str(path.resolve()) for path in allowed)
        self._armed = False
        sys.addaudithook(self._hook)

    def watch(self, act: Callable[[], Any]) -> tuple[str, list[str]]:
        """(how `act` ended, what it did that it should not)."""
        self.events = []
        self._armed = True
        try:
            act()
            ended = "returned"
        except BaseException as error:  # noqa: BLE001  # however it ends, it is told
            self._armed = False
            ended = ",".join(kind.__name__ for kind in type(error).__mro__)
            if "HeadwayError" not in ended:
                ended += f": {str(error)[:300]}"
        finally:
            self._armed = False
        return ended, self.events

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        if event in _NEVER_TOO or event.startswith(_NEVER):
            # A module that is there already, or a frame of the standard library: not the payload's.
            self.events.append(f"{event} {str(args)[:100]}")
        elif event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & _WRITING and not self._is_allowed(path):
                self.events.append(f"open {path} {flags:o}")
        elif event in _PATHS:
            for path in args[: _PATHS[event]]:
                if not self._is_allowed(path):
                    self.events.append(f"{event} {args}")

    def _is_allowed(self, path: Any) -> bool:
        """Relative paths are relative to a directory that is held open; they are single names."""
        if isinstance(path, int):
            return True
        text = os.fsdecode(path)
        if not text.startswith("/"):
            return "/" not in text and text not in {".", ".."}
        normal = os.path.normpath(text)
        return any(normal == base or normal.startswith(f"{base}/") for base in self._allowed)
