"""The reference pages say what the code does."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from headway.cli import codes
from headway.cli.main import cli
from headway.cli.reference import BEGIN, END, PAGES, refreshed
from headway.model import errors

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", PAGES)
def test_the_page_says_what_the_code_does(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written.count(BEGIN) == written.count(END) == 1
    assert written == refreshed(written, PAGES[name]()), "run: python -m headway.cli.reference"


def test_every_command_and_option_is_on_the_page() -> None:
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    for command in cli.commands.values():
        assert f"## headway {command.name}\n" in page
        for parameter in command.params:
            for name in parameter.opts:
                assert not name.startswith("--") or name in page


def test_every_error_class_has_a_documented_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = [kind("why") for kind in kinds if issubclass(kind, errors.HeadwayError)]
    assert len(raised) > 12
    for error in raised:
        assert codes.of_error(error) in codes.MEANING
        assert codes.of_error(error) != codes.INTERNAL


def test_codes_are_the_ones_that_were_promised() -> None:
    assert list(codes.MEANING) == [0, 1, 2, 3, 4, 5, 6, 7, 70, 129, 130, 141, 143]


def test_the_pages_are_brought_up_to_date_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PAGES:
        (tmp_path / name).write_text(f"before\n{BEGIN}old\n{END}after\n")
    monkeypatch.setattr(sys, "argv", ["reference", str(tmp_path)])
    with pytest.warns(RuntimeWarning, match="found in sys.modules"):
        runpy.run_module("headway.cli.reference", run_name="__main__")
    for name, make in PAGES.items():
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text == f"before\n{BEGIN}\n{make()}\n{END}after\n"
