"""What may be asked of /api/ticks and /api/bars, parameter by parameter, and what may not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.process.harness import Server, wait_until
from tests.process.reading import (
    DAY_MS,
    bars_path,
    made_ticks,
    read,
    refusal,
    rows_of,
    shown,
    store,
    text_of,
    ticks_path,
)
from tests.process.wire import ask, running

STEP_MS = 250
AAPL = made_ticks("AAPL", (DAY_MS + STEP_MS * (number * 7 // 8) for number in range(10_050)))
"""A bit more than one JSON answer may hold; at every seventh moment there are two."""

ALL = [shown(tick) for tick in AAPL]
TICKS, BARS = "/api/ticks/AAPL", "/api/bars/AAPL"
INTERVALS = ["1s", "5s", "15s", "30s", "1m", "3m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M"]
FORMATS = ["json", "ndjson", "csv", "arrow", "parquet"]


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        store(server, AAPL)
        yield server
        assert "Traceback" not in server.log()


def between(start_ms: int, end_ms: int) -> list[dict[str, Any]]:
    return [shown(tick) for tick in AAPL if start_ms <= tick["timestamp"] < end_ms]


# start and end


@pytest.mark.parametrize(
    "form",
    [
        "2026-01-13T00:10:00Z",
        "2026-01-13t00:10:00z",
        "2026-01-13 00:10:00Z",
        "2026-01-13T00:10:00.000000000Z",
        "2026-01-13T01:10:00+01:00",
        "2026-01-12T19:10:00-05:00",
        "2026-01-13T05:55:00+05:45",
        "1768263000",
        "1768263000.000",
        "1768263000000",
        "1768263000000000",
        "1768263000000000000",
    ],
)
def test_a_time_may_be_written_in_every_form(server: Server, form: str) -> None:
    at_ms = DAY_MS + 600_000
    assert rows_of(server, TICKS, start=form) == between(at_ms, at_ms + 10**9)[:1000]
    assert rows_of(server, TICKS, end=form, order="desc") == between(0, at_ms)[::-1][:1000]
    assert rows_of(server, BARS, start=form, end=form) == []


def test_an_offset_whose_plus_was_not_escaped_is_understood(server: Server) -> None:
    answer = ask(server, "GET", f"{TICKS}?start=2026-01-13T01:10:00+01:00&limit=1")
    assert answer.json["ticks"] == between(DAY_MS + 600_000, DAY_MS + 700_000)[:1]


def test_a_date_is_its_midnight_utc(server: Server) -> None:
    assert rows_of(server, TICKS, start="2026-01-13", end="2026-01-14") == ALL[:1000]
    assert rows_of(server, TICKS, start="2026-01-12", end="2026-01-13") == []


def test_start_is_inside_and_end_is_outside_to_the_microsecond(server: Server) -> None:
    first, last = AAPL[100]["timestamp"], AAPL[200]["timestamp"]
    inside = between(first, last)
    assert rows_of(server, TICKS, start=first, end=last) == inside
    assert rows_of(server, TICKS, start=f"{first}001", end=last) == between(first + 1, last)
    assert rows_of(server, TICKS, start=first, end=f"{last}001") == between(first, last + 1)


@pytest.mark.parametrize("name", ["start", "end"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "soon",
        "2026-01-13T00:10:00",
        "2026-01-13 00:10",
        "2026-02-30",
        "2026-13-01T00:00:00Z",
        "nan",
        "1e9",
        "0x10",
        "1,5",
        "null",
        "9" * 400,
        "2026-01-13T00:00:00Z; SELECT 1",
        "\u0661\u0662",
        "2026-01-13\x00",
    ],
)
def test_what_is_no_time_is_refused_by_name(server: Server, name: str, value: str) -> None:
    for path in (TICKS, BARS):
        status, code, message = refusal(server, path, **{name: value})
        assert (status, code) == (400, "bad_parameter")
        assert message.startswith(f"{name}: ")


@pytest.mark.parametrize("value", ["0", "-1", "-2208988800", "-9223372036854775808", "0001-01-01", "1600-01-01"])
def test_a_time_before_all_ticks_is_a_start_like_any_other(server: Server, value: str) -> None:
    answers = [read(server, path, start=value, limit=1) for path in (TICKS, BARS)]
    for answer in answers:
        assert answer.status == 200, answer
    assert answers[0].json["ticks"] == ALL[:1]
    assert rows_of(server, TICKS, end=value) == rows_of(server, BARS, end=value) == []


@pytest.mark.parametrize("value", ["2200-01-01", "9999-12-31T23:59:59.999999Z", "7258118400"])
def test_a_time_after_all_ticks_is_an_end_like_any_other(server: Server, value: str) -> None:
    assert rows_of(server, TICKS, end=value) == ALL[:1000]
    assert rows_of(server, BARS, end=value, limit=1)[0]["timestamp"] == text_of(DAY_MS)
    assert rows_of(server, TICKS, start=value) == rows_of(server, BARS, start=value) == []


@pytest.mark.parametrize("path", [TICKS, BARS])
@pytest.mark.parametrize("format", FORMATS)
def test_an_end_before_the_start_is_refused_and_one_at_the_start_is_an_empty_answer(
    server: Server, path: str, format: str
) -> None:
    status, code, message = refusal(server, path, start=DAY_MS + 1, end=DAY_MS, format=format)
    assert (status, code, message) == (400, "bad_parameter", "end: is before start")
    answer = read(server, path, start=DAY_MS, end=DAY_MS, format=format)
    assert answer.status == 200, answer
    if format == "json":
        assert answer.json["bars" if path == BARS else "ticks"] == []
        assert answer.json["next_page_token"] is None


# limit


def test_without_a_limit_there_are_a_thousand_rows(server: Server) -> None:
    assert rows_of(server, TICKS) == ALL[-1000:]
    assert rows_of(server, TICKS, start=DAY_MS) == ALL[:1000]


@pytest.mark.parametrize("limit", [1, 2, 999, 1001, 10_000])
def test_a_limit_gives_so_many_rows(server: Server, limit: int) -> None:
    assert rows_of(server, TICKS, limit=limit) == ALL[-limit:]
    assert rows_of(server, TICKS, start=DAY_MS, limit=limit) == ALL[:limit]


@pytest.mark.parametrize("limit", ["0", "-1", "", "ten", "1.5", "10001", "9" * 30, "9" * 400, "\u0661", "0x10", "null"])
def test_a_limit_that_cannot_be_is_refused_by_name(server: Server, limit: str) -> None:
    for path, more in ((TICKS, {}), (BARS, {}), (TICKS, {"start": DAY_MS}), (TICKS, {"format": "csv"})):
        status, code, message = refusal(server, path, limit=limit, **more)
        assert (status, code) == (400, "bad_parameter")
        assert message.startswith("limit: ")


@pytest.mark.parametrize("range", [{"start": DAY_MS}, {"end": DAY_MS * 2}, {"start": DAY_MS, "end": DAY_MS * 2}])
def test_with_a_range_the_other_formats_have_neither_default_nor_maximum(server: Server, range: dict[str, int]) -> None:
    def lines(**params: Any) -> int:
        answer = read(server, TICKS, format="ndjson", **range, **params)
        assert answer.status == 200, answer
        return len(answer.data.splitlines())

    assert lines() == len(AAPL)
    assert lines(limit=10_001) == 10_001
    assert lines(limit=9) == 9
    assert lines(limit=2**70) == len(AAPL)


def test_without_a_range_the_other_formats_have_the_same_bounds(server: Server) -> None:
    assert len(read(server, TICKS, format="ndjson").data.splitlines()) == 1000
    assert len(read(server, TICKS, format="ndjson", limit=10_000).data.splitlines()) == 10_000
    assert refusal(server, TICKS, format="ndjson", limit=10_001)[1] == "bad_parameter"


# order


def test_the_newest_rows_are_answered_in_ascending_time(server: Server) -> None:
    answer = read(server, TICKS, limit=5).json
    assert answer == {"symbol": "AAPL", "ticks": ALL[-5:], "next_page_token": None}
    newest = rows_of(server, BARS, limit=3)
    assert newest == rows_of(server, BARS, order="desc", limit=3)[::-1]
    assert newest == rows_of(server, BARS, start=DAY_MS)[-3:]


def test_order_is_by_time_from_the_end_that_it_names(server: Server) -> None:
    assert rows_of(server, TICKS, order="asc", limit=7) == ALL[:7]
    assert rows_of(server, TICKS, order="desc", limit=7) == ALL[::-1][:7]
    end = AAPL[5000]["timestamp"]
    before = between(0, end)
    assert rows_of(server, TICKS, end=end, limit=7) == before[:7]
    assert rows_of(server, TICKS, end=end, limit=7, order="desc") == before[::-1][:7]


@pytest.mark.parametrize("order", ["", "ASC", "Desc", "newest", "asc desc", "asc;", "null"])
def test_an_order_that_is_none_is_refused_by_name(server: Server, order: str) -> None:
    for path in (TICKS, BARS):
        status, code, message = refusal(server, path, order=order)
        assert (status, code) == (400, "bad_parameter")
        assert message.startswith("order: ")


# page_token


def test_a_page_token_leads_on_where_the_page_ended(server: Server) -> None:
    pages: list[dict[str, Any]] = []
    params: dict[str, Any] = {"start": DAY_MS, "limit": 4000}
    while True:
        page = read(server, TICKS, **params).json
        pages += page["ticks"]
        if page["next_page_token"] is None:
            break
        params["page_token"] = page["next_page_token"]
    assert pages == ALL


@pytest.mark.parametrize("format", FORMATS[1:])
def test_the_other_formats_have_the_page_token_in_a_header(server: Server, format: str) -> None:
    token = read(server, TICKS, start=DAY_MS, limit=10).json["next_page_token"]
    answer = read(server, TICKS, start=DAY_MS, limit=10, format=format)
    assert answer.headers["x-next-page-token"] == token
    assert rows_of(server, TICKS, start=DAY_MS, limit=10, page_token=token) == ALL[10:20]
    last = read(server, TICKS, start=AAPL[-1]["timestamp"], limit=10, format=format)
    assert "x-next-page-token" not in last.headers


def test_the_last_page_has_no_token_even_when_it_is_full(server: Server) -> None:
    start = AAPL[-20]["timestamp"]
    rows = between(start, start + 10**9)
    answer = read(server, TICKS, start=start, limit=len(rows)).json
    assert (answer["ticks"], answer["next_page_token"]) == (rows, None)


# names of parameters


@pytest.mark.parametrize("path", [TICKS, BARS])
@pytest.mark.parametrize("name", ["from", "Start", "offset", "\x00", "x" * 2000, "%s", "\ud800", "\u017ftart"])
def test_an_unknown_parameter_is_refused_by_name(server: Server, path: str, name: str) -> None:
    answer = ask(server, "GET", f"{path}?limit=1&{_escaped(name)}=1")
    assert (answer.status, answer.json["code"]) == (400, "bad_parameter")
    assert "unknown parameter" in answer.json["message"]
    assert len(answer.data) < 1000


def _escaped(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "name", ["start", "end", "limit", "order", "page_token", "format", "interval", "price", "tz", "fill"]
)
def test_a_parameter_that_is_given_twice_is_refused_by_name(server: Server, name: str) -> None:
    good = {"start": "0", "end": "1", "limit": "1", "order": "asc", "page_token": "x", "format": "csv"}
    good |= {"interval": "1m", "price": "bid", "tz": "UTC", "fill": "previous"}
    answer = ask(server, "GET", f"{BARS}?{name}={good[name]}&{name}={good[name]}")
    assert (answer.status, answer.json["message"]) == (400, f"{name}: given twice")


@pytest.mark.parametrize("name", ["interval", "price", "tz", "fill", "format"])
@pytest.mark.parametrize("value", ["", "x", "2m", "1M ", "BID", "1m\x00", "\U0001f600", "../passwd", "a" * 3000])
def test_a_choice_that_is_none_is_refused_by_name(server: Server, name: str, value: str) -> None:
    status, code, message = refusal(server, BARS, **{name: value})
    assert (status, code) == (400, "bad_parameter")
    assert message.startswith(f"{name}: ")
    assert len(message) < 300


@pytest.mark.parametrize("name", ["interval", "price", "format", "order"])
def test_a_refused_choice_is_told_what_there_is(server: Server, name: str) -> None:
    choices = {"interval": "15m", "price": "mid", "format": "parquet", "order": "desc"}
    assert choices[name] in refusal(server, BARS, **{name: "other"})[2]


# symbols


def test_a_symbol_without_ticks_has_empty_lists(server: Server) -> None:
    assert read(server, ticks_path("VIX")).json == {"symbol": "VIX", "ticks": [], "next_page_token": None}
    answer = read(server, bars_path("vix"), interval="1w", price="last").json
    assert answer == {"symbol": "VIX", "interval": "1w", "price": "last", "bars": [], "next_page_token": None}
    assert rows_of(server, bars_path("VIX"), fill="previous", start=DAY_MS, end=DAY_MS + 10**7) == []
    assert read(server, ticks_path("VIX"), format="csv").data.count(b"\n") == 1
    assert read(server, ticks_path("VIX"), format="ndjson").data == b""


@pytest.mark.parametrize("name", ["AAPL", "aapl", "AaPl", "AAPL.US", "aapl.us"])
def test_a_name_or_alias_in_any_case_is_answered_with_the_name(server: Server, name: str) -> None:
    answer = read(server, ticks_path(name), limit=1).json
    assert (answer["symbol"], answer["ticks"]) == ("AAPL", ALL[-1:])
    answer = read(server, bars_path(name), limit=1).json
    assert (answer["symbol"], len(answer["bars"])) == ("AAPL", 1)
    assert read(server, f"/api/quotes/{name}").json["symbol"] == "AAPL"


NOT_SYMBOLS = [
    "FOO",
    "A/B",
    "AAPL/",
    "AAPL ",
    "../AAPL",
    "..",
    ".",
    "AAPL\x00",
    "\x00",
    "AAPL\r\nX: y",
    "Ünïcödé",
    "\U0001f4c8",
    "\uff21APL",
    "aapl\u200b",
    "\u202eLPAA",
    "x" * 2000,
    "%",
    "%41APL",
    "AAPL?limit=1",
    "AAPL#",
    "*",
    "null",
]


@pytest.mark.parametrize("name", NOT_SYMBOLS, ids=lambda name: ascii(name)[:20])
def test_an_unknown_symbol_is_a_404_whatever_its_name(server: Server, name: str) -> None:
    for path in ("/api/ticks/", "/api/bars/", "/api/quotes/"):
        answer = ask(server, "GET", path + _escaped(name))
        assert (answer.status, answer.json["code"]) in ((404, "unknown_symbol"), (404, "not_found")), answer
        assert len(answer.json["message"]) < 8000


@pytest.mark.parametrize("raw", ["%ED%A0%80", "%FF%FE", "%C3", "AAPL%ED%B0%80", "%F8%88%80%80%80", "%C0%80"])
def test_a_name_that_is_no_text_is_unknown(server: Server, raw: str) -> None:
    for path in ("/api/ticks/", "/api/bars/", "/api/quotes/"):
        answer = ask(server, "GET", path + raw)
        assert (answer.status, answer.json["code"]) == (404, "unknown_symbol"), answer


def test_a_name_of_10_kb_is_too_long_for_an_address(server: Server) -> None:
    assert ask(server, "GET", "/api/ticks/" + "A" * 10_000).status == 414


def test_an_unknown_symbol_is_a_404_before_it_is_anything_else(server: Server) -> None:
    for format in FORMATS:
        assert refusal(server, "/api/ticks/FOO", format=format, start=0)[:2] == (404, "unknown_symbol")
        assert refusal(server, "/api/ticks/FOO", format=format, page_token="abc")[:2] == (404, "unknown_symbol")


def test_a_symbol_with_a_slash_is_found_by_it(server: Server) -> None:
    body = b'{"symbol":"EUR/USD","aliases":["euro dollar"]}'
    added = ask(server, "POST", "/api/symbols", body, {"Content-Type": "application/json"})
    assert added.status == 201, added
    tick = made_ticks("eur/usd", [DAY_MS])
    store(server, tick)
    for path in ("EUR/USD", "eur%2Fusd", "Euro%20Dollar"):
        answer = ask(server, "GET", f"/api/ticks/{path}")
        assert (answer.status, answer.json["symbol"], answer.json["ticks"]) == (200, "EUR/USD", [shown(tick[0])])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_but_reading_is_taken(server: Server, method: str) -> None:
    answer = ask(server, method, TICKS)
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


# bars


@pytest.mark.parametrize("price", ["bid", "ask", "mid", "last"])
@pytest.mark.parametrize("interval", INTERVALS)
def test_every_interval_counts_every_tick_and_tiles_the_day(server: Server, interval: str, price: str) -> None:
    answer = read(server, BARS, interval=interval, price=price, start="2026-01-01", limit=10_000).json
    assert (answer["interval"], answer["price"]) == (interval, price)
    bars = answer["bars"]
    starts = [bar["timestamp"] for bar in bars]
    assert starts == sorted(set(starts))
    assert all(bar["low"] <= min(bar["open"], bar["close"]) for bar in bars)
    assert all(bar["high"] >= max(bar["open"], bar["close"]) for bar in bars)
    assert all(bar["complete"] for bar in bars)
    if interval not in ("1s", "5s", "15s", "30s"):  # those may have seconds without such a price
        assert sum(bar["ticks"] for bar in bars) == len(AAPL)
    first = {"1w": "2026-01-12", "1M": "2026-01-01"}.get(interval, "2026-01-13")
    assert starts[0] == f"{first}T00:00:00.000000Z"


def test_the_running_bar_is_there_incomplete_and_current_to_the_last_commit(server: Server) -> None:
    now_ms = int(time.time() * 1000)
    for number in range(3):
        store(server, [made_ticks("NVDA", [now_ms + number])[0] | {"bid": 50.0 + number, "ask": None, "last": None}])
        for interval in ("4h", "1d", "1w", "1M"):
            bar = rows_of(server, "/api/bars/NVDA", interval=interval, limit=1)[-1]
            assert (bar["open"], bar["close"], bar["ticks"]) == (50.0, 50.0 + number, number + 1), interval
            assert bar["complete"] is (interval == "4h" and _is_over(bar["timestamp"], 4 * 3600)), interval


@pytest.mark.long
def test_a_bar_becomes_complete_when_its_time_is_over(server: Server) -> None:
    now_ms = int(time.time() * 1000)
    store(server, [made_ticks("META", [now_ms])[0] | {"bid": 50.0, "ask": None, "last": None}])
    wait_until(lambda: time.time() * 1000 // 5000 > now_ms // 5000, what="the end of the 5 seconds")
    (bar,) = rows_of(server, "/api/bars/META", interval="5s")
    assert bar["complete"] is True
    (bar,) = rows_of(server, "/api/bars/META", interval="1M")
    assert bar["complete"] is False


def _is_over(start: str, seconds: int) -> bool:
    return datetime.fromisoformat(start).timestamp() + seconds <= time.time()


def test_a_range_chooses_bars_by_their_start_and_bars_are_whole(server: Server) -> None:
    every = rows_of(server, BARS, interval="15m", start=DAY_MS)
    some = rows_of(server, BARS, interval="15m", start=DAY_MS + 1, end=DAY_MS + 1_800_001)
    assert some == every[1:3]
    assert rows_of(server, BARS, interval="15m", start=DAY_MS + 900_000, end=DAY_MS + 1_800_000) == every[1:2]


def test_gaps_are_gaps_and_are_filled_on_request(server: Server) -> None:
    ticks = [{**tick, "bid": 7.0, "ask": None, "flags": 2} for tick in made_ticks("ORCL", [DAY_MS, DAY_MS + 180_000])]
    store(server, ticks)
    path = bars_path("ORCL")
    gaps = rows_of(server, path, start=DAY_MS)
    assert [bar["timestamp"] for bar in gaps] == [text_of(DAY_MS), text_of(DAY_MS + 180_000)]
    full = rows_of(server, path, start=DAY_MS, end=DAY_MS + 300_000, fill="previous")
    assert [bar["timestamp"] for bar in full] == [text_of(DAY_MS + 60_000 * minute) for minute in range(5)]
    for bar in (full[1], full[2], full[4]):
        assert [bar[name] for name in ("open", "high", "low", "close")] == [7.0] * 4
        assert [bar[name] for name in ("volume", "buy_volume", "sell_volume", "ticks")] == [0.0, 0.0, 0.0, 0]
        assert bar["complete"] is True


@pytest.mark.parametrize(
    ("tz", "starts"),
    [
        ("UTC", "2026-01-13T00:00:00.000000Z"),
        ("America/New_York", "2026-01-12T05:00:00.000000Z"),
        ("Asia/Kathmandu", "2026-01-12T18:15:00.000000Z"),
        ("Asia/Kolkata", "2026-01-12T18:30:00.000000Z"),
    ],
)
def test_days_begin_where_the_time_zone_says(server: Server, tz: str, starts: str) -> None:
    bars = rows_of(server, BARS, interval="1d", tz=tz)
    assert bars[0]["timestamp"] == starts
    assert sum(bar["ticks"] for bar in bars) == len(AAPL)
