"""FILE, MODULE or URL to loaded code and what it defines."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from headway.cli import output
from headway.cli.settings import Settings
from headway.model.errors import DefinitionError, InputError

if TYPE_CHECKING:
    from headway.cli.fetch import Fetched

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Trust:
    """What the user said about running code from a URL.

    Attributes:
        sha256: run it only if it has this digest (hex), and do not ask.
        yes: run it whatever it is.
        arguments: what was typed after `headway run`, for the command that agrees.
    """

    sha256: str | None = None
    yes: bool = False
    arguments: tuple[str, ...] = ()


def is_url(program: str) -> bool:
    """Whether `program` is a URL rather than a file or a module."""
    return _URL.match(program) is not None


def load(program: str, trust: Trust, settings: Settings) -> dict[str, Any]:
    """What `program` defines: name -> task or workflow.

    What the program prints while it is imported goes to stderr, since stdout is for results.

    Raises:
        InputError: there is no such file, module or URL, or the user did not agree to run it.
        DefinitionError: it cannot be imported, or defines no task and no workflow.
    """
    from headway.engine import loading

    if trust.sha256 and not is_url(program):
        raise click.UsageError("--sha256 is for programs that come from a URL")
    if is_url(program):
        program = str(_kept(program, trust, settings))
    with contextlib.redirect_stdout(sys.stderr):
        if program.endswith(".py") or os.sep in program or Path(program).is_file():
            path = Path(program).expanduser()
            if not path.is_file():
                raise InputError(f"there is no file {program!r}{_similar(path)}")
            module, _ = loading.load_file(path)
        else:
            module, _ = loading.load_module(program)
        return _entities(module, program)


def choose(name: str, found: dict[str, Any], program: str) -> Any:
    """The task or workflow called `name`.

    Raises:
        InputError: there is none; the message names those that there are.
    """
    if name in found:
        return found[name]
    close = difflib.get_close_matches(name, found, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(found)}"
    raise InputError(f"{program} has no task or workflow {name!r}; {hint}")


def _entities(module: ModuleType, program: str) -> dict[str, Any]:
    from headway.engine import loading

    found: dict[str, Any] = loading.entities(module)
    if not found:
        raise DefinitionError(
            f"{program} defines no task and no workflow. Put @task or @workflow (from headway) "
            "above a function at its top level."
        )
    return found


def _similar(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix == ".py"]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {str(path.parent / close[0])!r}?" if close else ""


def _kept(url: str, trust: Trust, settings: Settings) -> Path:
    """Fetch a program, have it confirmed, and keep it in the home, where `resume` finds it."""
    from headway import runtime
    from headway.cli.fetch import fetch
    from headway.engine.kept import keep

    fetched = fetch(url)
    _confirm(url, fetched, trust, quiet=settings.quiet)
    home = runtime.open_home(settings.home)
    # Named by content, so that a program that changes at its URL never replaces the one of a run.
    return keep(home, fetched.name, fetched.source)


def _confirm(url: str, fetched: Fetched, trust: Trust, *, quiet: bool) -> None:
    digest = fetched.sha256
    if trust.sha256 is not None:
        if trust.sha256.strip().lower().removeprefix("sha256:") != digest:
            raise InputError(
                f"{url} has SHA-256 {digest}, not {trust.sha256}: it is not the program you meant, "
                "or it has changed. Nothing of it ran."
            )
        return
    if trust.yes:
        if not quiet:
            output.write(f"{url}: SHA-256 {digest}, accepted by --yes", sys.stderr)
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        command = shlex.join(["headway", "run", "--sha256", digest, *trust.arguments])
        raise InputError(
            f"{url} is not run before somebody agrees to it. If SHA-256 {digest} is the program you "
            f"mean, type:\n  {command}"
        )
    # A private place to read it in before answering; never the working directory.
    with tempfile.TemporaryDirectory(prefix="headway-") as folder:
        path = Path(folder) / fetched.name
        path.write_bytes(fetched.source)
        moved = f"\n  in the end from {fetched.url}" if fetched.url != url else ""
        output.write(
            f"{url}{moved}\n  SHA-256 {digest}, {len(fetched.source)} bytes\n  to read it: {path}",
            sys.stderr,
        )
        if not click.confirm("Run this program?", err=True):
            raise InputError("nothing of it ran")
