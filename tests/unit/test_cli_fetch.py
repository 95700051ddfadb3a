"""Fetching programs: only from where it is safe, and only what was asked for. Loopback only."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import ipaddress
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.loopback import SOURCE, Site

from headway.cli import fetch as fetching
from headway.cli.addresses import names_loopback, objection, resolve
from headway.cli.fetch import LIMIT, fetch, file_name
from headway.model.errors import InputError

_TRUST = httpx.create_ssl_context(trust_env=False)


@pytest.fixture(autouse=True)
def one_ssl_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading all CAs anew takes 0.1 s each time."""
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: _TRUST)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def test_a_program_is_fetched_from_this_machine_over_http(site: Site) -> None:
    fetched = fetch(site.file("/a/check-point.py?raw=1"))
    assert (fetched.source, fetched.name) == (SOURCE, "check_point.py")
    assert fetched.sha256 == hashlib.sha256(SOURCE).hexdigest()
    headers = site.seen[0][1]
    assert headers["Host"] == f"127.0.0.1:{site.port}"
    assert headers["Accept-Encoding"] == "identity"


def test_the_connection_goes_to_the_address_that_was_checked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = socket.getaddrinfo, []

    def changes_its_mind(host: Any, *args: Any, **extra: Any) -> Any:
        if host == "rebind.localhost":
            asked.append(host)
            return real("127.0.0.1" if len(asked) == 1 else "10.0.0.1", *args, **extra)
        return real(host, *args, **extra)

    monkeypatch.setattr(socket, "getaddrinfo", changes_its_mind)
    site.file("/p.py")
    assert fetch(f"http://rebind.localhost:{site.port}/p.py").source == SOURCE
    assert asked == ["rebind.localhost"]
    assert site.seen[0][1]["Host"] == f"rebind.localhost:{site.port}"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("https://169.254.169.254/latest/meta-data", "169.254.169.254 is a link-local address"),
        ("https://10.0.0.1/p.py", "10.0.0.1 is a private address"),
        ("https://[::ffff:10.0.0.1]/p.py", "an IPv4 address in disguise"),
        ("https://[fe80::1]/p.py", "a link-local address"),
        ("https://[fd00::1]/p.py", "a private address"),
        ("https://224.0.0.1/p.py", "a multicast address"),
        ("https://0.0.0.0/p.py", "no address at all"),
        ("https://0x0a000001/p.py", "a private address"),
        ("https://100.64.0.1/p.py", "not public"),
        ("http://192.0.2.1/p.py", "https"),
        ("ftp://127.0.0.1/p.py", "https"),
        ("file:///etc/passwd", "https"),
        ("https://user:pw@127.0.0.1/p.py", "user name or password"),
        ("https://:443/p.py", "names no host"),
        ("https://1.1.1.1:x/p.py", "Invalid port"),
        ("", "redirects to nowhere"),
    ],
)
def test_a_redirect_to_where_nobody_should_look_is_refused(
    site: Site, target: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fetch(site.redirect("/go", target))
    assert len(site.seen) == 1


def test_a_redirect_within_this_machine_is_followed(site: Site) -> None:
    site.file("/deep/real.py")
    site.redirect("/two", "deep/real.py", 307)
    fetched = fetch(site.redirect("/short.py", "/two", 301))
    assert fetched.url == f"{site.url}/deep/real.py"
    assert fetched.name == "short.py"


def test_redirects_end_after_five(site: Site) -> None:
    site.file("/0")
    for left in range(1, 8):
        site.redirect(f"/{left}", f"/{left - 1}")
    assert fetch(f"{site.url}/5").source == SOURCE
    site.seen.clear()
    with pytest.raises(InputError, match="more than 5 times"):
        fetch(f"{site.url}/6")
    assert len(site.seen) == 6


def test_a_public_name_may_not_lead_to_this_machine(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def lies(host: Any, *args: Any, **extra: Any) -> Any:
        found = {"evil.example": "127.0.0.1", "mixed.example": "192.0.2.7"}.get(host, host)
        answers = real(found, *args, **extra)
        return answers + real("10.9.9.9", *args, **extra) if host == "both.example" else answers

    monkeypatch.setattr(socket, "getaddrinfo", lies)
    with pytest.raises(InputError, match=r"evil\.example is 127\.0\.0\.1, an address of this mach"):
        fetch("https://evil.example/p.py")
    with pytest.raises(InputError, match="this machine, where a redirect must not lead"):
        fetching._check(httpx.URL(f"http://localhost:{site.port}/p.py"), loopback=False)
    assert not site.seen


def test_one_bad_address_among_good_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: str, port: int, **_: Any) -> Any:
        return [(0, 0, 0, "", ("1.1.1.1", port)), (0, 0, 0, "", ("10.9.9.9", port))]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(InputError, match=r"10\.9\.9\.9"):
        resolve("both.example", 443, loopback=False)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.com/p.py", "https"),
        ("ftp://example.com/p.py", "https"),
        ("https://u@example.com/p.py", "user name"),
        ("https://exa mple.com:x/p.py", "not a URL"),
        ("https://no-such-host.invalid/p.py", "no address was found for no-such-host.invalid"),
    ],
)
def test_a_url_of_the_wrong_kind_is_refused_before_anything_is_sent(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(host: str, port: int, **_: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(InputError, match=message):
        fetch(url)


def test_a_program_that_says_it_is_too_large_is_refused_unread(site: Site) -> None:
    with pytest.raises(InputError, match="larger than 1 MiB"):
        fetch(site.file("/p.py", b"", Content_Length=str(LIMIT + 1)))


def test_a_program_that_grows_too_large_is_cut_off_while_it_streams(site: Site) -> None:
    sent = 0

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            while True:
                handler.wfile.write(bytes(1 << 16))
                sent += 1 << 16

    site.answers["/p.py"] = endless
    with pytest.raises(InputError, match="larger than 1 MiB"):
        fetch(site.url + "/p.py")
    assert sent < 1 << 26  # what fits into socket buffers, and no more


def test_a_program_of_exactly_the_limit_is_taken(site: Site) -> None:
    body = b"#" * LIMIT
    assert fetch(site.file("/p.py", body)).source == body


def test_compressed_answers_and_web_pages_are_refused(site: Site) -> None:
    with pytest.raises(InputError, match="compressed"):
        fetch(site.file("/p.py", Content_Encoding="gzip"))
    with pytest.raises(InputError, match="web page, not a program"):
        fetch(site.file("/q.py", Content_Type="text/html; charset=utf-8"))


def test_errors_of_the_server_are_told(site: Site) -> None:
    with pytest.raises(InputError, match="answered 404 Not Found"):
        fetch(site.url + "/missing.py")


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can be there
        with pytest.raises(InputError, match="cannot be reached"):
            fetch(f"http://127.0.0.1:{held.getsockname()[1]}/p.py")


def test_the_next_address_is_tried_when_one_cannot_be_reached(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def two(host: Any, port: Any, *args: Any, **extra: Any) -> Any:
        if host == "localhost":
            return [*real("127.0.0.9", port, *args, **extra), *real("127.0.0.1", port)]
        return real(host, port, *args, **extra)

    monkeypatch.setattr(socket, "getaddrinfo", two)
    site.file("/p.py")
    assert fetch(f"http://localhost:{site.port}/p.py").source == SOURCE


def test_a_server_that_hangs_up_or_breaks_off_is_told(site: Site) -> None:
    site.answers["/silent.py"] = lambda h: h.connection.close()
    with pytest.raises(InputError, match="did not answer"):
        fetch(site.url + "/silent.py")
    with pytest.raises(InputError, match="broke off"):
        fetch(site.file("/short.py", SOURCE, Content_Length=str(len(SOURCE) + 5)))


def test_a_server_that_drips_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "DEADLINE", -1.0)
    with pytest.raises(InputError, match="took longer"):
        fetch(site.file("/p.py"))


def test_proxies_of_the_environment_are_not_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch(site.file("/p.py")).source == SOURCE


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Site]:
    """Makes a TLS server whose certificate is for a name, and trusts that certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")

    def make(name: str) -> Site:
        key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        subprocess.run(
            [*command, "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: trusting)
        return Site(context)

    return make


def test_tls_proves_the_name_although_the_connection_is_by_address(
    certified: Callable[[str], Site],
) -> None:
    with contextlib.closing(certified("localhost")) as site:
        site.file("/p.py")
        assert fetch(f"https://localhost:{site.port}/p.py").source == SOURCE
        with pytest.raises(InputError, match=r"cannot be reached.*certificate"):
            fetch(f"https://127.0.0.1:{site.port}/p.py")  # the certificate is for the name alone


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("8.8.8.8", None),
        ("2606:4700::1111", None),
        ("64:ff9b::808:808", None),
        ("64:ff9b::a00:1", "private"),
        ("64:ff9b::7f00:1", "this machine"),
        ("2002:a00:1::", "tunnel"),
        ("2001:0:a00:1::1", "tunnel"),
        ("fec0::1", "private"),
        ("ff02::1", "multicast"),
        ("::", "no address"),
        ("240.0.0.1", "private"),
        ("255.255.255.255", "private"),
        ("198.18.0.1", "private"),
        ("127.0.0.1", "this machine"),
        ("::1", "this machine"),
    ],
)
def test_addresses_are_judged_by_what_they_reach(address: str, reason: str | None) -> None:
    found = objection(ipaddress.ip_address(address), loopback=False)
    assert found is None if reason is None else reason in str(found)


def test_loopback_is_recognised_by_what_was_typed() -> None:
    for host in ("localhost", "LOCALHOST.", "a.localhost", "127.8.9.1", "::1"):
        assert names_loopback(host)
    for host in ("localhost.example.com", "10.0.0.1", "notlocalhost"):
        assert not names_loopback(host)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/train.py", "train.py"),
        ("/a/my-train.v2.py", "my_train_v2.py"),
        ("/json.py", "program_json.py"),
        ("/headway.py", "program_headway.py"),
        ("/", "program.py"),
        ("", "program.py"),
        ("/2024.py", "program_2024.py"),
        ("/import.py", "program_import.py"),
        ("/%2e%2e/..", "program.py"),
        ("/" + "x" * 300 + ".py", "x" * 64 + ".py"),
    ],
)
def test_a_program_gets_a_safe_name(path: str, name: str) -> None:
    assert file_name(path) == name
