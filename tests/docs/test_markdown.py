"""The checks of the pages would see a page that is wrong."""

from __future__ import annotations

import pytest
from tests.docs.markdown import anchors, blocks, commands, links, unseen

PAGE = """# A page

See [that](other.md#part-two) and `not[this](one)`.

```python file=a.py
x = 1  # [nor](this)
```

```console exit=3
$ first
one
$ second
```
"""


def test_blocks_have_a_kind_options_text_and_a_line() -> None:
    program, console = blocks(PAGE)
    assert program == ("python", {"file": "a.py"}, "x = 1  # [nor](this)\n", 5)
    assert (console.kind, console.options, console.line) == ("console", {"exit": "3"}, 9)


def test_commands_have_their_output_and_the_last_one_the_exit_code() -> None:
    assert commands(blocks(PAGE)[1]) == [("first", ["one"], 0), ("second", [], 3)]


def test_output_before_the_first_command_is_a_mistake() -> None:
    (block,) = blocks("```console\nhello\n```\n")
    with pytest.raises(ValueError, match="must begin with"):
        commands(block)


@pytest.mark.parametrize(
    ("expected", "output", "missing"),
    [
        ([], "", None),
        (["a", "c"], "a\nb\nc\n", None),
        (["c", "a"], "a\nb\nc\n", "a"),
        (["a"], "ab\n", "a"),
        (["a…"], "ab\n", None),
        (["…b…"], "abc\n", None),
        (["a", "a"], "a\n", "a"),
        (["3.1"], "3x1\n", "3.1"),
    ],
)
def test_expected_lines_are_whole_and_in_order(
    expected: list[str], output: str, missing: str | None
) -> None:
    assert unseen(expected, output) == missing


def test_links_in_code_are_none() -> None:
    assert list(links(PAGE)) == ["other.md#part-two"]


def test_headings_become_anchors_as_on_the_web() -> None:
    assert anchors("# Kill it!\n## 1. Decide what the *state* is\n") == {
        "kill-it",
        "1-decide-what-the-state-is",
    }
