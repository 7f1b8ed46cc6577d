"""Query lanes in the real server: clients that leave, queries that hang, and who goes on meanwhile."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests

from app.reads import WATCH_EVERY_S
from tests.process.conftest import MakeServer
from tests.process.harness import Database, Server, copy_template, folder, wait_until
from tests.process.load import Ticks
from tests.waiting import skip_here

WELL_BEFORE_S = 20.0
"""Long for cancelling, which takes one to two seconds, and short against the queries' minute."""

MINUTE = {
    "TICKHUB_PAGE_TIMEOUT_S": "60",
    "TICKHUB_EXPORT_TIMEOUT_S": "60",
    "TICKHUB_LANE_WAIT_S": "0.5",
    "TICKHUB_DB_POOL_SIZE": "11",  # of them four for pages
}


class Probed(Server):
    """A server with the probes, that many tests share."""

    module = "tests.process.probes"
    _seen = 0

    def forget(self) -> Probed:
        """Take what was logged so far for read."""
        self._seen = len(self.log())
        return self

    def news(self) -> str:
        """What was logged since."""
        return self.log()[self._seen :]


@contextmanager
def probed(template: Path, workers: int = 1) -> Iterator[Probed]:
    with folder() as parent:
        server = Probed(copy_template(template, parent / "data"), workers=workers, environ=MINUTE)
        try:
            server.start().wait_ready()
            yield server
        finally:
            server.close()


@pytest.fixture(scope="module")
def shared(data_template: Path) -> Iterator[Probed]:
    with probed(data_template) as found:
        yield found


@pytest.fixture
def server(shared: Probed) -> Probed:
    return shared.forget()


def own(make_server: MakeServer, *flags: str, **environ: str) -> Server:
    """A server for one test that changes it, or ends it."""
    server = make_server(*flags, environ=MINUTE | environ)
    server.module = Probed.module
    return server.start()


def busy(database: Database) -> list[int]:
    """Backends that run a query of a test, which sleep or wait for a lock; not what a server reads by itself."""
    return [
        pid
        for (pid,) in database.rows(
            "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() "
            "AND application_name ~ '^tickhub (quote|page|export)' "
            "AND (query ~ 'pg_sleep' OR wait_event_type = 'Lock')"
        )
    ]


def connect(server: Server, request: str = "") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    if request:
        client.sendall(f"GET {request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def everything(client: socket.socket) -> bytes:
    """Read to the end; raises ConnectionResetError where it is broken."""
    parts = []
    while part := client.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def metric(server: Server, line: str) -> float:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as client:
        client.request("GET", "/metrics")
        for found in client.getresponse().read().decode().splitlines():
            if found.startswith(line + " "):
                return float(found.rpartition(" ")[2])
    return 0.0


@contextmanager
def locked_ticks(database: Database) -> Iterator[None]:
    """Every query of ticks waits."""
    with closing(database.connect()) as conn, conn.cursor() as cur:
        cur.execute("LOCK TABLE ticks IN ACCESS EXCLUSIVE MODE")
        yield


def curl(server: Server, number: int) -> None:
    program = shutil.which("curl")
    if program is None:
        skip_here("curl is not installed: apt-get install curl")
    url = f"http://127.0.0.1:{server.port}/probe/read?s=60"
    with subprocess.Popen([program, "-s", url], stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: busy(server.database), what="the query")
        process.send_signal(number)


def requests_timeout(server: Server) -> None:
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"http://127.0.0.1:{server.port}/probe/read?s=60", timeout=1.0)


def socket_reset(server: Server) -> None:
    client = connect(server, "/probe/read?s=60")
    wait_until(lambda: busy(server.database), what="the query")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


LEAVING: dict[str, Callable[[Server], None]] = {
    "curl killed": lambda server: curl(server, signal.SIGKILL),
    "curl interrupted": lambda server: curl(server, signal.SIGINT),
    "requests timed out": requests_timeout,
    "reset": socket_reset,
}


