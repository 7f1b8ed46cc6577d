"""Readers that get alike get the same as if each of them were alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

from app.stream.hub import PHASES
from app.stream.subscriber import Subscriber
from tests.unit.test_live_hub import Market, Reader, got, short


def played(seed: int) -> list[list[list[Any]]]:
    """Return all that each reader is sent in a market where they come, change their minds, stall, and watch alike."""
    rng = random.Random(seed)
    market = Market()
    market.names = ["A", "B%d", "C%", "D", "E"]
    readers: list[Subscriber] = []
    sent: list[list[list[Any]]] = []
    for _ in range(150):
        what = rng.random()
        if len(readers) < 3 or (what < 0.1 and len(readers) < 25):
            some = rng.choice((None, ["A", "B%d"], ["B%d", "A"], ["E"]))
            readers.append(market.read(some, rng.choice((0.0, 0.1)), batch=rng.random() < 0.7))
            sent.append([])
        elif what < 0.15:
            market.hub.unsubscribe(rng.choice(readers), [rng.choice(market.names)], ["quotes"])
        elif what < 0.2:
            market.hub.subscribe(rng.choice(readers), [rng.choice(market.names)], ["quotes"])
        elif what < 0.25:
            socket = rng.choice(readers).socket
            assert isinstance(socket, Reader)
            socket.stalls = True
        elif what < 0.3:
            for reader in readers:
                if reader.stalled():
                    assert isinstance(reader.socket, Reader)
                    reader.socket.stalls, reader.socket.stalled_since = False, None
                    market.hub.drained(reader)
        elif what < 0.33:
            market.names.append(f"N{len(market.names)}")
        for name in rng.sample(market.names, rng.randrange(4)):
            market.tick(name, rng.randrange(1, 100), rng.randrange(1, 4))
        market.pass_time(rng.choice((0.001, 0.02, 0.1)))
        for reader, all_sent in zip(readers, sent, strict=True):
            assert isinstance(reader.socket, Reader)
            # One send holds a symbol once: in which order they are does not matter.
            all_sent += [[ordered(said) for said in sorted(one, key=str)] for one in reader.socket.sends]
            reader.socket.sends = []
    return sent


def ordered(said: Any) -> Any:
    return sorted(said, key=str) if isinstance(said, list) else said


@pytest.mark.parametrize("seed", range(12))
def test_alike_or_alone_the_messages_are_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    alike = Subscriber._alike

    def watched(reader: Subscriber, changed: Any) -> Any:
        found = alike(reader, changed)
        used.append(found is not None)
        return found

    monkeypatch.setattr(Subscriber, "_alike", watched)
    together = played(seed)
    monkeypatch.setattr(Subscriber, "_alike", lambda reader, changed: None)
    assert together == played(seed)
    assert sum(used) > 50


def test_each_reader_keeps_its_own_numbers() -> None:
    market = Market()
    readers = []
    for price in range(10, 13):
        readers.append(market.read(None, 0.1, batch=True))
        market.tick("AAPL", price)
        market.pass_time(0.5)
    for reader in readers:
        got(reader)
    market.tick("AAPL", 20)
    market.tick("TSLA", 30)
    market.pass_time(0.5)
    assert [short(got(reader)) for reader in readers] == [
        [("AAPL", 20, n, 0), ("TSLA", 30, 1, 0)] for n in (4, 3, 2)
    ]


def test_readers_that_conflate_equally_are_due_together_and_as_often_as_they_asked() -> None:
    market = Market()
    readers = []
    for _ in range(50):
        readers.append(market.read(None, 0.1))
        market.tick("AAPL", market.now_s)
        market.pass_time(0.013)
    for reader in readers:
        got(reader)
    market.asked.clear()
    for _ in range(1000):
        market.tick("AAPL", market.now_s)
        market.pass_time(0.001)
    assert all(9 <= len(got(reader)) <= 11 for reader in readers)
    assert len(market.asked) <= 10 * PHASES + PHASES
