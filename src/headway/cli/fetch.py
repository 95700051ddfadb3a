"""Fetching a program from a URL, and no more than that.

https, or http on this machine. Redirects are followed by hand: each hop's host is resolved and
checked (`addresses`), and the connection goes to exactly the address that was checked, so that a name
which changes its mind between the check and the connection gains nothing. TLS still proves the name.
"""

from __future__ import annotations

import hashlib
import keyword
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from headway.cli.addresses import Address, names_loopback, resolve
from headway.model.errors import InputError

if TYPE_CHECKING:
    import httpx

LIMIT = 1 << 20
"""Largest program, bytes."""
REDIRECTS = 5
TIMEOUT = 10.0
"""Seconds for each of: connecting, and every wait for bytes."""
DEADLINE = 60.0
"""Seconds until the last byte; a server that drips is given up."""

_REDIRECT = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Fetched:
    """A program's source.

    Attributes:
        url: where it came from in the end, after redirects.
        name: a file name for it, safe and importable, ending in `.py`.
        source: its bytes.
    """

    url: str
    name: str
    source: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the source, hex."""
        return hashlib.sha256(self.source).hexdigest()


def fetch(url: str) -> Fetched:
    """Fetch the program at `url` into memory.

    Raises:
        InputError: the URL is not one to fetch from, the server refused or was too slow, or what it
            sent is too large or is no program.
    """
    import httpx

    try:
        first = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise InputError(f"{url!r} is not a URL: {error}") from None
    loopback = names_loopback(first.host)
    until = time.monotonic() + DEADLINE
    # The environment's proxies would connect to addresses of their own choice; its CAs are welcome.
    trust = httpx.create_ssl_context(trust_env=False)
    trust.load_default_certs()
    with httpx.Client(
        trust_env=False, verify=trust, timeout=TIMEOUT, follow_redirects=False
    ) as client:
        at = first
        for _ in range(REDIRECTS + 1):
            _check(at, loopback=loopback)
            port = at.port or (443 if at.scheme == "https" else 80)
            addresses = resolve(at.raw_host.decode("ascii"), port, loopback=loopback)
            with _answer(client, at, addresses) as response:
                if response.status_code not in _REDIRECT:
                    source = _read(response, at, until)
                    return Fetched(str(at), file_name(first.path), source)
                target = response.headers.get("location", "")
            if not target:
                raise InputError(f"{at} redirects to nowhere")
            at = at.join(target)
    raise InputError(f"{url} redirects more than {REDIRECTS} times")


def _check(url: httpx.URL, *, loopback: bool) -> None:
    if url.scheme != "https" and not (url.scheme == "http" and names_loopback(url.host)):
        raise InputError(f"{url} is not fetched: programs come over https (http on this machine)")
    if url.userinfo:
        raise InputError(
            "a URL with a user name or password in it is not fetched: it would stay in the shell's "
            "history. Download the file yourself and run that"
        )
    if not url.host:
        raise InputError(f"{url} names no host")
    if names_loopback(url.host) and not loopback:
        raise InputError(f"{url} is this machine, where a redirect must not lead")


@contextmanager
def _answer(
    client: httpx.Client, url: httpx.URL, addresses: Sequence[Address]
) -> Iterator[httpx.Response]:
    """The response of the first address that can be connected to."""
    import httpx

    for index, address in enumerate(addresses):
        request = client.build_request(
            "GET",
            url.copy_with(host=str(address)),
            headers={
                "Host": url.netloc.decode("ascii"),
                "Accept-Encoding": "identity",
                "User-Agent": "headway",
            },
            # The name in TLS, sent and verified, is the URL's; only the connection is by address.
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        try:
            response = client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if index + 1 < len(addresses):
                continue
            raise InputError(f"{url} cannot be reached: {error}") from None
        except httpx.HTTPError as error:
            raise InputError(f"{url} did not answer: {_reason(error)}") from None
        try:
            yield response
        except httpx.HTTPError as error:
            raise InputError(f"{url} broke off: {_reason(error)}") from None
        finally:
            response.close()
        return


def _read(response: httpx.Response, url: httpx.URL, until: float) -> bytes:
    if response.status_code != 200:
        raise InputError(f"{url} answered {response.status_code} {response.reason_phrase}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise InputError(f"{url} was sent compressed although it was asked for as it is")
    if response.headers.get("content-type", "").lower().startswith("text/html"):
        raise InputError(f"{url} is a web page, not a program; use the address of the raw file")
    too_large = InputError(f"{url} is larger than {LIMIT >> 20} MiB, too large for a program")
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > LIMIT:
        raise too_large
    source = bytearray()
    for piece in response.iter_raw(1 << 16):
        source += piece
        if len(source) > LIMIT:
            raise too_large
        if time.monotonic() > until:
            raise InputError(f"{url} took longer than {DEADLINE:.0f} s; try again later")
    return bytes(source)


def file_name(path: str) -> str:
    """A file name for the program at a URL's path: importable, and no standard module's name."""
    stem = re.sub(r"\W", "_", PurePosixPath(path).stem, flags=re.ASCII)[:64].strip("_")
    taken = stem in sys.stdlib_module_names or stem == "headway" or keyword.iskeyword(stem)
    if taken or not stem.isidentifier():
        stem = f"program_{stem}" if stem else "program"
    return f"{stem}.py"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
