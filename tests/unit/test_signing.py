"""The key: where it comes from, what is refused, and that it shows itself nowhere."""

from __future__ import annotations

import base64
import pickle
import secrets
from pathlib import Path

import pytest

from headway.checkpoint import identity
from headway.ledger import signing
from headway.model.errors import InputError

SECRET = bytes(range(100, 132))


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWAY_KEY", raising=False)
    monkeypatch.delenv("HEADWAY_KEY_FILE", raising=False)


def test_without_the_variables_there_is_no_key() -> None:
    assert signing.configured() is None


@pytest.mark.parametrize(
    "text",
    [
        SECRET.hex(),
        SECRET.hex().upper(),
        f" {SECRET.hex()}\n",
        base64.b64encode(SECRET).decode(),
        base64.urlsafe_b64encode(SECRET).decode().rstrip("="),
    ],
)
def test_hex_and_both_kinds_of_base64_give_the_same_key(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADWAY_KEY", text)
    key = signing.configured()
    assert key is not None
    assert key.sign(b"a", b"b") == signing.Key(SECRET).sign(b"ab")
    monkeypatch.delenv("HEADWAY_KEY")
    (tmp_path / "key").write_text(text)
    monkeypatch.setenv("HEADWAY_KEY_FILE", str(tmp_path / "key"))
    same = signing.configured()
    assert same is not None
    assert same.signed(key.sign(b"x"), b"x")


@pytest.mark.parametrize(
    "text", ["", "  ", "dGhpcyBpcyBzaG9ydA==", "ab" * 31, "ab" * 32 + "?!", "é" * 64]
)
def test_what_is_no_key_is_refused_and_not_shown(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_KEY", text)
    with pytest.raises(InputError, match="HEADWAY_KEY") as caught:
        signing.configured()
    assert "token_hex" in str(caught.value)
    if text.strip():
        assert text not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("content", [b"", b"zz" * 10, b"\xff\xfesecret" * 8, b"ab" * 5000])
def test_a_file_that_holds_no_key_is_refused_and_not_shown(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(content)
    monkeypatch.setenv("HEADWAY_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(InputError, match="HEADWAY_KEY_FILE") as caught:
        signing.configured()
    assert "secret" not in str(caught.value).replace("secrets", "")


def test_a_file_that_is_not_there_and_two_sources_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADWAY_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="No such file"):
        signing.configured()
    monkeypatch.setenv("HEADWAY_KEY", SECRET.hex())
    with pytest.raises(InputError, match="both set"):
        signing.configured()


def test_another_value_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_KEY", SECRET.hex())
    first = signing.configured()
    assert first is signing.configured()
    monkeypatch.setenv("HEADWAY_KEY", secrets.token_hex(32))
    second = signing.configured()
    assert first is not None
    assert second is not None
    assert not second.signed(first.sign(b"x"), b"x")


def test_a_key_neither_shows_nor_pickles_itself() -> None:
    key = signing.Key(SECRET)
    assert repr(key) == "Key(…)"
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_content_is_known_by_a_checksum_or_with_a_key_by_its_blake3(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = memoryview(bytearray(b"content" * 1000))
    checksum = identity.digest(data)
    assert len(checksum) == identity.CHECKSUM
    monkeypatch.setenv("HEADWAY_KEY", SECRET.hex())
    known = identity.digest(data)
    assert len(known) == identity.IDENTITY
    assert identity.verify(data, known)
    assert identity.verify(data, checksum)
    data[5] ^= 1
    assert not identity.verify(data, known)
    assert not identity.verify(data, checksum)
    assert not identity.verify(data, b"")
    monkeypatch.delenv("HEADWAY_KEY")
    assert not identity.verify(data, known)
