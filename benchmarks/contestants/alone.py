"""Runs a peer's contestant in a network of its own that has nothing but loopback.

So no peer can phone home, whatever its settings mean, and servers that listen on all addresses of the
machine cannot be reached from outside.

    python -m benchmarks.contestants.alone required|wanted MODULE ARGUMENT …
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import runpy
import socket
import struct
import sys

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER, CLONE_NEWNET
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP


def leave_network() -> None:
    """Move this process, which must have one thread only, into a network that has only loopback.

    Raises:
        OSError: this system does not let us.
    """
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) != 0:  # not root: then as root of a user namespace of our own
        if libc.unshare(_NEW_USER | _NEW_NETWORK) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack_from("16sh", fcntl.ioctl(sock, _GET_FLAGS, request))[1]
        fcntl.ioctl(sock, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


def main() -> None:
    """Be the contestant that the command line names."""
    need, module = sys.argv[1:3]
    try:
        leave_network()
    except OSError as error:
        if need == "required":
            sys.exit(
                "it listens on all addresses, and this system lets us make no network namespace "
                f"to keep it in ({error.strerror})"
            )
    sys.argv[1:3] = []
    runpy.run_module(f"benchmarks.contestants.{module}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
