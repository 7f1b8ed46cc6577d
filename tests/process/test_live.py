"""/ws on a real server: what a client says, what it gets, and that no mistake of its costs more than itself."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.process.harness import Server, wait_until
from tests.process.live import HANDSHAKE, Client, client, send
from tests.process.wire import AWAY, ask, running
from tests.process.workers import Workers

NOT_LIVE = ("buy_volume", "sell_volume", "flags", "stale")
"""Fields that only a read has."""

READ, INGEST = "read-0123456789ab", "ingest-0123456789"


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2, environ={"TICKHUB_CORS_ORIGINS": "https://desk.example"}) as server:
        wait_until(lambda: server.log().count("the database is connected") == 2, what="both workers' database")
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def quick(data_template: Path) -> Iterator[Server]:
    """A server with frequent heartbeats, few places and no database."""
    environ = {"TICKHUB_HEARTBEAT_INTERVAL_S": "0.2", "TICKHUB_WS_MAX_CONNECTIONS": "5"}
    with running(data_template, "--database-url", AWAY, environ=environ) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def keyed(data_template: Path) -> Iterator[Server]:
    environ = {"TICKHUB_API_KEY_READ": READ, "TICKHUB_API_KEY_INGEST": INGEST}
    with running(data_template, "--database-url", AWAY, environ=environ) as server:
        yield server
        assert READ not in server.log()


def bids(quotes: list[dict[str, Any]]) -> list[float]:
    return [quote["bid"] for quote in quotes]


def wait_known(server: Server, symbol: str, bid: float) -> None:
    """Wait until both workers have a quote: the one that was not sent it hears of it a moment later."""
    with closing(Workers(server)) as workers:
        pids = workers.reach(2)
        wait_until(lambda: [workers.bid(pid, symbol) for pid in pids] == [bid] * 2, what=f"{symbol} in both workers")


def test_who_subscribes_gets_a_snapshot_then_every_tick(server: Server) -> None:
    send(server, "AAPL.US", bid=1.5)
    wait_known(server, "AAPL", 1.5)  # what comes behind the subscription is no snapshot
    with client(server) as reader:
        assert reader.subscribe("aapl.us") == {
            "type": "subscribed", "symbols": ["AAPL"], "channels": ["quotes"], "rejected": [],
        }  # fmt: skip
        snapshot = reader.next("quote")
        assert (snapshot["symbol"], snapshot["bid"], snapshot["snapshot"], snapshot["n"]) == ("AAPL", 1.5, True, 1)
        for n in range(2, 12):
            send(server, "AAPL", bid=float(n))
            update = reader.next("quote")
            assert (update["bid"], update["n"], "snapshot" in update, "skipped" in update) == (n, n, False, False)


def test_the_quote_is_the_one_that_a_read_gives(server: Server) -> None:
    with client(server) as reader:
        send(server, "MSFT", bid=300.25, ask=300.5, last=300.3, volume=7, flags=30)
        reader.subscribe("MSFT")
        live = reader.until(lambda said: said.get("bid") == 300.25)[-1]
        wait_known(server, "MSFT", 300.25)
        read = ask(server, "GET", "/api/quotes/MSFT").json
        assert {field: live[field] for field in live.keys() & read.keys()} | dict.fromkeys(NOT_LIVE) == (
            read | dict.fromkeys(NOT_LIVE)
        )


def test_every_symbol_is_one_word(server: Server) -> None:
    with client(server) as reader:
        reader.say(action="subscribe", symbol="*", conflate_ms=0)
        known = [one["symbol"] for one in ask(server, "GET", "/api/symbols").json["symbols"]]
        assert reader.next("subscribed")["symbols"] == sorted(known)
        reader.say(action="unsubscribe", symbols=["NVDA"])
        reader.until(lambda said: said["type"] == "unsubscribed")
        send(server, "NVDA", "TSLA", bid=77.25)
        found = reader.until(lambda said: said.get("bid") == 77.25)
        assert found[-1]["symbol"] == "TSLA"


def test_a_new_symbol_is_among_all_of_them(server: Server) -> None:
    with client(server) as reader:
        reader.say(action="subscribe", symbol="*", conflate_ms=0)
        reader.next("subscribed")
        status, _, _ = server.post_raw("/api/symbols", b'{"symbol":"LATER"}')
        assert status == 201
        send(server, "LATER", bid=4.5)
        reader.until(lambda said: said.get("symbol") == "LATER")


def test_nothing_more_comes_of_what_was_unsubscribed(server: Server) -> None:
    with client(server) as reader:
        reader.subscribe("INTC", "CSCO")
        reader.say(action="unsubscribe", symbol="INTC.US")
        gone = reader.until(lambda said: said["type"] == "unsubscribed")[-1]
        assert gone["symbols"] == ["CSCO"]
        send(server, "INTC", bid=5.5)
        send(server, "CSCO", bid=6.5)
        assert reader.until(lambda said: said.get("bid") == 6.5)[-1]["symbol"] == "CSCO"
        assert not [said for said in reader.sync() if said.get("symbol") == "INTC"]


def test_symbols_that_are_none_are_told_one_by_one(server: Server) -> None:
    with client(server) as reader:
        found = reader.subscribe("NOSUCH", "META", "")
        assert found["symbols"] == ["META"]
        assert [(one["symbol"], one["code"]) for one in found["rejected"]] == [
            ("NOSUCH", "unknown_symbol"),
            ("", "unknown_symbol"),
        ]
        assert "NOSUCH" in found["rejected"][0]["message"]


def test_quotes_are_conflated_to_the_newest(quick: Server) -> None:
    # Without a database, which may know of ticks before this worker has heard of them: then `skipped` is too small.
    with client(quick) as reader:
        reader.subscribe("AMD", conflate_ms=500)
        reader.sync()
        for n in range(1, 41):
            send(quick, "AMD", bid=100.0 + n)
        found = reader.until(lambda said: said.get("bid") == 140.0)
        quotes = [said for said in found if said["type"] == "quote"]
        assert bids(quotes) == sorted(bids(quotes))
        assert len(quotes) + sum(quote.get("skipped", 0) for quote in quotes) == 40
        assert [quote["n"] for quote in quotes] == list(range(quotes[0]["n"], quotes[0]["n"] + len(quotes)))


def test_a_batch_is_an_array(server: Server) -> None:
    with client(server) as reader:
        reader.subscribe("ORCL", "PLTR", batch=True, conflate_ms=100)
        reader.sync()
        send(server, "ORCL", "PLTR", bid=3.25)
        while not isinstance(said := json.loads(reader.ws.recv(20)), list):
            assert said["type"] == "heartbeat"
        assert sorted(one["symbol"] for one in said) == ["ORCL", "PLTR"]


def test_readers_of_both_workers_see_what_either_takes(server: Server) -> None:
    with ExitStack() as stack:
        readers = [stack.enter_context(client(server)) for _ in range(8)]
        for reader in readers:
            reader.subscribe("GOOG")
        send(server, "GOOG", bid=42.5)
        for reader in readers:
            reader.until(lambda said: said.get("bid") == 42.5)


MISTAKES = {
    "no json": ("{", "bad_json"),
    "no object": ("[1]", "bad_json"),
    "no utf-8 in bytes": (b'{"action":"\xff"}', "bad_json"),
    "no action": ("{}", "missing_field"),
    "another action": ('{"action":"buy"}', "unknown_command"),
    "no symbol": ('{"action":"subscribe"}', "missing_field"),
    "a number for a symbol": ('{"action":"subscribe","symbol":5}', "bad_field"),
    "another channel": ('{"action":"subscribe","symbol":"A","channels":["news"]}', "bad_field"),
    "another interval": ('{"action":"subscribe","symbol":"A","channels":["bars"],"interval":"7m"}', "bad_field"),
    "conflate_ms below zero": ('{"action":"subscribe","symbol":"A","conflate_ms":-1}', "bad_field"),
    "half a surrogate": ('{"action":"\\ud800"}', "bad_json"),
}


@pytest.mark.parametrize(("message", "code"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_answered_and_the_connection_stays(server: Server, message: str | bytes, code: str) -> None:
    with client(server) as reader:
        reader.ws.send(message)
        error = reader.next("error")
        assert error["code"] == code
        assert error["message"]
        reader.ws.send("ping")
        reader.next("pong")
        reader.say(action="ping")
        reader.next("pong")


def test_heartbeats_come_idle_or_not(quick: Server) -> None:
    with client(quick) as idle, client(quick) as busy:
        busy.subscribe("AAPL")
        for _ in range(3):
            send(quick, "AAPL")
            for reader in (idle, busy):
                assert reader.until(lambda said: said["type"] == "heartbeat")[-1]["timestamp"].endswith("Z")


def test_without_the_database_quotes_are_live_all_the_same(quick: Server) -> None:
    with client(quick) as reader:
        reader.subscribe("TSLA")
        send(quick, "TSLA", bid=9.5)
        assert reader.until(lambda said: said.get("bid") == 9.5)[-1]["change"] is None


def test_one_too_many_is_told_so_and_ticks_are_taken_on(quick: Server) -> None:
    wait_until(lambda: quick.stats()["active_connections"] <= 1, what="those before to be gone")
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(client(quick))
        with pytest.raises(InvalidStatus) as refused, client(quick):
            pass
        response = refused.value.response
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert b"ws_max_connections" in response.body
        send(quick, "AAPL")
    wait_until(lambda: _connects(quick), what="a place to be free again")


def _connects(server: Server) -> bool:
    try:
        with client(server) as reader:
            reader.ws.send("ping")
            return bool(reader.next("pong"))
    except InvalidStatus:
        return False


def test_a_message_that_is_too_big_is_1009(quick: Server) -> None:
    with client(quick) as reader:
        reader.ws.send(" " * 65_537)
        assert reader.close_code() == 1009


@pytest.mark.long
def test_a_flood_is_warned_of_then_closed_with_1008_and_others_are_served(quick: Server) -> None:
    with client(quick) as flooder, client(quick) as reader:
        reader.subscribe("MSFT")
        with pytest.raises(OSError), closing(flooder.ws.socket) as raw:  # noqa: PT012 - until it is closed
            frame = b"\x81\x84\0\0\0\0ping" * 1000
            while True:
                raw.sendall(frame)
                send(quick, "MSFT", bid=time.time())
                reader.next("quote")


@pytest.mark.long
def test_one_that_reads_sees_why_it_is_closed(quick: Server) -> None:
    codes = []
    with client(quick) as flooder, pytest.raises(ConnectionClosed) as closed:  # noqa: PT012 - whichever call meets it
        while True:
            for _ in range(50):
                flooder.ws.send("ping")
            with suppress(TimeoutError):
                while True:
                    said = flooder.hear(0.05)
                    codes += [said["code"]] if said["type"] == "error" else []
    assert closed.value.rcvd
    assert closed.value.rcvd.code == 1008
    assert codes == ["rate_limited"] * 3


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_foreign_pages_may_not_connect(server: Server, origin: str) -> None:
    for path in ("/ws", "/ws/metrics"):
        with pytest.raises(InvalidStatus) as refused, client(server, path, origin=origin):
            pass
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["code"] == "forbidden"


def test_our_own_pages_and_named_ones_may(server: Server) -> None:
    for origin in ("https://desk.example", f"http://127.0.0.1:{server.port}"):
        with client(server, origin=origin) as reader:
            assert reader.sync() == []


def test_a_key_in_the_header_opens(keyed: Server) -> None:
    for headers in ({"X-API-Key": READ}, {"Authorization": f"Bearer {READ}"}):
        with client(keyed, additional_headers=headers) as reader:
            assert reader.subscribe("AAPL")["symbols"] == ["AAPL"]


@pytest.mark.parametrize(("key", "status"), [("wrong-0123456789", 401), (INGEST, 403), ("", 401)])
def test_a_key_in_the_header_that_does_not_fit_is_refused(keyed: Server, key: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused, client(keyed, additional_headers={"X-API-Key": key}):
        pass
    assert refused.value.response.status_code == status


def test_a_browser_shows_its_key_in_the_first_message(keyed: Server) -> None:
    with client(keyed) as reader:
        reader.say(action="subscribe", symbol="AAPL")
        assert reader.next("error")["code"] == "unauthorized"
        reader.say(action="auth", key=READ)
        reader.next("authenticated")
        assert reader.subscribe("AAPL")["symbols"] == ["AAPL"]


@pytest.mark.parametrize(("key", "code"), [("wrong-0123456789", "unauthorized"), (INGEST, "forbidden")])
def test_a_key_in_a_message_that_does_not_fit_is_1008(keyed: Server, key: str, code: str) -> None:
    with client(keyed) as reader:
        reader.say(action="auth", key=key)
        assert reader.next("error")["code"] == code
        assert reader.close_code() == 1008


def test_what_is_no_handshake_gets_an_error_in_json(server: Server) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    for path in ("/ws", "/ws/metrics"):
        for headers in ({}, upgrade, upgrade | key, upgrade | key | {"Sec-WebSocket-Version": "8"}):
            answer = ask(server, "GET", path, headers=headers)
            assert (answer.status, answer.json["code"]) == (400, "bad_parameter")


def test_a_message_that_comes_with_the_handshake_is_heard(server: Server) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as raw:
        raw.sendall(HANDSHAKE + b"\x81\x84\0\0\0\0ping")
        data = b""
        while b"pong" not in data:
            piece = raw.recv(4096)
            assert piece, data
            data += piece


def stall(server: Server, stack: ExitStack) -> Client:
    """A reader of all symbols that never reads, with as little room as the kernel allows."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", server.port))
    found = stack.enter_context(client(server, sock=raw, max_queue=1))
    found.say(action="subscribe", symbol="*", conflate_ms=0)
    found.next("subscribed")
    return found


