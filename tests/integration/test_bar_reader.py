"""Bars read from a real database, against a plain reading of the ticks: every range, page size, direction and gap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection, cursor

from app.market.bar_series import PRICES
from app.market.intervals import INTERVALS, Buckets
from app.storage import bar_sources
from app.storage.bar_reader import BARS, BarQuery, read_bars
from app.storage.tick_reader import read_ticks
from app.storage.ticks_writer import TickStore
from tests.tick_sets import MIDNIGHT_US, NAN, Row, key_of, stored

NAMES = {1: "TSLA", 2: "NVDA"}
DAY_US = 86_400_000_000
NEVER_US = MIDNIGHT_US + 10_000 * DAY_US
ROUNDS_THE_WORLD = ("UTC", "America/New_York", "Asia/Kathmandu")

Bar = tuple[Any, ...]
"""The values of a bar as BARS names them, floats as text."""


@pytest.fixture
def cur(conn: connection) -> Iterator[cursor]:
    with conn.cursor() as open_cursor:
        open_cursor.execute("SET timezone = 'UTC'")
        yield open_cursor


def _store(cur: cursor, ticks: list[Row]) -> None:
    for week in sorted({row.time_us // (7 * DAY_US) for row in ticks}):
        for day in (0, 6):
            cur.execute("SELECT ensure_tick_partition(to_timestamp(%s))", ((week * 7 + day) * 86_400,))
    TickStore().write(cur, stored(ticks), NAMES)


def _query(interval: str, zone: str = "UTC", price: str = "bid", **rest: Any) -> BarQuery:
    defaults = {"start_us": None, "end_us": None, "fill": False, "now_us": NEVER_US}
    return BarQuery(Buckets(interval, zone), price, **(defaults | rest))


def _read(cur: cursor, query: BarQuery, descending: bool = False, page_bars: int = 1000) -> list[Bar]:
    """Read all pages; every one but the last is full, and says that there are more."""
    bars: list[Bar] = []
    after_us = None
    while True:
        page = read_bars(cur, 1, False, query, after_us=after_us, descending=descending, max_bars=page_bars)
        assert page.table.fields == BARS
        found = [tuple(map(_plain, row)) for row in zip(*page.table.columns, strict=True)]
        bars += found
        if not page.more:
            assert len(found) <= page_bars
            return bars
        assert len(found) == page_bars
        assert found[-1][0] != after_us, "the same page again, for ever"
        after_us = found[-1][0]


def _plain(value: Any) -> Any:
    return repr(float(value)) if isinstance(value, np.float64) else value.item()


def _plain_bar(ticks: list[Row], price: str) -> list[Any] | None:
    """Return open, high, low, close and the volumes of ticks in their order; None without a price."""

    def prices(name: str) -> list[float]:
        found = []
        for row in ticks:
            value = (row.bid + row.ask) / 2 if name == "mid" else float(getattr(row, name))
            sides = (row.bid, row.ask) if name == "mid" else (value,)
            if all(side > 0 for side in sides) and (name != "last" or row.flags & 8):
                found.append(value)
        return found

    values = prices(price) or (prices("last") if price == "bid" else [])
    if not values:
        return None
    volumes = [
        sum(round(row.volume * 10**8) for row in ticks if row.flags & bits == bits) / 10**8 for bits in (8, 40, 72)
    ]
    return [*map(repr, (values[0], max(values), min(values), values[-1])), *map(repr, volumes), len(ticks)]


def _plain_bars(ticks: list[Row], query: BarQuery) -> list[Bar]:
    """Return all that the query asks for, rising in time, one bucket at a time."""
    buckets = query.buckets
    by_start: dict[int, list[Row]] = {}
    for row in sorted(ticks, key=key_of):
        by_start.setdefault(buckets.start(row.time_us), []).append(row)
    all_bars = {start: bar for start, rows in by_start.items() if (bar := _plain_bar(rows, query.price))}
    low = -math.inf if query.start_us is None else query.start_us
    high = math.inf if query.end_us is None else query.end_us
    bars = {start: bar for start, bar in all_bars.items() if low <= start < high}
    if query.fill:
        earlier = [start for start in all_bars if start < low]
        first = buckets.first_from(int(low)) if earlier and low > -math.inf else min(bars, default=None)
        if first is not None:
            end = max(bars, default=first - 1) + 1
            if query.start_us is not None or query.end_us is not None:
                end = max(end, min(high, query.now_us))
            close = all_bars[max(earlier)][3] if earlier else None
            at = first
            while at < end:
                if at in bars:
                    close = bars[at][3]
                else:
                    bars[at] = [*[close] * 4, *["0.0"] * 3, 0]
                at = buckets.next(at)
    return [(start, *bars[start], buckets.next(start) <= query.now_us) for start in sorted(bars)]


@dataclass
class _Drawn:
    ticks: list[Row]
    query: BarQuery
    descending: bool
    page_bars: int
    chunk_rows: int


@st.composite
def _cases(draw: st.DrawFn) -> _Drawn:
    """Draw some ticks within some forty buckets, and a query around them."""
    interval = draw(st.sampled_from(INTERVALS))
    zone = draw(st.sampled_from(ROUNDS_THE_WORLD))
    buckets = Buckets(interval, zone)
    step_us = buckets.longest_s * 1_000_000
    time = st.builds(
        lambda bucket, within: MIDNIGHT_US + bucket * step_us + within,
        st.integers(0, 40) | st.integers(0, 3),
        st.sampled_from([0, 1, 500_000, step_us // 2, step_us - 1]) | st.integers(0, 5).map(lambda m: m * 60_000_000),
    )
    price = st.sampled_from([NAN, 0.0, 1.5, 2.0, 2.25])
    ticks = draw(
        st.lists(
            st.builds(
                Row,
                time_us=time,
                seq=st.integers(-3, 3),
                bid=price,
                ask=price,
                last=price,
                volume=st.sampled_from([0.0, 0.1, 0.3, 4.0]),
                flags=st.sampled_from([6, 6, 24, 56, 88, 96]),
                journal_no=st.integers(1, 2),
                received_us=st.integers(0, 1000).map(lambda us: MIDNIGHT_US + us),
            ),
            max_size=60,
            unique_by=(lambda row: (row.time_us, row.seq), lambda row: (row.time_us, key_of(row))),
        )
    )
    around = st.none() | time | time.map(lambda us: us - 3 * step_us) | time.map(lambda us: us + 5 * step_us)
    query = BarQuery(
        buckets, draw(st.sampled_from(PRICES)), draw(around), draw(around), draw(st.booleans()), draw(time) + 3
    )
    return _Drawn(
        ticks, query, draw(st.booleans()), draw(st.sampled_from([1, 2, 3, 7, 1000])), draw(st.sampled_from([1, 5, 99]))
    )


def _pages_are_a_plain_reading(conn: connection, cur: cursor, drawn: _Drawn) -> None:
    _store(cur, drawn.ticks)
    with patch.multiple(bar_sources, CHUNK_ROWS=drawn.chunk_rows, FIRST_ROWS=1):
        found = _read(cur, drawn.query, drawn.descending, drawn.page_bars)
    conn.rollback()
    expected = _plain_bars(drawn.ticks, drawn.query)
    assert found == (expected[::-1] if drawn.descending else expected)


# The database is one for all examples; each rolls back.
FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.long
@FEW
@given(_cases())
def test_pages_in_either_direction_are_what_a_plain_reading_of_the_ticks_gives(
    conn: connection, cur: cursor, drawn: _Drawn
) -> None:
    _pages_are_a_plain_reading(conn, cur, drawn)


@pytest.mark.long
@settings(FEW, max_examples=600)
@given(_cases())
def test_very_many_pages_are_what_a_plain_reading_of_the_ticks_gives(
    conn: connection, cur: cursor, drawn: _Drawn
) -> None:
    _pages_are_a_plain_reading(conn, cur, drawn)


@pytest.mark.long
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("bounds", [(None, None), (-2, None), (None, 50), (-2, 50), (11, 29), (11, None), (None, 29)])
def test_pages_may_end_within_a_gap(
    conn: connection, cur: cursor, bounds: tuple[int | None, int | None], descending: bool
) -> None:
    """Ticks in buckets 0, 1, 2, 10, 30 and 31; now is in 40."""
    for interval in ("1s", "1m", "5m", "4h", "1d", "1M"):
        buckets = Buckets(interval)
        first_us = buckets.start(MIDNIGHT_US)
        starts = buckets.between(first_us, first_us + 60 * buckets.longest_s * 1_000_000).tolist()
        ticks = [Row(time_us=starts[at] + 1, bid=float(at + 1)) for at in (0, 1, 2, 10, 30, 31)]
        _store(cur, ticks)
        low, high = (None if at is None else starts[at] if at >= 0 else first_us - 70 * DAY_US for at in bounds)
        query = _query(interval, start_us=low, end_us=high, fill=True, now_us=starts[40] + 1)
        expected = _plain_bars(ticks, query)
        for page_bars in (1, 5):
            found = _read(cur, query, descending, page_bars)
            assert found == (expected[::-1] if descending else expected), (interval, page_bars)
        conn.rollback()
        cur.execute("SET timezone = 'UTC'")


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("bounds", [(None, None), (0, None), (0, 100), (None, 100)])
def test_a_page_of_filled_bars_reads_only_the_ticks_that_it_reaches(
    cur: cursor, bounds: tuple[int | None, int | None], descending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick every 30 s for 50 minutes: of bars of a second, a page of 60 holds two or three ticks."""
    ticks = [Row(time_us=_at(0, 30 * number), bid=float(number + 1)) for number in range(100)]
    _store(cur, ticks)
    read = 0

    def counting(*args: Any, **named: Any) -> Any:
        nonlocal read
        page = read_ticks(*args, **named)
        read += len(page.table)
        return page

    monkeypatch.setattr(bar_sources, "read_ticks", counting)
    low_us, high_us = (None if at is None else _at(0, 30 * at) for at in bounds)
    query = _query("1s", start_us=low_us, end_us=high_us, fill=True, now_us=_at(0, 3000))
    expected = _plain_bars(ticks, query)
    expected = expected[::-1] if descending else expected
    after_us = None
    for at in (0, 60, 120):
        read = 0
        page = read_bars(cur, 1, False, query, after_us=after_us, descending=descending, max_bars=60)
        found = [tuple(map(_plain, row)) for row in zip(*page.table.columns, strict=True)]
        assert found == expected[at : at + 60]
        # Those of the page, and the one before it, looked for a minute or two at a time.
        assert read <= 12
        after_us = found[-1][0]


