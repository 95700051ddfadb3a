"""Frames between driver, keeper and worker: a kind, a length, and that many bytes.

    driver ── ATTEMPT, STOP, LEAVE ──> keeper ── ATTEMPT ──────────────────> worker
    driver <── READY, FORKED, and what the worker said ── keeper <── NOTE, LAST, LAST_CLEAN ── worker

All three run the same headway on one machine, so the frames carry no version and no checksum. The
keeper passes a worker's messages on without decoding them: results may be large, and the kind says
all that a keeper must know.
"""

from __future__ import annotations

import enum
import socket
import struct

_HEAD = struct.Struct("!BQ")
_PIECE = 1 << 18  # about what a socket buffer holds


class Kind(enum.IntEnum):
    """What a frame is. Messages are msgpack of `model.program.Message`."""

    SETUP = 1  # driver -> keeper, first: msgpack of `keeper.Setup`
    ATTEMPT = 2  # driver -> keeper -> worker: msgpack of an `AttemptSpec`
    STOP = 3  # driver -> keeper: grace in seconds, as text; for the attempt that runs
    LEAVE = 4  # driver -> keeper: kill what runs, let an idle worker exit, end
    READY = 5  # keeper -> driver: imports are done
    FORKED = 6  # keeper -> driver: pid of a new worker, which serves the attempt, as text
    NOTE = 7  # worker -> driver: a message; more follow
    LAST = 8  # worker -> driver: the attempt's last message; the process goes (or is gone)
    LAST_CLEAN = 9  # worker -> driver: the same, and the process can serve another attempt


Frame = tuple[Kind, bytes]


class Garbled(Exception):
    """What arrived is no frame: somebody else wrote into the channel."""


class Channel:
    """One end of a socket, for a loop that must never block: sends queue, reads take what is there.

    Args:
        sock: a connected stream socket; the channel owns it from here on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._out = bytearray()
        self._in = bytearray()
        self.closed = False
        """The other end is gone; what it sent before has been received."""

    def fileno(self) -> int:
        """The descriptor, for `select.poll`."""
        return self._sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether sent frames still wait for room in the socket: `flush` when it is writable."""
        return bool(self._out)

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a frame, now as far as the socket takes it, the rest by `flush`.

        Sending to an end that is gone does nothing: its reader finds out by `closed`.
        """
        self._out += _HEAD.pack(kind, len(payload))
        self._out += payload
        self.flush()

    def flush(self) -> None:
        """Send what is pending, as far as the socket takes it."""
        with memoryview(self._out) as view:
            sent = 0
            try:
                while sent < len(view):
                    sent += self._sock.send(view[sent : sent + _PIECE])
            except BlockingIOError:
                pass
            except OSError:
                sent = len(view)  # the other end is gone; `receive` will see that too
        del self._out[:sent]

    def receive(self) -> list[Frame]:
        """The frames that are whole after reading once; [] when nothing is.

        Raises:
            Garbled: what arrived is no frame.
        """
        self._read()
        return self._whole()

    def drain(self) -> list[Frame]:
        """All whole frames that are there, for when the other end has ended.

        Raises:
            Garbled: what arrived is no frame.
        """
        while self._read():
            pass
        return self._whole()

    def _read(self) -> bool:
        if self.closed:
            return False
        try:
            piece = self._sock.recv(_PIECE)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        self.closed = not piece
        self._in += piece
        return not self.closed

    def _whole(self) -> list[Frame]:
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if len(self._in) < _HEAD.size:
            return None
        number, length = _HEAD.unpack_from(self._in)
        kind = _kind(number)
        end = _HEAD.size + length
        if len(self._in) < end:
            return None
        with memoryview(self._in) as view:
            payload = bytes(view[_HEAD.size : end])
        del self._in[:end]
        return kind, payload

    def end_sending(self) -> None:
        """Let the other end read an end of file; what it sends can still be received."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already

    def close(self) -> None:
        """Close the socket; what is pending is lost."""
        self.closed = True
        self._sock.close()


def send_frame(sock: socket.socket, kind: Kind, payload: bytes = b"") -> None:
    """Send one frame on a blocking socket.

    Raises:
        OSError: the other end is gone.
    """
    head = _HEAD.pack(kind, len(payload))
    if len(payload) <= _PIECE:
        sock.sendall(head + payload)  # in one piece, so that its reader wakes up once
    else:
        sock.sendall(head)
        sock.sendall(payload)


def receive_frame(sock: socket.socket) -> Frame | None:
    """Wait for one frame on a blocking socket; None when the other end has closed it.

    Raises:
        Garbled: what arrived is no frame.
    """
    head = _receive_exactly(sock, _HEAD.size)
    if head is None:
        return None
    number, length = _HEAD.unpack(head)
    kind = _kind(number)
    payload = _receive_exactly(sock, length)
    return None if payload is None else (kind, bytes(payload))


def _receive_exactly(sock: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    with memoryview(data) as view:
        filled = 0
        while filled < size:
            try:
                got = sock.recv_into(view[filled:])
            except ConnectionError:  # the other end went without reading all that was sent to it
                return None
            if not got:
                return None
            filled += got
    return data


def _kind(number: int) -> Kind:
    try:
        return Kind(number)
    except ValueError:
        raise Garbled(f"frame kind {number}") from None
