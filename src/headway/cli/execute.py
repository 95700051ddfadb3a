"""`headway exec`: any command as a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from headway.cli import times
from headway.cli.run import drive
from headway.cli.settings import Settings, takes_settings
from headway.model.errors import InputError


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newest click only
    """Seconds, from text as people type it."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            seconds = times.duration(value).total_seconds()
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds <= 0:
            self.fail("it must be more than 0", param, ctx)
        return seconds


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("words", metavar="[--] COMMAND [ARG]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Tries after the first one that failures may cost.  [default: 0]",
)
@click.option(
    "--max-interruptions",
    type=click.IntRange(min=0),
    metavar="N",
    help="How often it may be killed or told to go.  [default: no limit]",
)
@click.option(
    "--timeout", type=_Duration(), metavar="TIME", help="How long one try may take: 90s, 1h30m."
)
@click.option(
    "--interruptible/--no-interruptible",
    default=True,
    help="Whether it may be placed on machines that go away.  [default: it may]",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="DIR",
    help="Save this directory while it runs, and put it back before the next try. May be repeated.",
)
@click.option(
    "--every",
    type=_Duration(),
    default="30s",
    metavar="TIME",
    help="How often to save what --keep names.  [default: 30s]",
)
@click.option(
    "--env",
    multiple=True,
    metavar="NAME=VALUE",
    help="Add this to its environment, here and whenever it is resumed. May be repeated.",
)
@takes_settings()
def execute(
    settings: Settings,
    words: tuple[str, ...],
    retries: int,
    max_interruptions: int | None,
    timeout: float | None,
    interruptible: bool,
    keep: tuple[str, ...],
    every: float,
    env: tuple[str, ...],
) -> int:
    """Run a command so that it survives being killed.

    \b
    headway exec --retries 5 -- python train.py --epochs 10
    headway exec --keep out --every 5m -- ./simulate.sh out

    It is started again when it fails, as often as --retries says, and whenever it is killed or told to go;
    `headway resume` goes on with it when this command was stopped. A Python program that calls
    `headway.track` goes on where it was, as a task does; what any other program writes into the directories
    of --keep is put back.

    What it prints goes to stderr, and to a log. The exit code is the command's own; 128 + N if it died of
    signal N.
    """
    if not words:
        raise click.UsageError("name a command: headway exec -- COMMAND [ARG]...")
    from headway import runtime
    from headway.commands.task import command
    from headway.model.settings import TaskOptions

    line = _utf8(words)
    environment = dict(_pair(each) for each in _utf8(env))
    directories = _kept(_utf8(keep))
    _find(words[0], environment)
    home = runtime.open_home(settings.home)
    _apart(directories, home.url if home.place.is_home else None)
    inputs = {
        "words": line,
        "directory": os.getcwd(),
        "environment": environment,
        "keep": directories,
        "every": every,
    }
    options = TaskOptions(
        retries=retries,
        interruptible=interruptible,
        max_interruptions=max_interruptions,
        timeout=timeout,
    )
    task = command.with_options(options)
    return drive(
        lambda progress: runtime.run(
            home, task, inputs, jobs=1, observer=progress, say=progress.say
        ),
        settings,
    )


def _utf8(words: tuple[str, ...]) -> list[str]:
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise click.UsageError(
                f"{word!r} is not valid UTF-8, so it cannot be written down. Put the command into a script."
            ) from None
    return list(words)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"--env takes NAME=VALUE, and got {text!r}")
    if name.startswith("HEADWAY_"):
        raise click.UsageError(
            f"--env cannot set {name}: it would be written into the home. Export it."
        )
    return name, value


def _find(word: str, environment: dict[str, str]) -> None:
    """See that there is such a command, before a run is made for it."""
    path = environment.get("PATH", os.environ.get("PATH"))
    if shutil.which(word, path=path) is None:
        there = Path(word).is_file() and os.sep in word
        why = "is not executable: chmod +x it, or name what runs it" if there else "is not there"
        raise InputError(f"the command {word!r} {why}")


def _kept(names: list[str]) -> list[str]:
    paths = [os.path.realpath(name) for name in names]
    for name, path in zip(names, paths, strict=True):
        if os.path.lexists(path) and not os.path.isdir(path):
            raise click.UsageError(f"--keep takes a directory, and {name} is none")
        if _inside(os.getcwd(), path):
            raise click.UsageError(
                f"--keep {name} holds the working directory, and what is put back would replace the "
                "program too. Have the command write into a directory of its own."
            )
    return paths


def _apart(paths: list[str], home: str | None) -> None:
    """No directory may hold another one, or the home."""
    for at, path in enumerate(paths):
        others = paths[:at] + paths[at + 1 :] + ([] if home is None else [os.path.realpath(home)])
        for other in others:
            if _inside(other, path) or _inside(path, other):
                what = "another one" if other in paths else "the home"
                raise click.UsageError(f"--keep {path} and {what}, {other}, hold one another")


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(os.path.join(directory, ""))
