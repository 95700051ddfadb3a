"""The command line: measure rows, show them, write them down."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import headway
from benchmarks.figure import Row
from benchmarks.machine import machine
from benchmarks.orphans import Orphans
from benchmarks.peers import BENCH, HERE, Peer, peers
from benchmarks.report import Report, to_markdown, to_terminal
from benchmarks.rows import ROWS
from benchmarks.stage import Stage, Stuck

RESULTS = HERE / "RESULTS.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for.

    Returns:
        0; or 1 when something of headway's own could not be measured. Missed targets change nothing:
        times are for people to judge.
    """
    typed = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(typed)
    if options.list:
        for key, row in ROWS.items():
            print(f"{key:4} {row.title}")
        return 0

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    began = time.monotonic()
    others = peers(say, wanted=options.peers)
    parent = options.dir or BENCH
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="w", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch).resolve()
        described = machine(place)
        stage = Stage(place, others, options.quick, options.huge, say, Orphans())
        target = options.results or (None if options.quick or options.only else RESULTS)
        rows: list[Row] = []
        for key in options.only or ROWS:
            rows.append(_measured(key, stage))
            report = Report(
                command=shlex.join(["python", "-m", "benchmarks", *_without_places(typed)]),
                date=dt.datetime.now(dt.UTC).date().isoformat(),
                quick=options.quick,
                machine=described,
                versions=_versions(others),
                rows=tuple(rows),
                seconds=time.monotonic() - began,
            )
            if target is not None:  # a run that is interrupted leaves the rows that it has
                target.write_text(to_markdown(report), encoding="utf-8")
    if options.json:
        print(json.dumps(report.plain(), indent=2, ensure_ascii=False))
    else:
        to_terminal(report)
    if target is not None:
        say(f"written: {target}")
    return 1 if any(row.error for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure headway beside other tools on this machine, and write "
        "benchmarks/RESULTS.md. The other tools are installed once, below .bench/.",
    )
    parser.add_argument(
        "--only",
        type=_keys,
        metavar="ROW,…",
        help=f"only these rows, of {', '.join(ROWS)}; RESULTS.md stays as it is",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="very little work, to see that everything runs; RESULTS.md stays as it is",
    )
    parser.add_argument("--huge", action="store_true", help="also a run of 100,000 nodes (minutes)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--no-peers",
        dest="peers",
        action="store_false",
        help="leave the other tools out, and install nothing",
    )
    parser.add_argument("--list", action="store_true", help="list the rows, and measure nothing")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="work there: the disk that is measured [.bench]"
    )
    return parser


def _keys(text: str) -> list[str]:
    keys = [key.strip().upper() for key in text.split(",")]
    unknown = [key for key in keys if key not in ROWS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}"
        )
    return keys


def _measured(key: str, stage: Stage) -> Row:
    title, measure = ROWS[key]
    stage.say(f"{key}: {title}")
    try:
        return measure(stage)
    except Stuck as error:
        stage.say(str(error))
        return Row(key, title, "", error=str(error).splitlines()[-1])


def _versions(others: dict[str, Peer]) -> dict[str, str]:
    found = {peer.name: peer.version or peer.why_not for peer in others.values()}
    return {"headway": headway.__version__, **found}


def _without_places(typed: list[str]) -> list[str]:
    """The command line for the record: where somebody's files lie is nobody's business."""
    kept, places = [], {"--dir", "--results"}
    skip = False
    for word in typed:
        if not skip and word.partition("=")[0] not in places:
            kept.append(word)
        skip = word in places
    return kept
