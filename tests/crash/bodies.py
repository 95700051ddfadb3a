"""What the children of a checkpoint sweep do: open a node's checkpoint, save what a plan says.

Everything is made from seeds, so that the process that judges knows every byte without being told.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import random
import resource
import stat
from pathlib import Path
from typing import Any

import msgspec

from headway.checkpoint.handle import Checkpoint
from headway.model.settings import Keep
from headway.storage.local import LocalStorage

PREFIX = "runs/1tq4zk-8f3d/nodes/train"
INPUTS = "inputs"

STATES = {"state", "background"}
Tree = dict[str, tuple[str, int, bytes]]
"""Name -> (kind, mode, content)."""


class Step(msgspec.Struct, frozen=True):
    """One save: `how` is write, reader, file, directory, state, or background (a state's, which is then
    waited for); `size` in bytes of content."""

    how: str
    size: int
    seed: int

    @property
    def tree(self) -> Tree:
        """What it saves, and so what has to come back."""
        source = random.Random(self.seed)
        if self.how in {"write", "reader"}:
            return {"data": ("file", 0o644, source.randbytes(self.size))}
        if self.how in STATES:
            state = self.state
            return {
                "frozen": ("part", 0, bytes(state["frozen"])),
                "weights": ("part", 0, bytes(state["weights"])),
                "optimizer.moments[0]": ("part", 0, bytes(state["optimizer"]["moments"][0])),
            }
        if self.how == "file":
            return {"weights.bin": ("file", 0o640, source.randbytes(self.size))}
        tree: Tree = {"empty": ("directory", 0o750, b""), "deep": ("directory", 0o755, b"")}
        tree["deep/er"] = ("directory", 0o700, b"")
        for index, name in enumerate(["a.txt", "deep/b", "deep/er/c.sh", "none"]):
            size = 0 if name == "none" else self.size * (index + 1) // 6
            tree[name] = ("file", 0o700 if name.endswith(".sh") else 0o644, source.randbytes(size))
        return tree

    @property
    def state(self) -> dict[str, Any]:
        """Typed state; one part of it is the same in all steps of this size."""
        source = random.Random(self.seed)
        return {
            "step": self.seed,
            "frozen": bytearray(b"frozen." * (self.size // 7)),
            "weights": bytearray(source.randbytes(self.size)),
            "optimizer": {"moments": [bytearray(source.randbytes(self.size // 3)), self.seed / 7]},
        }

    def lay_out(self, place: Path) -> None:
        """Put the file or directory that is to be saved on disk, before anything is traced."""
        if self.how not in {"file", "directory"}:
            return
        place.mkdir()
        for name, (kind, mode, data) in sorted(self.tree.items()):
            path = place / name
            if kind == "directory":
                path.mkdir()
            else:
                path.write_bytes(data)
            path.chmod(mode)

    def save(self, checkpoint: Checkpoint, place: Path) -> None:
        """Do it."""
        data = self.tree.get("data", ("", 0, b""))[2]
        if self.how == "write":
            checkpoint.write(data)
        elif self.how == "reader":
            checkpoint.save(io.BytesIO(data))
        elif self.how in STATES:
            checkpoint.save(self.state, wait=self.how == "state").wait()
        elif self.how == "file":
            checkpoint.save(place / "weights.bin")
        else:
            checkpoint.save(place)


Plan = list[Step]

STANDARD: Plan = [
    Step("write", 100, 1),  # inline
    Step("write", 70_000, 2),  # packed
    Step("file", 40_000, 3),
    Step("directory", 60_000, 4),
    Step("write", 9_000, 5),
    Step("write", 9_000, 6),  # the log is full: a new term
    Step("reader", 1_200_000, 7),  # more than one piece
    Step("directory", 300, 8),  # inline
    Step("write", 0, 9),
    Step("state", 50_000, 10),  # parts in a pack
    Step("state", 50_000, 11),  # one of them referred to
    Step("state", 600, 12),  # inline
]


def random_plan(seed: int) -> Plan:
    """A plan of 3 to 7 saves around the sizes where something changes."""
    source = random.Random(seed)
    edges = [0, 6, 500, 4_000, 16_000, 32_767, 32_768, 32_769, 50_000, 200_000, 1_048_577]
    hows = ["write", "write", "reader", "file", "directory", "state", "state"]
    sizes = source.sample(edges, source.randint(3, 7))  # no two the same: a judge tells them apart
    return [Step(source.choice(hows), size, seed * 100 + index) for index, size in enumerate(sizes)]


def tree_at(root: Path) -> Tree:
    """What is in a directory."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        kind = "directory" if path.is_dir() else "file"
        data = path.read_bytes() if kind == "file" else b""
        found[path.relative_to(root).as_posix()] = kind, stat.S_IMODE(path.stat().st_mode), data
    return found


