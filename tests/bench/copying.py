"""The ceiling: the same rows by binary COPY straight into tickhub's own table, nothing else done."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass

import psycopg2

from app.storage.schema import migrate
from tests.bench.client import BenchError
from tests.bench.machine import tree_cpu_s
from tests.bench.postgres import Postgres, query
from tests.bench.rows import OPEN_MS, copy_chunks, copy_columns, market

ROWS_PER_TRANSACTION = 5_000


@dataclass(frozen=True, slots=True)
class Copied:
    """One COPY run; CPU in seconds."""

    ticks: int
    seconds: float
    postgres_cpu_s: float
    client_cpu_s: float

    @property
    def ticks_per_s(self) -> float:
        return self.ticks / self.seconds


def copy_run(server: Postgres, ticks: int) -> Copied:
    """Copy `ticks` ticks into a fresh migrated database, pre-encoded, 5,000 rows a transaction.

    Raises BenchError when the table does not hold them afterwards.
    """
    with server.database("bench_copy") as url:
        migrate(url)
        instruments = query(url, "SELECT symbol, symbol_id, digits FROM instruments")
        ids = {symbol: symbol_id for symbol, symbol_id, _ in instruments}
        # tickhub computes the spread where it knows the digits; the same bytes have to go in here.
        spread = all(digits is not None for _, _, digits in instruments)
        chunks = list(copy_chunks(market(ticks), ids, spread, ROWS_PER_TRANSACTION))
        columns = ", ".join(name for name, _ in copy_columns(spread))
        query(url, f"SELECT ensure_tick_partition(to_timestamp({OPEN_MS / 1000}))")
        conn = psycopg2.connect(url)
        try:
            postgres_cpu_s, client_cpu_s = tree_cpu_s(server.pid), time.process_time()
            start_s = time.monotonic()
            with conn.cursor() as cur:
                for chunk in chunks:
                    cur.copy_expert(
                        f"COPY ticks ({columns}) FROM STDIN (FORMAT binary)", io.BytesIO(chunk), 1 << 20
                    )
                    conn.commit()
            seconds = time.monotonic() - start_s
            done = Copied(
                ticks, seconds, tree_cpu_s(server.pid) - postgres_cpu_s, time.process_time() - client_cpu_s
            )
        finally:
            conn.close()
        [(stored,)] = query(url, "SELECT count(*) FROM ticks")
        if stored != ticks:
            raise BenchError(f"COPY stored {stored} of {ticks} ticks")
        return done
