"""What somebody changes about an instrument counts for a server that runs."""

from __future__ import annotations

import pytest
from psycopg2.extensions import connection

from app.storage import instruments
from app.storage.sink import DatabaseSink
from tests.batches import (
    NOON_US,
    Feeder,
    Tick,
    assert_bars_and_current_are_those_of_a_clean_load,
    execute,
    rows_of,
    write_all,
)


def test_an_instrument_that_may_trade_below_zero_from_now_on_has_bars_there(
    conn: connection, sink: DatabaseSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeder = Feeder()
    write_all(sink, feeder, [Tick(symbol="SpotCrude")])
    execute(conn, "UPDATE instruments SET allow_nonpositive = true, digits = 2 WHERE symbol = 'SpotCrude'")
    monkeypatch.setattr(instruments, "READ_AGAIN_S", 0.0)
    write_all(sink, feeder, [Tick(symbol="SpotCrude", time_us=NOON_US + 1000, bid=-37.63, ask=-37.61)])
    assert rows_of(conn, "SELECT DISTINCT bid_low FROM bars") == [(-37.63,)]
    assert rows_of(conn, "SELECT bid, spread FROM current") == [(-37.63, 2.0)]
    assert_bars_and_current_are_those_of_a_clean_load(conn)


def test_instruments_are_not_read_anew_for_every_flush(conn: connection, sink: DatabaseSink) -> None:
    feeder = Feeder()
    write_all(sink, feeder, [Tick()])
    execute(conn, "UPDATE instruments SET digits = 5 WHERE symbol = 'TSLA'")
    write_all(sink, feeder, [Tick(time_us=NOON_US + 1000)])
    assert rows_of(conn, "SELECT spread FROM current") == [(None,)]
