"""Bodies that keep files and state at once, and see at their beginning that the two belong together.

The files say what the state must be: a log has a line for each page, the newest pages are there, one file
is always as long as it was. A body that finds another pair ends with an error.
"""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import numpy as np

from headway import current_context, open_checkpoint, task, track
from headway.checkpoint.handle import Checkpoint

KEPT = 6  # pages that are there at once
SIZES = [10, 5_000, 60_000, 1_300_000]


def content(page: int) -> bytes:
    """What is in a page."""
    return random.Random(page).randbytes(SIZES[page % len(SIZES)])


def expected(pages: int) -> dict[str, str]:
    """Path -> hash of all files that there are after so many pages."""
    if not pages:
        return {}
    files = {f"pages/{page}": content(page) for page in range(max(0, pages - KEPT), pages)}
    files["log"] = b"".join(b"page %d\n" % page for page in range(pages))
    files["count"] = b"%06d" % pages
    return {name: _hash(data) for name, data in files.items()}


def found(place: Path) -> dict[str, str]:
    """The same of what is there."""
    return {
        path.relative_to(place).as_posix(): _hash(path.read_bytes())
        for path in place.rglob("*")
        if path.is_file()
    }


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch(place: Path, page: int) -> None:
    """Do one page: several files change, in several writes, as a program writes that thinks of nothing."""
    (place / "pages").mkdir(exist_ok=True)
    with open(place / "log", "ab", buffering=0) as log:
        log.write(b"page ")
        log.write(b"%d\n" % page)
    with open(place / "pages" / f"{page}", "wb", buffering=0) as file:
        data = content(page)
        file.write(data[: len(data) // 2])
        file.write(data[len(data) // 2 :])
    if page >= KEPT:
        (place / "pages" / f"{page - KEPT}").unlink()
    with open(place / "count", "r+b" if page else "wb", buffering=0) as count:
        count.write(b"%06d" % (page + 1))


def judge(place: Path, pages: int) -> None:
    """See that the files are those of this state."""
    there = found(place)
    if there != expected(pages):
        lines = (place / "log").read_bytes().count(b"\n") if (place / "log").exists() else 0
        raise AssertionError(f"the state says {pages} pages, the log {lines}: {sorted(there)}")


def lineage(url: str, pages: int, way: str, side: str = "") -> None:
    """Crawl outside of a run, or go on with that.

    Args:
        url: of the lineage.
        pages: how many there are.
        way: how it is saved.
        side: file that takes a line for each page whose save has returned.
    """
    notes = os.open(side or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open_checkpoint(url) as checkpoint:
        if way == "directory first":
            place = checkpoint.directory("crawl")
            done = _done(checkpoint, way)
        else:
            done = _done(checkpoint, way)
            place = checkpoint.directory("crawl")
        judge(place, done)
        for page in range(done, pages):
            fetch(place, page)
            if way == "bytes":
                checkpoint.write(b"%d" % (page + 1))
                continue
            state = {"pages": page + 1, "w": np.full(20_000, page)}
            checkpoint.save(state, wait=way != "background")
            os.write(notes, b"%d\n" % (page + 1))
        checkpoint.flush()
        judge(place, pages)


def _done(checkpoint: Checkpoint, way: str) -> int:
    if way == "bytes":
        return int(checkpoint.read() or b"0")
    state: dict[str, Any] = checkpoint.load() or {"pages": 0, "w": np.full(20_000, -1)}
    assert (state["w"] == state["pages"] - 1).all()
    return int(state["pages"])


@task(interruptible=True)
def crawl(pages: int, log: str) -> int:
    """Crawl in a run, as a tracked loop."""
    state = track(every=0.0, pages=0, weights=np.zeros(20_000))
    place = current_context().checkpoint.directory("crawl")
    judge(place, state.pages)
    with open(log, "a") as file:
        file.write(f"{state.pages} {os.getpid()}\n")
    for page in state.range(pages):
        assert state.pages == page
        fetch(place, page)
        state.weights[page % 20_000] = page
        state.pages += 1
    judge(place, pages)
    return int(state.weights.sum())
