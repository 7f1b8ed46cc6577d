"""Rows that cannot be stored are kept in `rejected_ticks` with the reason, once. Lane side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from app.market.columns import StoredTicks

_INSERT = """
    INSERT INTO rejected_ticks (journal_no, row_no, symbol, time, seq, bid, ask, last, spread, volume, flags,
        code, message, received_at)
    VALUES %s ON CONFLICT DO NOTHING
"""
_TEMPLATE = """(%s, %s, %s, timestamptz 'epoch' + %s * interval '1 microsecond', %s, %s, %s, %s, %s, %s, %s, %s, %s,
    timestamptz 'epoch' + %s * interval '1 microsecond')"""


def set_aside(cur: Cursor, ticks: StoredTicks, names: Mapping[int, str], code: str, message: str) -> None:
    """Keep the rows with the reason; keyed by journal and row, so twice is once."""

    def number(value: float) -> Any:
        return None if math.isnan(value) else value

    rows = [
        (
            int(ticks.journal_no[i]),
            int(ticks.row_no[i]),
            names[int(ticks.symbol_id[i])],
            int(ticks.time_us[i]),
            int(ticks.seq[i]),
            number(float(ticks.bid[i])),
            number(float(ticks.ask[i])),
            number(float(ticks.last[i])),
            number(float(ticks.spread[i])),
            float(ticks.volume[i]),
            int(ticks.flags[i]),
            code,
            message,
            int(ticks.received_us[i]),
        )
        for i in range(len(ticks))
    ]
    execute_values(cur, _INSERT, rows, _TEMPLATE, page_size=1000)
