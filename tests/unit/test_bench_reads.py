"""The reads bench measures what it says: its history, its client, its comparison of first and last pages."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from app.market.bars import aggregate
from tests.bench.asking import Asked, Asker, Connection, Drained, drain, fetch, in_turn, walk
from tests.bench.client import BenchError
from tests.bench.history import DAYS, bars_before, start_us, ticks_by_day
from tests.bench.reads_report import first_and_last_ms
from tests.bench.rows import SYMBOLS

IDS = {name: number + 1 for number, name in enumerate(SYMBOLS)}
Address = tuple[str, int]


@contextmanager
def answering(answers: dict[str, bytes]) -> Iterator[Address]:
    """A server that says these bytes to a GET of these paths, in pieces, and hangs up when it was asked to."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock: socket.socket) -> None:
        # A drain leaves in the middle of an answer.
        with sock, sock.makefile("rb") as lines, suppress(ConnectionError):
            closing = False
            for line in lines:
                if line.startswith(b"GET "):
                    answer = answers[line.split()[1].decode()]
                closing |= line.lower().startswith(b"connection: close")
                if line == b"\r\n":
                    for start in range(0, len(answer), 7):
                        sock.sendall(answer[start : start + 7])
                    if closing:
                        return

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def plain(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + end


def test_the_history_has_the_asked_ticks_in_order_of_time_each_with_its_own_identity() -> None:
    days = list(ticks_by_day(3_001, IDS))
    assert sum(map(len, days)) == 3_001
    for day, ticks in zip(DAYS, days, strict=True):
        assert (np.diff(ticks.time_us) >= 0).all()
        assert (ticks.time_us // 86_400_000_000 == start_us(day) // 86_400_000_000).all()
        keys = set(zip(ticks.symbol_id.tolist(), ticks.time_us.tolist(), ticks.seq.tolist(), strict=True))
        assert len(keys) == len(ticks)


def test_the_history_is_the_same_every_time() -> None:
    first, second = (next(ticks_by_day(2_000, IDS)) for _ in range(2))
    assert np.array_equal(first.time_us, second.time_us)
    assert np.array_equal(first.bid, second.bid)
    assert len(aggregate(first)) == len(aggregate(second))


def test_the_bars_before_are_those_of_their_minutes() -> None:
    columns = {name: values for name, _, values in next(bars_before(IDS))}
    minutes, day = columns["resolution"] == 60, columns["resolution"] == 86400
    assert minutes.sum() == 390 * len(SYMBOLS)
    for number in IDS.values():
        of_symbol = columns["symbol_id"] == number
        one = of_symbol & day
        assert columns["ticks"][one] == columns["ticks"][of_symbol & minutes].sum()
        assert columns["bid_high"][one] == columns["bid_high"][of_symbol & minutes].max()
        assert columns["bid_open"][one] == columns["bid_open"][of_symbol & minutes][0]
        assert columns["bid_close"][one] == columns["bid_close"][of_symbol & minutes][-1]
    assert (np.diff(columns["time"]) >= 0).all()


def test_answers_of_both_kinds_are_read_whole_over_one_connection() -> None:
    rows = b'[{"timestamp":1},{"timestamp":2}]'
    with answering({"/plain": plain(rows), "/chunks": chunked(rows[:5], rows[5:])}) as address:
        connection = Connection(address)
        assert [connection.get(path) for path in ("/plain", "/chunks", "/plain")] == [rows] * 3
        connection.close()
        asked = in_turn(address, ["/plain", "/chunks"] * 3, warm=2, connections=2)
    assert asked.rows.tolist() == [2] * 6
    assert len(asked.ms) == 6


def test_an_answer_that_is_no_200_ends_the_measure() -> None:
    with answering({"/gone": plain(b"nothing", "404 Not Found")}) as address:
        with pytest.raises(BenchError, match="404"):
            in_turn(address, ["/gone"], warm=0, connections=1)
        with pytest.raises(BenchError, match="404"):
            fetch(address, "/gone", "csv")
        with pytest.raises(BenchError, match="404"):
            drain(address, ["/gone"], 1.0)


def test_a_walk_follows_the_tokens_to_the_end() -> None:
    pages = {
        "/ticks?limit=2": plain(b'{"ticks":[{"timestamp":1},{"timestamp":2}],"next_page_token":"abc"}'),
        "/ticks?limit=2&page_token=abc": plain(b'{"ticks":[{"timestamp":3}],"next_page_token":null}'),
    }
    with answering(pages) as address:
        assert walk(address, "/ticks?limit=2").rows.tolist() == [2, 1]


def test_an_export_counts_only_when_it_came_whole() -> None:
    answers = {
        "/whole": chunked(b"time,bid\n1,2\n", b"3,4\n"),
        "/cut": chunked(b"time,bid\n1,2\n", end=b""),
    }
    with answering(answers) as address:
        assert fetch(address, "/whole", "csv").rows == 2
        assert fetch(address, "/whole", "ndjson").rows == 3
        with pytest.raises(BenchError, match="cut off"):
            fetch(address, "/cut", "csv")
        with pytest.raises(BenchError, match="cut off"):
            drain(address, ["/cut"], 5.0)
        drained = drain(address, ["/whole"], 0.2)
    assert isinstance(drained, Drained)
    assert drained.whole > 0


def test_a_failure_in_the_asking_process_comes_out_as_what_it_was() -> None:
    with Asker() as asker:
        assert asker.call(len, "four") == 4
        with pytest.raises(BenchError, match="ZeroDivisionError"):
            asker.call(divmod, 1, 0)
        assert asker.call(len, "still") == 5


def test_the_last_page_which_is_not_full_counts_for_neither_end() -> None:
    walked = Asked(np.array([1.0] * 60 + [3.0] * 60 + [900.0]), np.zeros(121))
    assert first_and_last_ms([walked]) == (1.0, 3.0)
    short = Asked(np.array([1.0, 2.0, 900.0]), np.zeros(3))
    assert first_and_last_ms([short]) == (1.0, 2.0)
