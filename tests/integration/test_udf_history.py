"""UDF's bars are bytes when they leave the lane, and nothing is done with them on the event loop."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from psycopg2.extensions import connection

from app import create_app
from app.formats.table import Table
from app.settings import load
from app.storage.bar_reader import BARS
from app.storage.ticks_writer import TickStore
from app.web.udf_bars import bars_json
from tests.tick_sets import MIDNIGHT_US, Row, stored

BEGINS_S = MIDNIGHT_US // 1_000_000


class _Reads:
    """Reads on an open connection; keeps what crosses to the loop."""

    def __init__(self, conn: connection) -> None:
        self._conn = conn
        self.crossed: list[Any] = []

    def run(self, kind: str, fn: Any, *args: Any, client: Any = None) -> Any:
        with self._conn.cursor() as cur:
            self.crossed.append(fn(cur, *args))
        return self.crossed[-1]


def test_bars_cross_to_the_loop_as_the_answers_bytes(conn: connection) -> None:
    with conn.cursor() as cur:
        cur.execute("SET timezone = 'UTC'; SET extra_float_digits = 1")
        cur.execute("SELECT ensure_tick_partition(to_timestamp(%s))", (BEGINS_S,))
        cur.execute("SELECT symbol_id FROM instruments WHERE symbol = 'TSLA'")
        ((symbol_id,),) = cur.fetchall()
        ticks = [Row(symbol_id=symbol_id, time_us=MIDNIGHT_US + n * 1_000_000, bid=1 + n / 7) for n in range(50)]
        TickStore().write(cur, stored(ticks), {symbol_id: "TSLA"})
    reads, app = _Reads(conn), create_app()
    app.extensions["tickhub"] = SimpleNamespace(
        reads=reads,
        meters=SimpleNamespace(answered=lambda *of: None),
        keys=SimpleNamespace(required=False),
        settings=load({}, env_file=None),
    )
    client = app.test_client()
    prices = [1 + n / 7 for n in range(50)]
    for query, expected in (
        (
            f"from={BEGINS_S}&to={BEGINS_S + 99}",
            {"s": "ok", "t": [*range(BEGINS_S, BEGINS_S + 50)], **dict.fromkeys("ohlc", prices), "v": [0.0] * 50},
        ),
        (f"from={BEGINS_S + 60}&to={BEGINS_S + 99}", {"s": "no_data", "nextTime": BEGINS_S + 49}),
        (f"from={BEGINS_S - 60}&to={BEGINS_S}", {"s": "no_data"}),
        (f"countback=3&to={BEGINS_S}", {"s": "no_data"}),
    ):
        answer = client.get(f"/udf/history?symbol=tsla.us&resolution=1S&{query}")
        assert (answer.status_code, answer.mimetype) == (200, "application/json")
        assert json.loads(answer.data) == expected
        assert reads.crossed[-1] == answer.data


@pytest.mark.parametrize("bars", [1, 1999, 2000, 2001, 4000, 4001])
def test_numbers_that_are_encoded_in_slices_are_all_there_to_the_last_bit(bars: int) -> None:
    rng = np.random.default_rng(bars)
    columns: dict[str, Any] = {field.name: 10 ** rng.uniform(-8, 12, bars) for field in BARS}
    columns["timestamp"] = MIDNIGHT_US + 60_000_000 * np.arange(bars, dtype=np.int64)
    found = json.loads(bars_json(Table(BARS, [columns[field.name] for field in BARS])))
    assert found.pop("s") == "ok"
    assert found.pop("t") == [BEGINS_S + 60 * n for n in range(bars)]
    names = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
    assert {names[short]: [*map(repr, values)] for short, values in found.items()} == {
        name: [*map(repr, columns[name].tolist())] for name in names.values()
    }
