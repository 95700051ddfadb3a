"""The tools that headway is measured against, each in a virtual environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BENCH = HERE.parent / ".bench"
REQUIREMENTS = HERE / "requirements-peers.txt"
PATIENCE = 1200.0  # seconds for one peer's installation

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "FLYTE_SDK_LOGGING_LEVEL": "50",
}
"""What keeps the peers from phoning home and from spending their time on logs."""

OPEN = frozenset({"ray"})
"""Peers whose servers listen on all addresses of the machine, whatever they are told."""


@dataclass(frozen=True)
class Peer:
    """One of them.

    Attributes:
        name: the distribution's name.
        version: of what is installed; "" when it is not.
        why_not: the reason when it is not installed.
    """

    name: str
    version: str = ""
    why_not: str = ""

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(_place(self.name) / "bin" / "python")

    def command(self, name: str) -> str:
        """One of the commands that it brings, such as `pyflyte`."""
        return str(_place(self.name) / "bin" / name)


def peers(say: Callable[[str], None], *, wanted: bool = True) -> dict[str, Peer]:
    """All peers of `requirements-peers.txt` by name, installed if that was possible.

    Args:
        say: takes a line of progress.
        wanted: False leaves all of them out and installs nothing.
    """
    found = {}
    for wants in requirements():
        name = wants[0].partition("==")[0]
        if not wanted:
            found[name] = Peer(name, why_not="not measured: --no-peers")
            continue
        try:
            version = _installed(name, wants, say)
        except (OSError, subprocess.SubprocessError) as error:
            found[name] = Peer(name, why_not=f"not installed: {_reason(error)}")
        else:
            found[name] = Peer(name, version)
    return found


def requirements() -> list[list[str]]:
    """For each peer its requirement, such as `ray==2.60.0`, and what else its environment needs."""
    groups: list[list[str]] = []
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text and line[0].isspace():
            groups[-1].append(text)
        elif text:
            groups.append([text])
    return groups


def environment(place: Path) -> dict[str, str]:
    """The environment of everything that is measured: silent, at home below `place`, and with the headway
    that lies beside these benchmarks, whichever is installed."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HEADWAY", "PREFECT", "RAY", "FLYTE", "COV", "PYTHON", "VIRTUAL"))
    }
    return {
        **kept,
        **QUIET,
        "PYTHONPATH": str(HERE.parent / "src"),
        "HOME": str(place),
        "TMPDIR": str(place),  # peers stage in temporary files: on the same disk as everything else
        "HEADWAY_HOME": str(place / "headway"),
        "PREFECT_HOME": str(place / "prefect"),
    }


def _installed(name: str, wants: list[str], say: Callable[[str], None]) -> str:
    """Install a peer unless it is there; returns its version, and those of what was named beside it."""
    place = _place(name)
    stamp = place / "installed"
    wanted = f"{' '.join(wants)} {sys.version}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        say(f"installing {wants[0]} (once, a minute or two)")
        shutil.rmtree(place, ignore_errors=True)
        _quietly(sys.executable, "-m", "venv", str(place))
        _quietly(str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", *wants)
        stamp.write_text(wanted, encoding="utf-8")  # last: half an installation is done again
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    version = _quietly(str(place / "bin" / "python"), "-c", code).strip()
    beside = ", ".join(want.replace("==", " ") for want in wants[1:])
    return f"{version} with {beside}" if beside else version


def _place(name: str) -> Path:
    return BENCH / "peers" / name


def _quietly(*command: str) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=PATIENCE
    ).stdout


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    """The last thing that the failed command said, or the error itself."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    lines = [line for line in (said or "").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [type(error).__name__])[-1].removeprefix("ERROR:").strip()
