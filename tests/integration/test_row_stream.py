"""What tells one answer from another: all that it is made of."""

from __future__ import annotations

from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import connection

from app import row_stream
from app.market.intervals import Buckets
from app.row_stream import RowsRequest, RowStream
from app.sources import BarSource
from app.storage.bar_reader import BarQuery
from app.storage.ticks_writer import TickStore
from tests.tick_sets import MIDNIGHT_US, Row, stored


def _answer(url: str) -> tuple[bytes, str]:
    """Return the one-second bars of TSLA's first hour, and their identity, as a new request has them."""
    query = BarQuery(Buckets("1s"), "bid", MIDNIGHT_US, MIDNIGHT_US + 3_600_000_000, fill=False, now_us=1 << 60)
    stream = RowStream(RowsRequest("TSLA", BarSource(query, {}, ("bars",)), "json", limit=100))
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        stream.open(cur, with_version=True)
        return stream.page(cur), stream.identity()


def test_an_answer_whose_instrument_is_allowed_other_prices_is_another_one(
    conn: connection, database_url: str
) -> None:
    with conn.cursor() as cur:
        cur.execute("SELECT ensure_tick_partition(to_timestamp(%s))", (MIDNIGHT_US / 1e6,))
        # Stored while such prices were allowed; its minute has a bar, and bars of a second are made of the tick.
        cur.execute("UPDATE instruments SET allow_nonpositive = true WHERE symbol = 'TSLA'")
        cur.execute("SELECT symbol_id FROM instruments WHERE symbol = 'TSLA'")
        ((symbol_id,),) = cur.fetchall()
        tick = Row(symbol_id=symbol_id, time_us=MIDNIGHT_US + 5, bid=-1.0, flags=6, nonpositive_ok=True)
        TickStore().write(cur, stored([tick]), {symbol_id: "TSLA"})
        conn.commit()
        before = _answer(database_url)
        assert _answer(database_url) == before
        cur.execute("UPDATE instruments SET allow_nonpositive = false WHERE symbol = 'TSLA'")
        conn.commit()
        after = _answer(database_url)
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_an_answer_of_a_release_that_writes_it_otherwise_is_another_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _answer(database_url)
    assert _answer(database_url) == before
    monkeypatch.setattr(row_stream, "ANSWERS_VERSION", row_stream.ANSWERS_VERSION + 1)
    assert _answer(database_url)[1] != before[1]
