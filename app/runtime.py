"""What a worker owns, started, drained and stopped in order. Greenlet side.

Lanes: the journal's, the files' (reading journals back), the flusher's with its connection, the reference lane's with
its own (is the database there, the symbol map), the desk's with its own (`desk.py`), one that decodes large bodies, and
the query lanes (`reads.py`).
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import gevent
import msgspec
from gevent.event import Event

from app.collecting import Collecting
from app.deletions import Deletions
from app.demo import Demo
from app.desk import Desk
from app.errors import DatabaseAway, RequestError, TickhubError
from app.fan_out import FanOut, make_bus
from app.figures import Figures
from app.in_flight import InFlight
from app.jobs.runner import make_runner
from app.jobs.standing import make_standing
from app.keeper import Keeper
from app.keys import Keys
from app.lanes import Lane, LaneTimeout
from app.live_bars import LiveBars
from app.live_trades import LiveTrades
from app.market.accept import Limits
from app.market.clock import BrokerClock
from app.market.quotes import Quote
from app.market.symbols import Instrument
from app.meters import Meters
from app.parquet_spool import Spool
from app.pipeline.flusher import Flusher, FlushLimits
from app.pipeline.ingest import Ingest
from app.pipeline.recovery import Recovery
from app.pipeline.window import MemoryBudget
from app.query_cache import make_cache
from app.quote_board import QuoteBoard
from app.reads import PAGE, Reads
from app.runtime_config import connection
from app.settings import Settings
from app.slots import STATES
from app.storage import schema
from app.storage.connection import Connection
from app.storage.instruments import read_instruments
from app.storage.quote_reader import QuoteReader
from app.storage.sink import DatabaseSink
from app.storage.symbols_store import NewSymbol, SymbolRow, add_symbol_soon
from app.storage.writers import writers
from app.stream.hub import Hub
from app.stream_places import MOST_STREAMS, StreamPlaces
from app.symbol_cache import SymbolCache
from app.upstream import make_upstream
from app.watching import Watching

SWITCH_INTERVAL_S = 0.0005
"""How soon a lane that computes gives way to the event loop; Python's default of 5 ms costs the loop 20."""

REFERENCE_TIMEOUT_S = 10.0

NAMES_WAIT_S = 1.0
"""How long a new symbol waits for a lock. Well below what the keeper and requests with unknown names give the reference
lane: an add that waited longer there would look as if the database were away, and be ended with its connection."""

QUOTES_REFRESH_S = 1.0
QUOTES_REFRESH_SHARE = 0.02
"""How often all quotes are read into memory, for when the database goes away, and the share of time it may take."""

FLUSH_GRACE_S = 10.0
"""What a flush may take beyond a statement's time before its connection is taken for hanging."""

STOP_TIMEOUT_S = 2.0

LEAST_SEGMENTS = 4
"""A worker's share of journal_max_bytes holds so many segments: the one that is being written is never freed, so with
few large ones the journals could be full of rows that are long committed, and stay so."""

GIVE_UP_FAILURES = 3
"""After so many failed flushes in a row a drain leaves the rest in the journal: the database is not there."""

log = logging.getLogger("tickhub")


