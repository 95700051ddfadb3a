"""Every snippet and every command that README and docs show is run, as a reader would."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.docs.markdown import ROOT, Command, anchors, blocks, commands, links, unseen

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")],
    key=lambda page: page.relative_to(ROOT).as_posix(),
)
PAGE_NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
# What shows commands and programs. The design is about bytes and floors, and shows none.
SHOWN = [
    name for name in PAGE_NAMES if name != "ARCHITECTURE.md" and not name.startswith("docs/design/")
]
# Pages whose programs need more than `make test` installs.
NEEDS = {
    "docs/how-to/with-dataframes.md": ["pandas", "pyarrow"],
    "docs/how-to/with-jax.md": ["jax", "optax"],
    "docs/how-to/with-keras.md": ["keras", "torch"],
    "docs/how-to/with-lightning.md": ["lightning"],
    "docs/how-to/with-optuna.md": ["optuna"],
    "docs/how-to/with-pytorch.md": ["torch"],
    "docs/how-to/with-torch-distributed.md": ["torch"],
    "docs/how-to/with-transformers.md": ["transformers", "torch"],
    "docs/how-to/with-xgboost-and-lightgbm.md": ["xgboost", "lightgbm"],
}
# Pages whose packages warn of themselves: Lightning 2.6 uses what PyTorch 2.13 is about to drop.
WARN = {"docs/how-to/with-lightning.md"}
KINDS = {"python", "console", "text"}

# A test that ran the tests would never end. `.ci/run` runs demo, test and lint for real on a fresh
# checkout, and so the install; cov, crash and bench are run by hand. Here they must at least be
# what the Makefile and the package offer.
STAND_INS = {
    "make demo": f"make -n -C '{ROOT}' demo",
    "make test": f"make -n -C '{ROOT}' test",
    "make lint": f"make -n -C '{ROOT}' lint",
    "make cov": f"make -n -C '{ROOT}' cov",
    "make crash": f"make -n -C '{ROOT}' crash",
    "make bench": f"make -n -C '{ROOT}' bench",
    ".ci/run": f"bash -n '{ROOT}/.ci/run'",
    # On a busy machine a run may take three seconds to begin; here it dies as soon as it has.
    "timeout -s KILL 3 headway run pi.py pi --rounds 60": (
        "headway run pi.py pi --rounds 60 & "
        "until headway runs --json | grep -q '\"running\"'; do sleep 0.1; done; "
        "kill -KILL $!; wait $!"
    ),
    "pip install .": f"'{sys.executable}' -c 'from importlib.metadata import version as v; v(\"headway\")'",
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A reader's shell: headway is installed, and its home is new."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("HEADWAY", "PYTEST", "COV", "MAKE"))
    }
    return {
        **kept,
        "PATH": path,
        "HEADWAY_HOME": str(tmp_path / "home"),
        "COLUMNS": "200",
        "PYTHONWARNINGS": "error",
    }


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.frameworks) if n in NEEDS else n for n in SHOWN],
)
def test_what_a_page_shows_works(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    for package in NEEDS.get(name, []):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: `make frameworks` installs it")
    if name in WARN:
        environment["PYTHONWARNINGS"] = "default"
    here = tmp_path / "here"
    here.mkdir()
    (here / "examples").symlink_to(ROOT / "examples")
    for block in blocks((ROOT / name).read_text(encoding="utf-8")):
        where = f"{name}:{block.line}"
        assert block.kind in KINDS, f"{where}: {block.kind or 'nothing'} is not one of {KINDS}"
        if block.kind == "python":
            program = here / block.options.get("file", f"snippet_{block.line}.py")
            program.write_text(block.text, encoding="utf-8")
            if "file" not in block.options:
                run(Command(f"python {program.name}", [], 0), here, environment, where)
        elif block.kind == "console":
            for command in commands(block):
                run(command, here, environment, where)


def run(command: Command, here: Path, environment: dict[str, str], where: str) -> None:
    """Run one command; it must end and print as the page says."""
    done = subprocess.run(
        ["bash", "-c", STAND_INS.get(command.line, command.line)],
        cwd=here,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
        check=False,
    )
    told = f"{where}: $ {command.line}\n{done.stdout}"
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode  # as a shell says it
    assert code == command.exit_code, f"{told}\nexit code {code}, not {command.exit_code}"
    line = unseen(command.expected, done.stdout)
    assert line is None, f"{told}\nnot seen: {line}"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in links(page.read_text(encoding="utf-8")):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https", target
            continue
        file = (page.parent / parts.path).resolve() if parts.path else page
        assert file.exists(), f"{page.relative_to(ROOT)} links to {target}, which is not there"
        if parts.fragment:
            assert parts.fragment in anchors(file.read_text(encoding="utf-8")), target


def test_the_documentation_is_found_from_its_index() -> None:
    """A page that no page links to is read by nobody."""
    linked = {
        (page.parent / urlsplit(target).path).resolve()
        for page in PAGES
        for target in links(page.read_text(encoding="utf-8"))
    }
    lonely = [page for page in PAGES if page not in linked and page != ROOT / "README.md"]
    decisions = ROOT / "docs" / "design" / "decisions"
    assert [page for page in lonely if decisions not in page.parents] == []


def test_every_variable_that_headway_reads_is_documented() -> None:
    page = (ROOT / "docs/reference/environment.md").read_text(encoding="utf-8")
    used = {
        name
        for file in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"HEADWAY_[A-Z]+(?:_[A-Z]+)*", file.read_text(encoding="utf-8"))
    }
    assert "HEADWAY_KEY" in used
    assert not {name for name in used if f"`{name}`" not in page}
