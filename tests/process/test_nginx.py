"""nginx before a server, with the file of deploy/nginx: HTTPS, wss, and what it says when the server says nothing."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest

from tests.process.harness import Server, folder, wait_until
from tests.process.live import client
from tests.process.nginx import Nginx
from tests.process.wire import AWAY, batch, checked, running, tick

KEY = {"X-API-Key": "admin-0123456789abcdef"}
MIB = 1 << 20


@contextmanager
def front_of(port: int, **changed: str) -> Iterator[Nginx]:
    with folder() as home:
        found = Nginx(home, port, **changed)
        try:
            yield found.start()
        finally:
            found.stop()


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    environ = {"TICKHUB_API_KEY_ADMIN": KEY["X-API-Key"]}
    with running(data_template, "--database-url", AWAY, environ=environ) as server:
        yield server


@pytest.fixture(scope="module")
def front(server: Server) -> Iterator[Nginx]:
    with front_of(server.port) as found:
        yield found


class _Echo(BaseHTTPRequestHandler):
    """Answers with the headers that it got, or not at all."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/never":
            cast("_EchoServer", self.server).silent.wait(60)
            self.close_connection = True
            return
        body = json.dumps(dict(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _EchoServer(ThreadingHTTPServer):
    silent = threading.Event()


@pytest.fixture(scope="module")
def echoing() -> Iterator[Nginx]:
    """nginx before a server that says what came through, with little patience."""
    with _EchoServer(("127.0.0.1", 0), _Echo) as echo, ExitStack() as stack:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        stack.callback(echo.shutdown)
        stack.callback(echo.silent.set)
        yield stack.enter_context(
            front_of(echo.server_port, **{"proxy_read_timeout 60s": "proxy_read_timeout 5s"})
        )


def test_the_page_comes_by_https_with_all_its_headers(front: Nginx) -> None:
    page = front.ask("GET", "/", headers={"Accept": "text/html"})
    assert (page.status, page.headers["content-type"][:9]) == (200, "text/html")
    assert page.headers["strict-transport-security"] == "max-age=31536000"
    assert page.headers["x-frame-options"] == "DENY"
    assert "content-security-policy" in page.headers


def test_whoever_comes_without_tls_is_led_to_it(front: Nginx) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", front.plain_port, timeout=30)) as plain:
        for said in ("desk.example", "evil.example"):
            plain.request("POST", "/tick/batch?x=1", b"{}", {"Host": said})
            answer = plain.getresponse()
            assert (answer.status, answer.headers["Location"]) == (308, "https://desk.example/tick/batch?x=1")
            answer.read()
    with closing(http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)) as plain:
        plain.request("GET", "/stats")
        answer = plain.getresponse()
        assert (answer.status, json.loads(answer.read())["message"]) == (400, "this port speaks HTTPS")


def test_large_batches_come_through_and_too_large_ones_are_told_so(front: Nginx) -> None:
    ticks = batch(*[tick() for _ in range(60_000)])
    assert 6 * MIB < len(ticks) < 10 * MIB
    answer = front.ask("POST", "/tick/batch", ticks, KEY)
    assert (answer.status, answer.json) == (200, {"status": "success", "received": 60_000})
    for size in (10 * MIB + 1, 11 * MIB + 1):  # what the server refuses, and what does not get there
        answer = checked(front.ask("POST", "/tick/batch", bytes(size), KEY))
        assert (answer.status, answer.json["code"]) == (413, "too_large")


def test_quotes_come_by_wss_to_whoever_has_a_key(front: Nginx) -> None:
    with client(cast(Server, front), secure=True, ssl=front.trusting, additional_headers=KEY) as reader:
        reader.subscribe("NVDA")
        assert front.ask("POST", "/tick/batch", batch(tick(symbol="NVDA", bid=7.25)), KEY).status == 200
        assert reader.next("quote")["bid"] == 7.25
        reader.ws.send("ping")
        assert reader.next("pong")
    with client(cast(Server, front), secure=True, ssl=front.trusting) as reader:
        reader.say(action="subscribe", symbols=["NVDA"])
        assert reader.next("error")["code"] == "unauthorized"


def test_what_the_server_refuses_is_said_by_the_server(front: Nginx) -> None:
    assert checked(front.ask("GET", "/stats")).json["code"] == "unauthorized"
    assert checked(front.ask("GET", "/nothing", headers=KEY)).json["code"] == "not_found"
    assert checked(front.ask("GET", f"/api/symbols?x={'y' * 9000}", headers=KEY)).json["code"] == "too_large"
    assert checked(front.ask("GET", f"/api/symbols?x={'y' * 20_000}", headers=KEY)).status == 414
    answer = checked(front.ask("GET", "/stats", headers={"X-Long": "y" * 20_000}))
    assert (answer.status, answer.json["code"]) == (431, "too_large")


def test_ids_of_requests_are_one_for_both_logs(front: Nginx) -> None:
    assert front.ask("GET", "/health", headers={"X-Request-Id": "desk:17.a-b"}).headers["x-request-id"] == "desk:17.a-b"
    made = {front.ask("GET", "/health", headers={"X-Request-Id": bad}).headers["x-request-id"] for bad in ("", "a b")}
    assert len(made) == 2
    assert {len(one) for one in made} == {32}


def test_the_server_hears_who_came_and_how_and_not_what_the_client_claims(echoing: Nginx) -> None:
    claims = {"X-Forwarded-For": "10.9.9.9", "X-Forwarded-Proto": "http", "Connection": "X-Request-Id"}
    heard = json.loads(echoing.ask("GET", "/", headers=claims).data)
    assert heard["Host"] == f"desk.example:{echoing.port}"
    assert heard["X-Forwarded-For"] == "127.0.0.1"
    assert heard["X-Forwarded-Proto"] == "https"
    assert len(heard["X-Request-Id"]) == 32
    assert "Upgrade" not in heard


@pytest.mark.long
def test_a_server_that_does_not_answer_is_a_503_in_json(echoing: Nginx) -> None:
    with ThreadPoolExecutor(2) as clients:
        answers = list(clients.map(lambda _: checked(echoing.ask("GET", "/never")), range(2)))
    for answer in answers:
        assert (answer.status, answer.json["code"]) == (503, "not_ready")
        assert answer.headers["strict-transport-security"]
    assert echoing.ask("GET", "/").status == 200, "one that was slow is asked again at once"


@pytest.mark.long
def test_while_the_server_is_gone_senders_are_told_to_try_again_and_then_go_on(data_template: Path) -> None:
    environ = {"TICKHUB_API_KEY_ADMIN": KEY["X-API-Key"]}
    with running(data_template, "--database-url", AWAY, environ=environ) as server, front_of(server.port) as front:
        ticks = batch(tick(), tick())
        assert front.ask("POST", "/tick/batch", ticks, KEY).status == 200
        assert server.stop() == 0
        for method, body in (("GET", None), ("POST", ticks)):
            answer = checked(front.ask(method, "/tick/batch", body, KEY))
            assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "not_ready", "2")
        server.start().wait_accepting()
        assert front.ask("POST", "/tick/batch", ticks, KEY).status == 200