class RunDir:
    """The directories under the data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.journals = data_dir / "journal"
        self.run = data_dir / "run"
        self.books = self.run / "books"
        self.slots = self.run / "slots"
        self.metrics = self.run / "metrics"
        self.spool = self.run / "spool"
        self.bus = self.run / "bus"

    def make(self) -> None:
        """Make what is missing."""
        for path in (self.journals, self.books, self.slots, self.metrics, self.spool):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)


class Runtime:
    """Everything a worker runs beside its requests."""

    def __init__(self, settings: Settings, slot: int) -> None:
        self.settings = settings
        self.dirs = RunDir(settings.data_dir)
        self.dirs.make()
        self.requests_begun = 0  # the worker counts them: long answers make way for the others
        self.in_flight = InFlight(settings.inflight_max_bytes)
        self.clock = BrokerClock(settings.tick_timezone)
        oldest = datetime.combine(settings.oldest_time, datetime.min.time(), UTC)
        self.limits = Limits(
            oldest_us=int(oldest.timestamp()) * 1_000_000,
            oldest=settings.oldest_time.isoformat(),
            max_ahead_us=settings.max_future_skew_s * 1_000_000,
        )
        self.meters = Meters(self.dirs.run, slot, settings.tick_timezone, settings.slow_query_s)
        self.figures = Figures(self.dirs.run)
        self.decoding, self.formatting = Lane("decode"), Lane("format")
        self._journal_lane, self._files_lane = Lane("journal"), Lane("files")
        self._flush_lane, self._reference_lane = Lane("flush"), Lane("reference")
        self._flush_connection = self._connection("flush", settings.db_statement_timeout_s)
        self._reference_connection = self._connection("reference", REFERENCE_TIMEOUT_S)
        self._sink = DatabaseSink(self._flush_connection, writers())
        budget = MemoryBudget(settings.buffer_max_bytes)
        flush_limits = FlushLimits(
            rows=settings.flush_rows,
            interval_s=settings.flush_interval_s,
            max_rows=settings.flush_max_rows,
            timeout_s=settings.db_statement_timeout_s + FLUSH_GRACE_S,
        )
        self.flusher = Flusher(
            self._flush_lane, self._sink, self._flush_connection.interrupt, flush_limits, self.meters
        )
        self.ingest = Ingest(
            self.dirs.journals,
            self.dirs.books,
            self.flusher,
            budget,
            journal_lane=self._journal_lane,
            files_lane=self._files_lane,
            segment_bytes=min(
                settings.journal_segment_bytes, settings.journal_max_bytes // (LEAST_SEGMENTS * settings.workers)
            ),
            journal_max_bytes=settings.journal_max_bytes,
            pid=os.getpid(),
        )
        self._recovery = Recovery(
            self.dirs.journals,
            self.dirs.books,
            self.ingest,
            self.flusher,
            budget,
            files_lane=self._files_lane,
            keep_s=settings.journal_keep_s,
            journal_max_bytes=settings.journal_max_bytes,
            pid=os.getpid(),
        )
        self.keeper = Keeper(
            self._reference_lane,
            self._check_database,
            self._reference_connection.interrupt,
            head=schema.HEAD,
            lock_path=self.dirs.run / "keeper.lock",
            environ=settings.to_environ(),
            embedded=not settings.database_url,
            on_back=self._database_is_back,
        )
        self.symbols = SymbolCache(
            settings.data_dir / "symbols.json",
            self._reference_lane,
            self._read_instruments,
            self._reference_connection.interrupt,
        )
        self.keys = Keys(settings, self.dirs.run, self._reference_lane, self._reference_connection, self.keeper.trouble)
        self.cache = make_cache(settings, self.meters.cache_said)
        self.reads = Reads(
            settings,
            lambda name: self._connection(name, settings.db_statement_timeout_s),
            self.keeper.trouble,
            self.meters.reads,
        )
        self.stream_places = StreamPlaces(MOST_STREAMS, settings.lane_wait_s)
        self.spool = Spool(self.dirs.spool, settings.spool_max_bytes)
        self.quote_reader = QuoteReader()
        self.quotes = QuoteBoard(
            lambda: self.symbols.map, settings.stale_data_timeout_s, lambda news: self.fan_out.repaired(news)
        )
        self.upstream = make_upstream(settings)
        self.hub = Hub(self._live_quotes, lambda: self.symbols.map.names, settings.heartbeat_interval_s)
        self.bus = make_bus(settings, self.dirs.bus, slot, self.meters.bus_said)
        self.fan_out = FanOut(self.bus, self.quotes, self.hub.quotes_changed)
        self.live_bars = LiveBars(self.reads, self.hub, settings.flush_interval_s)
        self.live_trades = LiveTrades(self.reads, self.hub, self.bus, self.live_bars)
        self.flusher.on_committed = self.live_trades.committed
        self.desk = Desk(
            self._connection, self.keeper.trouble, self.hub, self.bus, settings.alert_webhook_url, self.meters
        )
        self.live_trades.on_touched = self.desk.alerting.committed
        self.jobs = make_runner(settings, self.desk, self.dirs.run / "jobs")
        self._following = make_standing(settings, self.dirs.run, lambda: self.keeper.connected)
        self._collecting = Collecting(self.desk, self.ingest, settings, self.figures.uptime_s, self.ready)
        self.watching = Watching(
            settings, self.meters, self.flusher, budget, self.reads, self.hub, self.bus, self.desk
        )
        self._deletions = Deletions(self.reads, self.quotes)
        self._read_quotes_now = Event()
        self._demo = Demo(settings) if settings.demo and slot % settings.workers == 0 else None
        self._greenlets: list[gevent.Greenlet] = []
        self._running = False

    def start(self) -> None:
        """Start the greenlets."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.freeze()  # what is loaded by now stays: the collector need not look at it again
        for run in (self.ingest.run, self.flusher.run, self._recovery.run, self.keeper.run):
            self._spawn(run)
        self._spawn(self._every_second)
        self._spawn(self._refresh_symbols)
        self._spawn(self._refresh_quotes)
        self._spawn(self.keys.run)
        self._spawn(self.spool.run)
        self._spawn(self.hub.run)
        self._spawn(self.live_trades.run)
        self._spawn(self.live_trades.pass_on)
        self._spawn(self.live_bars.run)
        self.desk.start(self._spawn)
        self._spawn(self.jobs.run)
        self._spawn(self._following.run)
        self._collecting.start(self._spawn)
        self.watching.start(self._spawn)
        self.cache.start()
        self.fan_out.start()
        if self._demo is not None:
            self._spawn(self._demo.run)
        self._running = True
        self.meters.state("running")

    def drain(self, deadline_s: float) -> None:
        """Flush what was accepted, for at most `deadline_s`; what is left stays in the journal."""
        self._running = False
        self.meters.state("draining")
        self.keeper.stop()
        self.reads.drain()
        if self._demo is not None:
            self._demo.stop()
        self.flusher.drain()
        until = time.monotonic() + deadline_s
        self.jobs.stop()  # before another process is elected, which would begin them anew
        self.desk.drain()
        while time.monotonic() < until and not self.flusher.idle.wait(0.05):
            if self.flusher.failures >= GIVE_UP_FAILURES:
                break
        self._following.stop()  # behind the flush: what it committed is still received
        left = self.ingest.source.window.pending_rows
        if left:
            log.warning("%d rows stay in the journal for the next start", left)
        self.meters.say_flushed(0.0)

    def stop(self) -> None:
        """Stop the greenlets and lanes, and give up the journals."""
        gevent.killall(self._greenlets)
        self.reads.stop()
        self.desk.stop()
        self.cache.stop()
        self.bus.stop()
        self.spool.stop()
        self.watching.stop()
        self._recovery.close()
        try:
            self._flush_lane.call_within(STOP_TIMEOUT_S, self._flush_connection.interrupt, self._sink.close)
            self._journal_lane.call_within(STOP_TIMEOUT_S, None, self.ingest.journal.close)
        except TickhubError as error:
            log.warning("%s: it ends with this process", error)
        for lane in self._lanes():
            lane.stop()
        self.meters.state("stopped")

    def crowded(self) -> bool:
        """Tell whether another worker that serves has fewer connections than this one."""
        own = self.meters.slot["connections"]
        others = (slot for slot in self.figures.workers() if slot["pid"] != self.meters.slot["pid"])
        return any(slot["connections"] < own for slot in others if STATES[slot["state"]] == "running")

    def ready(self) -> str | None:
        """Return why ticks cannot be accepted durably now, or None when they can."""
        if not self._running:
            return "the worker is not running"
        if self.ingest.full():
            return "the journal is full"
        if not self.ingest.writable():
            return "the journal cannot be written"
        return None

    def add_symbol(self, new: NewSymbol) -> SymbolRow:
        """Add an instrument, known to this worker at once. Raises BadField, Conflict, QueryTimeout, DatabaseAway."""
        if trouble := self.keeper.trouble():
            raise DatabaseAway(trouble)
        try:
            added = self._reference_lane.call_within(
                REFERENCE_TIMEOUT_S, self._reference_connection.interrupt, self._add_symbol, new
            )
        except LaneTimeout as error:
            raise DatabaseAway(str(error)) from error
        self.symbols.refresh(REFERENCE_TIMEOUT_S)
        return added

    def _lanes(self) -> tuple[Lane, ...]:
        return (
            self.decoding,
            self.formatting,
            self._journal_lane,
            self._files_lane,
            self._flush_lane,
            self._reference_lane,
        )

    def _connection(self, name: str, statement_timeout_s: float) -> Connection:
        return connection(self.settings, statement_timeout_s, name)

    def _check_database(self) -> str | None:
        """Return the revision of the database's schema. Lane side."""
        with self._reference_connection.transaction() as cur:
            return schema.revision(cur.connection)

    def _live_quotes(self, names: Sequence[str]) -> list[Quote]:
        """Return the quotes of these instruments, without what only the database knows where it was never read."""
        return [
            found
            if self.quotes.was_read(found.symbol)
            else msgspec.structs.replace(found, change=None, change_percent=None)
            for found in self.quotes.get(names)
        ]

    def _read_instruments(self) -> list[Instrument]:
        return read_instruments(self._reference_connection)

    def _add_symbol(self, new: NewSymbol) -> SymbolRow:
        with self._reference_connection.transaction() as cur:
            return add_symbol_soon(cur, new, NAMES_WAIT_S)

    def _database_is_back(self) -> None:
        log.info("the database is connected")
        self.flusher.try_now()
        self._read_quotes_now.set()

    def _refresh_symbols(self) -> None:
        while True:
            if self.keeper.connected:
                self.symbols.refresh(REFERENCE_TIMEOUT_S)
                gevent.sleep(self.settings.symbols_refresh_s)
            else:
                gevent.sleep(0.5)

    def _refresh_quotes(self) -> None:
        while True:
            started, wait_s = time.monotonic(), QUOTES_REFRESH_S
            if self.keeper.connected:
                try:
                    self._deletions.follow()
                    # Not as a quote: those who ask for one must not wait for this.
                    self.quotes.loaded(self.reads.run(PAGE, self.quote_reader.read, None))
                    wait_s = max(wait_s, (time.monotonic() - started) / QUOTES_REFRESH_SHARE)
                except (DatabaseAway, RequestError) as error:
                    log.debug("quotes were not read: %s", error)
                except Exception:
                    log.exception("reading all quotes failed")
            self._read_quotes_now.wait(wait_s)
            self._read_quotes_now.clear()

    def _every_second(self) -> None:
        while True:
            try:
                self.meters.tick()
                self.watching.tick()
                self.figures.tick()
            except OSError:
                log.exception("the books cannot be read")
            gevent.sleep(1.0)

    def _spawn(self, run: Callable[[], None]) -> None:
        self._greenlets.append(gevent.spawn(run))