@pytest.mark.parametrize("leave", LEAVING.values(), ids=list(LEAVING))
def test_a_client_that_leaves_cancels_its_query(server: Probed, leave: Callable[[Server], None]) -> None:
    cancelled = 'tickhub_reads_total{kind="page",outcome="cancelled"}'
    before = metric(server, cancelled)
    leave(server)
    wait_until(lambda: not busy(server.database), WELL_BEFORE_S, "the query to be cancelled")
    # Its worker counts it when it hears of it, a moment after the database has ended it.
    wait_until(lambda: metric(server, cancelled) == before + 1, what="the query to be counted")
    assert "Traceback" not in server.news()
    assert server.request("GET", "/probe/read?s=0")[:2] == (200, 1)


@pytest.mark.long
def test_a_client_that_leaves_over_tls_cancels_its_query_and_a_stream_arrives_whole(
    make_server: MakeServer, certificate: tuple[str, str]
) -> None:
    key, cert = certificate
    server = own(make_server, "--ssl-keyfile", key, "--ssl-certfile", cert)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def ask(path: str) -> http.client.HTTPResponse:
        client = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=context)
        client.request("GET", path)
        return client.getresponse()

    def healthy() -> bool:
        try:
            return ask("/health").status == 200
        except OSError:
            return False

    wait_until(healthy, what="the server")
    answer = ask("/probe/pages?count=3&bytes=1000000&slow=2&s=0.6")
    assert len(answer.read()) == 3_000_000
    with closing(context.wrap_socket(connect(server))) as client:
        client.sendall(b"GET /probe/read?s=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: busy(server.database), what="the query")
    wait_until(lambda: not busy(server.database), WELL_BEFORE_S, "the query to be cancelled")
    assert "Traceback" not in server.log()


def test_a_client_that_sends_its_next_request_early_is_there(server: Probed) -> None:
    with closing(connect(server)) as client:
        with locked_ticks(server.database):
            client.sendall(b"GET /probe/read HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: busy(server.database), what="the query")
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            looked_at = time.monotonic() + 4 * WATCH_EVERY_S
            wait_until(lambda: time.monotonic() > looked_at, what="the server to look at its client")
        answers = everything(client)
    assert answers.count(b"HTTP/1.1 200 OK") == 2, answers


def test_a_client_that_shuts_down_its_sending_side_gets_what_is_quick_and_hears_why_it_gets_no_more(
    server: Probed,
) -> None:
    def asked(path: str) -> bytes:
        with closing(connect(server, path)) as client:
            client.shutdown(socket.SHUT_WR)
            return everything(client)

    assert quick(lambda: asked("/probe/read?s=0")).startswith(b"HTTP/1.1 200")
    assert asked("/probe/read?s=60").startswith(b"HTTP/1.1 499")


def quick(ask: Callable[[], bytes]) -> bytes:
    """Ask again while the answer took so long that the server looked, and found its client half gone."""
    answers = (ask() for _ in range(5))
    return next((answer for answer in answers if not answer.startswith(b"HTTP/1.1 499")), b"five times 499")


def test_a_stream_goes_on_to_a_client_that_has_shut_down_its_sending_side(server: Probed) -> None:
    def asked() -> bytes:
        with closing(connect(server)) as client:
            client.send(b"GET /probe/pages?count=4&bytes=8&slow=2&s=1.5 HTTP/1.1\r\nHost: x\r\n\r\n", socket.MSG_MORE)
            client.shutdown(socket.SHUT_WR)  # goes with the request, in one packet
            return everything(client)

    # Or the first page of all would wait for its connection, and be no quick one.
    assert server.request("GET", "/probe/read?kind=export&s=0")[0] == 200
    answer = quick(asked)
    assert answer.endswith(b"0000003\n\r\n0\r\n\r\n")


def test_a_client_that_read_all_there_was_and_left_cancels_the_next_page(server: Probed) -> None:
    with closing(connect(server, "/probe/pages?count=4&bytes=8&slow=1&s=60")) as client:
        wait_until(lambda: busy(server.database), what="the second page")
        assert client.recv(1000).endswith(b"0000000\n\r\n")
    wait_until(lambda: not busy(server.database), WELL_BEFORE_S, "the query to be cancelled")
    assert "Traceback" not in server.news()


@pytest.mark.long
def test_a_query_that_hangs_is_a_503_and_everything_else_goes_on(make_server: MakeServer) -> None:
    server = make_server(environ=MINUTE | {"TICKHUB_PAGE_TIMEOUT_S": "4"}).start().wait_ready()
    ticks = Ticks(1, 1, with_seq=True)
    before, meanwhile = ticks.batch(10), ticks.batch(10)
    symbol = before[0]["symbol"]
    assert server.post(before)[0] == 200
    server.wait_drained()
    with locked_ticks(server.database):
        waiting = [connect(server, f"/api/ticks/{symbol}") for _ in range(4)]
        wait_until(lambda: len(busy(server.database)) == 4, what="four queries that wait")
        assert server.request("GET", f"/api/quotes/{symbol}")[0] == 200
        assert server.post(meanwhile)[0] == 200
        assert server.status("/health") == 200
        for client in waiting:
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert b'"code":"query_timeout"' in answer.read()
            client.close()
        assert busy(server.database) == []
    server.wait_drained()
    found = server.request("GET", f"/api/ticks/{symbol}")[1]["ticks"]
    assert len(found) == sum(tick["symbol"] == symbol for tick in before + meanwhile)
    assert "Traceback" not in server.log()


def test_a_reader_of_ticks_that_leaves_cancels_its_query(server: Probed) -> None:
    batch = Ticks(2, 2, with_seq=True).batch(10)
    assert server.post(batch)[0] == 200
    server.wait_drained()
    path = f"/api/ticks/{batch[0]['symbol']}"
    with locked_ticks(server.database):
        for query in ("", "?start=1990-01-01&format=csv"):
            with closing(connect(server, path + query)):
                wait_until(lambda: busy(server.database), what="the query")
            wait_until(lambda: not busy(server.database), WELL_BEFORE_S, "the query to be cancelled")
    assert server.request("GET", path)[0] == 200
    assert "Traceback" not in server.news()


def test_no_more_reads_than_lanes_and_the_rest_is_told_so(server: Probed) -> None:
    with locked_ticks(server.database):
        waiting = [connect(server, "/probe/read") for _ in range(4)]
        wait_until(lambda: len(busy(server.database)) == 4, what="four queries that wait")
        status, answer, headers = server.request("GET", "/probe/read?s=0")
        assert (status, answer["code"], headers["Retry-After"]) == (503, "query_timeout", "2")
        assert "busy" in answer["message"]
        assert server.request("GET", "/probe/read?kind=export&s=0")[0] == 200
        for client in waiting:
            client.close()
        wait_until(lambda: not busy(server.database), WELL_BEFORE_S, "the queries to be cancelled")
        assert server.request("GET", "/probe/read?s=0")[0] == 200


@pytest.mark.long
def test_a_database_that_is_away_is_said_at_once_and_reads_are_back_when_it_is(make_server: MakeServer) -> None:
    server = own(make_server).wait_ready()
    assert server.request("GET", "/probe/read")[:2] == (200, 0)
    postmaster = server.database.postmaster_pid()
    assert postmaster is not None
    server.database.kill9()
    status, answer, headers = wait_until(
        lambda: (found := server.request("GET", "/probe/read"))[0] != 200 and found, what="it to be noticed"
    )
    assert (status, answer["code"], headers["Retry-After"]) == (503, "database_away", "2")
    wait_until(lambda: server.request("GET", "/probe/read")[:2] == (200, 0), what="the database to be back")
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_a_database_that_hangs_costs_reads_only(make_server: MakeServer) -> None:
    server = own(make_server).wait_ready()
    server.request("GET", "/probe/read?s=0")
    waiting = connect(server, "/probe/read?s=60")
    wait_until(lambda: busy(server.database), what="the query")
    server.database.pause()
    try:
        waiting.close()  # which wants to cancel it: nobody takes the message
        for _ in range(20):
            assert server.post(Ticks(1, 1, with_seq=True).batch(3))[0] == 200
            assert server.status("/health/live") == 200
        wait_until(lambda: server.status("/health") == 503, what="the keeper to notice")
        assert server.request("GET", "/probe/read")[0] == 503
    finally:
        server.database.resume()
    wait_until(lambda: server.request("GET", "/probe/read")[0] == 200, what="reads to be back")
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_a_query_under_way_does_not_hold_up_the_end(make_server: MakeServer) -> None:
    server = own(make_server).wait_ready()
    with closing(connect(server, "/probe/read?s=60")):
        wait_until(lambda: busy(server.database), what="the query")
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(60) == 0, server.log()
    assert "Traceback" not in server.log()


