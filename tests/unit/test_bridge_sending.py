"""The bridge's spool and its sending, against a server that can fail in every way that the contract names."""

from __future__ import annotations

import json
import random
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridge_stand_in.loading import Ear, load, open_spool, unsent
from tests.bridge_stand_in.server import Row, StandInServer
from tests.bridge_stand_in.terminal import StandInTerminal
from tests.waiting import wait_until

bridge = load()


@pytest.fixture
def server() -> Iterator[StandInServer]:
    made = StandInServer()
    yield made
    made.close()


class Sending:
    """A spool and its sender, stepped by the test; `restart` is a death and a new start."""

    def __init__(self, path: Path, url: str, batch: int = 10) -> None:
        self.path, self.url, self.batch = path, url, batch
        self.spool: Any = None
        self.api_key = ""
        self.restart()

    def restart(self) -> None:
        if self.spool is not None:
            self.spool.close()
        self.stop, self.ear = threading.Event(), Ear()
        self.spool = open_spool(self.path)
        server = bridge.Server(self.url, self.api_key)
        self.sender = bridge.Sender(self.spool, server, self.batch, self.stop, self.ear)

    def add(self, *symbols: str, start: int = 0) -> None:
        rows = [
            (symbol, bridge.row_text(symbol, start + at, (0, 0), bid=1.5, ask=1.6, flags=6))
            for at, symbol in enumerate(symbols)
        ]
        self.spool.add(rows, {})

    def steps(self, most: int = 50) -> None:
        """Send until the spool is empty, as if no time passed between the tries."""
        for _ in range(most):
            if not self.spool.rows:
                return
            self.sender._held = {symbol: (0.0, tries) for symbol, (_, tries) in self.sender._held.items()}
            self.sender.step()


@pytest.fixture
def sending(tmp_path: Path, server: StandInServer) -> Iterator[Sending]:
    made = Sending(tmp_path / "spool.db", server.url)
    yield made
    made.spool.close()


def times(rows: list[Row]) -> list[object]:
    return [row["time_msc"] for row in rows]


def refused(sending: Sending) -> list[tuple[int, str, str]]:
    rows = sending.spool._db.execute("SELECT row, code, message FROM refused ORDER BY id").fetchall()
    return [(json.loads(row)["time_msc"], code, message) for row, code, message in rows]


def test_what_was_acknowledged_leaves_the_spool(sending: Sending, server: StandInServer) -> None:
    sending.add(*["EURUSD"] * 25)
    assert sending.sender.step() == 0.0
    assert len(unsent(sending.spool)) == 15
    sending.steps()
    assert times(server.rows) == list(range(25))
    assert server.requests == [10, 10, 5]
    assert server.connections == 1
    assert sending.spool.rows == 0
    sending.restart()
    assert (sending.spool.rows, sending.spool.refused) == (0, 0)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "fault",
    [
        (400, JSON, b'{"status":"error","code":"bad_json","message":"no JSON"}'),
        (401, JSON, b'{"status":"error","code":"unauthorized"}'),
        (403, JSON, b"{}"),
        (404, {"Content-Type": "text/html"}, b"<html>"),
        (405, JSON, b"{}"),
        (408, JSON, b""),
        (415, JSON, b"{}"),
        (422, JSON, b"[]"),
        (429, {"Retry-After": "0"}, b""),
        (500, JSON, b"{}"),
        (502, {"Content-Type": "text/html"}, b"<html>Bad gateway</html>"),
        (503, {"Retry-After": "3"}, b'{"code":"buffer_full"}'),
        (503, {}, b""),
        (302, {"Location": "/login"}, b""),
        (200, JSON, b'{"status":"success","received":9}'),
        (200, JSON, b'{"status":"partial","received":9,"rejected":[{"index":10,"code":"bad_field"}]}'),
        (200, JSON, b'{"status":"partial","received":9,"rejected":7}'),
        (204, {}, b""),
        "html",
        "cut",
    ],
    ids=str,
)
def test_whatever_is_no_acknowledgement_keeps_the_rows(
    sending: Sending, server: StandInServer, fault: str | tuple[int, dict[str, str], bytes]
) -> None:
    sending.add(*["EURUSD"] * 10)
    server.faults = [fault]
    sending.sender.step()
    assert len(unsent(sending.spool)) == 10
    assert sending.spool.refused == 0
    assert sending.ear.heard("server: ")
    sending.steps()
    assert times(server.rows) == list(range(10))
    assert sending.ear.heard("server: ok again")


