"""How fast data goes out: quotes, bars, ticks and exports over HTTP beside the plain SQL for the same answer."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import asking, plain_sql, reads_report
from tests.bench.asking import Asked, Asker
from tests.bench.client import BenchError
from tests.bench.history import DAYS, YEAR_BEGINS, YEAR_ENDS, start_us
from tests.bench.loading import Loaded, load
from tests.bench.memory import MemoryWatch
from tests.bench.postgres import Postgres, query
from tests.bench.reads_report import (
    Answer,
    Busy,
    Export,
    Results,
    first_and_last_ms,
)
from tests.bench.rows import SYMBOLS
from tests.bench.running import progress
from tests.bench.senders import Load, Senders
from tests.bench.server import Server, tickhub

HELP = "data out: quotes, bars, ticks and exports beside the plain SQL"
QUICK_IS = "a tenth of the rows"
REPORT = reads_report

TICKS, REQUESTS, BUSY_S = 10_000_000, 2_500, 45
QUICK_SHARE = 0.1
EXPORT_ROWS, EXPORT_SYMBOL = 1_000_000, "TSLA"
KINDS = ("csv", "ndjson", "arrow", "parquet")
BUSY_KINDS = ("csv", "parquet")
TICKS_PER_S, BATCH = 20_000, 100
QUOTES_PER_S = 100
MEASURES = ("quotes", "bars", "pages", "exports", "busy")
CONNECTIONS = 4
"""Of the asking client: enough that both workers have some of them."""
WALKED = ("TSLA", "NVDA", "NAS100")
"""The symbols with the most ticks, whose whole history is read page by page."""
WARM = 100
HISTORY_ENDS = DAYS[-1] + timedelta(days=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", nargs="+", default=list(MEASURES), choices=MEASURES, help="what is measured (default: everything)"
    )
    parser.add_argument("--workers", type=int, default=2, help="tickhub's workers (default 2)")
    parser.add_argument("--export-runs", type=int, default=3, help="runs of each export, the median counts (default 3)")


class Bench:
    """The measures of one call: one database, one server, two processes that ask."""

    def __init__(
        self, url: str, server: Server, askers: tuple[Asker, Asker], results: Results, args: argparse.Namespace
    ) -> None:
        self._url, self._server, self._args = url, server, args
        self._asker, self._other = askers
        self.results = results
        self._loaded = results.loaded
        self._share = QUICK_SHARE if args.quick else 1.0
        self._requests = int(REQUESTS * self._share)
        self._random = random.Random(9)
        self._sent = 0

    def all(self) -> None:
        """Measure everything. JSON comes first: the memory of an export counts from before any export."""
        steps: dict[str, list[Callable[[], None]]] = {
            "quotes": [self.quotes],
            "bars": [self.bars_of_a_day, self.bars_of_a_year, self.bars_of_five_days],
            "pages": [self.pages_anywhere, self.pages_in_order],
            "exports": [self.exports],
            "busy": [partial(self.busy, kind) for kind in BUSY_KINDS],
        }
        for name in MEASURES:
            for step in steps[name] if name in self._args.only else []:
                step()

    def quotes(self) -> None:
        names = [SYMBOLS[number % len(SYMBOLS)] for number in range(self._requests)]
        paths = [f"/api/quotes/{name}" for name in names]
        self._compare("newest quote", paths, plain_sql.QUOTE, [{"symbol": name} for name in names], 5.0)

    def bars_of_a_day(self) -> None:
        wanted = [(name, day) for day in DAYS for name in SYMBOLS]
        paths, given = [], []
        for number in range(self._requests):
            name, day = wanted[number % len(wanted)]
            end = day + timedelta(days=1)
            paths.append(f"/api/bars/{name}?interval=1m&start={day}&end={end}&limit=2000")
            given.append(self._range(name, day, end) | {"resolution": 60})
        self._compare("a day of 1-minute bars", paths, plain_sql.BARS, given, 10.0)

    def bars_of_a_year(self) -> None:
        names = [SYMBOLS[number % len(SYMBOLS)] for number in range(self._requests)]
        query_string = f"interval=1d&start={YEAR_BEGINS}&end={YEAR_ENDS}&limit=2000"
        given = [self._range(name, YEAR_BEGINS, YEAR_ENDS) | {"resolution": 86400} for name in names]
        paths = [f"/api/bars/{name}?{query_string}" for name in names]
        self._compare("a year of daily bars", paths, plain_sql.BARS, given, 10.0)

    def pages_anywhere(self) -> None:
        paths, given = [], []
        for _ in range(self._requests):
            # The last day's evening is left out: from there on, a page may not be full.
            moment_us = self._random.randrange(start_us(DAYS[0]), start_us(DAYS[-1]) + 12 * 3600 * 1_000_000)
            name = self._random.choice(SYMBOLS)
            moment = datetime.fromtimestamp(moment_us / 1e6, UTC)
            paths.append(f"/api/ticks/{name}?start={moment_us}&limit=1000")
            given.append({"symbol_id": self._loaded.symbol_ids[name], "start": moment})
        self._compare("1,000 ticks from anywhere", paths, plain_sql.PAGE, given, 15.0)

    def pages_in_order(self) -> None:
        """Walk whole histories from page to page; each is checked for its number of ticks."""
        sql = []
        for name in WALKED:
            path = f"/api/ticks/{name}?start={DAYS[0]}&end={HISTORY_ENDS}&limit=1000"
            if not self.results.walks:
                self._asker.call(asking.in_turn, self._server.address, [path] * WARM, 0, 1)
            walked = self._asker.call(asking.walk, self._server.address, path)
            if walked.rows.sum() != self._loaded.ticks[name]:
                raise BenchError(f"{walked.rows.sum()} ticks of {name} page by page, {self._loaded.ticks[name]} stored")
            self.results.walks.append(walked)
            sql.append(self._asker.call(plain_sql.walk, self._url, self._range(name, DAYS[0], HISTORY_ENDS)))
        answer = Answer("1,000 ticks by next_page_token", _joined(self.results.walks), _joined(sql), 15.0)
        self.results.answers.append(answer)
        first_ms, last_ms = first_and_last_ms(self.results.walks)
        progress(f"{answer.name}: p99 {answer.http.percentile(99):.2f} ms, first {first_ms:.2f}, last {last_ms:.2f} ms")

    def bars_of_five_days(self) -> None:
        """Ask for every symbol, so that the ratio is that of an average one, neither the busiest nor the quietest."""
        query_string = f"interval=1m&start={DAYS[0]}&end={HISTORY_ENDS}&limit=10000"
        paths = [f"/api/bars/{name}?{query_string}" for name in SYMBOLS]
        given = [self._range(name, DAYS[0], HISTORY_ENDS) for name in SYMBOLS]
        http = self._asker.call(asking.in_turn, self._server.address, paths * 10, len(SYMBOLS), CONNECTIONS)
        sql = self._asker.call(plain_sql.in_turn, self._url, plain_sql.BARS_OF_TICKS, given, 2)
        _same_rows("bars of five days", http.rows[: len(SYMBOLS)], sql.rows)
        self.results.bars_http, self.results.bars_sql = http, sql
        progress(f"bars of five days: {http.ms.mean():.1f} ms, of the ticks by SQL {sql.ms.mean():.1f} ms")

    def exports(self) -> None:
        """Export the same rows in each format and by psql, one after the other, as often as was asked."""
        wanted = int(EXPORT_ROWS * self._share)
        bounds = self._range(EXPORT_SYMBOL, DAYS[0], HISTORY_ENDS)
        [(bounds["end"],)] = self._query(f"{plain_sql.EXPORT_TIMES} OFFSET {wanted} LIMIT 1", bounds)
        [(rows,)] = self._query(plain_sql.EXPORT_COUNT, bounds)
        end_us = round(bounds["end"].timestamp() * 1e6)
        exports = {kind: Export(kind) for kind in KINDS}
        for _ in range(self._args.export_runs):
            seconds = plain_sql.psql_copy(self._url, plain_sql.EXPORT, bounds)
            self.results.psql_rows_per_s.append(rows / seconds)
            progress(f"psql \\copy: {rows / seconds:,.0f} rows/s")
            for kind, export in exports.items():
                path = f"/api/ticks/{EXPORT_SYMBOL}?start={DAYS[0]}&end={end_us}&format={kind}"
                with MemoryWatch(self._server.workers()) as memory:
                    fetched = self._asker.call(asking.fetch, self._server.address, path, kind)
                if fetched.rows != rows:
                    raise BenchError(f"{fetched.rows} ticks exported as {kind}, {rows} stored")
                export.runs.append(fetched)
                export.growth_mb.append(memory.growth_mb)
                progress(f"{kind}: {rows / fetched.seconds:,.0f} rows/s, memory +{memory.growth_mb:.0f} MB")
        self.results.exports = list(exports.values())

    def busy(self, kind: str) -> None:
        """Ask for quotes while ticks come in and every symbol's ticks go out, one symbol after the other."""
        seconds = BUSY_S * (0.2 if self._args.quick else 1.0)
        ticks = int(TICKS_PER_S * seconds) // BATCH * BATCH
        of = ticks * len(BUSY_KINDS)
        sending = Load(ticks, BATCH, connections=4, per_second=TICKS_PER_S / BATCH, skip=self._sent, of=of)
        exported = [f"/api/ticks/{name}?start={DAYS[0]}&end={HISTORY_ENDS}&format={kind}" for name in SYMBOLS]
        paths = [f"/api/quotes/{name}" for name in SYMBOLS]
        with Senders(self._server.address, sending) as senders, MemoryWatch(self._server.workers()) as memory:
            self._other.start(asking.drain, self._server.address, exported, seconds)
            self._asker.start(asking.at_a_pace, self._server.address, paths, CONNECTIONS, QUOTES_PER_S, seconds - 0.5)
            sent = senders.run()
            quotes, drained = self._asker.result(), self._other.result()
        self._sent += ticks
        self._server.wait_processed(self._sent)
        [(stored,)] = query(self._url, "SELECT count(*) FROM ticks")
        if stored != sum(self._loaded.ticks.values()) + self._sent:
            aside = query(self._url, "SELECT code, message, count(*) FROM rejected_ticks GROUP BY code, message")
            raise BenchError(
                f"{stored} ticks stored, {sum(self._loaded.ticks.values())} loaded and {self._sent} sent;"
                f" set aside: {aside}; {self._server.stats()}"
            )
        rows = sum(self._loaded.ticks[SYMBOLS[number % len(SYMBOLS)]] for number in range(drained.whole))
        self.results.busy.append(Busy(kind, quotes, sent, ticks, drained, rows, memory.growth_mb))
        progress(f"ticks in, {kind} out: quotes p99 {quotes.percentile(99):.2f} ms, ack p99 {sent.ack(99):.2f} ms")

    def _range(self, name: str, start: Any, end: Any) -> dict[str, Any]:
        bounds = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (start, end)]
        return {"symbol_id": self._loaded.symbol_ids[name], "start": bounds[0], "end": bounds[1]}

    def _query(self, sql: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        return plain_sql.rows_of(self._url, sql, parameters)

    def _compare(self, name: str, paths: list[str], sql: str, given: list[dict[str, Any]], bound_ms: float) -> None:
        http = self._asker.call(asking.in_turn, self._server.address, paths, WARM, CONNECTIONS)
        plain = self._asker.call(plain_sql.in_turn, self._url, sql, given, WARM)
        _same_rows(name, http.rows, plain.rows)
        self.results.answers.append(Answer(name, http, plain, bound_ms))
        progress(f"{name}: p99 {http.percentile(99):.2f} ms, SQL {plain.percentile(99):.2f} ms")


def _same_rows(name: str, http: Any, sql: Any) -> None:
    if http.tolist() != sql.tolist():
        raise BenchError(f"{name}: {http.sum()} rows over HTTP, {sql.sum()} by SQL")


def _joined(parts: list[Asked]) -> Asked:
    return Asked(np.concatenate([part.ms for part in parts]), np.concatenate([part.rows for part in parts]))


def measure(directory: Path, server: Postgres, args: argparse.Namespace) -> Results:
    """Measure in an empty directory, and return the results."""
    with ExitStack() as stack:
        url = stack.enter_context(server.database("bench_reads"))
        ticks = int(TICKS * (QUICK_SHARE if args.quick else 1.0))
        loaded: Loaded = load(url, ticks, QUICK_SHARE if args.quick else 1.0, progress)
        progress(f"loaded in {loaded.seconds:.0f} s: {ticks:,} ticks, {loaded.bars:,} bars")
        served = stack.enter_context(tickhub(directory / "tickhub", url, args.workers))
        served.wait_alone()
        server.settle()
        askers = stack.enter_context(Asker()), stack.enter_context(Asker())
        bench = Bench(url, served, askers, Results(loaded), args)
        bench.all()
        return bench.results
