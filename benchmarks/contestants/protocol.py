"""How the runner and a contestant talk: a line for a round, a line of JSON with what it measured.

A contestant prepares itself, says so, and then does one round whenever it is asked. So the rounds of
several contestants take turns although each of them imports its libraries only once. The answers have a
descriptor of their own: libraries print what they like.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

Measured = list[float]
Round = Callable[[], Measured]
Prepare = Callable[[Path, dict[str, Any]], AbstractContextManager[Round]]


def serve(known: dict[str, Prepare]) -> None:
    """Be the contestant named on the command line until the runner closes its end.

    `argv`: the name, an empty directory to work in, and a JSON object of options.

    Args:
        known: name -> what prepares it: a context manager that gives the function of a round.
    """
    prepare = known[sys.argv[1]]
    place, options = Path(sys.argv[2]), json.loads(sys.argv[3])
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # whatever is printed from here on goes to the contestant's log

        def answer(**fields: Any) -> None:
            answers.write(json.dumps(fields) + "\n")
            answers.flush()

        with prepare(place, options) as round_:
            answer(ready=True)
            for _ in sys.stdin:
                answer(measured=round_())
