"""What is kept, what is given up, and what becomes of its packs."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway import DefinitionError, InputError, StorageFull, open_checkpoint, task
from headway.checkpoint import space
from headway.checkpoint.handle import Checkpoint
from headway.checkpoint.lineage import read_lineage
from headway.checkpoint.restore import content
from headway.checkpoint.retain import KEPT, OTHERS, Rule, given_up, metric_of, rule_of
from headway.checkpoint.space import SPARES, Space, pack_name, pack_place, readable, unnamed
from headway.checkpoint.thinning import Needs
from headway.ledger.write import Ledger
from headway.model.errors import CheckpointCorrupt, StorageError, StorageUnavailable
from headway.model.manifest import Chunk, Entry, Manifest
from headway.model.program import Warned
from headway.model.settings import Best, Keep
from headway.storage.local import LocalStorage

PREFIX = "runs/r/nodes/train"
PACKS = f"{PREFIX}/packs"


def made(number: int, *, packs: int = 1, inputs: str = "i", loss: float | None = None) -> Manifest:
    """A checkpoint's record, with packs of its own."""
    return Manifest(
        number=number,
        attempt=0,
        inputs=inputs,
        time=0.0,
        cost=0.0,
        kind="state",
        size=1,
        entries=(),
        packs=tuple(pack_name(number, index) for index in range(packs)),
        metric=None if loss is None else ("loss", loss),
    )


def kept(rule: Rule, manifests: list[Manifest], bad: Container[int] = ()) -> list[int]:
    """Numbers of what is there when these were saved one after the other."""
    there: list[Manifest] = []
    for manifest in manifests:
        gone = given_up(rule, there, manifest, bad)
        there = [m for m in [*there, manifest] if m.number not in gone]
    return [manifest.number for manifest in there]


