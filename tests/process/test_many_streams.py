"""Many long answers at once: as many as there are places are sent, the others are told to come again, and a place comes
back however its answer ends.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.process.harness import Server, copy_template, folder, wait_until
from tests.process.pieces import files
from tests.process.reading import DAY_MS, made_ticks, store
from tests.process.test_query_lanes import MINUTE, Probed
from tests.process.wire import Answer, ask

PLACES = 2
TICKS = 60_000
"""In text, more than the pages that are held and what the kernel takes for a client that does not read."""

DAY = "/api/ticks/AAPL?start=2026-01-13&end=2026-01-14"


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with folder() as parent:
        environ = MINUTE | {"PROBE_STREAMS": str(PLACES)}
        server = Probed(copy_template(data_template, parent / "data"), environ=environ)
        try:
            server.start().wait_ready()
            store(server, made_ticks("AAPL", range(DAY_MS, DAY_MS + TICKS)))
            yield server
            assert "Traceback" not in server.log()
        finally:
            server.close()


def begin(server: Server, path: str, **headers: str) -> socket.socket:
    """Ask, and read the first bytes of an answer that is one, and then no more."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect(("127.0.0.1", server.port))
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{name}: {text}" for name, text in headers.items())]
    client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert client.recv(15) == b"HTTP/1.1 200 OK"
    return client


@contextmanager
def all_taken(server: Server) -> Iterator[list[socket.socket]]:
    """Have clients that read slowly in all places."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(begin(server, f"{DAY}&format={form}"))) for form in ("ndjson", "csv")]


def refused(answer: Answer) -> bool:
    return (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "query_timeout", "2")


def wait_free(server: Server) -> None:
    """Wait until an answer can be had in each place."""

    def had() -> bool:
        with ExitStack() as stack:
            try:
                for _ in range(PLACES):
                    stack.enter_context(closing(begin(server, f"{DAY}&format=ndjson")))
            except AssertionError:
                return False
            return True

    wait_until(had, what="the places")


@pytest.mark.long
def test_slow_clients_have_the_places_and_whoever_comes_then_is_told_to_come_again(server: Server) -> None:
    with all_taken(server):
        for form in ("ndjson", "csv", "arrow", "parquet"):
            assert refused(ask(server, "GET", f"{DAY}&format={form}")), form
        assert refused(ask(server, "GET", "/api/bars/AAPL?interval=1s&start=2026-01-13&format=csv"))
    wait_free(server)


def test_one_page_and_a_quote_need_no_place(server: Server) -> None:
    with all_taken(server):
        assert len(ask(server, "GET", f"{DAY}&limit=10000").json["ticks"]) == 10_000
        assert ask(server, "GET", f"{DAY}&limit=5&format=csv").status == 200
        assert ask(server, "GET", "/api/quotes/AAPL").status == 200
        assert server.post(made_ticks("AAPL", [DAY_MS]))[0] == 200
    wait_free(server)


def test_a_file_of_an_answer_is_made_in_a_place_and_read_without_one(server: Server) -> None:
    parquet = f"{DAY}&format=parquet"
    with all_taken(server):
        assert refused(ask(server, "GET", parquet, headers={"Range": "bytes=-8"}))
        # The part is let go of a moment after the answer.
        wait_until(lambda: files(server) == files(server, "part") == [], what="nothing to be left")
    wait_free(server)
    answer = ask(server, "GET", parquet, headers={"Range": "bytes=-4"})
    assert (answer.status, answer.data) == (206, b"PAR1")
    with all_taken(server):
        again = ask(server, "GET", parquet, headers={"Range": "bytes=0-3"})
        assert (again.status, again.data) == (206, b"PAR1")
    wait_free(server)


def test_what_is_known_to_be_the_same_is_said_without_a_place(server: Server) -> None:
    tag = ask(server, "GET", f"{DAY}&format=csv").headers["etag"]
    with all_taken(server):
        assert ask(server, "GET", f"{DAY}&format=csv", headers={"If-None-Match": tag}).status == 304
    wait_free(server)


def test_a_place_comes_back_when_the_answer_was_read_to_its_end(server: Server) -> None:
    with all_taken(server) as clients:
        for client in clients:
            client.settimeout(30)
            tail = b""
            while not tail.endswith(b"\r\n0\r\n\r\n"):
                tail = tail[-16:] + client.recv(1 << 16)
        wait_free(server)
    wait_free(server)


def test_head_and_answers_that_are_refused_keep_no_place(server: Server) -> None:
    for _ in range(PLACES + 1):
        assert ask(server, "HEAD", f"{DAY}&format=csv").status == 200
        assert ask(server, "GET", "/api/ticks/NONE?start=2026-01-13&format=csv").status == 404
        assert ask(server, "GET", f"{DAY}&format=csv&page_token=AAAAAAAAAA").status == 400
    wait_free(server)
