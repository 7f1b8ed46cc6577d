"""Who watches what: from changed symbols, trades, bars and alerts to the readers concerned. Greenlet side.

A change is only noted. One greenlet turns to the readers that are due; before it serves them it has the texts of the
changed symbols made, each once for all. A reader is due `conflate_ms` after its last frames, or at once; when nothing
was pending for it, it sleeps until one of its symbols changes.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import gevent
from gevent.event import Event

from app.market.quotes import Quote
from app.market.rfc3339 import rfc3339
from app.stream import messages
from app.stream.channels import Channel
from app.stream.live_quotes import LiveQuotes
from app.stream.messages import AlertUpdate, BarUpdate, TradeUpdate
from app.stream.schedule import SLOT_S, Schedule
from app.stream.subscriber import BUSY, IDLE, SLOW_CLOSE_S, TOO_SLOW, WAITING, Subscriber, Watch

READERS_A_TURN = 16
"""Readers served before others, ingest above all, have their turn: about half a millisecond."""

PHASES = 2
"""Readers that conflate equally are due at one of so many moments of that time, together: texts are made once for them.
Making those of 17 symbols takes as long as serving 20 readers. So the first time may be shorter by half."""

SHORTEST_S = 1e-6
"""Not 0: that gives way to those who are about to run, and some fifty times before it is seen what came in."""

MAX_STALL_S = 120.0
"""A reader of which the kernel has not got rid of anything for so long is closed: it holds a place of a connection."""

HURRY_QUEUED = 1000
"""A reader for which more waits than that is not left to its pace: its queue would be full before."""

GIVE_WAY_S = 0.25
"""How long whoever has many updates waits for readers that take what is queued, at most."""

TAKING_S = 0.5
"""A reader that has taken nothing for so long is not one that reads."""

RETRY_S = 1.0

GOING_AWAY = 1001

log = logging.getLogger("tickhub")


class Hub:
    """The readers of a worker.

    quotes: the newest quotes of these symbols. names: all symbols that there are. Times are of `now`, monotonic.
    """

    def __init__(
        self,
        quotes: Callable[[Sequence[str]], Sequence[Quote]],
        names: Callable[[], Sequence[str]],
        heartbeat_interval_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names, self._now = names, now
        self._quotes = LiveQuotes(quotes)
        self._heartbeat_interval_s = heartbeat_interval_s
        self._readers: set[Subscriber] = set()
        self._watchers: dict[tuple[str, ...], list[Subscriber]] = {}
        self._asleep: set[str] = set()
        """Symbols that an idle reader may name; idle readers of all symbols are in the other set."""
        self._asleep_every: set[Subscriber] = set()
        self._schedule: Schedule[Subscriber] = Schedule()
        self._heartbeats: OrderedDict[Subscriber, float] = OrderedDict()
        self._wake = Event()
        self._leaving = Event()
        self.closing = False
        self.sent = self.skipped = self.too_slow = 0
        """Messages that left, versions of quotes that readers jumped over, and readers closed as too slow, ever."""

    # What happened

    def quotes_changed(self, changes: Mapping[str, int]) -> None:
        """Note changed quotes: canonical symbol -> number of ticks since the last call."""
        self._quotes.note(changes)
        if self._asleep or self._asleep_every:
            self._wake.set()

    def trades(self, updates: Sequence[TradeUpdate]) -> None:
        """Pass on trades, in order."""
        for update in updates:
            self._push(update, "trades", update.symbol)

    def bars(self, updates: Sequence[BarUpdate]) -> None:
        """Pass on bars, in order."""
        for update in updates:
            self._push(update, "bars", update.symbol, update.interval)

    def alerts(self, updates: Sequence[AlertUpdate]) -> None:
        """Pass on alerts, in order."""
        for update in updates:
            self._push(update, "alerts", update.symbol)

    def give_way(self, *, to_slow: bool = False) -> None:
        """Let readers get what is queued for them, between many updates; one that takes nothing is not waited for.

        to_slow: wait also for those that just now took something, not only for those that take more at once.
        """
        until_s = self._now() + GIVE_WAY_S
        gevent.sleep(0)
        while (now := self._now()) < until_s and any(_is_behind(reader, to_slow, now) for reader in self._readers):
            gevent.sleep(0.002)

    # Who is there

    def __len__(self) -> int:
        return len(self._readers)

    def attach(self, subscriber: Subscriber, *, heartbeats: bool = True) -> None:
        """Take a reader in."""
        self._readers.add(subscriber)
        subscriber.sequence = self._quotes.sequence
        if heartbeats:
            self._heartbeats[subscriber] = self._now() + self._heartbeat_interval_s
        self._wake.set()

    def detach(self, subscriber: Subscriber) -> None:
        """Forget a reader; also one that is not there."""
        if subscriber in self._readers:
            self.too_slow += subscriber.too_slow
        self._readers.discard(subscriber)
        self._heartbeats.pop(subscriber, None)
        self._asleep_every.discard(subscriber)
        self._watchers.clear()
        if not self._readers:
            self._leaving.set()

    def subscribe(
        self, reader: Subscriber, symbols: Sequence[str] | None, channels: Sequence[Channel], interval: str = "1m"
    ) -> None:
        """Add symbols (canonical; None: all) to a reader's channels; its snapshots leave in the next turn."""
        for channel in channels:
            if channel == "bars":
                reader.bars.setdefault(interval, Watch())
            for watch in reader.watches(channel, interval):
                watch.add(symbols)
        if "quotes" in channels:
            reader.show(self._quotes.lives(self._names() if symbols is None else symbols))
        self._watchers.clear()
        self.hurry(reader)

    def unsubscribe(
        self,
        reader: Subscriber,
        symbols: Sequence[str] | None,
        channels: Sequence[Channel],
        interval: str | None = None,
    ) -> None:
        """Take symbols (canonical; None: all) off a reader's channels; what is queued still leaves."""
        for channel in channels:
            for watch in reader.watches(channel, interval):
                watch.remove(symbols)
        self._watchers.clear()
        self._asleep_every.discard(reader)
        self.hurry(reader)  # so that it falls asleep over what it watches now

    def symbols_of(self, reader: Subscriber) -> list[str]:
        """Return all symbols that a reader watches now, in any channel."""
        watches = [watch for channel in reader.channels for watch in reader.watches(channel)]
        if not any(watch.every for watch in watches):
            return sorted(reader.named())
        return [symbol for symbol in sorted(self._names()) if any(symbol in watch for watch in watches)]

    def bar_intervals(self) -> dict[str, set[str]]:
        """Return the intervals of which somebody watches the bars, by symbol."""
        # Once for all readers that watch the same: a thousand of all symbols would take a loop's tenths of a second.
        alike = {(name, watch.key): watch for reader in self._readers for name, watch in reader.bars.items()}
        found: dict[str, set[str]] = {}
        for (interval, _), watch in alike.items():
            for symbol in watch.among(self._names()) if watch.every else watch.names:
                found.setdefault(symbol, set()).add(interval)
        return found

    def wants_trades(self) -> bool:
        """Tell whether anybody watches trades."""
        return any(reader.trades for reader in self._readers)

    def wants_alerts(self) -> bool:
        """Tell whether anybody watches alerts."""
        return any(reader.alerts for reader in self._readers)

    # Serving them

    def run(self) -> None:
        """Serve readers for ever; to be spawned as a greenlet."""
        while True:
            self._wake.clear()
            try:
                wait_s = self.turn()
            except Exception:
                log.exception("serving live readers failed")
                gevent.sleep(RETRY_S)  # whatever happens meanwhile: or there was a line in the log for every tick
                wait_s = 0.0
            gevent.sleep(SHORTEST_S)  # an event that is set is not waited for, and others would not have their turn
            self._wake.wait(wait_s)

    def turn(self) -> float | None:
        """Serve those that are due; return how long nobody will be, None: until something happens."""
        now = self._now()
        self._beat(now)
        self._wake_up(now)
        ready = [reader for reader in self._schedule.due(now) if reader in self._readers]
        if ready:
            try:
                self._quotes.refresh()
            except BaseException:
                for reader in ready:
                    self._schedule.put_now(reader, now)
                raise
            for start in range(0, len(ready), READERS_A_TURN):
                self._serve(ready[start : start + READERS_A_TURN])
                gevent.sleep(SHORTEST_S)
        following = [self._schedule.next_s(), next(iter(self._heartbeats.values()), None)]
        return min((max(0.0, when_s - self._now()) for when_s in following if when_s is not None), default=None)

    def hurry(self, reader: Subscriber) -> None:
        """Have a reader served in the next turn."""
        if reader.state != BUSY:
            reader.state = WAITING
            self._schedule.put_now(reader, self._now())
        self._wake.set()

    def drained(self, reader: Subscriber) -> None:
        """Go on with a reader whose socket takes more again."""
        if reader in self._readers:
            reader.state = IDLE
            self.hurry(reader)

    def close(self, within_s: float) -> None:
        """Close every reader with 1001; return when all have left, and cut those that have not within that time."""
        self.closing = True
        if not self._readers:
            return
        self._leaving.clear()
        for reader in list(self._readers):
            reader.socket.close(GOING_AWAY, "the server is going away", within_s)
        self._leaving.wait(within_s)
        for reader in list(self._readers):
            reader.socket.cut()

    def _push(self, update: TradeUpdate | BarUpdate | AlertUpdate, channel: Channel, *key: str) -> None:
        watchers = self._watchers_of(channel, *key)
        if not watchers:
            return
        text = messages.update_text(update)
        now = self._now()
        for reader in watchers:
            if reader.replay is not None and isinstance(update, TradeUpdate):
                reader.push_behind_replay(update)
            else:
                reader.push(text)
            if reader.state == IDLE:
                self._rouse(reader, now)
            elif reader.queued > HURRY_QUEUED:
                self.hurry(reader)
        self._wake.set()

    def _watchers_of(self, channel: Channel, symbol: str, interval: str | None = None) -> list[Subscriber]:
        key = (channel, symbol, interval or "")
        found = self._watchers.get(key)
        if found is None:
            found = self._watchers[key] = [
                reader
                for reader in self._readers
                if any(symbol in watch for watch in reader.watches(channel, interval))
            ]
        return found

    def _wake_up(self, now: float) -> None:
        for symbol in self._quotes.dirty & self._asleep:
            self._asleep.discard(symbol)
            for reader in self._watchers_of("quotes", symbol):
                if reader.state == IDLE:
                    self._rouse(reader, now)
        if self._quotes.dirty:
            for reader in self._asleep_every:
                if reader.state == IDLE:
                    self._rouse(reader, now)
            self._asleep_every.clear()

    def _rouse(self, reader: Subscriber, now: float) -> None:
        reader.state = WAITING
        due_s = reader.sent_s + reader.conflate_s
        if due_s <= now:
            self._schedule.put_now(reader, now)
        else:
            self._schedule.put(reader, due_s)

    def _serve(self, readers: Sequence[Subscriber]) -> None:
        """Serve some readers, without a switch to another greenlet.

        All is made before anything is sent: who reads on this machine is woken up once then, not for each of them,
        which takes longer than making and sending it.
        """
        taken = []
        for reader in readers:
            try:
                if (texts := self._take(reader)) is not None:
                    taken.append((reader, texts))
            except Exception:
                log.exception("serving a live reader failed")
                reader.socket.cut()
        for reader, texts in taken:
            try:
                self._send(reader, texts)
            except Exception:
                log.exception("serving a live reader failed")
                reader.socket.cut()

    def _take(self, reader: Subscriber) -> list[bytes] | None:
        """Return what leaves for a reader now, None when it is not to be served."""
        if reader.socket.closing or reader.socket.ended:
            return None
        if reader.stalled():
            reader.state = BUSY
            return None
        reader.state = IDLE
        texts = reader.take(self._quotes.since(reader.sequence), self._quotes.sequence)
        self.skipped += reader.skipped
        reader.skipped = 0
        return texts

    def _send(self, reader: Subscriber, texts: list[bytes]) -> None:
        now = self._now()
        if texts:
            grid_s = max(SLOT_S, reader.conflate_s / PHASES)
            reader.sent_s = math.floor(now / grid_s) * grid_s
            reader.socket.send_texts(texts)
            self.sent += len(texts)
        if reader.stalled():
            reader.state = BUSY
        elif reader.pending:
            self.hurry(reader)
        elif texts and reader.conflate_s:
            self._rouse(reader, now)
        elif reader.quotes.every:
            self._asleep_every.add(reader)
        else:
            self._asleep |= reader.quotes.names

    def _beat(self, now: float) -> None:
        text = b""
        while self._heartbeats:
            reader, when_s = next(iter(self._heartbeats.items()))
            if when_s > now:
                return
            self._heartbeats[reader] = now + self._heartbeat_interval_s
            self._heartbeats.move_to_end(reader)
            stalled_since = reader.socket.stalled_since
            if stalled_since is None:
                text = text or messages.heartbeat(rfc3339(time.time_ns() // 1000))
                reader.say(text)
            elif now - stalled_since > MAX_STALL_S:
                reader.too_slow = True
                reader.socket.close(TOO_SLOW, "nothing was read for long", SLOW_CLOSE_S)


def _is_behind(reader: Subscriber, to_slow: bool, now: float) -> bool:
    stalled_since = reader.socket.stalled_since
    is_taking = stalled_since is None or (to_slow and now - stalled_since < TAKING_S)
    return reader.queued > HURRY_QUEUED and is_taking and not reader.socket.closing
