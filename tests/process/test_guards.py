"""By which names a server without keys goes, and what every answer tells a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import Server
from tests.process.wire import AWAY, ask, batch, exchange, running, tick

KEY = "read-0123456789ab"


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, "--database-url", AWAY, "--allowed-hosts", "desk.example, HUB") as server:
        yield server


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:5000", "127.0.0.2", "10.0.0.1:80", "[::1]", "[::1]:5000", "[fe80::1]", ""),
        *("localhost", "LOCALHOST:5000", "hub.localhost", "localhost.", "desk.example", "Desk.Example:5000", "hub"),
    ],
)
def test_a_name_that_only_leads_here_if_it_should_is_answered(server: Server, host: str) -> None:
    assert ask(server, "GET", "/stats", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost"),
        *("2130706433", "0x7f000001", "127.1", "x.desk.example", "desk.example.evil", "[::1", "a@localhost@b"),
    ],
)
def test_a_page_whose_name_leads_here_is_told_nothing(server: Server, host: str) -> None:
    for method, path in (
        ("GET", "/stats"),
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/api/symbols"),
        ("GET", "/nothing"),
        ("OPTIONS", "/stats"),
        ("POST", "/tick/batch"),
    ):
        answer = ask(server, method, path, batch(tick()) if method == "POST" else None, {"Host": host})
        assert (answer.status, answer.json["code"]) == (403, "forbidden"), (method, path)
        assert "allowed_hosts" in answer.json["message"]
    assert ask(server, "GET", "/health/live", headers={"Host": host}).status == 200


def test_nor_does_it_get_a_websocket(server: Server) -> None:
    handshake = (
        b"GET /ws HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    (answer, *_) = exchange(server, handshake + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.status == 403


@pytest.mark.parametrize("flags", [("--insecure",), ("--allowed-hosts", "*"), ()])
def test_with_keys_or_open_to_all_it_goes_by_any_name(data_template: Path, flags: tuple[str, ...]) -> None:
    environ = {} if flags else {"TICKHUB_API_KEY_READ": KEY}
    with running(data_template, "--database-url", AWAY, *flags, environ=environ) as server:
        headers = {"Host": "desk.example", "X-API-Key": KEY}
        assert ask(server, "GET", "/stats", headers=headers).status == 200


@pytest.mark.parametrize("path", ["/stats", "/api/symbols", "/nothing", "/health/live", "/metrics", "/openapi.json"])
def test_no_answer_is_run_or_shown_as_something_else(server: Server, path: str) -> None:
    headers = ask(server, "GET", path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere_and_are_framed_by_nobody(server: Server, path: str) -> None:
    import http.client

    with_page = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        with_page.request("GET", path, headers={"Accept": "text/html"})
        answer = with_page.getresponse()
        page, headers = answer.read().decode(), {name.lower(): text for name, text in answer.getheaders()}
    finally:
        with_page.close()
    assert answer.status == 200
    assert headers["content-type"].startswith("text/html")
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script>" not in page
