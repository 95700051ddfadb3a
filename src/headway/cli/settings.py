"""Options that every command takes: where the home is, and how to print."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
from collections.abc import Callable
from typing import Any

import click

NAMES = ("home", "as_json", "color", "quiet", "jobs")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the shared options were set to; None is "not given".

    Attributes:
        home: directory or URL of the home; None leaves it to `$HEADWAY_HOME`, then `~/.headway`.
        as_json: print JSON on stdout.
        color: auto, always or never.
        quiet: nothing on stderr but errors.
        jobs: attempts at once; None is one per core.
    """

    home: str | None = None
    as_json: bool = False
    color: str = "auto"
    quiet: bool = False
    jobs: int | None = None

    def with_options(self, given: dict[str, Any]) -> Settings:
        """These settings, with the options in `given` that were typed put over them."""
        typed = {name: given[name] for name in NAMES if given.get(name) not in {None, False}}
        return dataclasses.replace(self, **typed)

    @property
    def home_arguments(self) -> str:
        """What to add to a command so that it finds the same home: ` --home X`, or nothing."""
        return f" --home {shlex.quote(self.home)}" if self.home else ""

    def colored(self, stream: Any) -> bool:
        """Whether to colour what is written to `stream`."""
        if self.color != "auto":
            return self.color == "always"
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return False
        return bool(stream.isatty())


def takes_settings(*, jobs: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the shared options, and its function one `settings` argument in their place.

    Stand it directly above the function, so that `--help` lists the command's own options first.

    Args:
        jobs: include `--jobs`, for commands that run attempts.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **given: Any) -> Any:
            context = click.get_current_context()
            taken = {name: given.pop(name) for name in NAMES if name in given}
            context.obj = context.ensure_object(Settings).with_options(taken)
            return function(*args, settings=context.obj, **given)

        for option in reversed(_options(jobs=jobs)):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def _options(*, jobs: bool) -> list[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    options: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
        click.option(
            "--home",
            metavar="DIR|URL",
            help="Where runs are kept.  [default: $HEADWAY_HOME, else ~/.headway]",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout."),
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            help="When to use colour.  [default: auto]",
        ),
        click.option("--quiet", "-q", is_flag=True, help="Nothing on stderr but errors."),
    ]
    if jobs:
        options.insert(
            1,
            click.option(
                "--jobs",
                "-j",
                type=click.IntRange(min=1),
                metavar="N",
                help="Attempts that run at once.  [default: one per core]",
            ),
        )
    return options
