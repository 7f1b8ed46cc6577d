"""Generated requests: whatever is in them, every row is answered, and every received row is flushed."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.process.harness import Server
from tests.process.wire import ask, assert_well, raw_batch, raw_row, running

MB = 1 << 20


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        yield server
        assert "Traceback" not in server.log()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
TIMES = [
    "1768327200000",
    "631152000000",
    "0",
    '"2026-01-13T17:54:43.5Z"',
    '"2026.01.13 17:54:43"',
    '"soon"',
    "1e99",
]
VALUES = st.sampled_from(
    ["NaN", "-Infinity", "1e400", "9" * 500, "9" * 5000, "6.0", "-0", "null", '"},{"', '"\\ud800"']
)
FIELDS = [
    "symbol",
    "bid",
    "ask",
    "last",
    "spread",
    "volume",
    "flags",
    "seq",
    "fold",
    "timestamp",
    "time_msc",
    "more",
]
CHANGES = st.dictionaries(
    st.sampled_from(FIELDS), JSON.map(json.dumps) | VALUES | st.sampled_from(TIMES), max_size=3
)
# A time of its own draws, not of a counter: what is generated must be the same when it is generated again.
WHEN = st.integers(1_768_327_200_000, 1_768_327_300_000).map(lambda ms: {"timestamp": str(ms)})
ROWS = st.one_of(
    WHEN.map(lambda when: raw_row(**when)),
    st.tuples(WHEN, CHANGES).map(lambda drawn: raw_row(**drawn[0] | drawn[1])),
    JSON.map(json.dumps),
)


@dataclass(repr=False)
class Request:
    """A body and its headers; a long body does not fill the screen when a test fails."""

    body: bytes
    headers: dict[str, str]

    def __repr__(self) -> str:
        shown = self.body if len(self.body) < 3000 else self.body[:2500] + b" ... " + self.body[-200:]
        return f"Request({shown!r}, {self.headers}) of {len(self.body)} bytes"

    def plain(self) -> bytes:
        """Return the body unpacked. Raises EOFError or OSError when it cannot be."""
        return gzip.decompress(self.body) if self.headers else self.body


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Mostly a batch with something wrong in it."""
    if draw(st.integers(0, 9)) == 0:
        return Request(draw(st.binary(max_size=200)), {})
    repeat = draw(st.sampled_from([1, 1, 1, 1, 1500]))
    body = bytearray(raw_batch(*draw(st.lists(ROWS, max_size=6)) * repeat))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 3]))):
        at = draw(st.integers(0, max(0, len(body) - 1)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    if draw(st.integers(0, 9)) == 0:
        packed = gzip.compress(bytes(body), mtime=0)
        return Request(
            packed[: len(packed) - draw(st.sampled_from([0, 0, 0, 1, 8, 30]))], {"Content-Encoding": "gzip"}
        )
    return Request(bytes(body), {"Content-Encoding": "deflate"} if draw(st.integers(0, 19)) == 0 else {})


def rows_of(body: bytes) -> int | None:
    """Return how many rows a body holds by a plain reading, None when it is no batch."""

    def integer(digits: str) -> float:
        return math.inf if len(digits) > 4000 else int(digits)

    try:
        value: Any = json.loads(body.decode(json.detect_encoding(body), "replace"), parse_int=integer)
    except ValueError:
        return None
    return len(value["ticks"]) if isinstance(value, dict) and isinstance(value.get("ticks"), list) else None


def expected(request: Request) -> tuple[str, int | None]:
    """Return the code that a body is refused with as a whole, or how many rows are to be answered one by one."""
    if request.headers.get("Content-Encoding") == "deflate":
        return "unsupported_encoding", None
    try:
        plain = request.plain()
    except (OSError, EOFError):
        # Cut short, and too long before that shows: whoever unpacks it stops at the bound.
        unpacked = zlib.decompressobj(wbits=31).decompress(request.body)
        return ("too_large" if len(unpacked) > 10 * MB else "bad_json"), None
    if len(plain) > 10 * MB:
        return "too_large", None
    rows = rows_of(plain)
    return ("bad_json", None) if rows is None else ("", rows)


def check_any_request(server: Server, request: Request) -> None:
    answer = ask(server, "POST", "/tick/batch", request.body, request.headers)
    result = answer.json
    code, rows = expected(request)
    if rows is None:
        assert result["code"] == code
        assert answer.status == {"bad_json": 400, "too_large": 413, "unsupported_encoding": 415}[code]
        return
    refused = result.get("rejected", [])
    indices = [found["index"] for found in refused]
    assert indices == sorted(set(indices))
    assert result.get("received", 0) + len(refused) == rows
    assert all(set(found) == {"index", "code", "message"} and found["message"] for found in refused)
    if answer.status == 200:
        assert result["status"] == ("partial" if refused else "success")
    else:
        assert answer.status == 400
        assert (result["code"], result["message"]) == (refused[0]["code"], refused[0]["message"])


def check_many_requests(server: Server, examples: int) -> None:
    before = server.wait_drained()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests())
    def run(request: Request) -> None:
        check_any_request(server, request)

    run()
    after = server.wait_drained()
    done = {name: after[name] - before[name] for name in ("stored", "duplicates", "set_aside")}
    assert sum(done.values()) == after["ticks_received"] - before["ticks_received"]
    assert done["stored"] > 0
    assert after["errors"] - before["errors"] == after["rejected"] - before["rejected"], "no flush failed"
    rows = server.database.rows("SELECT DISTINCT code FROM rejected_ticks")
    assert set(rows) <= {("seq_conflict",)}
    assert_well(server)


def test_any_request_is_answered_row_by_row_and_every_received_row_is_flushed(server: Server) -> None:
    check_many_requests(server, 100)


@pytest.mark.long
def test_many_more_requests_are_answered_row_by_row(server: Server) -> None:
    check_many_requests(server, 1000)