@pytest.mark.long
def test_a_server_without_keys_answers_by_the_names_that_it_was_given(data_template: Path) -> None:
    with (
        running(data_template, "--database-url", AWAY, "--allowed-hosts", "desk.example") as server,
        front_of(server.port) as front,
    ):
        assert front.ask("GET", "/stats").status == 200
        refused = checked(front.ask("GET", "/stats", headers={"Host": "evil.example"}))
        assert (refused.status, refused.json["code"]) == (403, "forbidden")


def test_one_address_gets_so_many_connections_and_no_more(server: Server) -> None:
    with (
        front_of(server.port, **{"limit_conn tickhub_address 200": "limit_conn tickhub_address 2"}) as front,
        ExitStack() as stack,
    ):
        for _ in range(2):
            options = {"secure": True, "ssl": front.trusting, "additional_headers": KEY}
            stack.enter_context(client(cast(Server, front), **options)).sync()
        answer = checked(front.ask("GET", "/health"))
        assert (answer.status, answer.json["code"]) == (429, "rate_limited")
        stack.close()
        wait_until(lambda: front.ask("GET", "/health/live").status == 200, what="a place")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_of_tls_are_refused_by_nginx_too(front: Nginx) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with closing(socket.create_connection(("127.0.0.1", front.port), timeout=30)) as raw, pytest.raises(ssl.SSLError):
        old.wrap_socket(raw)