def test_a_lost_acknowledgement_is_sent_again_and_means_the_same_ticks(
    sending: Sending, server: StandInServer
) -> None:
    sending.add(*["EURUSD"] * 25)
    server.faults = ["drop"]
    sending.steps()
    assert len(server.rows) > 25
    assert times(server.stored()) == list(range(25))
    assert server.conflicts == []


def test_a_death_before_the_acknowledgement_is_written_down_sends_again(
    sending: Sending, server: StandInServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending.add(*["EURUSD"] * 10)

    def die(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sending.spool, "settle", die)
    with pytest.raises(MemoryError):
        sending.sender.step()
    sending.restart()
    sending.steps()
    assert len(server.rows) == 20
    assert times(server.stored()) == list(range(10))


def test_rows_refused_for_good_are_set_aside_with_their_reason(
    sending: Sending, server: StandInServer
) -> None:
    server.refuse = lambda row: (
        ("too_old", f"{row['time_msc']} is too old") if row["time_msc"] in (1, 8) else None
    )
    sending.add(*["EURUSD"] * 10)
    sending.steps()
    assert times(server.rows) == [0, 2, 3, 4, 5, 6, 7, 9]
    assert refused(sending) == [(1, "too_old", "1 is too old"), (8, "too_old", "8 is too old")]
    sending.restart()
    assert sending.spool.refused == 2


def test_a_batch_refused_altogether_is_judged_row_by_row(sending: Sending, server: StandInServer) -> None:
    server.refuse = lambda row: ("unknown_symbol", "Unknown symbol: FOO") if row["symbol"] == "FOO" else None
    sending.add(*["FOO"] * 12, "EURUSD")
    sending.steps()
    assert times(server.rows) == [12]
    assert sending.spool.refused == 12
    assert sending.spool.refused_summary() == [("unknown_symbol", 12, "Unknown symbol: FOO")]


def test_refused_rows_are_sent_again_when_the_cause_is_mended(
    sending: Sending, server: StandInServer
) -> None:
    codes = {"FOO": ("unknown_symbol", "Unknown symbol: FOO"), "BAR": ("bad_field", "bid")}
    server.refuse = lambda row: codes.get(str(row["symbol"]))
    sending.add("FOO", "BAR", "FOO", "EURUSD")
    sending.steps()
    server.refuse = lambda row: None
    sending.restart()
    assert sending.spool.resend_refused("unknown_symbol") == 2
    sending.steps()
    assert times(server.rows) == [3, 0, 2]
    assert sending.spool.resend_refused("") == 1
    sending.steps()
    assert sorted(map(int, map(str, times(server.rows)))) == [0, 1, 2, 3]
    assert sending.spool.refused == 0


def test_rows_that_the_server_is_not_ready_for_wait_and_are_not_overtaken(
    sending: Sending, server: StandInServer
) -> None:
    ready = False
    server.refuse = lambda row: (
        None if ready or row["symbol"] != "NEW" else ("not_ready", "no symbol map yet")
    )
    sending.add(*["NEW", "EURUSD"] * 15)
    while sending.spool.unsent:
        sending.sender.step()
    assert {row["symbol"] for row in server.rows} == {"EURUSD"}
    assert (sending.spool.waiting, sending.spool.refused, sending.spool.rows) == (15, 0, 15)
    assert sending.ear.heard("NEW: the server is not ready for it")
    sending.restart()
    assert sending.spool.waiting == 15
    sending.add(*["NEW", "EURUSD"] * 3, start=30)
    sending.steps(3)
    ready = True
    sending.sender._held["NEW"] = (float("inf"), 1)  # not asked again yet
    sending.add("NEW", start=36)
    sending.sender.step()
    assert {row["symbol"] for row in server.rows} == {"EURUSD"}
    sending.steps()
    for symbol in ("NEW", "EURUSD"):
        got = [row["time_msc"] for row in server.rows if row["symbol"] == symbol]
        assert got == sorted(got)
        assert len(got) == (19 if symbol == "NEW" else 18)
    assert sending.spool.rows == 0


def test_a_body_that_is_too_large_is_halved_and_a_row_too_large_alone_set_aside(
    sending: Sending, server: StandInServer
) -> None:
    server.most_rows = 3
    sending.add(*["EURUSD"] * 30)
    sending.steps()
    assert times(server.rows) == list(range(30))
    assert sending.spool.refused == 0
    server.most_rows = 0
    sending.add("EURUSD", start=100)
    sending.steps()
    assert [row[:2] for row in refused(sending)] == [(100, "too_large")]
    server.most_rows = 10
    sending.add(*["EURUSD"] * 10, start=200)
    sending.steps()
    assert server.requests[-1] == 10


def test_retry_after_is_kept_to(sending: Sending, server: StandInServer) -> None:
    sending.add("EURUSD")
    for status in (429, 503):
        server.faults = [(status, {"Retry-After": "17"}, b"")]
        assert sending.sender.step() == 17.0


def test_back_off_grows_to_its_cap_and_is_spread_over_all_of_it(
    sending: Sending, server: StandInServer
) -> None:
    random.seed(7)
    sending.add("EURUSD")
    server.faults = [(500, {}, b"")] * 200
    waits = [sending.sender.step() for _ in range(200)]
    assert waits[0] <= bridge.BACKOFF_FIRST_S
    assert max(waits) <= bridge.BACKOFF_CAP_S
    late = waits[20:]
    assert max(late) > 0.9 * bridge.BACKOFF_CAP_S
    assert min(late) < 0.1 * bridge.BACKOFF_CAP_S
    sending.steps()
    server.faults = [(500, {}, b"")]
    sending.add("EURUSD", start=1)
    assert sending.sender.step() <= bridge.BACKOFF_FIRST_S


def test_a_refused_key_keeps_everything_and_is_said_loudly(sending: Sending, server: StandInServer) -> None:
    server.api_key = "right-key-right-key"
    sending.add(*["EURUSD"] * 3)
    assert sending.sender.step() == bridge.SLOW_RETRY_S
    assert sending.ear.heard("REFUSES THE API KEY")
    sending.api_key = "right-key-right-key"
    sending.restart()
    sending.steps()
    assert len(server.rows) == 3


def test_a_connection_that_the_server_closed_while_idle_costs_no_waiting(
    sending: Sending, server: StandInServer
) -> None:
    sending.add("EURUSD")
    sending.steps()
    server.faults = ["cut"]
    sending.add("EURUSD", start=1)
    assert sending.sender.step() == 0.0
    assert times(server.rows) == [0, 1]


def test_reading_goes_on_while_the_server_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "BACKOFF_CAP_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    sending = Sending(tmp_path / "spool.db", f"http://127.0.0.1:{port}")
    mt5 = StandInTerminal()
    terminal = bridge.Terminal(mt5, {"EURUSD": "EURUSD"}, sending.spool, sending.ear, 0)
    sending.sender.start()
    for at in range(50):
        mt5.arrive("EURUSD", (at * 10, 1.5, 1.6, 6))
        terminal.poll()
    wait_until(lambda: sending.ear.heard("server: away"))
    assert len(unsent(sending.spool)) == 50
    server = StandInServer(port)
    try:
        wait_until(lambda: not sending.spool.rows)
        assert times(server.stored()) == [at * 10 for at in range(50)]
    finally:
        sending.stop.set()
        sending.sender.join()
        server.close()
        sending.spool.close()


def test_a_second_bridge_on_the_same_spool_does_not_start(sending: Sending) -> None:
    with pytest.raises(bridge.Trouble, match="another bridge uses"):
        open_spool(sending.path)
    sending.add("EURUSD")
    sending.spool.close()
    sending.spool = open_spool(sending.path)
    assert sending.spool.rows == 1


def test_rows_and_the_cursor_behind_them_are_written_together_or_not_at_all(sending: Sending) -> None:
    sending.spool.add([("EURUSD", "{}")], {"a": [1]})
    with pytest.raises(sqlite3.IntegrityError):
        sending.spool.add([("EURUSD", "{}"), ("EURUSD", None)], {"a": [2]})
    assert (sending.spool.unsent, len(sending.spool.head(9)), sending.spool.cursor("a")) == (1, 1, [1])


def test_a_full_disk_holds_the_reading_up_and_loses_nothing(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "DISK_RETRY_S", 0.01)
    pages = sending.spool._db.execute("PRAGMA page_count").fetchone()[0]
    sending.spool._db.execute(f"PRAGMA max_page_count = {pages}")
    adding = threading.Thread(target=sending.add, args=["EURUSD"] * 2000)
    adding.start()
    wait_until(lambda: sending.spool._voice.heard("cannot be written: database or disk is full"))
    with sending.spool._lock:
        sending.spool._db.execute("PRAGMA max_page_count = 1000000")
    adding.join()
    assert times(unsent(sending.spool)) == list(range(2000))


def test_an_unexpected_error_of_the_sender_ends_the_bridge(sending: Sending) -> None:
    sending.add("EURUSD")
    sending.sender._server = None
    sending.sender.start()
    sending.sender.join()
    with pytest.raises(AttributeError):
        bridge.Bridge(sending.spool, sending.sender, sending.stop, sending.ear).breathe(0)
