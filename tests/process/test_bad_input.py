"""Whatever bytes come: a clear answer, never a 5xx or HTML, and a server that goes on taking good ticks."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.process.harness import Server
from tests.process.wire import (
    ask,
    assert_well,
    batch,
    exchange,
    post,
    raw_batch,
    raw_row,
    read_answers,
    running,
    tick,
)

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /tick/batch HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = b'{"ticks":[]}'
MB = 1 << 20


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        yield server
        assert "Traceback" not in server.log()


ROW_SPOILERS = {
    "NaN": raw_row(bid="NaN"),
    "Infinity": raw_row(ask="-Infinity"),
    "beyond a double": raw_row(volume="1e400"),
    "400 digits": raw_row(last="1" + "0" * 400),
    "5,000 digits": raw_row(spread="1" + "0" * 5000),
    "a long time": raw_row(timestamp="9" * 400),
    "64 bits and more": raw_row(flags=str(2**64), seq=str(2**64)),
    "a string for a number": raw_row(bid='"190.1"'),
    "a number for a string": raw_row(symbol="190.1"),
    "a list": raw_row(volume="[1]"),
    "an object": raw_row(timestamp='{"$date":1}'),
    "true": raw_row(flags="true"),
    "null": raw_row(symbol="null"),
    "NUL in a symbol": raw_row(symbol='"AAPL\\u0000"'),
    "NUL in a time": raw_row(timestamp='"2026-01-13T17:54:43\\u0000"'),
    "half a surrogate pair": raw_row(symbol='"\\ud800"'),
    "half a pair in a time": raw_row(timestamp='"\\udfff"'),
    "a symbol of 5 MB": raw_row(symbol='"' + "A" * 5_000_000 + '"'),
    "a time of 5 MB": raw_row(timestamp='"' + "2" * 5_000_000 + '"'),
    "no object": "[[[]]]",
    "nothing in it": "{}",
}


@pytest.mark.parametrize("bad", ROW_SPOILERS.values(), ids=ROW_SPOILERS.keys())
def test_a_bad_row_costs_itself_alone(server: Server, bad: str) -> None:
    before = server.wait_drained()
    answer = post(server, raw_batch(raw_row(), bad, raw_row(extra=bad)))
    assert answer.status == 200
    assert (answer.json["status"], answer.json["received"]) == ("partial", 2)
    assert [found["index"] for found in answer.json["rejected"]] == [1]
    assert len(answer.json["rejected"][0]["message"]) < 300
    alone = post(server, raw_batch(bad))
    assert (alone.status, len(alone.json["rejected"])) == (400, 1)
    assert server.wait_drained()["stored"] == before["stored"] + 2


def test_every_bad_row_in_one_batch_costs_itself_alone(server: Server) -> None:
    small = [row for row in ROW_SPOILERS.values() if len(row) < 10_000]
    mixed = [text for row in small for text in (raw_row(), row)]
    answer = post(server, raw_batch(*mixed))
    assert (answer.status, answer.json["received"]) == (200, len(small))
    assert [found["index"] for found in answer.json["rejected"]] == list(range(1, len(mixed), 2))


def test_separators_within_strings_of_a_large_body_separate_nothing(server: Server) -> None:
    before = server.wait_drained()
    for text in ('"},{"', '"]}"', r'"\"},{\""', '"' + "},{" * 100 + '"', "[{},{}]"):
        rows = [raw_row(comment=text) for _ in range(1500)]
        assert len(raw_batch(*rows)) > 128 * 1024
        assert post(server, raw_batch(*rows)).json == {"status": "success", "received": 1500}
    assert server.wait_drained()["stored"] == before["stored"] + 5 * 1500


BAD_BODIES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "bad_json"),
    "NULs": (bytes(1000), 400, "bad_json"),
    "noise": (bytes(range(256)) * 40, 400, "bad_json"),
    "a raw NUL in a string": (raw_batch(raw_row(symbol='"A\0"')), 400, "bad_json"),
    "cut short": (raw_batch(raw_row(), raw_row())[:-9], 400, "bad_json"),
    "cut short when large": (raw_batch(*[raw_row()] * 3000)[:-9], 400, "bad_json"),
    "something behind it": (raw_batch(raw_row()) + b"}", 400, "bad_json"),
    "a list": (b"[" + raw_row().encode() + b"]", 400, "bad_json"),
    "no list": (b'{"ticks":{}}', 400, "bad_json"),
    "deep lists": (b"[" * MB, 400, "bad_json"),
    "deep objects": (b'{"a":' * MB, 400, "bad_json"),
    "deep in ticks": (b'{"ticks":' + b"[" * MB + b"]" * MB + b"}", 400, "bad_json"),
    "deep in a row": (raw_batch(raw_row(x="[" * MB + "]" * MB)), 400, "bad_json"),
    "a million rows of nothing": (raw_batch(*["{}"] * 1_000_000), 413, "too_large"),
    "a million rows, told otherwise": (b'{"a":1,' + raw_batch(*["0"] * 1_000_000)[1:], 413, "too_large"),
    "the second list counts": (b'{"ticks":[1,2,3],' + raw_batch("[]")[1:], 400, "bad_field"),
}


@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_is_refused_whole(server: Server, body: bytes, status: int, code: str) -> None:
    before = server.wait_drained()["ticks_received"]
    answer = post(server, body)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert server.stats()["ticks_received"] == before
    assert_well(server)


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_body_may_carry_a_byte_order_mark_or_be_utf16(server: Server, coding: str) -> None:
    answer = post(server, raw_batch(raw_row(), raw_row(bid="NaN")).decode().encode(coding))
    assert (answer.status, answer.json["received"]) == (200, 1)


def test_a_batch_of_tens_of_thousands_is_taken_at_once(server: Server) -> None:
    before = server.wait_drained()["stored"]
    rows = [tick() for _ in range(60_000)]
    assert post(server, batch(*rows)).json == {"status": "success", "received": 60_000}
    assert server.wait_drained()["stored"] == before + 60_000


GZIPPED = gzip.compress(raw_batch(raw_row(), raw_row()))
BOMB = gzip.compress(bytes(256 * MB), 1)
BAD_GZIP: dict[str, tuple[bytes, int, str]] = {
    "no gzip": (raw_batch(raw_row()), 400, "bad_json"),
    "nothing": (b"", 400, "bad_json"),
    "the head alone": (GZIPPED[:5], 400, "bad_json"),
    "cut short": (GZIPPED[: len(GZIPPED) // 2], 400, "bad_json"),
    "without its checksum": (GZIPPED[:-8], 400, "bad_json"),
    "with half its checksum": (GZIPPED[:-4], 400, "bad_json"),
    "with a wrong checksum": (GZIPPED[:-8] + bytes(8), 400, "bad_json"),
    "with something behind it": (GZIPPED + b"more", 400, "bad_json"),
    "a second part cut short": (GZIPPED + GZIPPED[:9], 400, "bad_json"),
    "much of nothing": (BOMB, 413, "too_large"),
    "many empty parts": (gzip.compress(b"") * 200_000, 400, "bad_json"),
    "twice": (gzip.compress(GZIPPED), 400, "bad_json"),
}


@pytest.mark.parametrize(("body", "status", "code"), BAD_GZIP.values(), ids=BAD_GZIP.keys())
def test_bad_gzip_is_refused_whole(server: Server, body: bytes, status: int, code: str) -> None:
    answer = post(server, body, Content_Encoding="gzip")
    assert (answer.status, answer.json["code"]) == (status, code)
    assert_well(server)


def test_what_unpacks_to_too_much_takes_no_memory(server: Server) -> None:
    (worker,) = (psutil.Process(pid) for pid in server.worker_pids())
    post(server, BOMB, Content_Encoding="gzip")
    before = worker.memory_info().rss
    for _ in range(5):
        assert post(server, BOMB, Content_Encoding="gzip").status == 413
    assert worker.memory_info().rss < before + 30 * MB


BAD_HTTP: dict[str, tuple[bytes, int]] = {
    "noise": (bytes(range(128, 256)) + b"\r\n\r\n", 400),
    "a word": (b"HELLO\r\n\r\n", 400),
    "empty lines": (b"\r\n\r\n\r\n", 400),
    "a method in lower case": (b"get / HTTP/1.1\r\n\r\n", 400),
    "a version that is none": (b"GET / HTTP/x\r\n\r\n", 400),
    "a version of the future": (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "bytes in the path": (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "lines without CR": (GET.replace(b"\r", b"") + b"\n", 400),
    "a header without colon": (GET + b"nonsense\r\n\r\n", 400),
    "a header name with a space": (GET + b"a b: c\r\n\r\n", 400),
    "a NUL in a header": (GET + b"X-A: a\0b\r\n\r\n", 400),
    "a folded header": (GET + b"X-A: a\r\n b\r\n\r\n", 400),
    "two hosts": (GET + b"Host: y\r\n\r\n", 400),
    "a request line without end": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
    "a header without end": (GET + b"X-A: " + b"a" * 9000 + b"\r\n\r\n", 431),
    "headers without end": (GET + b"".join(b"X-%d: a\r\n" % n for n in range(200)) + b"\r\n", 431),
    "a length that is none": (POST + b"Content-Length: many\r\n\r\n", 400),
    "a length below zero": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "length and chunks": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a coding nobody knows": (POST + b"Transfer-Encoding: rot13\r\n\r\n", 415),
    "chunks that are not the last coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "an expectation nobody knows": (POST + b"Expect: wonders\r\nContent-Length: 0\r\n\r\n", 417),
    "a chunk size that is none": (CHUNKED + b"xyz\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk size below zero": (CHUNKED + b"-5\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk size without end": (CHUNKED + b"0" * 20_000, 400),
    "a chunk longer than it says": (CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n", 400),
    "a chunk of a terabyte": (CHUNKED + b"ffffffffff\r\n" + bytes(100), 400),
    "chunks cut short": (CHUNKED + b"5\r\nab", 400),
    "chunks without the last one": (CHUNKED + b"c\r\n" + EMPTY + b"\r\n", 400),
    "a bad trailer": (CHUNKED + b"c\r\n" + EMPTY + b"\r\n0\r\nnonsense\r\n\r\n", 400),
    "a body shorter than its length": (POST + b"Content-Length: 50\r\n\r\n" + EMPTY, 400),
    "a length beyond the limit": (POST + b"Content-Length: 99999999999\r\n\r\n", 413),
}


@pytest.mark.parametrize(("data", "status"), BAD_HTTP.values(), ids=BAD_HTTP.keys())
def test_what_is_no_http_is_answered_in_json(server: Server, data: bytes, status: int) -> None:
    answers = exchange(server, data, half_close=True)
    assert [answer.status for answer in answers] == [status]
    assert answers[0].json["status"] == "error"
    assert_well(server)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_client_that_sends_too_much_and_then_reads_sees_its_answer(server: Server, framing: str) -> None:
    size = 24 * MB
    if framing == "length":
        request = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    else:
        request = CHUNKED.replace(b"Host", b"Connection: close\r\nHost") + b"%x\r\n" % size + bytes(size)
    (answer,) = exchange(server, request)
    assert (answer.status, answer.json["code"]) == (413, "too_large")


def test_a_body_longer_than_its_length_is_the_next_request(server: Server) -> None:
    answers = exchange(server, POST + b"Content-Length: 12\r\n\r\n" + EMPTY + b" and more\r\n\r\n")
    assert [answer.status for answer in answers] == [200, 400]


def test_requests_sent_in_one_go_are_answered_in_order(server: Server) -> None:
    body = batch(tick(), tick(symbol="FOO"))
    post_one = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    nope = b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = exchange(
        server, post_one + nope + GET + b"\r\n" + post_one + GET + b"Connection: close\r\n\r\n"
    )
    assert [answer.status for answer in answers] == [200, 404, 200, 200, 200]
    assert answers[3].json["received"] == 1


def test_a_client_may_wait_for_100_continue(server: Server) -> None:
    body = batch(tick())
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as client:
        client.sendall(
            POST + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        (answer,) = read_answers(client)
    assert answer.json == {"status": "success", "received": 1}


def test_a_request_may_come_in_drips_and_holds_nobody_up(server: Server) -> None:
    body = batch(tick())
    request = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(request), 23):
            client.sendall(request[at : at + 23])
            assert ask(server, "GET", "/health/live").status == 200
        (answer,) = read_answers(client)
    assert answer.json == {"status": "success", "received": 1}


@pytest.mark.parametrize(
    "data", [b"", b"POST /tick/ba", POST, POST + b"Content-Length: 500\r\n\r\n" + b"{", CHUNKED]
)
def test_clients_that_leave_in_the_middle_leave_nothing_behind(server: Server, data: bytes) -> None:
    clients = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(20)]
    for client in clients:
        client.sendall(data)
    assert_well(server)
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
        client.close()
    assert_well(server)
