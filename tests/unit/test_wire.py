"""Frames: whole or not there, and no end waits for the other."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from headway.executors.wire import Channel, Frame, Garbled, Kind, receive_frame, send_frame


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, two = socket.socketpair()
    with one, two:
        yield one, two


def all_frames(channel: Channel, count: int) -> list[Frame]:
    frames: list[Frame] = []
    while len(frames) < count and not channel.closed:
        assert select.select([channel], [], [], 10)[0]
        frames += channel.receive()
    return frames


def test_frames_arrive_in_order_with_their_kinds(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    one, two = Channel(pair[0]), Channel(pair[1])
    one.send(Kind.READY)
    one.send(Kind.NOTE, b"a")
    one.send(Kind.LAST, b"")
    assert all_frames(two, 3) == [(Kind.READY, b""), (Kind.NOTE, b"a"), (Kind.LAST, b"")]
    assert two.receive() == []


def test_a_frame_larger_than_the_socket_waits_for_its_reader(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    one, two = Channel(pair[0]), Channel(pair[1])
    payload = bytes(range(256)) * 20_000
    one.send(Kind.LAST, payload)
    one.send(Kind.NOTE, b"after")
    assert one.pending
    frames: list[Frame] = []
    while len(frames) < 2:
        frames += two.receive()
        one.flush()
    assert frames == [(Kind.LAST, payload), (Kind.NOTE, b"after")]
    assert not one.pending


def test_the_blocking_ends_speak_the_same(pair: tuple[socket.socket, socket.socket]) -> None:
    payload = b"x" * 5_000_000
    thread = threading.Thread(target=send_frame, args=(pair[0], Kind.ATTEMPT, payload))
    thread.start()
    assert receive_frame(pair[1]) == (Kind.ATTEMPT, payload)
    thread.join()
    pair[0].close()
    assert receive_frame(pair[1]) is None


@pytest.mark.parametrize("cut", [1, 8, 9, 12])
def test_half_a_frame_is_none(pair: tuple[socket.socket, socket.socket], cut: int) -> None:
    one, two = socket.socketpair()
    with one, two:
        send_frame(one, Kind.NOTE, b"12345")
        raw = two.recv(100)
    pair[0].sendall(raw[:cut])
    pair[0].shutdown(socket.SHUT_WR)
    blocking = pair[1].dup()
    channel = Channel(pair[1])
    assert channel.drain() == []
    assert channel.closed
    blocking.close()


@pytest.mark.parametrize("cut", [0, 5, 12])
def test_a_blocking_reader_takes_an_end_within_a_frame_for_the_end(
    pair: tuple[socket.socket, socket.socket], cut: int
) -> None:
    one, two = socket.socketpair()
    with one, two:
        send_frame(one, Kind.NOTE, b"12345")
        raw = two.recv(100)
    pair[0].sendall(raw[:cut])
    pair[0].close()
    assert receive_frame(pair[1]) is None


def test_drain_reads_what_was_sent_before_the_end(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    send_frame(pair[0], Kind.NOTE, b"1" * 50_000)
    send_frame(pair[0], Kind.LAST, b"2" * 50_000)
    pair[0].close()
    channel = Channel(pair[1])
    assert channel.drain() == [(Kind.NOTE, b"1" * 50_000), (Kind.LAST, b"2" * 50_000)]
    assert channel.closed
    assert channel.drain() == []


def test_drain_does_not_wait_for_an_end_that_somebody_keeps_open(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    channel = Channel(pair[1])
    assert channel.drain() == []
    assert not channel.closed


def test_end_sending_ends_the_other_side_only(pair: tuple[socket.socket, socket.socket]) -> None:
    one, two = Channel(pair[0]), Channel(pair[1])
    one.end_sending()
    assert two.receive() == []
    assert two.closed
    send_frame_bytes = b"still heard"
    two.send(Kind.NOTE, send_frame_bytes)
    assert all_frames(one, 1) == [(Kind.NOTE, send_frame_bytes)]
    two.close()
    one.end_sending()


def test_sending_to_an_end_that_is_gone_does_nothing(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    channel = Channel(pair[0])
    pair[1].close()
    channel.send(Kind.NOTE, b"x" * 1_000_000)
    assert not channel.pending
    assert channel.receive() == []
    assert channel.closed


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reset_connection_is_an_end(
    pair: tuple[socket.socket, socket.socket], blocking: bool
) -> None:
    send_frame(pair[0], Kind.NOTE, b"never read")
    pair[1].close()  # with unread data: a reset
    if blocking:
        assert receive_frame(pair[0]) is None
    else:
        channel = Channel(pair[0])
        assert channel.receive() == []
        assert channel.closed


@pytest.mark.parametrize("blocking", [True, False])
def test_what_is_no_frame_is_refused(
    pair: tuple[socket.socket, socket.socket], blocking: bool
) -> None:
    pair[0].sendall(b"print('hello')")
    with pytest.raises(Garbled, match="frame kind 112"):
        receive_frame(pair[1]) if blocking else Channel(pair[1]).receive()