class TestPolicy:
    def test_three_with_packs_stay_when_nothing_is_said(self) -> None:
        assert kept(Rule(), [made(n) for n in range(1, 9)]) == [6, 7, 8]

    def test_what_lies_in_its_record_is_neither_counted_nor_given_up(self) -> None:
        saved = [made(n, packs=n % 2) for n in range(1, 11)]
        assert kept(Rule(), saved) == [2, 4, 5, 6, 7, 8, 9, 10]

    @pytest.mark.parametrize("keep", [1, 2, 5])
    def test_so_many_of_any_kind_stay_when_a_number_is_said(self, keep: int) -> None:
        saved = [made(n, packs=n % 2) for n in range(1, 11)]
        assert kept(Rule(keep), saved) == list(range(11 - keep, 11))

    def test_all_stay_when_all_is_said(self) -> None:
        saved = [made(n, inputs=str(n % 5)) for n in range(1, 20)]
        assert kept(Rule("all"), saved) == list(range(1, 20))

    def test_the_best_stays_beside_the_newest(self) -> None:
        losses = [5.0, 1.0, 3.0, 2.0, 4.0, 6.0]
        saved = [made(n, loss=loss) for n, loss in enumerate(losses, start=1)]
        assert kept(Rule(2, ("loss", "min")), saved) == [2, 5, 6]
        assert kept(Rule(2, ("loss", "max")), saved) == [5, 6]
        assert kept(Rule(1, ("loss", "max")), saved[:5]) == [1, 5]

    def test_nan_and_infinity_are_never_the_best(self) -> None:
        losses = [float("nan"), 7.0, float("-inf"), float("nan"), 9.0]
        saved = [made(n, loss=loss) for n, loss in enumerate(losses, start=1)]
        assert kept(Rule(1, ("loss", "min")), saved) == [2, 5]

    def test_of_equally_good_ones_the_newest_stays(self) -> None:
        saved = [made(n, loss=1.0) for n in range(1, 6)]
        assert kept(Rule(1, ("loss", "min")), saved) == [5]

    def test_another_metric_does_not_count(self) -> None:
        saved = [made(1, loss=-100.0), *(made(n) for n in range(2, 5))]
        assert kept(Rule(1, ("accuracy", "min")), saved) == [4]

    def test_bad_ones_do_not_push_the_last_good_one_out(self) -> None:
        there = [made(1), made(2), made(3), made(4)]
        assert given_up(Rule(2), there, made(5), {2, 3, 4}) == ()
        assert given_up(Rule(2), there, made(5), {3, 4}) == (1,)
        assert given_up(Rule(1), there, made(5), {3, 4}) == (1, 2, 3, 4)

    def test_other_inputs_stay_until_these_have_as_many_as_are_kept(self) -> None:
        before = [made(1, inputs="a"), made(2, inputs="a"), made(3, inputs="a")]
        assert kept(Rule(2), [*before, made(4)]) == [2, 3, 4]
        assert kept(Rule(2), [*before, made(4), made(5)]) == [3, 4, 5]
        assert kept(Rule(1), [*before, made(4)]) == [3, 4]

    def test_however_often_inputs_change_only_some_checkpoints_stay(self) -> None:
        saved = [made(n, inputs=str(n // 3)) for n in range(1, 60)]
        assert len(kept(Rule(2), saved)) <= 2 + OTHERS

    @given(
        keep=st.sampled_from([None, 1, 2, 3, "all"]),
        mode=st.sampled_from(["min", "max"]),
        saves=st.lists(
            st.tuples(st.integers(0, 2), st.sampled_from("aab"), st.floats(width=16)), max_size=14
        ),
        bad=st.sets(st.integers(1, 14), max_size=5),
    )
    def test_the_newest_good_ones_are_never_given_up(
        self,
        keep: Keep,
        mode: Any,
        saves: list[tuple[int, str, float]],
        bad: set[int],
    ) -> None:
        rule = Rule(keep, ("loss", mode))
        there: list[Manifest] = []
        for number, (packs, inputs, loss) in enumerate(saves, start=1):
            new = made(number, packs=packs, inputs=inputs, loss=loss)
            older = [m.number for m in there if m.inputs == inputs and m.number not in bad]
            gone = given_up(rule, there, new, bad - {number})
            assert number not in gone
            assert not set(gone) & set(older[len(older) + 1 - rule.count :]) or rule.count == 1
            if rule.count > 1 and older:
                assert older[-1] not in gone, "nothing to fall back on"
            there = [m for m in [*there, new] if m.number not in gone]
        if keep not in {None, "all"}:
            assert len(there) <= (rule.count + 1 + len(bad)) * 3


class TestSpelling:
    @pytest.mark.parametrize("keep", [0, -1, True, 2.0, "3", "ALL", [1]])
    def test_what_is_no_number_of_checkpoints_is_refused(self, keep: Any) -> None:
        with pytest.raises(
            InputError, match=r'keep=… is how many checkpoints stay: 1 or more, or "all"'
        ):
            rule_of(keep)
        with pytest.raises(DefinitionError, match=r"@task\(keep=…\) is how many"):
            task(keep=keep)

    @pytest.mark.parametrize(
        "best", ["loss", ("loss",), ("loss", "low"), (1, "min"), {"loss": "min"}]
    )
    def test_what_is_no_metric_is_refused(self, best: Any) -> None:
        with pytest.raises(InputError, match="keep_best=… is the name of a number"):
            rule_of(None, best)
        with pytest.raises(DefinitionError, match=r"@task\(keep_best=…\) is the name"):
            task(keep_best=best)

    def test_nothing_is_made_for_a_wrong_rule(self, tmp_path: Path) -> None:
        with pytest.raises(InputError), open_checkpoint(f"{tmp_path}/home/x", keep=0):
            pass
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "value", [0.5, 1, np.float32(0.5), np.array(0.5), np.int8(3), float("nan")]
    )
    def test_any_single_number_can_be_compared(self, value: Any) -> None:
        found = metric_of(Rule(1, ("loss", "min")), {"loss": value})
        assert found is not None
        assert type(found[1]) is float

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ({"w": 1, "acc": 2}, "finds no 'loss' in the state to save; it has 'w', 'acc'"),
            ({}, "it has nothing"),
            ({"loss": "low"}, "'loss' in the state to save is a str"),
            ({"loss": True}, "is a bool"),
            ({"loss": [1.0]}, "is a list"),
            ({"loss": np.zeros(2)}, "is a ndarray"),
            (None, "this save is of bytes or files"),
        ],
    )
    def test_a_state_without_the_number_is_refused(
        self, state: Mapping[str, Any] | None, message: str
    ) -> None:
        with pytest.raises(InputError) as caught:
            metric_of(Rule(1, ("loss", "min")), state)
        assert message in str(caught.value)


