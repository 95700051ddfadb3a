"""What is made from the code in the reference pages of the command line.

`python -m headway.cli.reference` brings docs/reference/cli.md and docs/reference/exit-codes.md, below
the working directory, up to date between their two marks; a test holds that they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from headway.cli import codes
from headway.cli.main import cli

BEGIN = "<!-- made by `python -m headway.cli.reference`: begin -->\n"
END = "<!-- end -->\n"


def commands() -> str:
    """A section for each command, with the text of its `--help`."""
    root = click.Context(cli, info_name="headway", terminal_width=80)
    sections = [_section(cli, None)]
    sections += [_section(command, root) for command in cli.commands.values()]
    return "\n".join(sections)


def exit_codes() -> str:
    """The table of exit codes."""
    rows = ["| code | kind | meaning |", "| --- | --- | --- |"]
    for code, (kind, text) in codes.MEANING.items():
        escaped = text.replace("|", "\\|")
        rows.append(f"| {code} | {kind} | {escaped} |")
    return "\n".join(rows) + "\n"


PAGES = {"cli.md": commands, "exit-codes.md": exit_codes}
"""File name -> what makes its generated part."""


def refreshed(page: str, made: str) -> str:
    """`page` with what stands between the marks replaced by `made`."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def _section(command: click.Command, parent: click.Context | None) -> str:
    context = click.Context(
        command,
        parent=parent,
        info_name="headway" if parent is None else command.name,
        terminal_width=80,
        help_option_names=["--help", "-h"],
    )
    return f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference")
    for name, make in PAGES.items():
        page = folder / name
        page.write_text(refreshed(page.read_text("utf-8"), make()), "utf-8")
