"""The version of a range: changed by whatever changes its ticks, by nothing else, and never seen twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection, cursor

from app.market.bars import aggregate
from app.storage.bars_sql import merge_bars
from app.storage.connection import Connection
from app.storage.instruments import Known
from app.storage.range_version import DAY_US, range_version
from app.storage.rebuild import rebuild_bars
from app.storage.ticks_writer import TickStore
from tests.tick_sets import MIDNIGHT_US, Row, rows, stored

NAMES = {1: "TSLA", 2: "NVDA", 3: "AAPL"}
DAY = (MIDNIGHT_US, MIDNIGHT_US + DAY_US)


@pytest.fixture
def cur(conn: connection) -> Iterator[cursor]:
    with conn.cursor() as open_cursor:
        for week in (-1, 0, 1):
            open_cursor.execute(
                "SELECT ensure_tick_partition(to_timestamp(%s))", (MIDNIGHT_US / 1e6 + week * 7 * 86_400,)
            )
        conn.commit()
        yield open_cursor


def _flush(cur: cursor, *ticks: Row) -> None:
    TickStore().write(cur, stored(list(ticks)), NAMES)


def _day(cur: cursor) -> str:
    return range_version(cur, 1, *DAY)


@pytest.mark.parametrize(
    "tick",
    [
        Row(time_us=MIDNIGHT_US),
        Row(time_us=MIDNIGHT_US + DAY_US - 1),
        Row(time_us=MIDNIGHT_US + 5, flags=0),
        Row(time_us=MIDNIGHT_US + 5, seq=-7, last=3.0, volume=2.0, flags=24),
    ],
)
@pytest.mark.parametrize("first", [[], [Row(bid=1.0, seq=9)]])
def test_a_tick_of_the_day_changes_it(cur: cursor, first: list[Row], tick: Row) -> None:
    _flush(cur, *first)
    before = _day(cur)
    _flush(cur, tick)
    assert _day(cur) != before


@pytest.mark.parametrize(
    "tick",
    [Row(time_us=MIDNIGHT_US - 1), Row(time_us=MIDNIGHT_US + DAY_US), Row(symbol_id=2, time_us=MIDNIGHT_US)],
)
def test_a_tick_of_another_day_or_symbol_does_not(cur: cursor, tick: Row) -> None:
    _flush(cur, Row(bid=1.0, seq=9))
    before = _day(cur)
    _flush(cur, tick)
    assert _day(cur) == before


def test_a_range_within_a_day_has_the_versions_of_the_days_it_touches(cur: cursor) -> None:
    _flush(cur, Row(), Row(time_us=MIDNIGHT_US + DAY_US))
    first, both = _day(cur), range_version(cur, 1, MIDNIGHT_US, MIDNIGHT_US + DAY_US + 1)
    assert first != both
    assert range_version(cur, 1, MIDNIGHT_US + 1, MIDNIGHT_US + 2) == first
    assert range_version(cur, 1, MIDNIGHT_US + DAY_US - 1, MIDNIGHT_US + DAY_US) == first
    assert range_version(cur, 1, MIDNIGHT_US + DAY_US - 1, MIDNIGHT_US + DAY_US + 1) == both
    assert range_version(cur, 1, None, None) == both
    assert range_version(cur, 1, None, MIDNIGHT_US + 1) == first
    nothing = range_version(cur, 3, None, None)
    assert range_version(cur, 1, None, MIDNIGHT_US) == nothing
    assert range_version(cur, 1, MIDNIGHT_US + 2 * DAY_US, None) == nothing
    assert range_version(cur, 1, MIDNIGHT_US + 5, MIDNIGHT_US + 5) == nothing
    assert range_version(cur, 1, MIDNIGHT_US + 5, MIDNIGHT_US - DAY_US) == nothing


def test_duplicates_and_what_is_set_aside_change_nothing(cur: cursor) -> None:
    _flush(cur, Row(bid=1.0), Row(seq=-3, bid=2.0))
    before = _day(cur)
    _flush(cur, Row(bid=1.0), Row(seq=-3, bid=2.0))
    _flush(cur, Row(bid=7.0))
    cur.execute("SELECT count(*) FROM rejected_ticks")
    assert cur.fetchone() == (1,)
    assert _day(cur) == before


def test_it_is_seen_with_the_tick_and_goes_with_it(conn: connection, cur: cursor, database_url: str) -> None:
    _flush(cur, Row(bid=1.0))
    conn.commit()
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as theirs:
        before = _day(theirs)
        other.rollback()
        _flush(cur, Row(seq=1, bid=2.0))
        mine = _day(cur)
        assert mine != before == _day(theirs)
        other.rollback()
        conn.rollback()
        assert _day(cur) == before
        _flush(cur, Row(seq=1, bid=2.0))
        conn.commit()
        assert _day(theirs) == _day(cur)
        assert _day(cur) not in (before, mine)  # the same tick, stored by another transaction


def test_what_is_computed_again_has_a_new_version(conn: connection, cur: cursor, own: Connection) -> None:
    _flush(cur, Row(bid=1.0), Row(time_us=MIDNIGHT_US + DAY_US))
    conn.commit()
    before = range_version(cur, 1, None, None)
    conn.commit()
    assert list(rebuild_bars(own, Known(1, "TSLA", None, False))) == [1, 1]
    after = range_version(cur, 1, None, None)
    assert after != before
    cur.execute("SELECT count(*) FILTER (WHERE version = 0) FROM bars")
    assert cur.fetchone() == (0,)


def test_bars_from_before_there_were_versions_count_too(cur: cursor) -> None:
    nothing = _day(cur)
    _flush(cur, Row())
    cur.execute("UPDATE bars SET version = 0")
    old = _day(cur)
    assert old != nothing
    _flush(cur, Row(seq=1))
    assert _day(cur) != old


def test_every_bar_of_one_write_has_one_version_and_the_next_write_another(cur: cursor) -> None:
    ticks = [Row(), Row(time_us=MIDNIGHT_US + 3_600_000_000), Row(symbol_id=2)]
    found = []
    for _ in range(3):
        merge_bars(cur, aggregate(stored(ticks)))
        cur.execute("SELECT DISTINCT version FROM bars")
        found.append([version for (version,) in cur.fetchall()])
    assert [len(versions) for versions in found] == [1, 1, 1]
    numbers = {versions[0] for versions in found}
    assert len(numbers) == 3
    assert all(0 <= number < 2**63 for number in numbers)


@pytest.mark.long
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows(max_size=8), max_size=5))
def test_it_changes_when_and_only_when_the_ticks_of_its_days_do(cur: cursor, batches: list[list[Row]]) -> None:
    """Against the ticks themselves: whatever comes late, twice or in conflict, by days and symbols."""
    spans = [(MIDNIGHT_US + day * DAY_US, MIDNIGHT_US + (day + 1) * DAY_US) for day in (-2, -1, 0, 1)]
    spans += [(spans[1][0], spans[2][1])]
    seen: dict[tuple[int, int, int], list[tuple[str, int]]] = {}
    for batch in [[], *batches]:
        _flush(cur, *batch)
        for symbol_id in NAMES:
            for start, end in spans:
                cur.execute(
                    "SELECT count(*) FROM ticks WHERE symbol_id = %s AND time >= to_timestamp(%s)"
                    " AND time < to_timestamp(%s)",
                    (symbol_id, start // 10**6, end // 10**6),
                )
                row = cur.fetchone()
                assert row is not None
                found = (range_version(cur, symbol_id, start, end), int(row[0]))
                known = seen.setdefault((symbol_id, start, end), [found])
                if known[-1] != found:
                    known.append(found)
    cur.connection.rollback()
    for known in seen.values():
        # Ticks are only added here: a pair that stands once a count and once a version is a change for a change.
        assert len({count for _, count in known}) == len(known) == len({version for version, _ in known})
