"""Paging over HTTP while ticks arrive: each row that was there throughout comes once, and none comes twice."""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.row_stream import PAGE_ROWS
from tests.process.harness import Server
from tests.process.reading import DAY_MS, Row, bars_path, made_ticks, read, refusal, rows_of, store, text_of, ticks_path
from tests.process.wire import ask, running, without

MOST_PAGES = 300
SYMBOLS = iter([f"P{number}" for number in range(1000)])


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    settings = {"TICKHUB_FLUSH_INTERVAL_S": "0.01", "TICKHUB_UNKNOWN_SYMBOLS": "register"}
    with running(data_template, environ=settings) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def long(server: Server) -> str:
    """A symbol with two ticks more than a page of a stream holds."""
    symbol = next(SYMBOLS)
    store(server, made_ticks(symbol, range(DAY_MS, DAY_MS + PAGE_ROWS + 2)))
    return symbol


def pages(
    server: Server, path: str, limits: Iterator[int], between: Callable[[list[Row]], None], **params: Any
) -> list[Row]:
    """Return all rows of all pages; `between` is called with those so far before each further page."""
    found: list[Row] = []
    name = "bars" if path.startswith("/api/bars") else "ticks"
    for _ in range(MOST_PAGES):
        limit = next(limits)
        answer = read(server, path, limit=limit, **params)
        assert answer.status == 200, answer
        page = answer.json
        assert len(page[name]) <= limit
        found += page[name]
        if page["next_page_token"] is None:
            return found
        assert len(page[name]) == limit, "a page that is not the last one is full"
        params["page_token"] = page["next_page_token"]
        between(found)
    raise AssertionError(f"there is no end to the pages: {len(found)} rows")


def nothing(found: list[Row]) -> None:
    """Let nothing happen."""


def tick_key(row: Row) -> tuple[str, int]:
    return row["timestamp"], row["seq"]


def crowded(symbol: str, rng: random.Random, rows: int, *, derived: float) -> list[Row]:
    """Ticks of which many share a millisecond; a share of them has no seq."""
    moments = sorted(DAY_MS + 50 * rng.randrange(rows // 3) for _ in range(rows))
    ticks = made_ticks(symbol, moments, rng.randrange(10**6))
    return [without(tick, "seq") if rng.random() < derived else tick for tick in ticks]


def every_row(server: Server, path: str, **params: Any) -> list[Row]:
    return pages(server, path, itertools.repeat(10_000), nothing, start=DAY_MS - 1000, **params)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("derived", [0.0, 0.5, 1.0])
def test_pages_of_any_length_make_up_the_whole(server: Server, order: str, derived: float) -> None:
    symbol = next(SYMBOLS)
    store(server, crowded(symbol, random.Random(7), 60, derived=derived))
    whole = every_row(server, ticks_path(symbol), order=order)
    assert len(whole) == len(set(map(tick_key, whole))) == 60
    times = [row["timestamp"] for row in whole]
    assert times == sorted(times, reverse=order == "desc")
    for limit in (1, 2, 7, 30, 59, 60, 61):
        assert pages(server, ticks_path(symbol), itertools.repeat(limit), nothing, order=order) == whole, limit


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("derived", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)])
def test_ticks_that_arrive_while_paging_neither_hide_nor_repeat_a_row(
    server: Server, order: str, derived: float, seed: int
) -> None:
    rng, symbol = random.Random(f"{order} {derived} {seed}"), next(SYMBOLS)
    store(server, crowded(symbol, rng, 150, derived=derived))
    there = every_row(server, ticks_path(symbol))
    numbers = itertools.count(1000)

    def arrive(found: list[Row]) -> None:
        """Before, behind and at the cursor's millisecond, with and without seq."""
        last = found[-1]
        at_ms = DAY_MS + round(_seconds(last["timestamp"]) * 1000)
        late = []
        for time_ms in (at_ms, at_ms - 50, at_ms + 50, at_ms - 1, at_ms + 1, DAY_MS, DAY_MS + 50 * rng.randrange(50)):
            (tick,) = made_ticks(symbol, [time_ms], next(numbers))
            late += [without(tick, "seq"), tick | {"seq": next(numbers)}]
        store(server, rng.sample(late, 6))

    start, end = DAY_MS, DAY_MS + 50 * 40
    limits = (rng.choice((1, 5, 20, 40)) for _ in itertools.count())
    found = pages(server, ticks_path(symbol), limits, arrive, order=order, start=start, end=end)
    keys = list(map(tick_key, found))
    assert len(keys) == len(set(keys)), "a row came twice"
    inside = [row for row in there if row["timestamp"] < text_of(end)]
    assert len(inside) > 20
    came = [row for row in found if row in inside]
    assert came == (inside if order == "asc" else inside[::-1])
    finally_there = every_row(server, ticks_path(symbol), order=order)
    assert len(finally_there) > len(there)
    places = [finally_there.index(row) for row in found]
    assert places == sorted(places), "rows came in another order than they have"