@pytest.mark.long
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 7])
def test_parts_that_end_anywhere_lose_and_repeat_nothing(
    cur: cursor, chunk_rows: int, descending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar_sources, "CHUNK_ROWS", chunk_rows)
    monkeypatch.setattr(bar_sources, "FIRST_ROWS", 1)
    ticks = [
        Row(
            time_us=_at(0, 60 * minute + second),
            seq=seq,
            bid=1.0 + minute + second / 64 + seq / 256,
            received_us=seq + 9,
        )
        for minute in range(20)
        for second in (0, 0.5, 31)
        for seq in (-3, -2, 0, 5)
    ]
    _store(cur, ticks)
    for interval, zone in (("1s", "UTC"), ("30s", "UTC"), ("3m", "UTC"), ("5m", "UTC"), ("1d", "Asia/Kathmandu")):
        query = _query(interval, zone)
        expected = _plain_bars(ticks, query)
        assert _read(cur, query, descending) == (expected[::-1] if descending else expected), interval


def _at(day: int, second: float = 0) -> int:
    return MIDNIGHT_US + day * DAY_US + round(second * 1_000_000)


def _times(bars: list[Bar]) -> list[int]:
    return [bar[0] for bar in bars]


@pytest.mark.parametrize("interval", ["1m", "1h", "1d"])
def test_a_range_chooses_bars_by_their_start_and_a_bar_is_whole(cur: cursor, interval: str) -> None:
    step = Buckets(interval).longest_s
    _store(cur, [Row(time_us=_at(0, step * bucket + second), bid=1.5) for bucket in range(4) for second in (0, 31)])
    bars = _read(cur, _query(interval, start_us=_at(0, 1), end_us=_at(0, 2 * step + 1)))
    assert [(bar[0], bar[8]) for bar in bars] == [(_at(0, step), 2), (_at(0, 2 * step), 2)]
    assert _times(_read(cur, _query(interval, start_us=_at(0, step), end_us=_at(0, 2 * step)))) == [_at(0, step)]


