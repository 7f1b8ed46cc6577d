"""Boards of several workers: whatever the bus does to ticks, quotes equal those of one board that got all in order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import fan_out
from app.fan_out import CHUNK_ROWS, FanOut, decode_ticks, encode_ticks
from app.market.columns import Ticks
from app.market.quotes import Quote, QuoteRow
from app.market.sessions import Market
from app.market.symbols import SymbolMap
from app.quote_board import QuoteBoard
from app.stream.bus import QUOTES, QUOTES_WANTED, TICKS, Bus
from app.stream.datagrams import MOST_DATAGRAM_BYTES
from app.stream.frames import BadFrame, Sender
from tests.batches import Tick, many, ticks
from tests.unit.test_quote_board import BATCHES, INSTRUMENTS, MARKETS, RECEIVED_US, START_US

NOWHERE = Path("/dev/null/bus")
"""Where no directory can be made: these buses are never started."""

SYMBOLS = SymbolMap(INSTRUMENTS)


class Wire(Bus):
    """A bus that keeps what is sent; its messages are handed over by the test."""

    def __init__(self, slot: int = 0) -> None:
        super().__init__(NOWHERE, slot)
        self.sent: list[tuple[int, bytes, Sender | None]] = []

    @property
    def reaches_somebody(self) -> bool:
        return True

    def send(self, kind: int, payload: bytes, to: Sender | None = None, *, here: bool = False) -> None:
        self.sent.append((kind, payload, to))

    def comes(self, kind: int, payload: bytes) -> None:
        self._handlers[kind](payload)


class Worker:
    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.wire = Wire()
        self.board = QuoteBoard(lambda: SYMBOLS, 60.0, lambda names: self.fan_out.repaired(names))
        self.fan_out = FanOut(self.wire, self.board, self._changed)

    def _changed(self, changes: Mapping[str, int]) -> None:
        self.told.update(changes)

    def accepts(self, batch: list[Tick], received_us: int) -> list[bytes]:
        """Take a batch as web/ingest.py does; return what went out."""
        self.wire.sent.clear()
        columns = ticks(batch)
        self.board.accepted(columns, received_us)
        self.fan_out.accepted(columns, received_us, columns.encode())
        assert {kind for kind, _, to in self.wire.sent} <= {TICKS}
        return [payload for _, payload, _ in self.wire.sent]

    def quotes(self) -> list[Quote]:
        # What is stale depends on the moment at which it is asked.
        return [msgspec.structs.replace(one, stale=False) for one in self.board.get()]


def same(one: Ticks, other: Ticks) -> bool:
    return one.encode() == other.encode()


@pytest.mark.long
@settings(deadline=None, max_examples=200)
@given(BATCHES, st.sampled_from(MARKETS), st.integers(2, 4), st.randoms(use_true_random=False))
def test_boards_agree_whatever_comes_late_or_twice(
    batches: list[list[Tick]], market: Market, count: int, random: Random
) -> None:
    workers, alone = [Worker() for _ in range(count)], Worker()
    for worker in (*workers, alone):
        worker.board.loaded([QuoteRow(one.symbol, exchange=market[0], timezone=market[1]) for one in INSTRUMENTS])
    received_us = RECEIVED_US
    waiting: list[tuple[Worker, bytes]] = []
    for batch in {tuple(batch) for batch in batches}:  # no resends: see below
        seen = {(tick.symbol, tick.time_us, tick.seq) for tick in batch}
        if any(seen & {(t.symbol, t.time_us, t.seq) for t in other} for other in batches if tuple(other) != batch):
            continue
        alone.accepts(list(batch), received_us)
        sender = random.choice(workers)
        for message in sender.accepts(list(batch), received_us):
            # To all, the sender too (as an echo by Redis), and to some of them twice.
            waiting += [(worker, message) for worker in workers for _ in range(random.choice([1, 1, 2]))]
        received_us += len(batch)
        if random.random() < 0.3:
            random.choice(workers).quotes()
    random.shuffle(waiting)
    for worker, message in waiting:
        worker.wire.comes(TICKS, message)
    for worker in workers:
        assert worker.quotes() == alone.quotes()
        # And a worker that is begun now gets the same from any of them.
        fresh = Worker()
        worker.wire.sent.clear()
        worker.wire.comes(QUOTES_WANTED, fresh.wire.me.head())
        for kind, message, to in worker.wire.sent:
            assert (kind, to) == (QUOTES, fresh.wire.me)
            fresh.wire.comes(kind, message)
        assert fresh.quotes() == alone.quotes()
        for message in (message for _, message in waiting):
            fresh.wire.comes(TICKS, message)
        assert fresh.quotes() == alone.quotes()


def test_a_tick_that_comes_again_changes_nothing_with_or_without_seq() -> None:
    first, second = Worker(), Worker()
    batches = [[Tick("A", START_US, seq, bid=bid)] for seq, bid in ((-1, 10.0), (-2, 11.0), (3, 9.0))]
    sent = [first.accepts(batch, RECEIVED_US + at) for at, batch in enumerate(batches)]
    assert first.board.get(["A"])[0].bid == 11.0  # derived identities follow those that were given
    for messages in (*sent, *reversed(sent), *sent):
        for message in messages:
            second.wire.comes(TICKS, message)
            first.wire.comes(TICKS, message)
            assert first.board.get(["A"])[0].bid == 11.0
    assert second.quotes() == first.quotes()


def test_a_tick_counts_as_received_when_its_worker_received_it() -> None:
    first, second = Worker(), Worker()
    early, late = ([Tick("A", START_US, seq, bid=bid)] for seq, bid in ((-1, 10.0), (-2, 11.0)))
    first_message = first.accepts(late, RECEIVED_US + 1)
    second.accepts(early, RECEIVED_US)
    second.wire.comes(TICKS, first_message[0])
    second.wire.comes(TICKS, second.accepts(early, RECEIVED_US)[0])
    assert second.board.get(["A"])[0].bid == 11.0


@pytest.mark.parametrize("rows", [1, CHUNK_ROWS, CHUNK_ROWS + 1, 3 * CHUNK_ROWS])
def test_a_batch_of_any_size_goes_in_messages_of_a_datagram_each(rows: int) -> None:
    batch = many(rows, symbol="A")
    columns = ticks(batch)
    messages = encode_ticks(columns, RECEIVED_US, columns.encode())
    assert len(messages) == -(-rows // CHUNK_ROWS)
    assert max(map(len, messages)) < MOST_DATAGRAM_BYTES - 1000
    at = 0
    for message in messages:
        part, received_us = decode_ticks(message)
        assert received_us == RECEIVED_US + at
        assert same(part, ticks(batch[at : at + len(part)]))
        at += len(part)
    assert at == rows


@given(st.data())
def test_damaged_ticks_are_refused_or_are_ticks_that_can_be_looked_at(data: st.DataObject) -> None:
    columns = ticks([Tick("A", START_US, 0), Tick("B", START_US, 1)])
    message = bytearray(encode_ticks(columns, RECEIVED_US, columns.encode())[0])
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 1, 8, 100]))
    worker = Worker()
    with suppress(BadFrame):
        worker.wire.comes(TICKS, bytes(message[: len(message) - cut]))
    worker.board.get()


@pytest.mark.parametrize("kind", [TICKS, QUOTES, QUOTES_WANTED])
@given(st.binary(max_size=60))
def test_garbage_is_refused(kind: int, data: bytes) -> None:
    with pytest.raises(BadFrame):
        Worker().wire.comes(kind, data)


def test_the_hub_is_told_how_many_ticks_of_which_symbols_there_were() -> None:
    first, second = Worker(), Worker()
    for message in first.accepts([*many(3, symbol="B"), *many(2, symbol="A")], RECEIVED_US):
        second.wire.comes(TICKS, message)
    assert first.told == second.told == {"A": 2, "B": 3}


def test_the_hub_is_told_of_what_was_lost_on_the_way_and_is_read_in_the_database() -> None:
    first, second, third = Worker(), Worker(), Worker()
    for message in first.accepts([Tick("A", START_US, 5, bid=10.4)], RECEIVED_US):
        third.wire.comes(TICKS, message)
    database = first.board.rows()
    second.board.loaded(database)
    assert second.told == {"A": 1}
    assert second.board.get(["A"])[0].bid == 10.4
    for worker, told in ((first, 1), (second, 1), (third, 1)):
        for _ in range(2):
            worker.board.loaded([*database, QuoteRow("B"), QuoteRow("OIL")])
        assert +worker.told == {"A": told}, "what was told is no news"
    second.accepts([Tick("A", START_US + 1, 5, bid=10.5)], RECEIVED_US)
    second.board.loaded(database)
    assert +second.told == {"A": 2}, "a database that is behind has no news"


def test_the_hub_looks_again_at_quotes_when_the_database_is_read_for_the_first_time() -> None:
    worker = Worker()
    worker.accepts([Tick("A", START_US, 5, bid=10.4)], RECEIVED_US)
    worker.told.clear()
    for _ in range(2):
        worker.board.loaded(worker.board.rows())
    assert dict(worker.told) == {"A": 0}


def test_nothing_is_made_for_a_worker_that_is_alone() -> None:
    worker = Worker()
    alone = Bus(NOWHERE, 0)
    made = FanOut(alone, worker.board, worker._changed)
    columns = ticks([Tick("A", START_US, 0)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fan_out, "encode_ticks", lambda *args: 1 / 0)
        made.accepted(columns, RECEIVED_US, b"")
    assert worker.told == {"A": 1}


def test_what_was_read_from_the_database_is_known_to_be_so_by_those_who_get_it() -> None:
    first, fresh = Worker(), Worker()
    first.accepts([Tick("A", START_US, 0), Tick("B", START_US, 0)], time.time_ns() // 1000)
    first.board.loaded([row for row in first.board.rows() if row.symbol == "A"])
    first.wire.sent.clear()
    first.wire.comes(QUOTES_WANTED, fresh.wire.me.head())
    for kind, message, _ in first.wire.sent:
        fresh.wire.comes(kind, message)
    assert [fresh.board.was_read(name) for name in ("A", "B", "OIL")] == [True, False, False]
    assert fresh.told == {"A": 1, "B": 1}
