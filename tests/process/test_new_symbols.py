"""A symbol that was added is known by every worker from then on: a 400 would lose its ticks for good."""

from __future__ import annotations

import http.client
import json
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import wait_until
from tests.process.wire import tick

CONNECTIONS = 6
"""Enough for each of two workers to have some."""


def request(client: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    client.request(method, path, None if body is None else json.dumps(body))
    answer = client.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.long
def test_a_tick_of_a_symbol_that_was_just_added_is_taken_whichever_worker_gets_it(make_server: MakeServer) -> None:
    server = make_server(workers=2).start().wait_ready()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)))
            for _ in range(CONNECTIONS)
        ]
        wait_until(lambda: all(request(client, "GET", "/health")[0] == 200 for client in clients), what="both workers")
        for number in range(2):
            name = f"NEW{number}"
            for client in clients:  # each worker has read its map just now
                assert request(client, "POST", "/tick", tick(symbol=name))[0] == 400
            new = {"symbol": name, "aliases": [f"{name}.x"]}
            assert request(clients[number], "POST", "/api/symbols", new)[0] == 201
            for at, client in enumerate(clients):
                match at % 3:
                    case 0:
                        answer = request(client, "POST", "/tick", tick(symbol=name))
                    case 1:
                        rows = [tick(symbol=f"{name}.X"), tick(symbol="AAPL")]
                        answer = request(client, "POST", "/tick/batch", {"ticks": rows})
                    case _:
                        answer = request(client, "GET", f"/api/quotes/{name}")
                assert answer[0] == 200, answer
                assert answer[1].get("status", "success") == "success", answer
    assert server.wait_drained()["stored"] == 2 * 6


@pytest.mark.long
def test_a_symbol_that_cannot_be_added_now_is_refused_and_the_database_is_not_taken_for_away(
    make_server: MakeServer,
) -> None:
    server = make_server().start().wait_ready()
    with closing(server.database.connect()) as other, other.cursor() as cur:
        cur.execute("LOCK TABLE instruments IN SHARE MODE")
        for _ in range(2):
            status, answer, headers = server.request("POST", "/api/symbols", b'{"symbol":"NEW"}')
            assert (status, answer["code"]) == (503, "query_timeout")
            assert "Retry-After" in headers
        # Who has no names to add does not wait for it.
        assert server.post([tick(), tick(symbol="NEW")])[1]["status"] == "partial"
    assert server.request("POST", "/api/symbols", b'{"symbol":"NEW"}')[0] == 201
    assert server.post([tick(symbol="NEW")])[0] == 200
    server.wait_drained()
    assert "the database is away" not in server.log()