def _seconds(text: str) -> float:
    hours, minutes, seconds = text[11:-1].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_a_tick_that_arrives_ahead_of_the_cursor_is_in_a_later_page(server: Server) -> None:
    symbol = next(SYMBOLS)
    store(server, made_ticks(symbol, range(DAY_MS, DAY_MS + 10_000, 1000)))
    late = made_ticks(symbol, [DAY_MS + 5500], seed=5)

    def arrive(found: list[Row]) -> None:
        if len(found) == 4:
            store(server, late)

    found = pages(server, ticks_path(symbol), itertools.repeat(2), arrive, start=DAY_MS)
    assert [row["timestamp"] for row in found].count(text_of(DAY_MS + 5500)) == 1
    assert len(found) == 11


@pytest.mark.long
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("interval", ["1s", "1m", "5m", "1h"])
@pytest.mark.parametrize("fill", [False, True])
def test_each_bar_comes_once_while_ticks_arrive(server: Server, order: str, interval: str, fill: bool) -> None:
    rng, symbol = random.Random(f"{order} {interval}"), next(SYMBOLS)
    length_ms = {"1s": 1000, "1m": 60_000, "5m": 300_000, "1h": 3_600_000}[interval]
    moments = sorted(DAY_MS + length_ms * rng.randrange(60) + rng.randrange(length_ms) for _ in range(80))
    store(server, [tick | {"bid": 1.0} for tick in made_ticks(symbol, moments)])
    params: dict[str, Any] = {"interval": interval, "end": DAY_MS + length_ms * 60}
    params |= {"fill": "previous"} if fill else {}
    there = {bar["timestamp"] for bar in every_row(server, bars_path(symbol), **params)}
    assert len(there) > 30

    def arrive(found: list[Row]) -> None:
        at_ms = DAY_MS + length_ms * rng.randrange(60)
        store(server, [made_ticks(symbol, [at_ms], rng.randrange(10**6))[0] | {"bid": 2.0}])

    limits = (rng.choice((1, 4, 9)) for _ in itertools.count())
    found = pages(server, bars_path(symbol), limits, arrive, start=DAY_MS - 1000, order=order, **params)
    starts = [bar["timestamp"] for bar in found]
    assert starts == sorted(set(starts), reverse=order == "desc")
    assert there <= set(starts)


