"""Values whose code or bytes have changed since they were stored."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from typing import Any, NamedTuple

import numpy as np
import pytest

from headway.engine import moments
from headway.engine.blobs import PIECE, Blob, Blobs
from headway.engine.values import Values
from headway.model.errors import CheckpointCorrupt, InputError
from headway.ports import KeyExists
from headway.testing.memory import MemoryStorage

PREFIX = "runs/r/values"
LARGE = 40 << 10


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def values(storage: MemoryStorage) -> Values:
    return Values(storage, PREFIX)


def plain_of(label: str, **fields: Any) -> dict[str, Any]:
    return {"$": "dataclass", "class": label, "fields": fields}


@dataclasses.dataclass
class Config:
    name: str
    size: int = 3
    tags: list[str] = dataclasses.field(default_factory=list)


class Colour(enum.Enum):
    RED = 1


class Access(enum.Flag):
    READ = 1


class Point(NamedTuple):
    x: int


def test_a_field_that_the_class_has_new_takes_its_default(values: Values) -> None:
    assert values.decode(plain_of("Config", name="a"), Config) == Config("a", 3, [])


def test_a_field_without_default_that_is_new_is_an_input_error(values: Values) -> None:
    with pytest.raises(InputError, match=r"x\.name: not in the stored Config"):
        values.decode(plain_of("Config", size=1), Config, "x")


def test_a_field_that_the_class_lost_is_an_input_error(values: Values) -> None:
    with pytest.raises(InputError, match="x: the stored Config has age, colour, which the class"):
        values.decode(plain_of("Config", name="a", colour=1, age=2), Config, "x")


def test_an_enum_member_that_is_gone_is_an_input_error(values: Values) -> None:
    with pytest.raises(InputError, match=r"x: Colour has no member 'BLUE' \(any more\)"):
        values.decode({"$": "enum", "class": "Colour", "name": "BLUE"}, Colour, "x")
    with pytest.raises(InputError, match=r"x: Access has no member 8 \(any more\)"):
        values.decode({"$": "enum", "class": "Access", "value": 8}, Access, "x")


def test_a_tuple_from_a_workflow_becomes_the_named_tuple_asked_for(values: Values) -> None:
    assert values.decode({"$": "tuple", "items": [3]}, Point) == Point(3)


def test_a_kind_from_a_newer_release_is_said_to_be_unknown(values: Values) -> None:
    with pytest.raises(CheckpointCorrupt, match="x: a stored value has the unknown kind 'quark'"):
        values.decode({"$": "quark"}, Any, "x")


def test_a_time_zone_that_this_machine_does_not_know_is_an_input_error(values: Values) -> None:
    plain = {"$": "time", "iso": "01:00:00", "fold": 0, "zone": {"key": "Mars/Base"}}
    with pytest.raises(InputError, match=r"'Mars/Base'.*pip install tzdata"):
        values.decode(plain)


class Local(dt.tzinfo):
    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=1)

    def tzname(self, when: dt.datetime | None) -> str:
        return "Local"

    def dst(self, when: dt.datetime | None) -> None:
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Local)

    __hash__ = object.__hash__


def test_a_time_zone_of_a_class_of_its_own_goes_by_pickle(values: Values) -> None:
    moment = dt.datetime(2024, 1, 1, tzinfo=Local())
    plain = values.encode(moment, dt.datetime)
    assert plain["$"] == "pickle"
    back = values.decode(plain, dt.datetime)
    assert (back, back.tzinfo) == (moment, Local())


def test_a_pickle_whose_class_is_gone_is_corrupt(values: Values) -> None:
    gone = {"$": "pickle", "data": b"cnowhere_at_all\nThing\n."}
    with pytest.raises(CheckpointCorrupt, match="x: the stored value cannot be loaded: ModuleNotF"):
        values.decode(gone, Any, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [4]},
        {"shape": [-3, -1]},
        {"shape": ["a"]},
        {"dtype": "nonsense"},
        {"dtype": "O"},
        {"dtype": [["a"]]},
    ],
)
def test_an_array_whose_header_and_bytes_disagree_is_corrupt(
    values: Values, change: dict[str, Any]
) -> None:
    plain = values.encode(np.arange(3.0)) | change
    with pytest.raises(CheckpointCorrupt, match="a stored array has"):
        values.decode(plain)


SMALL, HUGE = b"\x07" * LARGE, b"\x07" * (PIECE + 5)


def flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 1


def cut(data: bytearray) -> None:
    del data[-1]


def grow(data: bytearray) -> None:
    data.append(7)


@pytest.mark.parametrize("damage", [flip, cut, grow, bytearray.clear])
@pytest.mark.parametrize("content", [SMALL, HUGE], ids=["object", "pack"])
def test_a_damaged_blob_is_found_and_its_key_named(
    storage: MemoryStorage, values: Values, content: bytes, damage: Any
) -> None:
    plain = values.encode(content, bytes)
    for data in [*storage.objects.values()]:
        before = bytes(data)
        damage(data)
        if damage is grow and len(before) > PIECE:
            assert values.decode(plain, bytes) == content  # what follows a pack's end is not read
        else:
            with pytest.raises(
                CheckpointCorrupt, match=rf"{PREFIX}/{plain['blob']} in memory:test"
            ):
                values.decode(plain, bytes)
        data[:] = before
    assert values.decode(plain, bytes) == content


@pytest.mark.parametrize("content", [SMALL, HUGE], ids=["object", "pack"])
def test_a_missing_blob_is_corrupt_and_its_key_named(
    storage: MemoryStorage, values: Values, content: bytes
) -> None:
    plain = values.encode(content, bytes)
    for key in [*storage.objects]:
        data = storage.objects.pop(key)
        with pytest.raises(CheckpointCorrupt, match=rf"{PREFIX}/{plain['blob']} .* is missing"):
            values.decode(plain, bytes)
        storage.objects[key] = data


def test_data_never_names_a_path(storage: MemoryStorage) -> None:
    storage.create("secret", SMALL)
    blobs = Blobs(storage, PREFIX)
    with pytest.raises(CheckpointCorrupt, match="is not the digest of a stored value"):
        blobs.get(Blob("../../secret", LARGE))
    blob = blobs.put(HUGE)
    storage.objects[f"{PREFIX}/{blob.digest}"][:] = b"packs/../../secret"
    with pytest.raises(CheckpointCorrupt, match="no pack's name"):
        blobs.get(blob)


class Losing(MemoryStorage):
    """Somebody else always creates the object first, after it was looked for."""

    def has(self, key: str) -> bool:
        return False

    def create(self, key: str, data: bytes) -> None:
        super().create(key, data)
        raise KeyExists(key)


@pytest.mark.parametrize("content", [SMALL, HUGE], ids=["object", "pack"])
def test_losing_the_race_to_store_the_same_content_is_no_error(content: bytes) -> None:
    values = Values(Losing(), PREFIX)
    assert values.decode(values.encode(content, bytes), bytes) == content


def test_a_pack_that_could_not_be_written_leaves_nothing(storage: MemoryStorage) -> None:
    class Full(OSError):
        pass

    class Filling(MemoryStorage):
        def create_pack(self, key: str, **more: Any) -> Any:
            pack = super().create_pack(key, **more)

            def fail() -> None:
                raise Full

            pack.commit = fail  # type: ignore[method-assign]
            return pack

    full = Filling()
    with pytest.raises(Full):
        Values(full, PREFIX).encode(HUGE, bytes)
    assert full.objects == {}


@pytest.mark.parametrize(
    "key", ["a\0b", "../../etc/passwd", "/etc/localtime", "", "a" * 99, "no zone"]
)
def test_a_name_that_is_no_zone_s_is_not_looked_for(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking for one imports the package that has the zones, where it is installed."""

    def looked(_: str) -> None:
        raise AssertionError("it was looked for")

    monkeypatch.setattr("zoneinfo.ZoneInfo", looked)
    plain = {"$": "time", "iso": "12:00:00", "fold": 0, "zone": {"key": key}}
    with pytest.raises(InputError, match="time zone"):
        moments.decode(plain)