@pytest.mark.long
def test_a_reader_that_stops_reading_delays_nobody_and_then_gets_the_newest(quick: Server) -> None:
    # Without a database, as above.
    symbols = ["NatGas", "SpotCrude", "NAS100", "VIX", "AVGO", "AMZN"]
    with ExitStack() as stack:
        slow = stall(quick, stack)
        reader = stack.enter_context(client(quick))
        reader.subscribe("AMZN")
        for n in range(1500):
            send(quick, *symbols, bid=1000.0 + n)
            if n % 50 == 49:
                reader.until(lambda said, bid=1000.0 + n: said.get("bid") == bid)
        found = slow.until(lambda said: said.get("symbol") == "AMZN" and said.get("bid") == 2499.0)
        own = [said for said in found if said.get("symbol") == "AMZN" and said.get("bid", 0) >= 1000]
        assert bids(own) == sorted(bids(own))
        assert any("skipped" in said for said in own), "nothing was left out: it was never slow"
        assert len(own) + sum(said.get("skipped", 0) for said in own) == 1500


def test_readers_that_come_and_go_leave_nothing(server: Server) -> None:
    def connections() -> int:
        return int(server.stats()["active_connections"])

    for _ in range(5):
        with ExitStack() as stack:
            for _ in range(20):
                # Unbounded: a client of this library that does not read its frames does not see a close either.
                stack.enter_context(client(server, max_queue=None)).say(action="subscribe", symbol="*")
    wait_until(lambda: connections() <= 3, what="the connections to be gone")