class Node:
    """A node, and attempts at it.

    Attributes:
        warned: what they warned of.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.storage = LocalStorage(home)
        self.warned: list[Warned] = []
        self._next = 0

    def attempt(self, keep: Keep = None, best: Best | None = None, inputs: str = "i") -> Checkpoint:
        """The next attempt."""
        attempt, self._next = self._next, self._next + 1
        return Checkpoint(
            self.storage,
            PREFIX,
            attempt=attempt,
            inputs=inputs,
            on_warning=self.warned.append,
            keep=keep,
            keep_best=best,
        )

    def live(self) -> list[Manifest]:
        """What a reader finds, every byte verified."""
        found = read_lineage(self.storage, PREFIX).manifests
        for manifest in found:
            for entry in manifest.entries:
                for _ in content(self.storage, PACKS, manifest, entry):
                    pass
        return list(found)

    def numbers(self) -> list[int]:
        return [manifest.number for manifest in self.live()]

    def packs(self) -> set[str]:
        return set(self.storage.list(PACKS))

    def named(self) -> set[str]:
        return {name for manifest in self.live() for name in manifest.packs}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "home")


def big(number: int) -> bytes:
    return bytes([number % 256]) * 50_000


class TestSaves:
    def test_packs_go_with_their_last_checkpoint(self, node: Node) -> None:
        with_packs = node.attempt()
        for number in range(1, 7):
            with_packs.write(big(number))
            with_packs.write(b"small")
        assert node.numbers() == [2, 4, 6, 7, 8, 9, 10, 11, 12]
        assert node.named() < node.packs()
        assert len(node.packs()) == KEPT + 1  # one is kept to be written over
        assert [row.number for row in with_packs.history()] == node.numbers()
        with_packs.close()
        assert node.packs() == node.named()

    def test_a_pack_that_a_later_checkpoint_refers_to_stays(
        self, node: Node, tmp_path: Path
    ) -> None:
        folder = tmp_path / "state"
        folder.mkdir()
        (folder / "frozen").write_bytes(os.urandom(200_000))
        mine = node.attempt(keep=1)
        for number in range(5):
            (folder / "hot").write_bytes(big(number))
            mine.save(folder)
        (last,) = node.live()
        assert {pack_place(name) for name in last.packs} == {(1, 1), (1, 5)}
        mine.close()
        assert node.packs() == set(last.packs)

    def test_the_best_one_can_be_found_in_the_record(self, node: Node) -> None:
        mine = node.attempt(1, ("loss", "min"))
        for loss in (3.0, 1.0, 2.0, float("nan")):
            mine.save({"loss": loss, "w": np.full(9_000, loss)})
        assert node.numbers() == [2, 4]
        assert node.live()[0].metric == ("loss", 1.0)
        with pytest.raises(InputError, match="finds no 'loss'"):
            mine.save({"w": 1})
        with pytest.raises(InputError, match="bytes or files"):
            mine.write(b"x")
        with pytest.raises(InputError, match="bytes or files"):
            mine.save(__file__)
        assert node.numbers() == [2, 4]

    def test_what_an_attempt_left_unfinished_goes_before_the_next_pack(self, node: Node) -> None:
        first = node.attempt()
        first.write(big(1))
        killed = node.storage.create_pack(f"{PACKS}/{pack_name(1, 2)}")
        killed.write(b"half")
        second = node.attempt()
        assert second.read() == big(1)
        assert len(node.packs()) == 2
        second.write(big(2))
        assert node.packs() == node.named()
        killed.commit() if node.storage.has(f"{PACKS}/{pack_name(1, 2)}") else killed.abort()

    def test_small_saves_sweep_too(self, node: Node) -> None:
        node.attempt().write(big(1))
        node.storage.create_pack(f"{PACKS}/{pack_name(1, 2)}").commit()
        node.attempt().write(b"small")
        assert node.packs() == node.named()

    def test_names_that_no_save_made_are_left_alone(self, node: Node) -> None:
        node.attempt().write(big(1))
        node.storage.create(f"{PACKS}/notes.txt", b"mine")
        node.attempt().write(big(2))
        assert node.storage.read(f"{PACKS}/notes.txt") == b"mine"

    def test_a_bad_checkpoint_does_not_cost_the_last_good_one(self, node: Node) -> None:
        mine = node.attempt(keep=2)
        for number in (1, 2):
            mine.write(big(number))
        newest = max(node.packs())
        path = node.storage.path(f"{PACKS}/{newest}")
        path.write_bytes(b"T" + path.read_bytes()[1:])
        after = node.attempt(keep=2)
        assert after.read() == big(1)
        after.write(big(3))
        assert [m.number for m in read_lineage(node.storage, PREFIX).manifests] == [1, 2, 3]
        after.write(big(4))
        assert node.numbers() == [3, 4]

    def test_where_records_were_lost_nothing_is_swept(self, node: Node) -> None:
        mine = node.attempt(keep="all")
        for number in (1, 2, 3):
            mine.write(big(number))
        mine.close()
        log = node.storage.path(f"{PREFIX}/ledger/00000001")
        data = bytearray(log.read_bytes())
        data[data.index(b"checkpoint", data.index(b"checkpoint") + 1)] ^= 1
        log.write_bytes(data)
        before = node.packs()
        after = node.attempt()
        assert after.read() == big(3)
        after.write(big(4))
        assert node.packs() > before
        assert "damaged" in {warned.kind for warned in node.warned}

    def test_a_deletion_that_fails_is_tried_again_and_fails_no_save(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(space, "SPARES", 0)
        mine = node.attempt(keep=1)
        real, struck = node.storage.delete, []

        def fails(prefix: str) -> None:
            struck.append(prefix)
            raise StorageUnavailable("a planted fault")

        monkeypatch.setattr(node.storage, "delete", fails)
        for number in (1, 2, 3):
            mine.write(big(number))
        assert len(struck) == 3  # one, then both
        assert len(node.packs()) == 3
        monkeypatch.setattr(node.storage, "delete", real)
        mine.write(big(4))
        assert node.packs() == node.named()

    def test_a_save_whose_record_failed_leaves_its_packs_until_the_next(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(space, "SPARES", 0)
        mine = node.attempt(keep=1)
        mine.write(big(1))
        real = Ledger.append

        def after_it_was_durable(ledger: Ledger, *payloads: bytes) -> None:
            real(ledger, *payloads)
            raise KeyboardInterrupt

        monkeypatch.setattr(Ledger, "append", after_it_was_durable)
        with pytest.raises(KeyboardInterrupt):
            mine.write(big(2))
        monkeypatch.setattr(Ledger, "append", real)
        assert node.numbers() == [2], "it is in the chain: nobody may take its packs"
        assert len(node.packs()) == 2
        mine.write(big(3))
        assert node.numbers() == [3]
        assert node.packs() == node.named()

    def test_checkpoints_of_other_inputs_can_be_gone_on_from(self, node: Node) -> None:
        node.attempt(keep=1, inputs="a").write(big(1))
        edited = node.attempt(keep=1, inputs="b")
        assert edited.read() is None
        edited.write(big(2))
        edited.write(big(3))
        back = node.attempt(keep=1, inputs="a")
        assert back.read() == big(1)


class TestReuse:
    def space(self, node: Node) -> Space:
        return Space(node.storage, PACKS, (), 5, sound=True)

    def saved(self, space: Space, node: Node, number: int, size: int = 100) -> Manifest:
        key = space.new(5)
        pack = node.storage.create_pack(key)
        pack.write(bytes(size))
        pack.commit()
        new = made(number, packs=0)
        packs = (key.rpartition("/")[2],)
        new = Manifest(
            **{
                **{f: getattr(new, f) for f in new.__struct_fields__},
                "packs": packs,
                "stored": (size,),
            }
        )
        space.hold(new)
        return new

    def test_a_pack_of_this_turn_is_offered_once_somebody_asks(self, node: Node) -> None:
        space = self.space(node)
        first, second = self.saved(space, node, 1), self.saved(space, node, 2)
        space.give_up(second, [first], 100)
        assert node.packs() == set(second.packs), "nobody reuses anything here"
        assert space.spare() is None
        third = self.saved(space, node, 3)
        space.give_up(third, [second], 100)
        assert node.packs() == {*second.packs, *third.packs}
        assert space.spare() == f"{PACKS}/{second.packs[0]}"
        assert space.spare() is None
        fourth = self.saved(space, node, 4)
        space.give_up(fourth, [], 0)
        assert second.packs[0] not in node.packs(), "it was not taken, so it goes"

    def test_few_spares_are_kept_and_none_at_the_end(self, node: Node) -> None:
        space = self.space(node)
        space.spare()
        many = [self.saved(space, node, number) for number in range(1, 6)]
        space.give_up(many[4], many[:4], 100)
        assert len(node.packs()) == 1 + SPARES
        space.close()
        assert node.packs() == set(many[4].packs)

    def test_a_spare_far_larger_than_what_is_saved_is_not_kept(self, node: Node) -> None:
        space = self.space(node)
        space.spare()
        large, small = self.saved(space, node, 1, 10_000), self.saved(space, node, 2)
        space.give_up(small, [large], 100)
        assert node.packs() == set(small.packs)

    def test_a_fork_takes_nothing_from_its_parent(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space = self.space(node)
        space.spare()
        first = self.saved(space, node, 1)
        second = self.saved(space, node, 2)
        space.give_up(second, [first], 100)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        space.close()
        assert len(node.packs()) == 2

    def test_only_packs_of_older_terms_are_swept(self) -> None:
        names = [pack_name(term, 1) for term in (1, 4, 5, 6)]
        assert unnamed([*names, "x", "1-1"], [names[0]], 5) == [names[1]]


class TestRoom:
    def room(self, monkeypatch: pytest.MonkeyPatch, left: Callable[[], int]) -> None:
        monkeypatch.setattr(LocalStorage, "room", lambda _: left())

    def test_a_save_that_cannot_fit_is_not_begun(
        self, node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        self.room(monkeypatch, lambda: 40_000)
        mine = node.attempt(keep=2)
        saves: list[Callable[[], object]] = [
            lambda: mine.write(big(1)),
            lambda: mine.save({"w": np.zeros(9_000)}),
            lambda: mine.save(_file(tmp_path, 50_000)),
            lambda: mine.save(_file(tmp_path, 50_000).parent),
        ]
        for save in saves:
            with pytest.raises(StorageFull, match="has 39 KiB left") as caught:
                save()
            assert caught.value.errno == errno.ENOSPC
            assert "keep= is 2 now" in str(caught.value)
            assert "headway gc" in str(caught.value)
        assert node.packs() == set()
        mine.write(b"small")
        assert mine.read() == b"small"

    def test_what_was_left_behind_is_swept_first(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node.attempt().write(big(1))
        node.storage.create_pack(f"{PACKS}/{pack_name(1, 2)}").commit()
        self.room(monkeypatch, lambda: 60_000 if len(node.packs()) < 2 else 0)
        node.attempt().write(big(2))
        assert node.packs() == node.named()

    def test_a_save_that_may_be_mostly_references_is_tried(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = node.attempt()
        mine.write(big(1))
        self.room(monkeypatch, lambda: 10_000)
        mine.write(big(1))  # refers to all of the first
        with pytest.raises(StorageFull):
            node.attempt().write(big(2))

    def test_a_save_like_the_last_one_is_refused_when_it_cannot_fit(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = node.attempt()
        mine.write(big(1))
        mine.write(big(2))  # nothing of the first could be used
        self.room(monkeypatch, lambda: 10_000)
        with pytest.raises(StorageFull, match="was not begun"):
            mine.write(big(3))

    def test_a_disk_that_is_nearly_full_is_told_of_before_it_is_full(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = node.attempt()
        self.room(monkeypatch, lambda: (11 << 19) - (len(node.packs()) << 21))
        mine.write(os.urandom(2 << 20))
        assert node.warned == []
        mine.write(os.urandom(2 << 20))
        (warned,) = node.warned
        assert warned.kind == "space"
        assert "has 1.5 MiB left, and the last checkpoint took 2.0 MiB" in warned.message
        with pytest.raises(StorageFull, match="was not begun"):
            mine.write(os.urandom(2 << 20))
        mine.write(os.urandom(1 << 20))
        assert len(node.warned) == 1

    def test_nobody_is_asked_who_does_not_know(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(LocalStorage, "room", lambda _: None)
        mine = node.attempt()
        mine.write(os.urandom(2 << 20))
        assert node.warned == []


def _file(folder: Path, size: int) -> Path:
    inner = folder / "saved"
    inner.mkdir(exist_ok=True)
    path = inner / "data"
    path.write_bytes(bytes(size))
    return path


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (50 << 20, "50 MiB")]
)
def test_bytes_are_said_as_people_read_them(count: int, text: str) -> None:
    assert readable(count) == text


def grown(home: Path, parts: int, size: int, saves: int) -> tuple[int, int]:
    """Save a state of so many parts, one of which changes each time; half of them never does. Returns
    (bytes of the state, bytes of packs at the worst)."""
    source = np.random.default_rng(0)
    state: dict[str, Any] = {f"part-{n}": source.bytes(size) for n in range(parts)}
    largest = 0
    with open_checkpoint(f"{home}/x") as cp:
        for step in range(saves):
            state[f"part-{step % (parts // 2)}"] = source.bytes(size)
            cp.save(state)
            if step % 10 == 9:
                packs = (home / "lineages/x/packs").iterdir()
                largest = max(largest, sum(path.stat().st_size for path in packs))
        assert [row.number for row in cp.history()] == [saves - 2, saves - 1, saves]
    return parts * size, largest


def test_many_checkpoints_take_the_live_state_and_the_changes(tmp_path: Path) -> None:
    size, largest = grown(tmp_path / "home", parts=20, size=8_192, saves=120)
    assert largest < 2.5 * size


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_checkpoints_of_a_gibibyte_do(tmp_path: Path) -> None:
    size, largest = grown(tmp_path / "home", parts=100, size=(1 << 30) // 100, saves=1000)
    print(f"1,000 checkpoints of {readable(size)}, 1 % changed each: at most {readable(largest)}")
    assert largest < 2.5 * size


def changed_at_random(home: Path, size: int, saves: int) -> tuple[int, int]:
    """Save a state of `size` bytes of which a hundredth changes each time, at random places, and keep all
    of them. Returns (bytes of the packs, bytes of the first state and of all changes)."""
    source = np.random.default_rng(0)
    state = np.frombuffer(bytearray(source.bytes(size)), np.uint8)
    rows = state.reshape(-1, 65_536)
    changed = len(rows) // 100
    with open_checkpoint(f"{home}/x", keep="all") as cp:
        for save in range(saves):
            if save:
                rows[source.choice(len(rows), changed, replace=False)] += 1
            cp.save({"state": state}, wait=False)
        cp.flush()
        assert len(cp.history()) == saves
        packs = (home / "lineages/x/packs").iterdir()
        return sum(p.stat().st_size for p in packs), size + (saves - 1) * changed * 65_536


def test_all_checkpoints_take_the_first_state_and_the_changes(tmp_path: Path) -> None:
    taken, changes = changed_at_random(tmp_path / "home", size=13 << 20, saves=160)
    assert taken < 1.02 * changes


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_of_a_gibibyte_all_kept_do(tmp_path: Path) -> None:
    taken, changes = changed_at_random(tmp_path / "home", size=1 << 30, saves=1000)
    print(f"1,000 checkpoints, all kept, took {readable(taken)}; changed: {readable(changes)}")
    assert taken < 1.02 * changes


class TestNeeds:
    """Which packs the next checkpoint should leave."""

    def made(self, number: int, **live: int) -> Manifest:
        """A checkpoint that refers to so many bytes of packs of 100."""
        packs = tuple(live)
        chunks = tuple(Chunk(b"", i, 0, live[name]) for i, name in enumerate(packs))
        entry = Entry("x", "part", 0, sum(live.values()), None, chunks)
        return msgspec.structs.replace(
            made(number), packs=packs, stored=(100,) * len(packs), entries=(entry,)
        )

    def test_the_emptiest_go_until_half_is_needed(self) -> None:
        base = self.made(1, a=10, b=60, c=20)
        assert Needs([base]).thin(base) == {"a", "c"}
        assert Needs([full := self.made(1, a=50, b=50)]).thin(full) == set()

    def test_what_an_older_one_needs_is_not_written_anew(self) -> None:
        older, base = self.made(1, a=100), self.made(2, a=5, b=40)
        needs = Needs([older, base])
        assert needs.thin(base) == set()
        needs.drop([older], {"a", "b"})
        assert needs.thin(base) == {"a", "b"}

    def test_it_is_the_same_whatever_the_order_of_news(self) -> None:
        source = random.Random(1)
        for _ in range(200):
            needs = Needs([])
            kept: list[Manifest] = []
            live: dict[str, int] = {}
            for number in range(1, 30):
                live = {k: v - source.randrange(v) for k, v in live.items() if v > 1}
                live[f"p{number}"] = 100
                kept.append(self.made(number, **live))
                needs.add(kept[-1])
                gone = [m for m in kept[:-1] if source.random() < 0.2]
                kept = [m for m in kept if m not in gone]
                needs.drop(gone, {name for m in kept for name in m.packs})
                assert needs.thin(kept[-1]) == Needs(kept).thin(kept[-1])


def test_errors_are_of_the_documented_kinds() -> None:
    assert issubclass(StorageFull, StorageError)
    assert not issubclass(CheckpointCorrupt, StorageError)
