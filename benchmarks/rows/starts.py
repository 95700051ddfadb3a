"""E5 and E6: what it costs to import headway, and to ask it for help."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figure import Figure, Row, absent, scaled
from benchmarks.peers import environment
from benchmarks.stage import Performer, Stage, Stuck

IMPORT_KEY = "E5"
IMPORT_TITLE = "Importing headway"
HELP_KEY = "E6"
HELP_TITLE = "`headway --help`"

PATIENCE = 120.0

STATEMENTS = {
    "import headway": "",
    "from headway import task, workflow, current_context": "",
    "import flytekit": "flytekit",
    "import prefect": "prefect",
    "from prefect import task, flow": "prefect",
    "import ray": "ray",
}
"""Statement -> whose environment it needs."""

COMMANDS = {"headway": "", "pyflyte": "flytekit", "prefect": "prefect", "ray": "ray"}
"""Command -> whose environment it is in."""

_IMPORT = """\
import json, sys, time
old = set(sys.modules)
began = time.perf_counter()
{statement}
seconds = time.perf_counter() - began
new = set(sys.modules) - old
tops = {{name.partition(".")[0] for name in new}} - sys.stdlib_module_names - {{"headway"}}
print(json.dumps([seconds, len(new), len(tops)]))
"""


def measure_imports(stage: Stage) -> Row:
    """Let fresh interpreters import in turn."""
    rounds = stage.some(9, 1)
    with stage.directory("import") as place:
        performers = {
            statement: _performer(stage, peer, _importing(stage, statement, peer, place))
            for statement, peer in STATEMENTS.items()
            if not _why_not(stage, peer)
        }
        measured, missing = stage.take_turns(performers, rounds)
    missing |= {s: why for s, peer in STATEMENTS.items() if (why := _why_not(stage, peer))}
    times: list[Figure] = []
    modules: list[Figure] = []
    for statement in STATEMENTS:
        held = statement == "import headway"
        name = f"`{statement}`"
        if statement in missing:
            times.append(absent(name, "ms", missing[statement]))
            continue
        seconds, counts, foreign = zip(*measured[statement], strict=True)
        times.append(scaled(name, "ms", seconds, target=60.0 if held else None))
        modules.append(Figure(name, "modules", counts, 120.0 if held else None))
        if held:
            modules.append(Figure(f"{name}, packages of third parties", "packages", foreign, 0.0))
    about = (
        "The time of the statement in a fresh interpreter, so that Python's own start is not in it, and "
        f"the modules that it adds to a bare Python. {rounds} rounds, bytecode and disk cache warm."
    )
    return Row(IMPORT_KEY, IMPORT_TITLE, about, (*times, *modules))


def measure_help(stage: Stage) -> Row:
    """Ask the commands for help in turn."""
    rounds = stage.some(9, 1)
    with stage.directory("help") as place:
        performers = {
            name: _performer(stage, peer, _helping(stage, name, peer, place))
            for name, peer in COMMANDS.items()
            if not _why_not(stage, peer)
        }
        measured, missing = stage.take_turns(performers, rounds)
    missing |= {name: why for name, peer in COMMANDS.items() if (why := _why_not(stage, peer))}
    figures = [
        absent(f"`{name} --help`", "ms", missing[name])
        if name in missing
        else scaled(
            f"`{name} --help`",
            "ms",
            [turn[0] for turn in measured[name]],
            target=200.0 if name == "headway" else None,
        )
        for name in COMMANDS
    ]
    about = (
        "From starting the command until it has ended, the interpreter's start included. "
        f"{rounds} rounds, caches warm."
    )
    return Row(HELP_KEY, HELP_TITLE, about, tuple(figures))


def _why_not(stage: Stage, peer: str) -> str:
    return stage.peers[peer].why_not if peer else ""


def _performer(stage: Stage, peer: str, round_: Callable[[], list[float]]) -> Performer:
    return Performer(round_, rounds=stage.some(5, 1) if peer else 0, ours=not peer)


def _importing(stage: Stage, statement: str, peer: str, place: Path) -> Callable[[], list[float]]:
    python = stage.peers[peer].python if peer else sys.executable
    program = _IMPORT.format(statement=statement)

    def round_() -> list[float]:
        said = _said([python, "-c", program], place).splitlines()
        measured: list[float] = json.loads(said[-1])
        return measured

    return round_


def _helping(stage: Stage, name: str, peer: str, place: Path) -> Callable[[], list[float]]:
    beside = str(Path(sys.executable).parent / name)
    command = [stage.peers[peer].command(name) if peer else beside, "--help"]

    def round_() -> list[float]:
        began = time.perf_counter()
        _said(command, place)
        return [time.perf_counter() - began]

    return round_


def _said(command: list[str], place: Path) -> str:
    """What a command printed."""
    try:
        done = subprocess.run(
            command,
            cwd=place,
            env=environment(place),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Stuck(f"{Path(command[0]).name} ended with {error.returncode}: {last}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Stuck(f"{Path(command[0]).name}: {error}") from error
    return done.stdout
