"""Tasks that wait to be killed, and leave marks of when their bodies began."""

import json
import os
import time

from headway import current_context, task, workflow

PATIENCE = 60.0


def mark(marks: str, name: str, began: float) -> None:
    """Leave the process and the time (monotonic, seconds) in a file, whole or not at all."""
    path = os.path.join(marks, name)
    with open(path + ".new", "w", encoding="ascii") as file:
        json.dump({"pid": os.getpid(), "began": began}, file)
    os.rename(path + ".new", path)


@task(interruptible=True)
def wait(marks: str, before: int) -> int:
    """The first attempt waits for its end; the next one only says that it is there."""
    began = time.monotonic()
    attempt = current_context().attempt
    mark(marks, f"attempt-{attempt}", began)
    if attempt == 0:
        time.sleep(PATIENCE)
    return before + attempt


@task
def first() -> int:
    """A node that is finished before anything is killed."""
    return 0


@workflow
def relay(marks: str) -> int:
    """One node that finishes, and one that gets killed."""
    return wait(marks=marks, before=first())
