"""What an export says, read plainly, and what the database holds, in the same rows."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.process.harness import Database

HEADER = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\r\n"

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Export:
    """A file as the terminal's "Export ticks" writes it, and what is known of it.

    digits: of the instrument, None: not known. zone: an IANA name. repeated: lines that equal the line before.
    """

    symbol: str
    path: Path
    zone: str
    rows: int
    repeated: int | None = None
    digits: int | None = None


def read_plainly(export: Export) -> Iterator[Row]:
    """Yield the rows of an export in the order of time, as COPY_TICKS gives them: one line after another.

    Only for files that are in order and hold no repeated hour. Time in UTC microseconds.
    """
    zone = ZoneInfo(export.zone)
    minutes: dict[tuple[str, str], int] = {}
    before_us, seq = -1, 0
    with (gzip.open if export.path.suffix == ".gz" else open)(export.path, "rt", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows)
        for day, clock, bid, ask, last, volume, flags in rows:
            minute, second = (day, clock[:5]), Decimal(clock[6:])
            start_s = minutes.get(minute)
            if start_s is None:
                wall = datetime.strptime(f"{day} {clock[:5]}", "%Y.%m.%d %H:%M").replace(tzinfo=zone)
                start_s = minutes[minute] = round(wall.timestamp())
            time_us = start_s * 1_000_000 + int(second * 1_000_000)
            assert time_us >= before_us, "the file is not in order"
            seq = seq + 1 if time_us == before_us else 0
            before_us = time_us
            spread = None
            if export.digits is not None and bid and ask:
                spread = float((Decimal(ask) - Decimal(bid)).scaleb(export.digits))
            flag, amount = int(flags), float(volume or 0)
            sides = (amount if flag & 8 and flag & side else 0.0 for side in (32, 64))
            yield time_us, seq, _price(bid), _price(ask), _price(last), amount, flag, spread, *sides


def _price(text: str) -> float | None:
    return float(text) if text else None


def repeated_lines(export: Export) -> int:
    """Count the lines that equal the line before."""
    with gzip.open(export.path, "rt", newline="") as lines:
        before, count = "", 0
        for line in lines:
            count += line == before
            before = line
    return count


COPY_TICKS = """COPY (
    SELECT (extract(epoch FROM time) * 1000000)::bigint, seq, bid, ask, last, volume, flags, spread,
           buy_volume, sell_volume
    FROM ticks JOIN instruments USING (symbol_id) WHERE symbol = '{symbol}' ORDER BY time, seq
) TO STDOUT"""
COPY_BARS = """COPY (
    SELECT resolution, to_jsonb(b) - ARRAY['symbol_id', 'version'] FROM bars b JOIN instruments USING (symbol_id)
    WHERE symbol = '{symbol}' ORDER BY resolution, time
) TO STDOUT"""
COPY_CURRENT = "COPY (SELECT to_jsonb(c) FROM current c WHERE symbol = '{symbol}') TO STDOUT"


def copy_out(database: Database, query: str, symbol: str, path: Path, name: str = "tickhub") -> Path:
    """Write what a COPY gives to a file, one row a line."""
    with closing(database.connect(name)) as conn, conn.cursor() as cur, path.open("wb") as file:
        cur.copy_expert(query.format(symbol=symbol), file)
    return path


def read_copy(path: Path) -> Iterator[Row]:
    """Yield the rows of COPY_TICKS."""
    kinds = (int, int, float, float, float, float, int, float, float, float)
    with path.open() as lines:
        for line in lines:
            texts = line.rstrip("\n").split("\t")
            yield tuple(
                None if text == "\\N" else kind(text) for kind, text in zip(kinds, texts, strict=True)
            )


_SIDES = {
    "bid": ("bid", "bid > 0"),
    "ask": ("ask", "ask > 0"),
    "mid": ("(bid + ask) / 2", "bid > 0 AND ask > 0"),
    "last": ("last", "last > 0 AND flags & 8 <> 0"),
}
_OHLC = ", ".join(
    f"(array_agg({price} ORDER BY time, seq) FILTER (WHERE {has}))[1] AS {side}_open, "
    f"max({price}) FILTER (WHERE {has}) AS {side}_high, min({price}) FILTER (WHERE {has}) AS {side}_low, "
    f"(array_agg({price} ORDER BY time DESC, seq DESC) FILTER (WHERE {has}))[1] AS {side}_close"
    for side, (price, has) in _SIDES.items()
)
_BARS_ANEW = f"""
    SELECT symbol_id, resolution, date_bin(make_interval(secs => resolution), time, timestamptz 'epoch') AS time,
           count(*) AS ticks,
           coalesce(sum(volume::numeric) FILTER (WHERE flags & 8 <> 0), 0) AS volume,
           sum(buy_volume::numeric) AS buy_volume, sum(sell_volume::numeric) AS sell_volume, {_OHLC},
           min(ask - bid) FILTER (WHERE bid > 0 AND ask > 0) AS spread_min,
           max(ask - bid) FILTER (WHERE bid > 0 AND ask > 0) AS spread_max
    FROM ticks CROSS JOIN (VALUES (60), (3600), (86400)) AS r (resolution) GROUP BY 1, 2, 3
"""


def bars_that_differ(database: Database) -> list[Row]:
    """Compute all bars from the stored ticks by plain SQL; return those that are not in bars, and the reverse."""
    with closing(database.connect()) as conn, conn.cursor() as cur:
        cur.execute(f"CREATE TEMPORARY TABLE anew AS {_BARS_ANEW}")
        cur.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'anew'::regclass AND attnum > 0")
        names = ", ".join(name for (name,) in cur.fetchall())
        one, other = f"SELECT {names} FROM bars", f"SELECT {names} FROM anew"
        cur.execute(f"({one} EXCEPT ALL {other}) UNION ALL ({other} EXCEPT ALL {one}) LIMIT 10")
        return cur.fetchall()


def wall_line(utc: datetime, zone: str, shift_h: int, values: str) -> str:
    """Return an export's line for a moment, as a broker's terminal shows it: a zone's local time plus hours."""
    wall = utc.astimezone(ZoneInfo(zone)).replace(tzinfo=None) + timedelta(hours=shift_h)
    return f"{wall:%Y.%m.%d}\t{wall:%H:%M:%S}.{wall.microsecond // 1000:03}\t{values}\r\n"
