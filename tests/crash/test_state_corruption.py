"""Every bit flipped, every file cut short, of a home that holds typed state: found, or harmless (P5, P6).

Three checkpoints, one inside its record and two in packs, of which the newer refers to a part of the older.
What comes of `load`, and of `load(into=)`, after one file was damaged: the newest state to the last bit;
or an older one, with a warning; or an error. Never another state, and never "there is none".
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.counting import count

from headway.checkpoint.handle import Checkpoint
from headway.model.errors import HeadwayError
from headway.testing.comparing import difference
from headway.testing.memory import MemoryStorage

PREFIX = "lineages/l"
FLIPS, CUTS = 1_200, 300  # of the sample
pytestmark = pytest.mark.reliability("R5")


def state(step: int, *, large: bool) -> dict[str, Any]:
    """Of the same structure each time."""
    weights = np.zeros((60, 100) if large else (6, 10), np.float32)
    weights[::3] = step
    return {
        "step": step,
        "frozen": np.arange(6000 if large else 60, dtype="<i4"),
        "weights": weights,
        "list": [step, str(step), None, (step, 1.5)],
    }


SAVED = [state(1, large=True), state(2, large=True), state(3, large=False)]


def home(newest: int) -> dict[str, bytes]:
    """The files of a home in which the checkpoints up to `newest` were saved."""
    storage = MemoryStorage()
    checkpoint = Checkpoint(storage, PREFIX)
    for saved in SAVED[:newest]:
        checkpoint.save(saved)
    checkpoint.close()
    return {key: bytes(data) for key, data in storage.objects.items()}


class Judge:
    """Damages a home, and says what came of it."""

    def __init__(self, newest: int) -> None:
        self.files = home(newest)
        self.saved = SAVED[:newest]
        self.verdicts: Counter[str] = Counter()

    def judge(self, name: str, data: bytes, what: str) -> None:
        try:
            self.verdicts[self._load(name, data, into=False)] += 1
        except AssertionError as error:
            error.add_note(f"{what} of {name}")
            raise

    def judge_in_place(self, name: str, data: bytes, what: str) -> None:
        try:
            self.verdicts[self._load(name, data, into=True)] += 1
        except AssertionError as error:
            error.add_note(f"{what} of {name}, loaded in place")
            raise

    def _load(self, name: str, data: bytes, *, into: bool) -> str:
        storage = MemoryStorage()
        storage.objects = {key: bytearray(held) for key, held in self.files.items() if key != name}
        storage.objects[name] = bytearray(data)
        told: list[str] = []
        checkpoint = Checkpoint(
            storage, PREFIX, attempt=1, on_warning=lambda warned: told.append(warned.message)
        )
        live = state(9, large=True) if into else None
        try:
            found = checkpoint.load(live) if into else checkpoint.load()
        except HeadwayError:
            return "an error"
        finally:
            checkpoint.close()
        assert found is not None, "damage was taken for absence"
        if not difference(found, self.saved[-1]):
            return "a remark" if told else "harmless"
        older = [not difference(found, saved) for saved in self.saved[:-1]]
        assert any(older), f"another state was loaded: {difference(found, self.saved[-1])}"
        assert told, "an older state was loaded, and nobody was told"
        return "an older one, and a warning"


def used(data: bytes) -> int:
    """Bytes up to the last that is not zero: the rest of a log is room."""
    return len(data.rstrip(b"\0"))


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.fixture(params=[2, 3], ids=["in packs", "in the record"])
def judge(request: pytest.FixtureRequest) -> Iterator[Judge]:
    judge = Judge(request.param)
    assert sum("/packs/" in name for name in judge.files) == 2
    yield judge
    count("R5", "flips and cuts of state", judge.verdicts.total())


def test_a_sample_of_flips_and_cuts(judge: Judge) -> None:
    source = random.Random(5)
    names = list(judge.files)
    for index in range(FLIPS):
        name = names[index % len(names)]
        data = judge.files[name]
        bit = source.randrange(8 * min(len(data), used(data) + 64))
        one = judge.judge_in_place if index % 4 == 0 and len(judge.saved) == 2 else judge.judge
        one(name, flipped(data, bit), f"bit {bit}")
    for index in range(CUTS):
        name = names[index % len(names)]
        size = source.randrange(min(len(judge.files[name]), used(judge.files[name]) + 1))
        judge.judge(name, judge.files[name][:size], f"all but {size} bytes")
    assert judge.verdicts["an older one, and a warning"] + judge.verdicts["an error"] > FLIPS / 8
    assert set(judge.verdicts) >= {"harmless", "an older one, and a warning"}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_flip_and_every_cut(judge: Judge) -> None:
    for name, data in judge.files.items():
        for bit in range(8 * min(len(data), used(data) + 64)):
            judge.judge(name, flipped(data, bit), f"bit {bit}")
        for size in range(min(len(data), used(data) + 1)):
            judge.judge(name, data[:size], f"all but {size} bytes")


def test_without_the_checksums_of_chunks_another_state_would_be_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge = Judge(2)
    pack = next(name for name in judge.files if name.endswith("000002"))
    bit = 8 * (used(judge.files[pack]) - 10)
    judge.judge(pack, flipped(judge.files[pack], bit), f"bit {bit}")
    assert judge.verdicts == {"an older one, and a warning": 1}
    for name, module in [*sys.modules.items()]:
        if name.startswith("headway.checkpoint") and hasattr(module, "verify"):
            monkeypatch.setattr(module, "verify", lambda data, expected: True)
    with pytest.raises(AssertionError, match="another state was loaded"):
        judge.judge(pack, flipped(judge.files[pack], bit), f"bit {bit}")
    count("R5", "mutants caught")
