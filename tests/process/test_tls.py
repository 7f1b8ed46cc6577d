"""Direct TLS: ticks and pages by HTTPS, quotes by wss, and whoever knocks without it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.process.harness import Server, copy_template, folder
from tests.process.live import client
from tests.process.wire import AWAY, batch, tick
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def trusting(certificate: tuple[str, str]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate[1])


@pytest.fixture(scope="module")
def server(data_template: Path, certificate: tuple[str, str], trusting: ssl.SSLContext) -> Iterator[Server]:
    key, cert = certificate
    with folder() as parent:
        flags = ("--database-url", AWAY, "--ssl-keyfile", key, "--ssl-certfile", cert)
        found = Server(copy_template(data_template, parent / "data"), *flags, workers=2)
        try:
            found.start()
            wait_until(lambda: _status(found, trusting, "/health/ready") == 200, what="TLS")
            yield found
            assert "Traceback" not in found.log()
        finally:
            found.close()


def _ask(
    server: Server, trusting: ssl.SSLContext, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    with closing(http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=trusting)) as browser:
        browser.request(method, path, body)
        answer = browser.getresponse()
        return answer.status, answer.read()


def _status(server: Server, trusting: ssl.SSLContext, path: str) -> int:
    try:
        return _ask(server, trusting, "GET", path)[0]
    except OSError:
        return 0


def test_ticks_come_in_and_figures_go_out_by_https(server: Server, trusting: ssl.SSLContext) -> None:
    many = [tick() for _ in range(5000)]  # more than a TLS record, on both sides
    status, said = _ask(server, trusting, "POST", "/tick/batch", batch(*many))
    assert (status, json.loads(said)) == (200, {"status": "success", "received": 5000})
    status, said = _ask(server, trusting, "GET", "/openapi.json")
    assert (status, json.loads(said)["openapi"][:3]) == (200, "3.1")
    assert "https://127.0.0.1" in server.log()


def test_quotes_go_out_by_wss(server: Server, trusting: ssl.SSLContext) -> None:
    with client(server, secure=True, ssl=trusting) as reader:
        reader.subscribe("NVDA")
        status, _ = _ask(server, trusting, "POST", "/tick/batch", batch(tick(symbol="NVDA", bid=123.25, ask=123.5)))
        assert status == 200
        assert reader.next("quote")["bid"] == 123.25


def test_who_does_not_trust_the_certificate_is_not_led_on(server: Server) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        _ask(server, ssl.create_default_context(), "GET", "/stats")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_of_tls_are_refused(server: Server, trusting: ssl.SSLContext) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(raw)


@pytest.mark.parametrize("data", [b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00", bytes(300), b""])
def test_whoever_knocks_without_tls_is_closed_and_leaves_no_traceback(
    server: Server, trusting: ssl.SSLContext, data: bytes
) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as raw:
        raw.sendall(data)
        with suppress(OSError):  # it may have been closed, or reset, before or meanwhile
            raw.shutdown(socket.SHUT_WR)
            while piece := raw.recv(4096):
                assert b"HTTP/1.1 200" not in piece
    assert _status(server, trusting, "/health/live") == 200
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_a_handshake_that_never_ends_is_ended(server: Server, trusting: ssl.SSLContext) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=40) for _ in range(20)]
    try:
        assert _status(server, trusting, "/health/live") == 200
        for raw in silent:
            assert raw.recv(1) == b""
    finally:
        for raw in silent:
            raw.close()
