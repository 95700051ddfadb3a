"""Every bit of a home flipped, every file cut short: found, or harmless (P5, P6).

The home of a run, finished or interrupted, is read into memory; each case damages one file of a copy
and reads it as `show`, `resume` and the next attempt do. Nothing but an error of headway's own, a
warning or a remark may come of it; what is read without one has to be what was written.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.crash.driving import Runs
from tests.crash.flow import fold
from tests.crash.nursery import Nursery, survivors

from headway import compose, runtime
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import lineage_of
from headway.checkpoint.restore import content
from headway.engine.journal import Journal, read_journal
from headway.engine.keys import node_prefix, values_prefix
from headway.engine.values import Values
from headway.ledger.read import read_ledger
from headway.model.errors import HeadwayError
from headway.model.events import AttemptEnded, AttemptStarted
from headway.testing.memory import MemoryStorage

FLIPS = 2_500  # of a sample, per home
CUTS = 500
STEPS = 4


@dataclass
class Answer:
    """What somebody learnt from a home, and what headway remarked about it on the way."""

    value: Any = None
    remarks: tuple[str, ...] = ()
    error: str = ""


class Home:
    """A home in memory, of which damaged copies can be looked at.

    Args:
        runs: the run in it.
        place: an empty directory, where a home's locks would be.
    """

    def __init__(self, runs: Runs, place: Path) -> None:
        found = runs.run_id()
        assert found is not None
        self.run_id = found
        self.place = place
        self.files = {
            path.relative_to(runs.home).as_posix(): path.read_bytes()
            for path in sorted(runs.home.rglob("*"))
            # logs are the user's text, locks are empty: no state is in either
            if path.is_file() and path.suffix not in {".log", ".lock"}
        }
        self._objects = {name: bytearray(data) for name, data in self.files.items()}
        self.questions = [self.open, self.show, self.result, self.resume, self.older, self.values]
        self.whole: dict[str, Answer] = {}
        self._readers: dict[str, list[str]] = {name: [] for name in self.files}
        for question in self.questions:
            storage = self._storage({})
            self.whole[question.__name__] = self._ask(question.__name__, storage)
            for name in {"headway.json"} if question == self.open else self._read(storage):
                self._readers[name].append(question.__name__)
        assert not any(answer.error for answer in self.whole.values()), self.whole
        assert all(self._readers.values()), "somebody has to read each file"

    def ask(self, name: str, data: bytes) -> dict[str, Answer]:
        """Ask everything for which file `name` is read, when it holds `data`."""
        return {
            asked: self._ask(asked, self._storage({name: data})) for asked in self._readers[name]
        }

    def open(self, storage: MemoryStorage) -> Answer:
        """Opening the home."""
        (self.place / "headway.json").write_bytes(storage.objects["headway.json"])
        compose.open_storage(str(self.place))
        return Answer()

    def show(self, storage: MemoryStorage) -> Answer:
        """`headway show`."""
        report = runtime.show(runtime.Home(storage, str(self.place)), self.run_id)
        checkpoints = [
            c for n in report.nodes for a in n.attempts for c in a.checkpoints if c.valid
        ]
        value = report.status, report.result, [checkpoint.number for checkpoint in checkpoints]
        return Answer(value, tuple(report.notes))

    def result(self, storage: MemoryStorage) -> Answer:
        """The decoded value, once the run is over."""
        if self.whole and self.whole["show"].value[0] != "succeeded":
            return Answer()
        return Answer(runtime.result(runtime.Home(storage, str(self.place)), self.run_id))

    def resume(self, storage: MemoryStorage) -> Answer:
        """What the next driver takes for finished, and the next attempt goes on from."""
        journal = Journal.open(storage, self.run_id)
        remarks = [*journal.notes]
        ended = [event.outputs for event in journal.events if isinstance(event, AttemptEnded)]
        started = [event for event in journal.events if isinstance(event, AttemptStarted)]
        count = next(event for event in started if event.node == "count")
        checkpoint = Checkpoint(
            storage,
            node_prefix(self.run_id, "count"),
            attempt=count.attempt + 1,
            inputs=count.inputs_digest,
            on_warning=lambda warned: remarks.append(warned.message),
        )
        data = checkpoint.read()
        return Answer((ended, None if data is None else json.loads(data)[:2]), tuple(remarks))

    def older(self, storage: MemoryStorage) -> Answer:
        """All checkpoints, as if every newer one were gone."""
        prefix = node_prefix(self.run_id, "count")
        chain = read_ledger(storage, f"{prefix}/ledger")
        remarks = tuple(damage.reason for damage in chain.damage)
        found = [
            json.loads(b"".join(content(storage, f"{prefix}/packs", manifest, manifest.entries[0])))
            for manifest in lineage_of(chain, prefix).manifests
        ]
        return Answer([state[:2] for state in found], remarks)

    def values(self, storage: MemoryStorage) -> Answer:
        """What tasks returned, as the next ones would get it."""
        events, notes = read_journal(storage, self.run_id)
        values = Values(storage, values_prefix(self.run_id))
        outputs = [event.outputs for event in events if isinstance(event, AttemptEnded)]
        found = [values.decode(plain) for each in outputs if each for plain in each.values()]
        return Answer(found, tuple(notes))

    def _ask(self, asked: str, storage: MemoryStorage) -> Answer:
        answer = Answer()
        try:
            answer = getattr(self, asked)(storage)
        except HeadwayError as error:
            answer.error = f"{type(error).__name__}: {error}"
        return answer

    def _storage(self, damaged: dict[str, bytes]) -> MemoryStorage:
        storage = MemoryStorage(str(self.place))
        storage.objects = {**self._objects}  # shared: no question writes into what is there
        storage.objects |= {name: bytearray(data) for name, data in damaged.items()}
        return storage

    def _read(self, storage: MemoryStorage) -> set[str]:
        return {key for method, key in storage.calls if method in {"read", "read_range"}}


class Judge:
    """Says whether damage was found, harmless, or neither.

    Args:
        home: the home.
        saved: the states that were saved, oldest first.
    """

    def __init__(self, home: Home, saved: list[Any]) -> None:
        self.home = home
        self.saved = saved
        self.verdicts: Counter[str] = Counter()

    def judge(self, name: str, data: bytes, what: str) -> None:
        """Damage one file, ask everybody who reads it, and check that nobody was fooled."""
        verdict = "harmless"
        for asked, answer in self.home.ask(name, data).items():
            whole = self.home.whole[asked]
            if answer == whole:
                continue
            try:
                if answer.error:
                    verdict = "an error"
                    continue
                assert set(answer.remarks) - set(whole.remarks), "nobody was told"
                verdict = verdict if verdict == "an error" else "a remark"
                self._is_older(asked, answer.value, whole.value)
            except AssertionError as error:
                error.add_note(f"{what} of {name}: {asked} gave {answer}, and not {whole}")
                raise
        self.verdicts[verdict] += 1

    def _is_older(self, asked: str, found: Any, whole: Any) -> None:
        """With a remark, what is told may be less than there was; it may not be anything else."""
        if asked == "show":
            status, result, checkpoints = found
            assert status == whole[0] or (status == "interrupted" and result is None)
            assert result in (whole[1], None)
            assert checkpoints == [n for n in whole[2] if n in checkpoints]
        elif asked == "resume":
            ended, previous = found
            assert ended == whole[0][: len(ended)]
            assert previous in self.saved, "damage was taken for absence"
        else:
            assert found == [one for one in whole if one in found]


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@pytest.fixture(scope="module", params=["succeeded", "interrupted"])
def judge(
    request: pytest.FixtureRequest, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Judge:
    place = tmp_path_factory.mktemp(request.param)
    interrupted = request.param == "interrupted"
    runs = Runs(nursery, place, entity="ledgered", inputs={"n": STEPS, "forever": interrupted})
    driver = runs.driver()
    driver.go()
    if interrupted:
        end = time.monotonic() + 60
        while len(runs.notes("committed")) < 2:
            assert time.monotonic() < end, driver.said()
            time.sleep(0.01)
        os.kill(driver.pid, signal.SIGKILL)
    assert driver.wait() == (-signal.SIGKILL if interrupted else 0), driver.said()
    assert not survivors(driver.mark)
    (place / "empty").mkdir()
    home = Home(runs, place / "empty")
    value, saved = "", []
    for number in range(STEPS):
        value = fold(value, number)
        saved.append([number, value])
    status, _, checkpoints = home.whole["show"].value
    assert (status, checkpoints) == (request.param, [1, 2, 3, 4])
    assert home.whole["resume"].value[1] == saved[-1]
    for kind in ("/packs/", "/values/", "nodes/count/ledger/", f"{home.run_id}/ledger/"):
        assert any(kind in name for name in home.files), kind
    return Judge(home, saved)


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def used(data: bytes) -> int:
    """Bytes up to the last that is not zero: the rest of a log is room."""
    return len(data.rstrip(b"\0"))


def test_a_sample_of_flips_and_cuts(judge: Judge) -> None:
    source = random.Random(8)
    names = list(judge.home.files)
    for index in range(FLIPS):
        name = names[index % len(names)]
        data = judge.home.files[name]
        bits = 8 * (len(data) if index % 10 == 0 else min(len(data), used(data) + 64))
        bit = source.randrange(bits)
        judge.judge(name, flipped(data, bit), f"bit {bit}")
    for index in range(CUTS):
        name = names[index % len(names)]
        data = judge.home.files[name]
        size = source.randrange(len(data) if index % 2 else min(len(data), used(data) + 1))
        judge.judge(name, data[:size], f"all but {size} bytes")
    print(f"corruption: {judge.verdicts.total()} cases; {dict(judge.verdicts)}")
    assert judge.verdicts["an error"] > FLIPS / 4 and judge.verdicts["a remark"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_flip_and_every_cut(judge: Judge) -> None:
    bits = 0
    for name, data in judge.home.files.items():
        if judge.home.whole["show"].value[0] != "succeeded" and "ledger" not in name:
            continue  # the same as in the other home
        for bit in range(8 * len(data)):
            judge.judge(name, flipped(data, bit), f"bit {bit}")
        for size in range(len(data)):
            judge.judge(name, data[:size], f"all but {size} bytes")
        bits += 8 * len(data)
        print(
            f"corruption: up to {name}: {bits} bits, all cuts: {dict(judge.verdicts)}", flush=True
        )


def test_an_emptied_ledger_is_no_new_one(judge: Judge) -> None:
    for name in judge.home.files:
        if "/ledger/" in name:
            judge.judge(name, b"", "everything")
    assert set(judge.verdicts) >= {"an error"}