def test_the_running_bar_is_there_and_not_complete(cur: cursor) -> None:
    _store(cur, [Row(time_us=_at(0), bid=1.5), Row(time_us=_at(70, 5), bid=2.5)])
    for interval in INTERVALS:
        end_us = Buckets(interval).next(_at(70, 5))
        for now_us, complete in ((_at(70, 5), False), (end_us - 1, False), (end_us, True)):
            found = [bar[9] for bar in _read(cur, _query(interval, now_us=now_us))]
            assert (interval, found) == (interval, [True, complete])


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("fill", [False, True])
def test_nothing_stored_is_an_empty_page(cur: cursor, descending: bool, fill: bool) -> None:
    _store(cur, [Row(symbol_id=2, time_us=_at(0), bid=1.5)])
    for interval in INTERVALS:
        for start, end in ((None, None), (_at(-3), None), (None, _at(3)), (_at(-3), _at(3)), (_at(3), _at(-3))):
            assert _read(cur, _query(interval, start_us=start, end_us=end, fill=fill), descending) == []


@pytest.mark.parametrize("zone", ROUNDS_THE_WORLD)
@pytest.mark.parametrize("descending", [False, True])
def test_bounds_of_any_year_are_understood(cur: cursor, zone: str, descending: bool) -> None:
    _store(cur, [Row(time_us=_at(0), bid=1.5)])
    first, last = -62_135_596_800_000_000, 253_402_300_799_999_999
    for interval in INTERVALS:
        query = _query(interval, zone, start_us=first, end_us=last)
        filled = _query(interval, zone, start_us=first, end_us=last, fill=True, now_us=_at(0, 1))
        assert len(_read(cur, query, descending)) == len(_read(cur, filled, descending)) == 1
        assert _read(cur, _query(interval, zone, start_us=last, end_us=last), descending) == []
        for after_us in (first, last):
            page = read_bars(cur, 1, False, query, after_us=after_us, descending=descending, max_bars=5)
            assert len(page.table) == (descending == (after_us == last))
            page = read_bars(cur, 1, False, filled, after_us=after_us, descending=descending, max_bars=5)
            assert len(page.table) <= 5


