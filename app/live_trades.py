"""Trades for those who watch them: commits heard from all workers, holes read, replays. Greenlet side."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import gevent
from gevent.event import Event
from psycopg2.extensions import cursor as Cursor

from app.errors import DatabaseAway, QueryTimeout, RequestError, TickhubError
from app.live_bars import LiveBars
from app.market.committed import Committed, Touched, Trades
from app.market.positions import Positions
from app.reads import PAGE, Reads
from app.storage.trade_reader import (
    Place,
    Plan,
    TradePage,
    plan_behind,
    read_behind,
    read_later,
    read_touched,
    start_later,
)
from app.stream.bus import COMMITTED, Bus
from app.stream.following import Follower
from app.stream.frames import BadFrame
from app.stream.hub import Hub
from app.stream.messages import TradeUpdate
from app.stream.replay import Replay
from app.stream.trades import Bounds, Since, later_updates, live_updates, place_of, replayed_updates

CHECK_S = 0.75
"""How often positions are compared with the ledger. What the ledger had at one look, and is still missing at the next,
was lost on the way: so it comes within two of these and a read."""

PAGE_TRADES = 1000
MESSAGE_TRADES = 5000

WAIT_S = 0.005
RETRY_S = 1.0

TURN_TRADES = 250
"""Made and passed on before others have their turn, and readers their messages: some 2 ms. A flush may have many times
more than a reader's queue takes."""

MAX_WAITING = 50_000
"""Trades that wait to be passed on, some 2 MB; what comes then is read from the database later."""

BURST_TRADES, BURST_S = 2000, 5.0
"""What comes at once after a pause, and is more than a commit has in good times, is passed on as slowly as the slowest
reader takes it, for so long. Else a slow one delays nobody."""

log = logging.getLogger("tickhub")


