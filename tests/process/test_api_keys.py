"""Who may do what: nobody needs a key until one is configured, then every door but health asks for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.process.harness import ROOT, Server, free_port
from tests.process.wire import AWAY, ask, batch, exchange, running, tick
from tests.waiting import wait_until

INGEST, SECOND, READ, ADMIN = (
    "ingest-0123456789",
    "ingest-9876543210",
    "read-0123456789ab",
    "admin-0123456789a",
)
DOORS = {
    ("POST", "/tick"): "ingest",
    ("POST", "/tick/batch"): "ingest",
    ("GET", "/stats"): "read",
    ("GET", "/metrics"): "read",
}
OPEN = ["/health/live", "/health/ready", "/health"]


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    keys = {
        "TICKHUB_API_KEY_INGEST": f"{INGEST},{SECOND}",
        "TICKHUB_API_KEY_READ": READ,
        "TICKHUB_API_KEY_ADMIN": ADMIN,
        "TICKHUB_ACCESS_LOG": "true",
    }
    with running(data_template, "--database-url", AWAY, environ=keys) as server:
        yield server
        for key in (INGEST, SECOND, READ, ADMIN):
            assert key not in server.log()


@pytest.fixture(scope="module")
def open_server(data_template: Path) -> Iterator[Server]:
    with running(data_template, "--database-url", AWAY) as server:
        yield server


def body_for(path: str) -> bytes | None:
    return {"/tick": json.dumps(tick()).encode(), "/tick/batch": batch(tick())}.get(path)


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize("key", [INGEST, SECOND, READ, ADMIN])
@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
def test_a_key_opens_the_doors_of_its_scope_and_no_others(
    server: Server, method: str, path: str, key: str, header: str
) -> None:
    allowed = key == ADMIN or key.startswith(DOORS[method, path])
    headers = {header: key if header == "X-API-Key" else f"Bearer {key}"}
    answer = ask(server, method, path, body_for(path), headers)
    assert answer.status == (200 if allowed else 403)
    if not allowed:
        assert answer.json["code"] == "forbidden"


@pytest.mark.parametrize(("method", "path"), DOORS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "   "},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ADMIN[:-1]},
        {"X-API-Key": ADMIN + "x"},
        {"X-API-Key": ADMIN.upper()},
        {"X-API-Key": f"{INGEST},{SECOND}"},
        {"X-API-Key": "\u00e9" * 20},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": ADMIN},
        {"Authorization": f"Basic {ADMIN}"},
        {"Cookie": f"X-API-Key={ADMIN}"},
    ],
    ids=str,
)
def test_without_a_known_key_it_is_a_401(
    server: Server, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = ask(server, method, path, body_for(path), headers)
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")


def test_a_key_in_the_url_or_the_body_is_no_key_and_is_not_logged(server: Server) -> None:
    for name in ("api_key", "X-API-Key", "key", "token", "access_token"):
        assert ask(server, "GET", f"/stats?{name}={ADMIN}", headers={"X-Request-Id": ADMIN}).status == 401
    wait_until(lambda: '"GET /stats?access_token=... HTTP/1.1" 401' in server.log())
    keyed = json.dumps(tick() | {"api_key": ADMIN, "X-API-Key": ADMIN}).encode()
    assert ask(server, "POST", "/tick", keyed).status == 401


def test_a_refused_request_stores_nothing(server: Server) -> None:
    def received() -> int:
        return int(ask(server, "GET", "/stats", headers={"X-API-Key": READ}).json["ticks_received"])

    before = received()
    assert ask(server, "POST", "/tick/batch", batch(tick()), {"X-API-Key": READ}).status == 403
    assert ask(server, "POST", "/tick/batch", batch(tick())).status == 401
    assert received() == before
    assert ask(server, "POST", "/tick/batch", batch(tick()), {"X-API-Key": INGEST}).status == 200
    assert received() == before + 1


@pytest.mark.parametrize("path", OPEN)
def test_health_asks_for_no_key(server: Server, path: str) -> None:
    for headers in ({}, {"X-API-Key": "wrong"}):
        assert ask(server, "GET", path, headers=headers).status == (503 if path == "/health" else 200)


def test_a_body_behind_a_refused_key_does_not_become_the_next_request(server: Server) -> None:
    body = batch(tick())
    refused = b"POST /tick/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    answers = exchange(server, refused + b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert [answer.status for answer in answers] == [401, 200]


@pytest.mark.parametrize(("method", "path"), [*DOORS, *(("GET", path) for path in OPEN[:2])])
def test_on_loopback_and_without_configured_keys_every_door_is_open(
    open_server: Server, method: str, path: str
) -> None:
    for headers in ({}, {"X-API-Key": "whatever"}):
        assert ask(open_server, method, path, body_for(path), headers).status == 200


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "https://evil.example:{port}", "null", "", "x", "http://", "file://", "*"),
        *("http://127.0.0.1", "http://127.0.0.1:1", "http://127.0.0.2:{port}", "http://localhost:{port}"),
        *("127.0.0.1:{port}", "http://127.0.0.1:{port}/", "http://127.0.0.1:{port}, https://evil.example"),
        *("http://127.0.0.1:{port}@evil.example", "http://[127.0.0.1:{port}", "http://\u00e9"),
    ],
)
def test_without_keys_a_web_page_of_elsewhere_may_read_but_send_nothing(open_server: Server, origin: str) -> None:
    page = {"Origin": origin.format(port=open_server.port), "Content-Type": "text/plain"}
    before = open_server.stats()["ticks_received"]
    for path, body in (("/tick", None), ("/tick/batch", None), ("/api/symbols", b'{"symbol":"EVIL"}')):
        answer = ask(open_server, "POST", path, body or body_for(path), page)
        assert (answer.status, answer.json["code"]) == (403, "forbidden"), path
        assert "cors_origins" in answer.json["message"]
    assert ask(open_server, "GET", "/stats", headers=page).json["ticks_received"] == before


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}", "hub.localhost:{port}", "[::1]:{port}", "10.0.0.1"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_without_keys_the_servers_own_page_may_send(open_server: Server, host: str, scheme: str) -> None:
    host = host.format(port=open_server.port)
    own = {"Origin": f"{scheme}://{host.lower()}", "Host": host}
    assert ask(open_server, "POST", "/tick", body_for("/tick"), own).status == 200


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost", "2130706433", ""]
)
def test_a_page_that_has_its_name_lead_here_may_not_send(open_server: Server, name: str) -> None:
    rebound = {"Origin": f"http://{name}", "Host": name}
    assert ask(open_server, "POST", "/tick", body_for("/tick"), rebound).status == 403


@pytest.mark.long
def test_a_server_that_is_open_to_all_is_so_by_its_name_but_not_to_other_pages(data_template: Path) -> None:
    with running(data_template, "--database-url", AWAY, "--insecure") as server:
        for origin, status in (("http://desk.example", 200), ("http://evil.example", 403)):
            headers = {"Origin": origin, "Host": "desk.example"}
            assert ask(server, "POST", "/tick", body_for("/tick"), headers).status == status


def test_with_keys_a_web_page_that_has_one_may_send(server: Server) -> None:
    page = {"Origin": "https://desk.example", "X-API-Key": INGEST}
    assert ask(server, "POST", "/tick", body_for("/tick"), page).status == 200


@contextmanager
def serving(data_dir: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A `serve` that can never listen, with its output as a pipe."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TICKHUB_")}
    with subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--database-url", AWAY, "--data-dir", data_dir, *flags],
        cwd=ROOT,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_beyond_loopback_it_does_not_start_without_keys_and_says_what_to_do(
    tmp_path: Path, host: str
) -> None:
    port = free_port()
    with serving(tmp_path / "data", "--host", host, "--port", str(port)) as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode > 0
    assert len(said.strip().splitlines()) == 1
    for word in (f"host={host}", "TICKHUB_API_KEY_INGEST", "--insecure"):
        assert word in said
    with closing(socket.socket()) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


def test_insecure_gets_it_past_the_refusal(tmp_path: Path) -> None:
    # An address of a documentation network: no machine has it, so nothing ever listens.
    flags = ("--host", "192.0.2.1", "--port", str(free_port()), "--insecure")
    with serving(tmp_path / "data", *flags) as process:
        assert process.stdout is not None
        said = next((line for line in process.stdout if "--insecure" in line), "")
    assert "everybody who reaches this address may write and read" in said