def test_prices_that_are_not_positive_count_where_the_instrument_allows_them(cur: cursor) -> None:
    cur.execute("UPDATE instruments SET allow_nonpositive = true WHERE symbol_id = 1")
    _store(cur, [Row(time_us=_at(0, 1), bid=-3.5, nonpositive_ok=True)])
    for interval in INTERVALS:
        page = read_bars(cur, 1, True, _query(interval), after_us=None, descending=False, max_bars=5)
        assert list(page.table.columns[4]) == [-3.5]


def test_volumes_of_any_size_are_exact(cur: cursor) -> None:
    """As the table's sums, also beyond what 64 bits hold in units of 1e-8."""
    volumes = [0.0, 1e-8, 0.1, 1e9, 44_999_999_999.25, 45e9, 123_456_789_012.25, 1e12]
    ticks = [
        Row(time_us=_at(0, 60 * at), seq=seq, last=1.0, volume=volume, flags=(24, 56, 88)[seq % 3])
        for at, volume in enumerate(volumes)
        for seq in range(at + 1)
    ]
    _store(cur, ticks)
    names = ("volume", "buy_volume", "sell_volume")
    cur.execute(
        f"SELECT {', '.join(f'array_agg({name}::float8 ORDER BY time)' for name in names)}"
        " FROM bars WHERE resolution = 60 AND symbol_id = 1"
    )
    minutes = cur.fetchone()
    assert minutes is not None
    for interval in ("1m", "15m", "1h", "4h", "1d"):
        bars = _read(cur, _query(interval, price="last"))
        for name, expected in zip(names, minutes, strict=True):
            at = [field.name for field in BARS].index(name)
            cur.execute(f"SELECT sum({name})::float8 FROM bars WHERE resolution = 60 AND symbol_id = 1")
            found = [float(bar[at]) for bar in bars]
            assert found == ([*expected] if interval == "1m" else [*(cur.fetchone() or ())])
    assert float(_read(cur, _query("30s", price="last"))[-1][5]) == 8e12


