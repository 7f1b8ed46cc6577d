"""The yardstick of reading: the plain SQL for the same answer, as somebody with psycopg2 or psql would write it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psycopg2

from app.storage.embedded_place import installed_binaries
from tests.bench.asking import Asked
from tests.bench.client import BenchError

Parameters = Mapping[str, Any]

QUOTE = """
    SELECT c.symbol, c.bid, c.ask, c.last, c.spread, c.volume, c.buy_volume, c.sell_volume, c.flags, c.last_updated,
           c.last - day.last_close AS change, (c.last / day.last_close - 1) * 100 AS change_percent
    FROM current c JOIN instruments i USING (symbol)
    LEFT JOIN LATERAL (
        SELECT last_close FROM bars b
        WHERE b.symbol_id = i.symbol_id AND b.resolution = 86400 AND b.time < date_trunc('day', c.last_updated)
        ORDER BY time DESC LIMIT 1) day ON true
    WHERE symbol = %(symbol)s
"""
BARS = """
    SELECT time, bid_open, bid_high, bid_low, bid_close, volume, buy_volume, sell_volume, ticks
    FROM bars
    WHERE symbol_id = %(symbol_id)s AND resolution = %(resolution)s AND time >= %(start)s AND time < %(end)s
    ORDER BY time
"""
_TICK = "time, bid, ask, last, spread, volume, buy_volume, sell_volume, flags, seq"
PAGE = f"""
    SELECT {_TICK} FROM ticks WHERE symbol_id = %(symbol_id)s AND time >= %(start)s ORDER BY time, seq LIMIT 1000
"""
_NEXT_PAGE = f"""
    SELECT {_TICK} FROM ticks
    WHERE symbol_id = %(symbol_id)s AND (time, seq) > (%(time)s, %(seq)s) AND time >= %(time)s AND time < %(end)s
    ORDER BY time, seq LIMIT 1000
"""
_IN_RANGE = "FROM ticks WHERE symbol_id = %(symbol_id)s AND time >= %(start)s AND time < %(end)s"
EXPORT = f"SELECT {_TICK} {_IN_RANGE} ORDER BY time, seq"
EXPORT_COUNT = f"SELECT count(*) {_IN_RANGE}"
EXPORT_TIMES = f"SELECT time {_IN_RANGE} ORDER BY time, seq"
# The quickest of those that are right, of seven: ordered aggregates by themselves, this one over one sort for both,
# DISTINCT ON twice, a join with the ticks at min(time) and max(time), windows, min and max of arrays, row by row.
BARS_OF_TICKS = """
    SELECT minute, (array_agg(bid ORDER BY minute, time, seq))[1] AS open, max(bid) AS high, min(bid) AS low,
           (array_agg(bid ORDER BY minute, time, seq))[count(*)] AS close,
           sum(volume) FILTER (WHERE flags & 8 <> 0) AS volume, sum(buy_volume) AS buy_volume,
           sum(sell_volume) AS sell_volume, count(*) AS ticks
    FROM (SELECT date_bin('1 minute', time, timestamptz 'epoch') AS minute, * FROM ticks
          WHERE symbol_id = %(symbol_id)s AND time >= %(start)s AND time < %(end)s) t
    GROUP BY minute ORDER BY minute
"""


def in_turn(url: str, sql: str, parameters: Sequence[Parameters], warm: int) -> Asked:
    """Run the statement with one set of parameters after the other; the first `warm` times do not count."""
    taken, rows = [], []
    conn = psycopg2.connect(url)
    conn.autocommit = True
    with conn.cursor() as cur:
        for number, given in enumerate([*parameters[:warm], *parameters]):
            start_s = time.perf_counter()
            cur.execute(sql, given)
            found = cur.fetchall()
            end_s = time.perf_counter()
            if number >= warm:
                taken.append((end_s - start_s) * 1e3)
                rows.append(len(found))
    conn.close()
    return Asked(np.array(taken), np.array(rows))


def rows_of(url: str, sql: str, parameters: Parameters) -> list[tuple[Any, ...]]:
    """Return the rows of one statement on a connection of its own."""
    conn = psycopg2.connect(url)
    try:
        with conn.cursor() as cur:
            cur.execute(sql, parameters)
            return cur.fetchall()
    finally:
        conn.close()


def walk(url: str, parameters: Parameters) -> Asked:
    """Read a range by pages of 1,000 ticks, each behind the last row of the page before."""
    taken, rows = [], []
    conn = psycopg2.connect(url)
    conn.autocommit = True
    with conn.cursor() as cur:
        place = {"time": parameters["start"], "seq": -1}
        while True:
            start_s = time.perf_counter()
            cur.execute(_NEXT_PAGE, {**parameters, **place})
            found = cur.fetchall()
            taken.append((time.perf_counter() - start_s) * 1e3)
            rows.append(len(found))
            if len(found) < 1000:
                break
            place = {"time": found[-1][0], "seq": found[-1][-1]}
    conn.close()
    return Asked(np.array(taken), np.array(rows))


def psql_copy(url: str, sql: str, parameters: Parameters) -> float:
    """Write an export as CSV to nowhere by psql's \\copy; return the seconds that it took, psql's start included."""
    conn = psycopg2.connect(url)
    with conn.cursor() as cur:
        bound = " ".join(cur.mogrify(sql, parameters).decode().split())
    conn.close()
    command = [str(installed_binaries() / "psql"), "--no-psqlrc", "--quiet", "-d", url]
    command += ["-c", f"\\copy ({bound}) TO '/dev/null' (FORMAT csv, HEADER)"]
    start_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start_s
    if done.returncode != 0 or done.stderr:
        raise BenchError(f"psql: {done.stderr.strip()}")
    return seconds
