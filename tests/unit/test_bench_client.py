"""The bench's load is what it says it is: the rows, the client, the sender processes."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.bench.client import BenchError, Client, post_request
from tests.bench.rows import PG_EPOCH_US, SYMBOLS, body, copy_chunks, copy_columns, market
from tests.bench.senders import Load, Senders
from tests.bench.tables import replace_section


class Receiver(ThreadingHTTPServer):
    """Answers like tickhub; `troubles` are played on the first requests, one each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.troubles: list[str] = []
        self.delay_s = 0.0
        self.kept: list[dict] = []
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up hangs up in the middle of an answer: nothing to say about it."""

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        ticks = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["ticks"]
        with self.server.lock:
            trouble = self.server.troubles.pop(0) if self.server.troubles else ""
            if not trouble:
                self.server.kept += ticks
        time.sleep(self.server.delay_s)  # a slow server
        if trouble == "hang up":
            self.close_connection = True
        elif trouble == "full":
            self.answer(503, {"code": "buffer_full"}, ("Retry-After", "0.05"))
        elif trouble == "lose one":
            self.answer(200, {"received": len(ticks) - 1})
        elif trouble == "broken":
            self.answer(500, {"code": "oops"})
        elif trouble == "keep, then close":
            self.server.kept += ticks
            self.answer(200, {"received": len(ticks)}, ("Connection", "close"))
        else:
            self.answer(200, {"received": len(ticks)})

    def answer(self, status: int, content: dict, *headers: tuple[str, str]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(text)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def batches(count: int, rows: int = 17) -> list[bytes]:
    ticks = market(count * rows)
    parts = [ticks.part(start, start + rows) for start in range(0, len(ticks), rows)]
    return [post_request("/tick/batch", body(part)) for part in parts]


def identity(tick: dict) -> tuple[str, int, int]:
    return tick["symbol"], tick["time_msc"], tick["seq"]


def post(receiver: Receiver, count: int, per_second: float = 0.0, connections: int = 3):
    client = Client(receiver.address, connections)
    try:
        return client.post_all(batches(count), [17] * count, per_second)
    finally:
        client.close()


def test_no_two_ticks_share_their_identity_and_some_share_symbol_and_millisecond():
    ticks = market(50_000)
    assert len(set(zip(ticks.symbol, ticks.time_ms, ticks.seq, strict=True))) == 50_000
    assert (ticks.seq > 0).sum() > 500
    assert set(ticks.symbol.tolist()) == set(range(len(SYMBOLS)))


def test_the_market_moves_at_the_pace_of_the_desk_and_is_the_same_every_time():
    ticks = market(17_000)
    assert abs((ticks.time_ms[-1] - ticks.time_ms[0]) - 10_000) < 500
    assert body(ticks) == body(market(17_000))
    assert body(ticks) != body(market(17_000, seed=2))


def test_every_tick_is_one_that_a_server_has_to_accept():
    ticks = market(50_000)
    assert (ticks.bid > 0).all()
    assert (ticks.ask > ticks.bid).all()
    assert np.isfinite(ticks.last).all()
    assert set(ticks.flags.tolist()) == {6, 24, 56}


def test_a_body_holds_the_rows_with_the_fields_of_the_bridge():
    ticks = market(40).part(10, 27)
    sent = json.loads(body(ticks))["ticks"]
    assert [identity(tick) for tick in sent] == [
        (SYMBOLS[symbol], time_ms, seq)
        for symbol, time_ms, seq in zip(ticks.symbol, ticks.time_ms, ticks.seq, strict=True)
    ]
    assert [tick["bid"] for tick in sent] == ticks.bid.tolist()
    assert set(sent[0]) == {"symbol", "time_msc", "seq", "bid", "ask", "last", "spread", "volume", "flags"}
    assert all(tick["spread"] is None for tick in sent)


@pytest.mark.parametrize("spread", [True, False])
def test_copy_bytes_hold_the_same_rows(spread: bool):
    ticks = market(250)
    ids = {name: 100 + index for index, name in enumerate(SYMBOLS)}
    rows = []
    for chunk in copy_chunks(ticks, ids, spread, 100):
        assert chunk.startswith(b"PGCOPY\n\xff\r\n\x00")
        at = 19
        while (columns := struct.unpack_from(">h", chunk, at)[0]) != -1:
            at += 2
            row = {}
            for name, kind in copy_columns(spread):
                (size,) = struct.unpack_from(">i", chunk, at)
                row[name] = np.frombuffer(chunk, kind, 1, at + 4)[0]
                at += 4 + size
            assert columns == len(row)
            rows.append(row)
        assert at + 2 == len(chunk)
    assert [row["symbol_id"] for row in rows] == [100 + symbol for symbol in ticks.symbol]
    assert [row["time"] + PG_EPOCH_US for row in rows] == [time_ms * 1000 for time_ms in ticks.time_ms]
    assert [row["ask"] for row in rows] == ticks.ask.tolist()
    bought = (ticks.flags & 40) == 40
    assert [row["buy_volume"] for row in rows] == np.where(bought, ticks.volume, 0).tolist()
    assert not any(row["sell_volume"] for row in rows)
    assert ("spread" in rows[0]) == spread


def test_every_batch_arrives_once_and_every_answer_is_timed(receiver: Receiver):
    sent = post(receiver, 40)
    expected = {
        identity(tick)
        for request in batches(40)
        for tick in json.loads(request.split(b"\r\n\r\n")[1])["ticks"]
    }
    assert len(receiver.kept) == 40 * 17
    assert {identity(tick) for tick in receiver.kept} == expected
    assert len(sent.ack_s) == 40
    assert min(sent.ack_s) > 0
    assert (sent.retries, sent.reconnects) == (0, 0)


def test_a_full_server_gets_the_batch_again_after_the_time_it_asked_for(receiver: Receiver):
    receiver.troubles = ["full", "full"]
    sent = post(receiver, 10)
    assert sent.retries == 2
    assert len(receiver.kept) == len({identity(tick) for tick in receiver.kept}) == 170
    assert sorted(sent.ack_s)[-2] >= 0.05


def test_a_connection_that_breaks_is_made_anew_and_its_batch_sent_again(receiver: Receiver):
    receiver.troubles = ["hang up", "keep, then close"]
    sent = post(receiver, 10)
    assert sent.reconnects == 1
    assert len(receiver.kept) == len({identity(tick) for tick in receiver.kept}) == 170


@pytest.mark.parametrize("trouble", ["lose one", "broken"])
def test_a_server_that_loses_rows_gets_no_figures(receiver: Receiver, trouble: str):
    receiver.troubles = [trouble]
    with pytest.raises(BenchError, match="17 rows were answered"):
        post(receiver, 3)


def test_a_paced_run_does_not_hurry(receiver: Receiver):
    sent = post(receiver, 20, per_second=100)
    assert sent.last_s - sent.first_s >= 19 / 100


def test_a_slow_server_cannot_hide_the_wait_of_the_batches_it_held_up(receiver: Receiver):
    receiver.delay_s = 0.05
    sent = post(receiver, 10, per_second=200, connections=1)
    # Due after 45 ms, sent only after the nine before it were answered in 50 ms each.
    assert sent.ack_s[-1] >= 10 * 0.05 - 9 / 200


def test_two_senders_share_the_load_and_can_send_it_again(receiver: Receiver):
    load = Load(ticks=17 * 7 - 5, batch=17, connections=2)
    with Senders(receiver.address, load) as senders:
        report = senders.run()
        assert len(report.ack_ms) == 7
        assert len({identity(tick) for tick in receiver.kept}) == len(receiver.kept) == load.ticks
        senders.run()
        assert len(receiver.kept) == 2 * load.ticks


def test_a_sender_that_gives_up_tells_why(receiver: Receiver):
    receiver.troubles = ["broken"]
    with (
        Senders(receiver.address, Load(ticks=34, batch=17)) as senders,
        pytest.raises(BenchError, match="500"),
    ):
        senders.run()


def test_a_section_of_the_page_is_replaced_and_the_rest_kept(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nafter\n")
    replace_section("x", "new", page)
    assert page.read_text() == "before\n<!-- bench:x -->\n\n```\nnew\n```\n\n<!-- /bench:x -->\nafter\n"
    with pytest.raises(ValueError, match="lacks the markers"):
        replace_section("y", "new", page)