@pytest.mark.parametrize("format", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_a_token_is_good_in_every_format(server: Server, format: str) -> None:
    symbol = next(SYMBOLS)
    store(server, made_ticks(symbol, range(DAY_MS, DAY_MS + 10)))
    token = read(server, ticks_path(symbol), start=DAY_MS, limit=9).json["next_page_token"]
    answer = read(server, ticks_path(symbol), start=DAY_MS, page_token=token, format=format)
    assert answer.status == 200
    assert "x-next-page-token" not in answer.headers


@pytest.mark.parametrize("format", ["ndjson", "csv", "arrow", "parquet"])
def test_the_header_is_known_for_what_is_made_before_it_leaves_and_the_document_says_how_much(
    server: Server, long: str, format: str
) -> None:
    asked = {"start": DAY_MS, "format": format}
    token = read(server, ticks_path(long), limit=PAGE_ROWS, **asked).headers["x-next-page-token"]
    rest = rows_of(server, ticks_path(long), start=DAY_MS, page_token=token)
    assert [row["timestamp"] for row in rest] == [text_of(DAY_MS + PAGE_ROWS), text_of(DAY_MS + PAGE_ROWS + 1)]
    larger = read(server, ticks_path(long), limit=PAGE_ROWS + 1, **asked)
    assert larger.status == 200
    assert "x-next-page-token" not in larger.headers
    operation = ask(server, "GET", "/openapi.json").json["paths"]["/api/ticks/{symbol}"]["get"]
    texts = {parameter["name"]: parameter["description"] for parameter in operation["parameters"]}
    for text in (texts["limit"], operation["responses"]["200"]["headers"]["X-Next-Page-Token"]["description"]):
        assert str(PAGE_ROWS) in text
    assert "X-Next-Page-Token" in texts["limit"]
    assert "X-Next-Page-Token" in texts["page_token"]


def test_a_parquet_answer_in_pieces_has_the_header_whatever_the_limit(server: Server, long: str) -> None:
    asked = {"start": DAY_MS, "format": "parquet", "limit": PAGE_ROWS + 1}
    answer = read(server, ticks_path(long), {"Range": "bytes=-4"}, **asked)
    assert (answer.status, answer.data) == (206, b"PAR1")
    token = answer.headers["x-next-page-token"]
    (last,) = rows_of(server, ticks_path(long), start=DAY_MS, page_token=token)
    assert last["timestamp"] == text_of(DAY_MS + PAGE_ROWS + 1)


# Tokens that do not belong


def one_token(server: Server, path: str, **params: Any) -> str:
    answer = read(server, path, limit=1, **params)
    assert answer.json["next_page_token"], answer
    return str(answer.json["next_page_token"])


@pytest.fixture(scope="module")
def two(server: Server) -> tuple[str, str]:
    """Two symbols with ticks in several minutes."""
    names = next(SYMBOLS), next(SYMBOLS)
    for name in names:
        store(server, made_ticks(name, range(DAY_MS, DAY_MS + 600_000, 30_000)))
    return names


def test_a_token_of_another_request_is_refused(server: Server, two: tuple[str, str]) -> None:
    one, other = two
    ticks, bars = ticks_path(one), bars_path(one)
    of_bars = {"interval": "1m", "price": "bid", "tz": "UTC"}
    foreign = [
        (ticks_path(other), {"order": "asc"}, one_token(server, ticks, order="asc")),
        (ticks, {"order": "desc"}, one_token(server, ticks, order="asc")),
        (ticks, {"order": "asc"}, one_token(server, ticks, order="desc")),
        (ticks, {}, one_token(server, ticks, order="desc")),
        (ticks, {"order": "asc"}, one_token(server, bars, order="asc")),
        (bars, {"order": "asc"}, one_token(server, ticks, order="asc")),
        (bars_path(other), {"order": "asc"}, one_token(server, bars, order="asc")),
    ]
    for name, value in (("interval", "1s"), ("price", "ask"), ("tz", "Asia/Tokyo"), ("fill", "previous")):
        foreign.append((bars, of_bars | {"order": "asc", name: value}, one_token(server, bars, order="asc", **of_bars)))
    for path, params, token in foreign:
        status, code, message = refusal(server, path, page_token=token, **params)
        assert (status, code) == (400, "bad_parameter"), (path, params)
        assert message.startswith("page_token: ")


def test_a_token_leads_on_with_another_limit_range_or_alias(server: Server, two: tuple[str, str]) -> None:
    token = one_token(server, ticks_path(two[0]), order="asc")
    whole = every_row(server, ticks_path(two[0]))
    for params in ({"order": "asc"}, {}, {"start": DAY_MS}, {"start": DAY_MS, "end": DAY_MS + 10**9}):
        assert read(server, ticks_path(two[0].lower()), page_token=token, **params).json["ticks"] == whole[1:], params


def test_a_token_without_a_range_or_order_leads_on_in_ascending_order(server: Server, two: tuple[str, str]) -> None:
    token = one_token(server, ticks_path(two[0]), order="asc")
    answer = read(server, ticks_path(two[0]), page_token=token, limit=2).json
    assert answer["ticks"] == every_row(server, ticks_path(two[0]))[1:3]
    assert answer["next_page_token"] is not None


@pytest.mark.long
@pytest.mark.parametrize("path_of", [ticks_path, bars_path])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_no_tampered_token_is_more_than_a_bad_parameter(
    server: Server, two: tuple[str, str], path_of: Callable[[str], str], order: str
) -> None:
    rng = random.Random(3)
    path = path_of(two[0])
    good = one_token(server, path, order=order)
    data = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))
    mark, place = data[:6], data[6:]
    tampered = [good[:-1], good + "A", good + "=", good * 2, good.lower(), f" {good}", f"{good}\n", f"{good}\x00"]
    tampered += [good[:3], "=", "-", "%", "\ud800", "\U0001f600", "A" * 2000, "null", "0"]
    places = [b"", place[:-1], place + b"\0", b"\xff" * len(place), b"\x7f" + b"\xff" * (len(place) - 1)]
    places += [b"\x80" + b"\0" * (len(place) - 1), bytes(len(place))]
    places += [bytes(rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256))) for _ in place) for _ in range(100)]
    for edge_us in (253_402_300_799_999_999, -62_135_596_800_000_000, 7_258_118_399_999_999, 0):
        places.append(edge_us.to_bytes(8, "big", signed=True) + place[8:])
    for _ in range(100):
        changed = bytearray(place)
        changed[rng.randrange(len(place))] = rng.randrange(256)
        places.append(bytes(changed))
    tampered += [base64.urlsafe_b64encode(mark + each).decode().rstrip("=") for each in places]
    for token in tampered:
        escaped = "".join(f"%{byte:02X}" for byte in token.encode("utf-8", "surrogatepass"))
        answer = ask(server, "GET", f"{path}?order={order}&limit=5&page_token={escaped}")
        assert answer.status in (200, 400), (token, answer)
        if answer.status == 400:
            assert answer.json["code"] == "bad_parameter"
            assert answer.json["message"].startswith("page_token: ")
