"""Which network addresses a program may be fetched from.

Whoever controls a name or a redirect must not be able to make this machine ask a service that only
this machine can reach (a cloud's metadata, a router, a database without a password).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from headway.model.errors import InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Translated IPv4 (RFC 6052); on the public side it reaches the IPv4 address in its last 32 bits.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def names_loopback(host: str) -> bool:
    """Whether the text of a host, before any look-up, says "this machine"."""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def resolve(host: str, port: int, *, loopback: bool) -> Sequence[Address]:
    """The addresses of `host`, all of them checked.

    Args:
        host: a name or an address.
        port: the port that will be connected to.
        loopback: addresses of this machine are allowed, because the user typed one.

    Raises:
        InputError: the name has no address, or one of them is not to be asked. One is enough to
            refuse them all: an honest server has no reason to have both kinds.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"no address was found for {host}: {reason}") from None
    addresses = dict.fromkeys(ipaddress.ip_address(str(entry[4][0])) for entry in found)
    for address in addresses:
        reason = objection(address, loopback=loopback)
        if reason:
            what = reason if host == str(address) else f"{address}, {reason}"
            raise InputError(f"{host} is {what}: programs are fetched from public addresses only")
    return list(addresses)


def objection(address: Address, *, loopback: bool) -> str | None:
    """Why `address` is not to be asked, or None when it may be."""
    if address.is_loopback:
        return None if loopback else "an address of this machine"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return "an IPv4 address in disguise"
        if address.sixtofour is not None or address.teredo is not None:
            return "a tunnel to an IPv4 address"
        if address in _NAT64:
            return objection(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF), loopback=False)
        if address.is_site_local:
            return "a private address"
    for found, reason in (
        (address.is_unspecified, "no address at all"),
        (address.is_link_local, "a link-local address"),
        (address.is_multicast, "a multicast address"),
        (address.is_private, "a private address"),
        (address.is_reserved, "a reserved address"),
        (not address.is_global, "an address that is not public"),
    ):
        if found:
            return reason
    return None
