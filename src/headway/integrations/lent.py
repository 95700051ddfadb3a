"""Memory that one process fills and others of this machine read.

It has no name: it is there as long as one of them has it, so that nothing is left of it when they are
killed. Others get at it through `/proc`, as the same user.
"""

from __future__ import annotations

import mmap
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from headway.model.errors import HeadwayError

_ALIGNED = 64
_HEAD = 64  # bytes at the beginning, for the token
_PIECE = 1 << 30  # the system takes less than 2 GiB at once


@dataclass(frozen=True, slots=True)
class Loan:
    """Where the memory is: what a borrower needs to know.

    Attributes:
        host, process, descriptor: whose it is.
        token: what it begins with; another process may have the number by now, or on another machine.
        size: its bytes.
        spans: offset and length of each of its parts.
    """

    host: str
    process: int
    descriptor: int
    token: bytes
    size: int
    spans: tuple[tuple[int, int], ...]


class Lender:
    """Memory to lend. It is kept for the next time, and given back with this object.

    Raises:
        OSError: the system has none.
    """

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("headway", os.MFD_CLOEXEC)
        self._size = 0

    def lend(self, parts: Sequence[memoryview]) -> Loan:
        """Copy the parts; who borrowed what was lent before must not look at it any more.

        Args:
            parts: contiguous bytes.

        Raises:
            OSError: the system has not so much memory.
        """
        spans, end = [], _HEAD
        for part in parts:
            spans.append((end, len(part)))
            end += -(-len(part) // _ALIGNED) * _ALIGNED
        token = secrets.token_bytes(_HEAD)
        # Written and not mapped: it takes half the time, and too little memory is an error and no SIGBUS.
        self._write(token, 0)
        for (offset, _), part in zip(spans, parts, strict=True):
            self._write(part, offset)
        if end > self._size:
            os.truncate(self._descriptor, end)
            self._size = end
        return Loan(socket.gethostname(), os.getpid(), self._descriptor, token, end, tuple(spans))

    def _write(self, data: bytes | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view[:_PIECE], offset)
            view, offset = view[written:], offset + written

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def borrow(loan: Loan) -> list[memoryview]:
    """The parts of a loan. What is written there is seen by nobody else.

    Raises:
        HeadwayError: the lender is on another machine, or gone.
    """
    try:
        descriptor = os.open(
            f"/proc/{loan.process}/fd/{loan.descriptor}", os.O_RDONLY | os.O_CLOEXEC
        )
        try:
            memory = mmap.mmap(descriptor, loan.size, access=mmap.ACCESS_COPY)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise _out_of_reach(loan) from error
    if memory[:_HEAD] != loan.token:
        raise _out_of_reach(loan)
    view = memoryview(memory)
    return [view[offset : offset + length] for offset, length in loan.spans]


def _out_of_reach(loan: Loan) -> HeadwayError:
    return HeadwayError(
        f"process {os.getpid()} on {socket.gethostname()} cannot read the memory of process {loan.process} "
        f"on {loan.host}. All ranks have to run on one machine, as one user, and see each other's "
        "processes (one container). For ranks on several machines use a FileSystemWriter on a filesystem "
        "that they share, and save in headway which of its directories is whole."
    )
