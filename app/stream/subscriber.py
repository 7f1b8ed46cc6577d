"""One reader: what it watches, what is pending for it, and what is too much. Greenlet side.

Its pending quotes are marks: which symbols changed since it last got some. The text is taken when they leave, so it is
the newest, and the versions that it jumped over are `skipped`. Trades, bars and alerts wait in a queue, in order.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Protocol

from app.stream import messages
from app.stream.channels import Channel
from app.stream.likeness import Likeness
from app.stream.live_quotes import Changed, Live
from app.stream.messages import TradeUpdate, Update
from app.stream.protocol import DEFAULT_CONFLATE_MS
from app.stream.replay import Replay

MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 4 << 20
"""What may wait for a reader; beyond it is closed with 1013."""

SEND_BYTES = 64 * 1024
"""About so much is made and sent in one go: of the rest only the marks are kept while the reader is not ready for it.
So batches stay below what clients take as a message, too (1 MiB is common)."""

QUOTES_SHARE_BYTES = SEND_BYTES // 2
"""What of it is left to quotes: a replay refills the queue as quickly as it empties."""

MOST_IN_KEY = 100
"""Sets of more symbols are not compared: that costs each reader more than it saves."""

TOO_SLOW, SLOW_CLOSE_S = 1013, 10.0

IDLE, WAITING, BUSY = range(3)
"""Nothing pending; due at a time; the kernel takes no more for now."""


class Outlet(Protocol):
    """What a subscriber needs of a `Socket`."""

    stalled_since: float | None
    closing: bool
    ended: bool

    def send_texts(self, texts: list[bytes]) -> None:
        """Send messages."""

    def close(self, code: int, reason: str = "", within_s: float = 1.0) -> None:
        """Begin to close."""

    def cut(self) -> None:
        """End at once."""


class Watch:
    """A set of symbols: those named, or all but those named. key: the same for sets that are; not for large ones."""

    __slots__ = ("every", "key", "names")

    def __init__(self) -> None:
        self.every = False
        self.names: set[str] = set()
        self._rekey()

    def add(self, symbols: Iterable[str] | None) -> None:
        """Add symbols, None: all."""
        if symbols is None:
            self.every, self.names = True, set()
        elif self.every:
            self.names.difference_update(symbols)
        else:
            self.names.update(symbols)
        self._rekey()

    def remove(self, symbols: Iterable[str] | None) -> None:
        """Take symbols away, None: all."""
        if symbols is None:
            self.every, self.names = False, set()
        elif self.every:
            self.names.update(symbols)
        else:
            self.names.difference_update(symbols)
        self._rekey()

    def _rekey(self) -> None:
        self.key: Hashable = (self.every, frozenset(self.names)) if len(self.names) <= MOST_IN_KEY else object()

    def __contains__(self, symbol: str) -> bool:
        return (symbol in self.names) != self.every

    def __bool__(self) -> bool:
        return self.every or bool(self.names)

    def among(self, symbols: Iterable[str]) -> Iterator[str]:
        """Yield those of the symbols that are in it."""
        return (symbol for symbol in symbols if symbol in self)


class Subscriber:
    """A reader of the hub. The hub says when it takes what is pending."""

    def __init__(self, socket: Outlet) -> None:
        self.socket = socket
        self.conflate_s = DEFAULT_CONFLATE_MS / 1000
        self.batch = False
        self.quotes, self.trades, self.alerts = Watch(), Watch(), Watch()
        self.bars: dict[str, Watch] = {}
        self.replay: Replay | None = None
        """Stored trades that are being sent to it: live ones of the same symbols must not come before them."""
        self.state = IDLE
        self.sent_s = float("-inf")
        self.sequence = 0
        self.skipped = 0
        """Versions of quotes that it did not get because newer ones were there; the hub counts and resets it."""
        self.too_slow = False
        """Whether it was closed for that."""
        self._sent = array("q")
        self._seen = array("q")
        self._marked: dict[Live, None] = {}
        self._said: list[bytes] = []
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._queued_bytes = 0

    def watches(self, channel: Channel, interval: str | None = None) -> list[Watch]:
        """Return the channel's sets of symbols; of bars: of one interval or of all."""
        if channel == "bars":
            return [watch for name, watch in self.bars.items() if interval in (None, name)]
        return [{"quotes": self.quotes, "trades": self.trades, "alerts": self.alerts}[channel]]

    @property
    def channels(self) -> list[Channel]:
        """Return the channels of which it watches anything."""
        found: list[Channel] = ["quotes", "trades", "bars", "alerts"]
        return [channel for channel in found if any(self.watches(channel))]

    def named(self) -> set[str]:
        """Return the symbols that it names, in any channel."""
        all_of = (watch for channel in self.channels for watch in self.watches(channel))
        return set().union(*(watch.names for watch in all_of))

    def stalled(self) -> bool:
        """Tell whether the kernel takes no more for it now."""
        return self.socket.stalled_since is not None

    def say(self, text: bytes) -> None:
        """Send a message that answers the reader, before all that is pending."""
        if not self.stalled() and not self._said:
            self.socket.send_texts([text])
        else:
            self._said.append(text)
            self._count(text)

    def push(self, text: bytes, *, alone: bool = False) -> None:
        """Queue an update that must not be left out; alone: never in an array with others."""
        self._queue.append((text, alone))
        self._count(text)

    def push_all(self, updates: Iterable[Update]) -> None:
        """Queue updates that are for this reader alone."""
        for update in updates:
            self.push(messages.update_text(update))

    def push_behind_replay(self, trade: TradeUpdate) -> None:
        """Queue a live trade unless it is held back, or was replayed."""
        assert self.replay is not None
        self.push_all(self.replay.live([trade]))
        if self.replay.done:
            self.replay = None

    def show(self, lives: Iterable[Live]) -> None:
        """Mark symbols that it has subscribed to: their quotes are snapshots."""
        for live in lives:
            self._grow(live.index)
            self._seen[live.index] = -1
            self._marked[live] = None

    @property
    def pending(self) -> bool:
        """Whether it is known that something waits; more may have changed."""
        return bool(self._said or self._queue or self._marked)

    @property
    def queued(self) -> int:
        """Return how many messages wait, quotes not counted."""
        return len(self._said) + len(self._queue)

    @property
    def queued_bytes(self) -> int:
        """Return how large they are."""
        return self._queued_bytes

    def take(self, changed: Changed, sequence: int) -> list[bytes]:
        """Return the messages that leave now, about SEND_BYTES; `pending` tells whether there are more.

        changed: what changed since `self.sequence`; sequence: up to where that goes.
        """
        self.sequence = sequence
        if not self.pending and (found := self._alike(changed)) is not None:
            return self._numbered(found)
        texts, self._said = self._said, []
        size = sum(map(len, texts))
        self._queued_bytes -= size
        group: list[bytes] = []
        while self._queue and size < SEND_BYTES - QUOTES_SHARE_BYTES:
            text, alone = self._queue.popleft()
            size += len(text)
            self._queued_bytes -= len(text)
            if alone:
                texts += self._together(group)
                texts.append(text)
                group = []
            else:
                group.append(text)
        lives: Iterable[Live] = changed.lives
        if self._marked:
            self._marked.update(dict.fromkeys(lives))
            lives, self._marked = self._marked, {}
        self._take_quotes(lives, group, size)
        return texts + self._together(group)

    def _take_quotes(self, lives: Iterable[Live], texts: list[bytes], size: int) -> None:
        names, every = self.quotes.names, self.quotes.every
        sent, seen = self._sent, self._seen
        for live in lives:
            if (live.symbol in names) == every:
                continue
            index = live.index
            if index >= len(seen):
                self._grow(index)
            was = seen[index]
            if was == live.version:
                continue
            if size >= SEND_BYTES or not live.made:
                self._marked[live] = None
                continue
            seen[index] = live.version
            if not live.text:
                continue
            if was >= 0:
                self.skipped += live.version - was - 1
            n = sent[index] = sent[index] + 1
            text = live.text + messages.quote_tail(n, live.version - was - 1, snapshot=was < 0)
            size += len(text)
            texts.append(text)

    def _alike(self, changed: Changed) -> Likeness | None:
        """Return what readers like this one get, None when there is no such thing.

        One without marks has seen of all that it watches what there was at its `sequence`: it is like all others
        without marks that watch the same and are at the same.
        """
        alike, key = changed.alike, self.quotes.key
        if key not in alike:
            alike[key] = Likeness  # made for the second one who asks: the first may be the only one
            return None
        if alike[key] is Likeness:
            alike[key] = self._likeness([live for live in changed.lives if live.symbol in self.quotes])
        return alike[key]  # type: ignore[no-any-return]  # what is kept there is ours

    def _likeness(self, lives: list[Live]) -> Likeness | None:
        if not all(live.text and live.made for live in lives):
            return None
        for live in lives:
            self._grow(live.index)
        found = Likeness(lives, self._seen)
        return found if found.size < SEND_BYTES else None

    def _numbered(self, alike: Likeness) -> list[bytes]:
        sent, seen = self._sent, self._seen
        self.skipped += alike.skipped
        if alike.places > len(seen):
            self._grow(alike.places - 1)
        if alike.run is not None:
            numbers = [number + 1 for number in sent[alike.run]]
            sent[alike.run] = array("q", numbers)
            seen[alike.run] = alike.versions
            return alike.texts(numbers, batch=self.batch)
        numbers = []
        for index, version in zip(alike.indices, alike.versions, strict=True):
            seen[index] = version
            number = sent[index] = sent[index] + 1
            numbers.append(number)
        return alike.texts(numbers, batch=self.batch)

    def _together(self, texts: list[bytes]) -> list[bytes]:
        return [messages.array(texts)] if self.batch and texts else texts

    def _grow(self, index: int) -> None:
        more = index + 1 - len(self._seen)
        if more > 0:
            self._seen.extend([0] * more)
            self._sent.extend([0] * more)

    def _count(self, text: bytes) -> None:
        self._queued_bytes += len(text)
        if self.queued > MAX_QUEUED or self._queued_bytes > MAX_QUEUED_BYTES:
            self._said, self._marked = [], {}
            self._queue.clear()
            self._queued_bytes = 0
            self.too_slow = True
            self.socket.close(TOO_SLOW, "too slow: read faster, or watch less", SLOW_CLOSE_S)
