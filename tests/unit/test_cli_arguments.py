"""Options made from signatures."""

from __future__ import annotations

import dataclasses
import enum
import io
import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import click
import pytest

from headway.cli.arguments import command_for, default_text, inputs_from
from headway.cli.docstrings import sections_of
from headway.engine.signature import Interface, Parameter


class Color(enum.Enum):
    RED = 1
    GREEN = 2


@dataclasses.dataclass
class Point:
    x: int


OWN = [
    click.Option(["--home"]),
    click.Option(["--json", "as_json"], is_flag=True),
    click.Option(["--quiet", "-q"], is_flag=True),
]


def entity_of(function: Callable[..., Any]) -> Any:
    """As much of a task as the command line looks at."""
    return SimpleNamespace(function=function, interface=Interface.of(function))


def parsed(
    function: Callable[..., Any], *words: str, inputs_file: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the inputs, the values of run's own options) that `words` give."""
    entity = entity_of(function)
    command = command_for("it", entity, OWN)
    context = command.make_context("headway run f.py it", list(words))
    inputs = inputs_from(context, entity, inputs_file)
    return inputs, {k: v for k, v in context.params.items() if not k.startswith("input_")}


def help_of(function: Callable[..., Any]) -> str:
    command = command_for("it", entity_of(function), OWN)
    return command.get_help(click.Context(command, info_name="headway run f.py it"))


def test_options_are_taken_with_dashes_and_with_underscores() -> None:
    def it(n_iterations: int, name: str = "x") -> None: ...

    assert parsed(it, "--n_iterations", "3")[0] == {"n_iterations": 3}
    assert parsed(it, "--n-iterations=4", "--name", "y")[0] == {"n_iterations": 4, "name": "y"}


def test_a_bool_is_a_pair_of_flags_in_every_spelling() -> None:
    def it(b: bool, dry_run: bool = True, maybe: bool | None = None) -> None: ...

    for word in ("--no-dry-run", "--no_dry_run", "--no-dry_run"):
        assert parsed(it, "--b", word)[0] == {"b": True, "dry_run": False}
    assert parsed(it, "--no-b", "--dry_run", "--maybe")[0] == {
        "b": False,
        "dry_run": True,
        "maybe": True,
    }
    assert parsed(it, "--no_b", "--no-maybe")[0] == {"b": False, "maybe": False}


def test_a_parameter_called_no_x_keeps_its_name_beside_a_bool_x() -> None:
    def it(x: bool = True, no_x: int = 0) -> None: ...

    assert parsed(it, "--no-x", "3")[0] == {"no_x": 3}


def test_negative_numbers_and_words_with_dashes_are_values() -> None:
    def it(n: int, s: str) -> None: ...

    assert parsed(it, "--n", "-5", "--s", "--odd")[0] == {"n": -5, "s": "--odd"}


def test_names_that_begin_with_an_underscore_or_are_upper_case_work() -> None:
    def it(_hidden: int, N: int) -> None: ...

    assert parsed(it, "--_hidden", "1", "--N", "2")[0] == {"_hidden": 1, "N": 2}


def test_what_is_missing_is_named_with_its_type() -> None:
    def it(n_items: int, xs: list[str], y: float = 0.0) -> None: ...

    with pytest.raises(click.UsageError) as caught:
        parsed(it)
    assert caught.value.format_message() == "missing options --n-items (int), --xs (list[str])"
    with pytest.raises(click.UsageError, match=r"missing option --xs \(list\[str\]\)$"):
        parsed(it, "--n-items", "1")


def test_a_bad_value_names_the_option_and_the_type() -> None:
    def it(n_items: int) -> None: ...

    with pytest.raises(click.BadParameter) as caught:
        parsed(it, "--n_items", "many")
    assert "'--n-items': 'many' is not an int" in caught.value.format_message()


def test_an_unknown_option_is_refused() -> None:
    def it(epochs: int = 1) -> None: ...

    with pytest.raises(click.NoSuchOption, match="--epoch"):
        parsed(it, "--epochz", "3")
    with pytest.raises(click.UsageError, match="unexpected extra argument"):
        parsed(it, "3")


def test_options_of_run_stand_after_the_entity_unless_it_has_such_a_parameter() -> None:
    def plain(n: int = 0) -> None: ...

    def takes_them(home: int, json: bool, quiet: str, help: int) -> None: ...  # noqa: A002

    assert parsed(plain, "--home", "h", "--json", "-q")[1] == {
        "home": "h",
        "as_json": True,
        "quiet": True,
    }
    inputs, own = parsed(takes_them, "--home", "7", "--json", "--quiet", "no", "--help", "1")
    assert inputs == {"home": 7, "json": True, "quiet": "no", "help": 1}
    assert own == {}


def test_an_inputs_file_gives_values_and_the_line_wins(tmp_path: Path) -> None:
    def it(n: int, day: date, points: list[Point], color: Color, wait_for: timedelta) -> None: ...

    file = tmp_path / "inputs.yaml"
    file.write_text(
        "n: 1\nday: 2026-01-31\npoints: [{x: 1}]\ncolor: RED\nwait-for: 90s\n", encoding="utf-8"
    )
    inputs, _ = parsed(it, "--n", "2", inputs_file=str(file))
    assert inputs == {
        "n": 2,
        "day": date(2026, 1, 31),
        "points": [Point(1)],
        "color": Color.RED,
        "wait_for": timedelta(seconds=90),
    }


@pytest.mark.parametrize("text", ['{"n": 3}', "n: 3", '{\t"n":\t3}'])
def test_inputs_come_from_stdin_as_json_or_yaml(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def it(n: int) -> None: ...

    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert parsed(it, inputs_file="-")[0] == {"n": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n: '5'", r"n: '5' is not an int"),
        ("nn: 5", "nn, which is no input; did you mean n"),
        ("zzz: 5", "the inputs are: n"),
        ("- 5", "must hold a mapping"),
        ("n: [", "is not YAML"),
        ("", "must hold a mapping"),
    ],
)
def test_a_bad_inputs_file_is_a_usage_error(content: str, message: str, tmp_path: Path) -> None:
    def it(n: int) -> None: ...

    file = tmp_path / "i.yaml"
    file.write_text(content)
    with pytest.raises(click.UsageError, match=message):
        parsed(it, inputs_file=str(file))
    with pytest.raises(click.UsageError, match="cannot read"):
        parsed(it, inputs_file=str(tmp_path / "none.yaml"))


def test_help_shows_types_defaults_and_the_docstring() -> None:
    def it(
        n_epochs: int,
        rate: float = 0.1,
        color: Color = Color.RED,
        mode: Literal["fast", "slow"] | None = None,
        dry_run: bool = False,
        xs: list[int] | None = None,
        start: datetime | None = None,
        blob: bytes = b"",
        label: str = "",
        big: str = "x" * 100,
    ) -> None:
        """Train a model.

        It takes a while.

        Args:
            n_epochs: how often to
                go through the data.
            rate (float): the learning rate.

        Returns:
            Nothing.
        """

    text = " ".join(help_of(it).split())
    for part in (
        "Usage: headway run f.py it [OPTIONS]",
        "Train a model. It takes a while.",
        "--n-epochs int how often to go through the data. [required]",
        "--rate float the learning rate. [default: 0.1]",
        "--color [RED|GREEN] [default: RED]",
        "--mode [fast|slow] [default: none]",
        "--dry-run / --no-dry-run [default: no-dry-run]",
        "--xs list[int] | None",
        "--blob bytes [default: b'']",
        '--label str [default: ""]',
        "xx…]",
        "--home",
        "Lists, dicts and records: JSON text",
        "bytes: @PATH",
        'datetime: 2026-01-31T12:00, now, today, "now - 1d"',
    ):
        assert part in text, part
    assert "Returns" not in text and "n_epochs" not in text and "timedelta:" not in text


def test_a_default_that_is_on_shows_the_flag_that_is_on() -> None:
    assert default_text(Parameter("dry_run", bool, default=True)) == "dry-run"


def test_docstrings_without_sections_and_empty_ones_are_fine() -> None:
    assert sections_of("").body == ""
    parts = sections_of(
        "One.\n\nTwo.\n\nArgs:\n\n    x: first\n\n    **more: rest\n\nRaises:\n    E: no"
    )
    assert parts.summary == "One."
    assert parts.body == "One.\n\nTwo."
    assert parts.arguments == {"x": "first", "more": "rest"}
