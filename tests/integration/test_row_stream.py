"""What tells one answer from another: all that it is made of."""

from __future__ import annotations

from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import connection

from app import row_stream
from app.formats.encoders import Format
from app.market.intervals import Buckets
from app.row_stream import RowsRequest, RowStream
from app.sources import BarSource, TickSource
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


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_an_answer_is_the_same_whatever_the_lengths_of_its_pages(
    conn: connection, database_url: str, form: Format
) -> None:
    with conn.cursor() as cur:
        cur.execute("SELECT ensure_tick_partition(to_timestamp(%s))", (MIDNIGHT_US / 1e6,))
        cur.execute("SELECT symbol_id FROM instruments WHERE symbol = 'TSLA'")
        ((symbol_id,),) = cur.fetchall()
        rows = [Row(symbol_id=symbol_id, time_us=MIDNIGHT_US + at // 3, seq=at, bid=1.0 + at) for at in range(100)]
        TickStore().write(cur, stored(rows), {symbol_id: "TSLA"})
        conn.commit()
    request = RowsRequest("TSLA", TickSource(MIDNIGHT_US, MIDNIGHT_US + 1000), form, limit=90)
    answers = []
    for lengths in ([100], [1, 7, 50, 2, 100], [40, 40, 40]):
        stream, answer = RowStream(request), b""
        with closing(psycopg2.connect(database_url)) as own, own.cursor() as cur:
            stream.open(cur, with_version=False)
            for stream.page_rows in lengths:
                answer += b"" if stream.done else stream.page(cur)
        assert stream.done
        answers.append(answer)
    assert answers[0].count(b"\n") == 90 + (form == "csv")
    assert answers[1:] == [answers[0]] * 2