class LiveTrades:
    """This worker's place in what all workers commit."""

    def __init__(self, reads: Reads, hub: Hub, bus: Bus, bars: LiveBars) -> None:
        self._reads, self._hub, self._bus, self._bars = reads, hub, bus, bars
        self._follower = Follower(self._took)
        self._expected = Positions()
        """What the ledger had at the last look."""
        self._wake = Event()
        self._waiting: deque[tuple[Trades, Positions]] = deque()
        self._waiting_trades = 0
        self._more = Event()
        self.on_touched: Callable[[Sequence[Touched]], None] = lambda touched: None
        """Told what was stored, of all workers' commits that are heard."""
        bus.on(COMMITTED, self._came)

    def committed(self, committed: Committed) -> None:
        """Tell of a commit of this worker's flusher; returns at once."""
        self._hear(committed)
        if self._bus.reaches_somebody:
            for piece in committed.pieces(MESSAGE_TRADES):
                self._bus.send(COMMITTED, piece.encode())

    def run(self) -> None:
        """Look for holes for ever, and fill them; to be spawned as a greenlet."""
        while True:
            try:
                self._check()
            except (DatabaseAway, RequestError) as error:
                log.debug("live trades were not compared: %s", error)
                gevent.sleep(CHECK_S)
            except Exception:
                log.exception("looking for missing trades failed")
                gevent.sleep(RETRY_S)  # whatever is committed meanwhile: or there was a line in the log for each
            self._wake.wait(CHECK_S)
            self._wake.clear()

    def pass_on(self) -> None:
        """Pass on for ever what commits brought; to be spawned as a greenlet."""
        while True:
            self._more.wait()
            self._more.clear()
            burst = _Burst()
            while self._waiting:
                trades, positions = self._waiting.popleft()
                try:
                    for part in _parts(trades):
                        self._pass_on(live_updates(trades.take(part), positions), burst)
                except Exception:
                    log.exception("live trades were not passed on")
                    gevent.sleep(RETRY_S)
                finally:
                    self._waiting_trades -= len(trades)

    def replay(self, since: Since, symbols: Sequence[str] | None, replay: Replay) -> Iterator[list[TradeUpdate]]:
        """Yield stored trades of these symbols (canonical; None: all) in order, until `replay` has reached the live.

        `replay` must be told of all live updates since before the first page is asked for. Behind the last page
        `replay_complete` is to be sent, and what `replay.release()` returns. Raises DatabaseAway, RequestError.
        """
        positions = since.positions
        if since.later_us is not None:
            positions = positions or self._reads.run(PAGE, plan_behind, Positions()).until
            yield from self._later(since, positions, symbols)
        assert positions is not None
        while True:
            replay.hold()
            plan, page = self._reads.run(PAGE, _begin, positions, symbols)
            yield from self._pages(plan, page, symbols)
            positions = plan.until
            if replay.reached(positions):
                return

    def _later(self, since: Since, until: Positions, symbols: Sequence[str] | None) -> Iterator[list[TradeUpdate]]:
        """Yield the trades by time, as of `until`."""
        assert since.later_us is not None
        found = self._reads.run(PAGE, plan_behind, until)
        plan = Plan(until, [], found.numbers, until.top_us)
        place: Place | None = start_later(since.later_us, since.place)
        while place is not None:
            page = self._reads.run(PAGE, read_later, plan, symbols, place, PAGE_TRADES)
            for part in _parts(page.trades):
                yield later_updates(page.trades.take(part), page.keys[part], until)
            place = page.place

    def _pages(self, plan: Plan, page: TradePage, symbols: Sequence[str] | None) -> Iterator[list[TradeUpdate]]:
        """Yield the trades of a plan in order of arrival."""
        journals = [Bounds(j.number, j.key, j.low_us, j.high_us) for j in plan.journals]
        while True:
            for part in _parts(page.trades):
                yield replayed_updates(page.trades.take(part), journals, plan.until)
            if page.place is None:
                return
            page = self._reads.run(PAGE, read_behind, plan, symbols, page.place, PAGE_TRADES)

    def _came(self, message: bytes) -> None:
        try:
            committed = Committed.decode(message)
        except TickhubError as error:
            raise BadFrame(str(error)) from error
        self._hear(committed)

    def _hear(self, committed: Committed) -> None:
        if self._follower.hear(committed, take=self._waiting_trades < MAX_WAITING):
            self._bars.touched(committed.touched)
            self.on_touched(committed.touched)
        if self._follower.hole:
            self._wake.set()

    def _took(self, trades: Trades, positions: Positions) -> None:
        if self._hub.wants_trades():
            self._waiting.append((trades, positions.copy()))
            self._waiting_trades += len(trades)
            self._more.set()

    def _pass_on(self, updates: list[TradeUpdate], burst: _Burst) -> None:
        self._hub.trades(updates)
        burst.trades += len(updates)
        self._hub.give_way(to_slow=burst.is_for_all())

    def _check(self) -> None:
        """Compare with the ledger; read what is missing."""
        follower = self._follower
        if follower.positions is None:
            self._expected = self._reads.run(PAGE, _look, Positions()).until
            follower.begin(self._expected.copy())
        elif not follower.hole:
            before = follower.positions.copy()
            plan = self._reads.run(PAGE, _look, before)
            follower.update(before, plan.until, {j.key: j.low_us for j in plan.journals})
            expected, self._expected = self._expected, plan.until
            if follower.positions.behind(expected):
                follower.hole = True
        if follower.hole:
            self._catch_up(follower.begin_reading())

    def _catch_up(self, positions: Positions) -> None:
        """Read what was missed behind the positions, and pass it on; the follower holds what comes meanwhile."""
        whole = False
        try:
            while self._waiting_trades:
                gevent.sleep(WAIT_S)
            plan = self._reads.run(PAGE, _look, positions)
            page: TradePage | None = None
            # What nobody watches need not be read: whoever begins to from here on does so behind this snapshot.
            if self._hub.wants_trades():
                plan, page = self._reads.run(PAGE, _begin, positions, None, True)
            self._touched(plan)
            if page is not None:
                burst = _Burst()
                for updates in self._pages(plan, page, None):
                    self._pass_on(updates, burst)
                    positions = place_of(updates[-1].cursor)[0]
            positions, whole = plan.until, True
            self._expected = plan.until.copy()
        finally:
            self._follower.end_reading(positions, whole=whole)

    def _touched(self, plan: Plan) -> None:
        """Have the bars read again that have ticks of a plan."""
        if not plan.journals or not self._bars.watched:
            return
        try:
            self._bars.touched(self._reads.run(PAGE, read_touched, plan))
        except QueryTimeout:
            # Too many for one read. Ticks arrive when they happen, or are late.
            self._bars.missed(min(journal.low_us for journal in plan.journals))


class _Burst:
    """Trades that are passed on without a pause."""

    def __init__(self) -> None:
        self.trades = 0
        self._until_s = time.monotonic() + BURST_S

    def is_for_all(self) -> bool:
        """Tell whether slow readers are waited for."""
        return self.trades > BURST_TRADES and time.monotonic() < self._until_s


def _parts(trades: Trades) -> Iterator[slice]:
    return (slice(start, start + TURN_TRADES) for start in range(0, len(trades), TURN_TRADES))


def _look(cur: Cursor, after: Positions) -> Plan:
    return plan_behind(cur, after, keep_unknown=True)


def _begin(
    cur: Cursor, after: Positions, symbols: Sequence[str] | None, keep_unknown: bool = False
) -> tuple[Plan, TradePage]:
    """Return what there is behind positions, and its first page, of one snapshot."""
    plan = plan_behind(cur, after, keep_unknown=keep_unknown)
    return plan, read_behind(cur, plan, symbols, None, PAGE_TRADES)
