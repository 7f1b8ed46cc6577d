"""What another tickhub answers, judged: newer quotes become ticks, nonsense and silence become nothing."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app import upstream
from app.market.decode import Row
from app.market.symbols import SEED, SymbolMap
from app.upstream import HOP_HEADER, Upstream

SYMBOLS = SymbolMap(SEED)
BEFORE, AFTER = "2026-11-20T15:00:00.000000Z", "2026-11-20T15:00:01.000000Z"
KEY = "a key of sixteen or more"


class Other:
    """A server that answers everything alike."""

    def __init__(self) -> None:
        self.status, self.body = 200, b'{"quotes":[],"rejected":[]}'
        self.asked: list[tuple[str, dict[str, str]]] = []
        other = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                other.asked.append((self.path, dict(self.headers)))
                self.send_response(other.status)
                self.send_header("Content-Length", str(len(other.body)))
                self.end_headers()
                self.wfile.write(other.body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def says(self, *quotes: dict[str, Any]) -> None:
        self.body = json.dumps({"quotes": quotes, "rejected": []}).encode()


def quote(symbol: str = "TSLA", timestamp: str | None = AFTER, **changes: Any) -> dict[str, Any]:
    values = {"price": 10.0, "bid": 10.0, "ask": 10.5, "last": None, "spread": 50.0, "volume": 0.0, "flags": 6}
    more = {"buy_volume": 0.0, "sell_volume": 0.0, "change": None, "change_percent": None, "stale": False}
    return {"symbol": symbol, "timestamp": timestamp, **values, **more, **changes}


@pytest.fixture
def other() -> Iterator[Other]:
    made = Other()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that moves only when told."""
    now = [1000.0]
    monkeypatch.setattr(upstream.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def test_a_newer_quote_becomes_a_tick_and_no_other(other: Other) -> None:
    other.says(
        quote("TSLA", last=9.5, volume=2.0, flags=56),
        quote("NVDA", BEFORE),
        quote("AMD", None),
        quote("MSFT.US"),
        quote("NOT KNOWN HERE"),
        quote("ORCL"),  # nobody asked for it
    )
    asked = Upstream(f"{other.url}/desk/", KEY, 5.0)
    known = {"TSLA": BEFORE, "NVDA": BEFORE, "AMD": None, "MSFT": None}
    assert asked.newer(known, SYMBOLS) == [
        Row("TSLA", 10.0, 10.5, 50.0, 2.0, 56, AFTER, last=9.5),
        Row("MSFT", 10.0, 10.5, 50.0, 0.0, 6, AFTER),
    ]
    ((path, headers),) = other.asked
    assert path == "/desk/api/quotes?symbols=TSLA,NVDA,AMD,MSFT"
    assert (headers["X-API-Key"], headers[HOP_HEADER]) == (KEY, "1")
    assert asked.gave("TSLA", AFTER)
    assert not asked.gave("TSLA", BEFORE)
    assert not asked.gave("NVDA", BEFORE)


def test_a_symbol_is_asked_for_once_a_second_whoever_wants_it(other: Other, clock: Callable[[float], None]) -> None:
    asked = Upstream(other.url, "", 5.0)
    for names in (["TSLA"], ["TSLA"], ["TSLA", "NVDA"], ["NVDA"]):
        asked.newer(dict.fromkeys(names, BEFORE), SYMBOLS)
    clock(upstream.AGAIN_S)
    asked.newer({"TSLA": BEFORE}, SYMBOLS)
    assert [path.partition("=")[2] for path, _ in other.asked] == ["TSLA", "NVDA", "TSLA"]
    assert "X-API-Key" not in other.asked[0][1]


def test_many_symbols_are_asked_for_in_portions_that_fit_a_url(other: Other) -> None:
    names = [f"A B/{number:05}&" for number in range(1000)]
    Upstream(other.url, "", 30.0).newer(dict.fromkeys(names), SYMBOLS)
    assert len(other.asked) > 1
    assert max(len(path) for path, _ in other.asked) < 4000
    assert "".join(path for path, _ in other.asked).count("A%20B%2F") == 1000


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"quotes":[]}'),
        (302, b""),
        (401, b'{"status":"error","code":"unauthorized","message":"no"}'),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"quotes":[{"symbol":"TSLA","timestamp":5}]}'),
        (200, b'{"quotes":[{"symbol":"TSLA","timestamp":"2026","bid":"10"}]}'),
        (200, b'{"quotes":"\xff"}'),
        (200, b" " * (upstream.MOST_BYTES + 1)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_answer_is_nothing_and_said_once(
    other: Other,
    clock: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: bytes,
) -> None:
    caplog.set_level(logging.INFO, "tickhub")
    asked = Upstream(other.url, KEY, 5.0)
    other.status, other.body = status, body
    assert asked.newer({"TSLA": BEFORE}, SYMBOLS) == []
    clock(upstream.AGAIN_S)
    assert asked.newer({"TSLA": BEFORE, "NVDA": BEFORE}, SYMBOLS) == []
    assert len(other.asked) == 1, "it is left alone for a while"
    clock(upstream.AWAY_S)
    assert asked.newer({"TSLA": BEFORE}, SYMBOLS) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert KEY not in caplog.text

    other.status = 200
    other.says(quote())
    clock(upstream.AWAY_S)
    assert [row.symbol for row in asked.newer({"TSLA": BEFORE}, SYMBOLS)] == ["TSLA"]
    assert caplog.records[-1].getMessage().endswith("answers again")


def test_certificates_are_read_once_not_for_every_question(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = upstream.ssl.create_default_context
    monkeypatch.setattr(upstream.ssl, "create_default_context", lambda: made.append(make()) or made[-1])
    asked = Upstream("https://127.0.0.1:1", "", 5.0)
    for _ in range(3):
        asked.newer({"TSLA": None}, SYMBOLS)
        clock(upstream.AWAY_S)
    assert len(made) == 1


def test_one_that_is_not_there_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    asked = Upstream("http://127.0.0.1:1", "", 5.0)
    assert asked.newer({"TSLA": None}, SYMBOLS) == []
    assert "upstream 127.0.0.1:1 cannot be read" in caplog.text