def attempt(
    home: str,
    sources: str,
    side: str,
    steps: list[dict[str, Any]],
    number: int = 0,
    mutant: str = "",
    keep: Keep = "all",
) -> None:
    """An attempt: look for what is there, save what the plan says, note each save that returned.

    Args:
        home: the home.
        sources: directory with `<seed>`, what is to be saved, for each step that needs it.
        side: file that takes a line for each thing that was acknowledged, or failed.
        steps: a `Plan`, as plain data.
        number: of the attempt.
        mutant: name of a function of `tests.crash.planted` that breaks this process first.
        keep: how many checkpoints stay.
    """
    plan = msgspec.convert(steps, Plan)
    notes = Notes(side)
    if mutant:
        getattr(importlib.import_module("tests.crash.planted"), mutant)()
    checkpoint = Checkpoint(
        LocalStorage(Path(home)),
        PREFIX,
        attempt=number,
        inputs=INPUTS,
        on_warning=notes.warned,
        keep=keep,
    )
    for step in plan:
        step.tree  # noqa: B018  # cost is paid before the save, not traced into it
        try:
            step.save(checkpoint, Path(sources, str(step.seed)))
        except Exception as error:  # noqa: BLE001  # whatever it is, the judge wants to know
            notes("failed", step.seed, type(error).__name__, str(error))
        else:
            notes("acked", step.seed)
    checkpoint.close()


class Notes:
    """A side file: lines that are there when `__call__` has returned, whoever is killed next."""

    def __init__(self, path: str | Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def __call__(self, *words: object) -> None:
        os.write(self._fd, json.dumps(words).encode() + b"\n")

    def warned(self, warning: Any) -> None:
        """For `Checkpoint(on_warning=…)`."""
        self("warned", warning.kind, warning.message)


def notes_in(path: Path) -> list[list[Any]]:
    """The lines of a side file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def restore(home: str, target: str) -> None:
    """An attempt that only restores, into a directory that may hold what a killed one left."""
    checkpoint = Checkpoint(LocalStorage(Path(home)), PREFIX, attempt=80, inputs=INPUTS)
    assert checkpoint.restore(target) is not None
    checkpoint.close()


def load(home: str, side: str, steps: list[dict[str, Any]]) -> None:
    """An attempt that only reads, and notes which step it read (0: "there is nothing")."""
    plan = msgspec.convert(steps, Plan)
    notes = Notes(side)
    checkpoint = Checkpoint(
        LocalStorage(Path(home)), PREFIX, attempt=70, inputs=INPUTS, on_warning=notes.warned
    )
    try:
        data = checkpoint.read()
    except Exception as error:  # noqa: BLE001  # whatever it is, the judge wants to know
        notes("failed", 0, type(error).__name__, str(error))
        return
    read = [step.seed for step in plan if step.tree == {"data": ("file", 0o644, data)}]
    notes("read", read[0] if data is not None else 0)


def cramped(home: str, side: str, sources: str, steps: list[dict[str, Any]], spare: int) -> None:
    """An attempt that may open only so many descriptors more; then one that may again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + spare, hard))
    attempt(home, sources, side, steps)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
