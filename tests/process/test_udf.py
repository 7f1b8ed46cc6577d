"""UDF, held against TradingView's description of it and against /api/bars: what its charting library relies on."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.process.harness import Server
from tests.process.reading import DAY_MS, bars_path, made_ticks, read, rows_of, store
from tests.process.wire import Answer, ask, running, tick

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
INTERVALS = {
    "1S": "1s",
    "5S": "5s",
    "15S": "15s",
    "30S": "30s",
    "1": "1m",
    "3": "3m",
    "5": "5m",
    "15": "15m",
    "30": "30m",
    "60": "1h",
    "240": "4h",
    "1D": "1d",
    "1W": "1w",
    "1M": "1M",
}
LENGTH_S = {"1S": 1, "5S": 5, "15S": 15, "30S": 30, "1D": 86_400, "1W": 7 * 86_400, "1M": 31 * 86_400}
LENGTH_S |= {name: int(name) * 60 for name in INTERVALS if name.isdigit()}
FAR_S = 4_000_000_000
COLUMNS = ["t", "o", "h", "l", "c", "v"]

rng = random.Random(3)


def quotes_in(start_ms: int, end_ms: int) -> list[int]:
    """Moments some 7 s apart, with holes of some minutes."""
    moments, now_ms = [], start_ms
    while now_ms < end_ms:
        moments.append(now_ms)
        now_ms += rng.randrange(100, 14_000) if rng.random() > 0.03 else rng.randrange(100_000, 500_000)
    return moments


SESSIONS = [(0, 40), (26, 60), (74, 30), (24 * 20, 20), (24 * 45 + 7, 25)]
"""Hour of the beginning after DAY_MS, and minutes: gaps of days and weeks lie between."""

QUOTES = [
    tick(symbol="TSLA", bid=100 + rng.random(), ask=102.0, timestamp=at_ms)
    for hour, minutes in SESSIONS
    for at_ms in quotes_in(DAY_MS + hour * HOUR_MS, DAY_MS + hour * HOUR_MS + minutes * MINUTE_MS)
]
TRADED = made_ticks("AAPL", range(DAY_MS, DAY_MS + 2 * HOUR_MS, 9_700))


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        store(server, QUOTES)
        store(server, TRADED)
        yield server
        assert "Traceback" not in server.log()


def get(server: Server, name: str, **params: Any) -> Any:
    answer = read(server, f"/udf/{name}", **params)
    assert answer.status == 200, answer
    return answer.json


def history(server: Server, symbol: str = "TSLA", resolution: str = "1", to: int = FAR_S, **params: Any) -> Any:
    """Return an answer with bars, whose form is checked, or one without."""
    found = get(server, "history", symbol=symbol, resolution=resolution, to=to, **params)
    if found["s"] == "no_data":
        assert set(found) <= {"s", "nextTime"}
        return found
    assert found["s"] == "ok"
    assert set(found) == {"s", *COLUMNS}
    assert len({len(found[name]) for name in COLUMNS}) == 1
    assert all(type(at_s) is int for at_s in found["t"])
    assert found["t"] == sorted(set(found["t"]))
    assert found["t"][-1] < to
    for name in COLUMNS[1:]:
        assert all(isinstance(value, int | float) for value in found[name])
    for _, first, high, low, close, volume in bars_of(found):
        assert low <= min(first, close) <= max(first, close) <= high
        assert volume >= 0
    return found


def bars_of(found: Any) -> list[tuple[Any, ...]]:
    return list(zip(*(found[name] for name in COLUMNS), strict=True)) if found["s"] == "ok" else []


def epoch_s(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def stored_bars(server: Server, symbol: str, resolution: str, price: str) -> list[tuple[Any, ...]]:
    """The same bars as /api/bars has them."""
    rows = rows_of(server, bars_path(symbol), interval=INTERVALS[resolution], price=price, start=0, limit=10_000)
    names = ("open", "high", "low", "close", "volume")
    return [(epoch_s(row["timestamp"]), *(row[name] for name in names)) for row in rows]


def error_of(answer: Answer) -> tuple[int, str, str]:
    """Return status, code and message of an error, which carries both shapes."""
    error = answer.json
    assert set(error) == {"s", "errmsg", "status", "code", "message"}
    assert (error["s"], error["status"], error["errmsg"]) == ("error", "error", error["message"])
    return answer.status, error["code"], error["message"]


# config, time


def test_config_says_what_the_feed_can_do_and_every_resolution_of_it_answers(server: Server) -> None:
    config = get(server, "config")
    assert config["supported_resolutions"] == list(INTERVALS)
    # Without a search the library loads all symbols in groups, which are not served.
    assert (config["supports_search"], config["supports_group_request"], config["supports_time"]) == (True, False, True)
    assert (config["supports_marks"], config["supports_timescale_marks"]) == (False, False)
    for choices in (config["exchanges"], config["symbols_types"]):
        assert {"name", "value"} <= set(choices[0])
    for resolution in config["supported_resolutions"]:
        assert history(server, resolution=resolution, countback=5)["s"] == "ok"


def test_time_is_plain_text_in_epoch_seconds(server: Server) -> None:
    before_s = int(time.time())
    answer = ask(server, "GET", "/udf/time")
    assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
    assert before_s <= int(answer.data) <= time.time()


# symbols


@pytest.mark.parametrize("name", ["TSLA", "tsla", "TSLA.US", "tsla.us"])
def test_a_symbol_is_described_under_its_name(server: Server, name: str) -> None:
    found = get(server, "symbols", symbol=name)
    assert found["name"] == found["ticker"] == "TSLA"
    assert "s" not in found  # the library takes it for an error
    assert (found["session"], found["timezone"], found["format"]) == ("24x7", "Etc/UTC", "price")
    assert found["minmov"] == 1
    assert found["pricescale"] == 100_000
    assert found["supported_resolutions"] == list(INTERVALS)
    assert all(value is not None for value in found.values())
    assert "currency_code" not in found


def test_every_resolution_is_one_that_the_symbol_has_data_of(server: Server) -> None:
    # What is not among these the library builds itself, of other bars.
    found = get(server, "symbols", symbol="TSLA")
    assert found["has_seconds"]
    assert found["has_intraday"]
    assert found["has_daily"]
    assert found["has_weekly_and_monthly"]
    assert [f"{seconds}S" for seconds in found["seconds_multipliers"]] == [name for name in INTERVALS if "S" in name]
    assert found["intraday_multipliers"] == [name for name in INTERVALS if name.isdigit()]


def test_digits_currency_and_exchange_are_the_instruments_own(server: Server) -> None:
    new = b'{"symbol":"EURUSD","name":"Euro","digits":3,"currency":"USD","exchange":"Desk","aliases":["EURUSD.r"]}'
    assert ask(server, "POST", "/api/symbols", new).status == 201
    found = get(server, "symbols", symbol="eurusd.R", currencyCode="EUR", unitId="lot")
    assert (found["name"], found["description"], found["pricescale"]) == ("EURUSD", "Euro", 1000)
    assert (found["currency_code"], found["exchange"], found["listed_exchange"]) == ("USD", "Desk", "Desk")
    assert history(server, "EURUSD", countback=3) == {"s": "no_data"}
    assert [one["symbol"] for one in get(server, "search", query="EUR", exchange="desk")] == ["EURUSD"]
    assert get(server, "search", query="EUR", exchange="elsewhere") == []
    assert get(server, "quotes", symbols="EURUSD")["d"][0] == {
        "s": "ok",
        "n": "EURUSD",
        "v": {"short_name": "EURUSD", "description": "EURUSD"},
    }


# search


def test_search_finds_names_aliases_and_descriptions_first_those_that_begin_so(server: Server) -> None:
    found = get(server, "search", query="A", type="", exchange="", limit=30)
    names = [one["symbol"] for one in found]
    assert names[:4] == ["AAPL", "AMD", "AMZN", "AVGO"]
    assert {"TSLA", "NVDA", "META"} <= set(names[4:])
    for one in found:
        assert set(one) == {"symbol", "full_name", "ticker", "description", "exchange", "type"}
        assert get(server, "symbols", symbol=one["ticker"])["name"] == one["symbol"]
    assert [one["symbol"] for one in get(server, "search", query="crudeoil")] == ["SpotCrude"]
    assert get(server, "search", query="no such thing") == []
    assert len(get(server, "search", query="", limit=3)) == 3
    assert len(get(server, "search")) >= 17


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x"])
def test_a_limit_that_is_none_is_refused(server: Server, limit: str) -> None:
    status, code, message = error_of(read(server, "/udf/search", query="A", limit=limit))
    assert (status, code, message.split(":")[0]) == (400, "bad_parameter", "limit")


# history


@pytest.mark.parametrize("resolution", INTERVALS)
@pytest.mark.parametrize(("symbol", "price"), [("TSLA", "bid"), ("AAPL", "last")])
def test_bars_are_those_of_the_api_of_last_where_there_are_trades_else_of_bid(
    server: Server, symbol: str, price: str, resolution: str
) -> None:
    expected = stored_bars(server, symbol, resolution, price)
    assert expected
    params = {"from": 0}
    assert bars_of(history(server, symbol, resolution, **params)) == expected
    assert bars_of(history(server, f"{symbol}.us", resolution, currencyCode="USD", unitId="", **params)) == expected


@pytest.mark.parametrize("resolution", ["1D", "1W", "1M"])
def test_days_weeks_and_months_begin_at_midnight_utc(server: Server, resolution: str) -> None:
    for at_s in history(server, resolution=resolution, countback=100)["t"]:
        begins = datetime.fromtimestamp(at_s, UTC)
        assert (begins.hour, begins.minute, begins.second) == (0, 0, 0)
        assert resolution != "1W" or begins.weekday() == 0
        assert resolution != "1M" or begins.day == 1


@pytest.mark.parametrize(("short", "long"), [("D", "1D"), ("W", "1W"), ("M", "1M"), ("S", "1S")])
def test_one_may_be_left_out(server: Server, short: str, long: str) -> None:
    assert history(server, resolution=short, countback=50) == history(server, resolution=long, countback=50)


def test_from_is_inside_and_to_is_outside(server: Server) -> None:
    starts = history(server, **{"from": 0})["t"]
    first, last = starts[10], starts[20]
    for start, end, expected in (
        (first, last, starts[10:20]),
        (first + 1, last, starts[11:20]),
        (first, last + 1, starts[10:21]),
        (first, first + 1, starts[10:11]),
    ):
        assert history(server, to=end, **{"from": start})["t"] == expected


@pytest.mark.parametrize("resolution", INTERVALS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_countback_gives_exactly_that_many_bars_before_to_across_gaps_whatever_from_says(
    server: Server, resolution: str, count: int
) -> None:
    every = bars_of(history(server, resolution=resolution, **{"from": 0}))
    for place in {len(every), len(every) - 1, len(every) // 2, min(3, len(every))}:
        to = every[place][0] if place < len(every) else FAR_S
        expected = every[max(0, place - count) : place]
        for start in ({}, {"from": 0}, {"from": to - 1}, {"from": FAR_S}):
            found = history(server, resolution=resolution, to=to, countback=count, **start)
            assert bars_of(found) == expected
            assert found["s"] == ("ok" if expected else "no_data")


def test_an_empty_range_names_the_newest_bar_before_it(server: Server) -> None:
    starts = history(server, **{"from": 0})["t"]
    holes = [(one, other) for one, other in itertools.pairwise(starts) if other - one > 60]
    assert len(holes) > len(SESSIONS)
    for before, after in holes:
        for start, end in ((before + 60, after), (before + 1, before + 1), (after - 1, after)):
            assert history(server, to=end, **{"from": start}) == {"s": "no_data", "nextTime": before}
    assert history(server, to=FAR_S, **{"from": FAR_S - 60}) == {"s": "no_data", "nextTime": starts[-1]}


def test_there_is_no_next_time_before_all_bars_and_without_any(server: Server) -> None:
    first = history(server, **{"from": 0})["t"][0]
    for start in (0, -2_000_000_000, first - 60):
        assert history(server, to=first, **{"from": start}) == {"s": "no_data"}
    assert history(server, to=first, countback=10) == {"s": "no_data"}
    for resolution in INTERVALS:
        assert history(server, "VIX", resolution, **{"from": 0}) == {"s": "no_data"}
        assert history(server, "VIX", resolution, countback=10) == {"s": "no_data"}


@pytest.mark.parametrize(("resolution", "count"), [("1S", 50), ("30S", 40), ("1", 7), ("5", 10), ("60", 3), ("1D", 2)])
def test_walking_back_by_countback_collects_every_bar_once(server: Server, resolution: str, count: int) -> None:
    collected: list[tuple[Any, ...]] = []
    to = FAR_S
    while (found := history(server, resolution=resolution, to=to, countback=count))["s"] == "ok":
        collected = bars_of(found) + collected
        to = found["t"][0]
    assert "nextTime" not in found
    assert collected == stored_bars(server, "TSLA", resolution, "bid")


@pytest.mark.parametrize(("resolution", "count"), [("15S", 99), ("1", 20), ("15", 6), ("240", 3), ("1D", 2), ("1M", 1)])
def test_walking_back_by_ranges_and_next_times_collects_every_bar_once(
    server: Server, resolution: str, count: int
) -> None:
    collected: list[tuple[Any, ...]] = []
    to: int | None = DAY_MS // 1000 + 60 * 86_400
    jumps = 0
    while to is not None:
        start = to - count * LENGTH_S[resolution]
        found = history(server, resolution=resolution, to=to, **{"from": start})
        collected = bars_of(found) + collected
        if found["s"] == "ok":
            to = start
        else:
            jumps += "nextTime" in found
            assert found.get("nextTime", start - 1) < start
            to = found["nextTime"] + 1 if "nextTime" in found else None
    assert jumps
    assert collected == stored_bars(server, "TSLA", resolution, "bid")


def test_the_running_bar_is_there_and_moves_with_its_ticks(server: Server) -> None:
    def newest(resolution: str) -> tuple[Any, ...]:
        return bars_of(history(server, "NVDA", resolution, to=int(time.time()) + 1, countback=2))[-1]

    day_ms = time.time_ns() // 86_400_000_000_000 * 86_400_000  # a bar that still runs when the test is over
    quote = {"symbol": "NVDA", "timestamp": time.time_ns() // 1_000_000}
    store(server, [tick(bid=10.0, **quote)])
    assert newest("1D")[1:5] == (10.0, 10.0, 10.0, 10.0)
    store(server, [tick(bid=12.0, **quote | {"timestamp": quote["timestamp"] + 1})])
    assert newest("1D")[1:5] == (10.0, 12.0, 10.0, 12.0)
    assert newest("1D")[0] * 1000 >= day_ms
    assert newest("1")[4] == newest("1S")[4] == 12.0


def test_a_range_of_more_bars_than_an_answer_holds_is_refused_not_cut(server: Server) -> None:
    at_ms = DAY_MS - 86_400_000
    store(server, [tick(symbol="AMD", bid=5.0, timestamp=at_ms + 1000 * second) for second in range(20_001)])
    begins = at_ms // 1000
    status, code, message = error_of(
        read(server, "/udf/history", symbol="AMD", resolution="1S", to=begins + 20_001, **{"from": begins})
    )
    assert (status, code) == (400, "bad_parameter")
    assert message.startswith("from: more than 20000 bars")
    assert len(history(server, "AMD", "1S", to=begins + 20_000, **{"from": begins})["t"]) == 20_000
    assert len(history(server, "AMD", "1S", countback=20_000)["t"]) == 20_000


GOOD = {"symbol": "TSLA", "resolution": "1", "from": "0", "to": str(FAR_S)}


@pytest.mark.parametrize(
    ("changes", "status", "code", "named"),
    [
        ({"symbol": "NOPE"}, 404, "unknown_symbol", "Unknown symbol"),
        ({"symbol": ""}, 404, "unknown_symbol", "Unknown symbol"),
        ({"symbol": None}, 400, "bad_parameter", "symbol"),
        ({"resolution": "2"}, 400, "bad_parameter", "resolution"),
        ({"resolution": "1m"}, 400, "bad_parameter", "resolution"),
        ({"resolution": ""}, 400, "bad_parameter", "resolution"),
        ({"resolution": None}, 400, "bad_parameter", "resolution"),
        ({"to": None}, 400, "bad_parameter", "to"),
        ({"to": "soon"}, 400, "bad_parameter", "to"),
        ({"to": "2026-01-13T00:00:00Z"}, 400, "bad_parameter", "to"),
        ({"to": "99999999999999"}, 400, "bad_parameter", "to"),
        ({"to": "1", "from": "2"}, 400, "bad_parameter", "to"),
        ({"from": None}, 400, "bad_parameter", "from"),
        ({"from": "x"}, 400, "bad_parameter", "from"),
        ({"from": "1.5"}, 400, "bad_parameter", "from"),
        ({"countback": "0"}, 400, "bad_parameter", "countback"),
        ({"countback": "-3"}, 400, "bad_parameter", "countback"),
        ({"countback": "20001"}, 400, "bad_parameter", "countback"),
        ({"countback": "many"}, 400, "bad_parameter", "countback"),
        ({"colour": "red"}, 400, "bad_parameter", "colour"),
    ],
    ids=str,
)
def test_what_cannot_be_answered_is_an_error_in_both_shapes(
    server: Server, changes: dict[str, str | None], status: int, code: str, named: str
) -> None:
    params = {name: text for name, text in (GOOD | changes).items() if text is not None}
    found = error_of(ask(server, "GET", f"/udf/history?{urlencode(params)}"))
    assert found[:2] == (status, code)
    assert found[2].startswith(named)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/udf/symbols?symbol=NOPE", 404, "unknown_symbol"),
        ("/udf/symbols", 400, "bad_parameter"),
        ("/udf/quotes", 400, "bad_parameter"),
        ("/udf/marks?symbol=TSLA", 404, "not_found"),
    ],
)
def test_other_errors_have_both_shapes_too(server: Server, path: str, status: int, code: str) -> None:
    assert error_of(ask(server, "GET", path))[:2] == (status, code)


def test_errors_elsewhere_have_but_their_own_shape(server: Server) -> None:
    assert set(ask(server, "GET", "/api/quotes/NOPE").json) == {"status", "code", "message"}


# quotes


def test_quotes_come_under_the_names_that_were_asked_for(server: Server) -> None:
    found = get(server, "quotes", symbols="tsla,NOPE, AAPL.US ,,TSLA,tsla,VIX")
    assert found["s"] == "ok"
    assert [(one["n"], one["s"]) for one in found["d"]] == [
        ("tsla", "ok"),
        ("NOPE", "error"),
        ("AAPL.US", "ok"),
        ("TSLA", "ok"),
        ("VIX", "ok"),
    ]
    assert found["d"][1]["v"] == {}
    assert get(server, "quotes", symbols="") == {"s": "ok", "d": []}


@pytest.mark.parametrize("symbol", ["TSLA", "AAPL"])
def test_a_quote_is_that_of_the_api(server: Server, symbol: str) -> None:
    quote = ask(server, "GET", f"/api/quotes/{symbol}").json
    values = get(server, "quotes", symbols=symbol)["d"][0]["v"]
    assert values["short_name"] == symbol
    for name, ours in {"lp": "price", "ch": "change", "chp": "change_percent"}.items():
        assert values[name] == quote[ours]
    for name in ("bid", "ask", "spread", "volume"):
        assert values.get(name) == quote[name]
    assert values["prev_close_price"] == pytest.approx(quote["price"] - quote["change"])
    assert None not in values.values()


def test_the_newest_bar_closes_at_the_price_of_the_quote(server: Server) -> None:
    for symbol in ("TSLA", "AAPL"):
        price = get(server, "quotes", symbols=symbol)["d"][0]["v"]["lp"]
        assert history(server, symbol, countback=1)["c"] == [price]
