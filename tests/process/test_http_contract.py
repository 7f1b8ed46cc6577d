"""What docs and clients rely on: paths, fields, statuses, codes and messages, asked of a real server."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import Server
from tests.process.wire import ask, batch, exchange, post, raw_batch, running, tick, without

SUCCESS = {"status": "success"}


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, "--max-body-mb", "1") as server:
        yield server


def error(code: str, message: str) -> dict[str, str]:
    return {"status": "error", "code": code, "message": message}


def stored(server: Server, *times_ms: int) -> list[tuple[object, ...]]:
    """The stored ticks of these timestamps, in the order of time and seq."""
    server.wait_drained()
    return server.database.rows(
        "SELECT i.symbol, t.bid, t.ask, t.last, t.spread, t.volume, t.flags FROM ticks t"
        " JOIN instruments i USING (symbol_id)"
        " WHERE extract(epoch FROM t.time) * 1000 = ANY(%s) ORDER BY t.time, t.seq",
        list(times_ms),
    )


def test_one_tick_is_answered_with_success(server: Server) -> None:
    row = tick(last=1.5, volume=2, flags=88, seq=3)
    answer = post(server, json.dumps(row).encode(), "/tick")
    assert (answer.status, answer.json) == (200, SUCCESS)
    assert stored(server, row["timestamp"]) == [("AAPL", 190.1, 190.2, 1.5, 10, 2, 88)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (tick(symbol="FOO"), error("unknown_symbol", "Unknown symbol: FOO")),
        (without(tick(), "bid", "ask"), error("missing_field", "Missing required fields: bid, ask")),
        (tick(volume=-1), error("bad_field", "volume must not be negative")),
        (tick(timestamp=0), error("too_old", "timestamp is before 1990-01-01")),
        ([], error("bad_field", "a tick must be an object")),
    ],
    ids=["unknown symbol", "missing", "bad", "old", "no object"],
)
def test_a_refused_tick_is_a_400_that_says_why(server: Server, row: object, expected: object) -> None:
    answer = post(server, json.dumps(row).encode(), "/tick")
    assert (answer.status, answer.json) == (400, expected)


def test_a_batch_is_answered_with_the_number_of_its_rows(server: Server) -> None:
    answer = post(server, batch(tick(), tick(), tick()))
    assert (answer.status, answer.json) == (200, SUCCESS | {"received": 3})


def test_an_empty_batch_is_fine(server: Server) -> None:
    answer = post(server, b'{"ticks":[]}')
    assert (answer.status, answer.json) == (200, SUCCESS | {"received": 0})


def test_a_batch_with_bad_rows_is_partly_taken(server: Server) -> None:
    good = tick(seq=1)
    answer = post(server, batch(tick(symbol="FOO"), good, without(tick(), "bid"), tick(flags=-1), 7))
    assert (answer.status, answer.json) == (
        200,
        {
            "status": "partial",
            "received": 1,
            "rejected": [
                {"index": 0, "code": "unknown_symbol", "message": "Unknown symbol: FOO"},
                {"index": 2, "code": "missing_field", "message": "Missing required fields: bid"},
                {"index": 3, "code": "bad_field", "message": "flags is out of range"},
                {"index": 4, "code": "bad_field", "message": "a tick must be an object"},
            ],
        },
    )
    assert len(stored(server, good["timestamp"])) == 1


def test_a_batch_of_bad_rows_is_a_400_with_the_first_reason(server: Server) -> None:
    answer = post(server, batch(without(tick(), "volume"), tick(symbol="BAR")))
    rejected = [
        {"index": 0, "code": "missing_field", "message": "Missing required fields: volume"},
        {"index": 1, "code": "unknown_symbol", "message": "Unknown symbol: BAR"},
    ]
    assert answer.status == 400
    assert answer.json == error("missing_field", "Missing required fields: volume") | {"rejected": rejected}


@pytest.mark.parametrize("path", ["/tick", "/tick/batch"])
@pytest.mark.parametrize("body", [b"", b"hello", b'{"symbol":', b"<tick/>"])
def test_a_body_that_is_no_json_is_a_400(server: Server, path: str, body: bytes) -> None:
    answer = post(server, body, path)
    assert (answer.status, answer.json["code"]) == (400, "bad_json")


def test_duplicates_count_as_received_and_are_stored_once(server: Server) -> None:
    before = server.wait_drained()
    rows = [tick(seq=0), tick()]
    for _ in range(2):
        assert post(server, batch(*rows, rows[0])).json == SUCCESS | {"received": 3}
    assert len(stored(server, *(row["timestamp"] for row in rows))) == 2
    after = server.stats()
    names = ("ticks_received", "ticks_processed", "stored", "duplicates", "set_aside")
    assert [after[name] - before[name] for name in names] == [6, 6, 2, 4, 0]


def test_equal_ticks_with_different_seq_are_all_kept(server: Server) -> None:
    row = tick()
    assert post(server, batch(*(row | {"seq": seq} for seq in (0, 1, 2**52 - 1)))).json["received"] == 3
    assert len(stored(server, row["timestamp"])) == 3


def test_a_symbol_goes_by_every_name_in_any_case(server: Server) -> None:
    rows = [tick(symbol=name) for name in ("AAPL", "aapl", "Aapl.us", "natgas", "NatGas", "crudeOIL", "vix")]
    assert post(server, batch(*rows)).json["received"] == 7
    names = [row[0] for row in stored(server, *(row["timestamp"] for row in rows))]
    assert names == ["AAPL", "AAPL", "AAPL", "NatGas", "NatGas", "SpotCrude", "VIX"]


def test_absent_prices_are_null_and_unknown_keys_are_nothing(server: Server) -> None:
    rows = [
        tick(bid=None, ask=None, spread=None, last=None, flags=0),
        tick(bid=None, time_sent="x", journal_no={"a": [1]}),
        tick(ask=None, spread=-3, last=0),
    ]
    assert post(server, batch(*rows)).json == SUCCESS | {"received": 3}
    assert stored(server, *(row["timestamp"] for row in rows)) == [
        ("AAPL", None, None, None, None, 0, 0),
        ("AAPL", None, 190.2, None, 10, 0, 6),
        ("AAPL", 190.1, None, 0, -3, 0, 6),
    ]


def test_time_msc_stands_for_timestamp_and_counts_before_it(server: Server) -> None:
    alone, both = tick(), tick()
    rows = [without(alone, "timestamp") | {"time_msc": alone["timestamp"]}]
    rows.append(both | {"time_msc": both["timestamp"], "timestamp": "2020-01-01T00:00:00Z"})
    assert post(server, batch(*rows)).json["received"] == 2
    assert len(stored(server, alone["timestamp"], both["timestamp"])) == 2


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "nonsense",
    ],
)
def test_whatever_the_content_type_the_body_is_json(server: Server, content_type: str) -> None:
    assert post(server, batch(tick()), Content_Type=content_type).json == SUCCESS | {"received": 1}


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "identity"])
def test_a_body_may_be_gzipped(server: Server, encoding: str) -> None:
    body = batch(tick(), tick())
    if "gzip" in encoding.lower():
        body = gzip.compress(body[:50]) + gzip.compress(b"") + gzip.compress(body[50:])
    assert post(server, body, Content_Encoding=encoding).json == SUCCESS | {"received": 2}


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "gzip, br", "\u00e9"])
def test_another_encoding_is_a_415(server: Server, encoding: str) -> None:
    answer = post(server, gzip.compress(batch(tick())), Content_Encoding=encoding)
    assert (answer.status, answer.json["code"]) == (415, "unsupported_encoding")


def test_a_body_up_to_the_limit_is_taken_and_one_byte_more_is_a_413(server: Server) -> None:
    body = batch(tick()).ljust(1 << 20)
    compressed = gzip.compress(body)
    assert post(server, body).json["received"] == 1
    assert post(server, compressed, Content_Encoding="gzip").json["received"] == 1
    pieces = [body[:700_000], body[700_000:]]
    assert ask(server, "POST", "/tick/batch", pieces, chunked=True).json["received"] == 1
    for answer in (
        post(server, body + b" "),
        post(server, gzip.compress(body + b" "), Content_Encoding="gzip"),
        ask(server, "POST", "/tick/batch", [*pieces, b" "], chunked=True),
        ask(server, "POST", "/tick/batch", [body] * 5, {"Content-Encoding": "gzip"}, chunked=True),
    ):
        assert (answer.status, answer.json["code"]) == (413, "too_large")
        assert "max_body_mb" in answer.json["message"]


def test_a_gzipped_body_may_come_in_chunks(server: Server) -> None:
    body = gzip.compress(batch(*[tick() for _ in range(200)]))
    chunks = [body[at : at + 7] for at in range(0, len(body), 7)]
    answer = ask(server, "POST", "/tick/batch", chunks, {"Content-Encoding": "gzip"}, chunked=True)
    assert answer.json == SUCCESS | {"received": 200}


def test_more_ticks_than_a_body_can_hold_are_a_413(server: Server) -> None:
    answer = post(server, raw_batch(*["{}"] * 60_000))
    assert (answer.status, answer.json["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "path", ["/nope", "/stats/", "/tick/batch/x", "/health/nope", "/%00%ff", "/static/x"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_path_is_a_404(server: Server, method: str, path: str) -> None:
    answer = ask(server, method, path)
    assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/tick", {"POST"}),
        ("/tick/batch", {"POST"}),
        ("/stats", {"GET", "HEAD"}),
        ("/health", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    server: Server, path: str, allowed: set[str]
) -> None:
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "NONSENSE"} - allowed:
        answer = ask(server, method, path)
        assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
        assert set(answer.headers["allow"].split(", ")) == allowed | {"OPTIONS"}
    options = ask(server, "OPTIONS", path)
    assert (options.status, options.data) == (200, b"")
    assert set(options.headers["allow"].split(", ")) == allowed | {"OPTIONS"}


@pytest.mark.parametrize("path", ["/stats", "/health", "/health/live", "/health/ready", "/metrics", "/"])
def test_head_answers_as_get_without_a_body(server: Server, path: str) -> None:
    head, get = ask(server, "HEAD", path), ask(server, "GET", path)
    assert (head.status, head.data, get.status) == (200, b"", 200)
    assert head.headers["content-type"] == get.headers["content-type"]


def test_an_error_answers_head_without_a_body_too(server: Server) -> None:
    answers = exchange(server, b"HEAD /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert [(answer.status, answer.data) for answer in answers] == [(404, b"")]