# ---- what a page costs


@dataclass
class _Watched:
    """A cursor that remembers what passed through it."""

    cur: cursor
    queries: list[str] = field(default_factory=list)
    most_bytes: int = 0
    mogrify: Callable[..., bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.mogrify = self.cur.mogrify

    @property
    def statements(self) -> int:
        return len(self.queries)

    def execute(self, query: str, parameters: Any = None) -> None:
        self.queries.append(query)
        self.cur.execute(query, parameters)

    def fetchone(self) -> Any:
        return self.cur.fetchone()

    def copy_expert(self, query: str, out: Any) -> None:
        self.queries.append(query)
        self.cur.copy_expert(query, out)
        self.most_bytes = max(self.most_bytes, out.tell())


def _cost(cur: cursor, query: BarQuery, max_bars: int, descending: bool = False) -> tuple[_Watched, int]:
    watched = _Watched(cur)
    page = read_bars(watched, 1, False, query, after_us=None, descending=descending, max_bars=max_bars)  # type: ignore[arg-type]
    return watched, len(page.table)


@pytest.mark.parametrize("descending", [False, True])
def test_maintained_bars_are_one_look_into_the_index(cur: cursor, descending: bool) -> None:
    _store(cur, [Row(time_us=_at(day, 60 * minute), bid=1.5) for day in range(3) for minute in range(300)])
    for interval in ("1m", "1h", "1d"):
        watched, bars = _cost(cur, _query(interval), 2, descending)
        assert (watched.statements, bars) == (1, 2)
        assert watched.most_bytes < 700


@pytest.mark.long
@pytest.mark.parametrize("descending", [False, True])
def test_a_sparse_symbol_costs_few_statements(cur: cursor, descending: bool) -> None:
    """A tick every 200 days: a look at every bucket, or week of ticks, would be thousands."""
    _store(cur, [Row(time_us=_at(day, 5), bid=1.5) for day in range(-4000, 1, 200)])
    for interval in INTERVALS:
        for zone in ROUNDS_THE_WORLD:
            for fill in (False, True):
                query = _query(interval, zone, start_us=_at(-4040), fill=fill, now_us=_at(1))
                watched, bars = _cost(cur, query, 50, descending)
                assert bars == (50 if fill else 21)
                assert watched.statements <= 60


@pytest.mark.parametrize("interval", ["1s", "30s"])
@pytest.mark.parametrize("descending", [False, True])
def test_a_bucket_of_very_many_ticks_is_read_a_part_at_a_time(
    cur: cursor, interval: str, descending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar_sources, "CHUNK_ROWS", 500)
    count = 6_000
    ticks = [
        # Many share a time, so that a part ends between two ticks of one time, with and without seq.
        Row(time_us=_at(0, 0.25 * (at // 1500)), seq=at if at % 2 else -at - 1, bid=1.0 + at % 977,
            last=5.0, volume=0.1, flags=24, received_us=MIDNIGHT_US + at * 7919 % 6000)
        for at in range(count)
    ]  # fmt: skip
    _store(cur, [*ticks, Row(time_us=_at(0, 31), bid=7.5), Row(time_us=_at(0, 90), bid=8.5)])
    watched, bars = _cost(cur, _query(interval), 1000, descending)
    assert bars == 3
    assert watched.most_bytes < 502 * 120
    first = _plain_bar(sorted(ticks, key=key_of), "bid")
    assert first is not None
    found = _read(cur, _query(interval), descending)
    assert list(found[-1 if descending else 0][1:9]) == first


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Africa/Monrovia"])
@pytest.mark.parametrize("descending", [False, True])
def test_months_of_minutes_or_ticks_are_read_a_part_at_a_time(
    cur: cursor, zone: str, descending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar_sources, "CHUNK_ROWS", 300)
    first_us = 31_536_000_000_000  # 1971, when a day in Monrovia began within a minute
    ticks = [Row(time_us=first_us + at * 1_700_000_000, bid=1.0 + at % 89) for at in range(5_000)]
    _store(cur, ticks)
    query = _query("1M", zone, end_us=first_us + 90 * DAY_US)
    watched, bars = _cost(cur, query, 1000, descending)
    assert bars == 4
    assert watched.most_bytes < 302 * 250
    expected = _plain_bars(ticks, query)
    assert _read(cur, query, descending) == (expected[::-1] if descending else expected)


def test_a_price_that_there_never_is_is_not_searched_for(cur: cursor) -> None:
    _store(cur, [Row(time_us=_at(day, 60 * minute), bid=1.5) for day in range(3) for minute in range(300)])
    for price in ("ask", "mid", "last"):
        for interval in INTERVALS:
            watched, bars = _cost(cur, _query(interval, price=price), 1000)
            assert (watched.statements, bars) == (1, 0)
            assert "resolution = 86400" in watched.queries[0]


@given(st.lists(st.tuples(st.integers(1, 10**6), st.sampled_from([1, 9_999, 10_001, 20_000, 10**6])), max_size=30))
def test_ticks_are_asked_for_in_ranges_that_are_bounded(gaps: list[tuple[int, int]]) -> None:
    minutes = np.cumsum(np.array([60_000_000 * minute for minute, _ in gaps], np.int64))
    ticks = np.array([count for _, count in gaps], np.int64)
    for order in (slice(None), slice(None, None, -1)):
        cuts = list(bar_sources._cuts(minutes[order], ticks[order]))
        assert [at for first, last in cuts for at in range(first, last + 1)] == list(range(len(gaps)))
        for first, last in cuts:
            assert first == last or ticks[order][first : last + 1].sum() <= bar_sources.CHUNK_ROWS
            assert abs(minutes[order][first] - minutes[order][last]) <= 28 * DAY_US


# ---- while ticks arrive


@pytest.mark.long
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("fill", [False, True])
def test_each_bar_comes_once_whatever_arrives_between_pages(
    conn: connection, cur: cursor, descending: bool, fill: bool
) -> None:
    random = np.random.default_rng(5)
    for interval in ("30s", "1m", "5m", "1d"):
        step_us = Buckets(interval).longest_s * 1_000_000
        query = _query(interval, start_us=_at(0), end_us=_at(0) + 60 * step_us, fill=fill)

        def arrive(seq: int, step_us: int = step_us) -> None:
            times = {_at(0) + int(at) * step_us for at in random.integers(0, 60, 5)}
            _store(cur, [Row(time_us=us, seq=seq, bid=1.5) for us in times])

        arrive(0)
        before = set(_times(_read(cur, query)))
        seen: list[int] = []
        after_us = None
        for seq in range(1, 100):
            page = read_bars(cur, 1, False, query, after_us=after_us, descending=descending, max_bars=4)
            seen += page.table.columns[0].tolist()  # type: ignore[union-attr]
            if not page.more:
                break
            after_us = seen[-1]
            arrive(seq)
        assert seen == sorted(set(seen), reverse=descending)
        assert before <= set(seen)
        conn.rollback()
        cur.execute("SET timezone = 'UTC'")
