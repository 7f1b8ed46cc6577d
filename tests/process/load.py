"""A load of ticks from clients that never give up: every batch is sent until it is acknowledged."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.process.harness import Server, wait_until

SYMBOLS = ("AAPL", "TSLA", "NVDA", "VIX")
SENDERS = 3
ANSWER_S = 30.0

Tick = dict[str, Any]
Content = tuple[object, ...]


def _monday_ms() -> int:
    """The last Monday 00:00 UTC: ticks around it fall into two weeks, days, hours and minutes."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((today - timedelta(days=today.weekday())).timestamp() * 1000)


def content(tick: Tick) -> Content:
    """What must be found of a tick in the database; seq only where it was given."""
    values = (tick[name] for name in ("bid", "ask", "last", "spread", "volume", "flags"))
    return (tick["symbol"], tick["timestamp"] * 1000, *values, tick.get("seq"))


class Ticks:
    """Makes the ticks of one sender; a millisecond is used once only, and by one sender only."""

    def __init__(self, seed: int, sender: int, *, with_seq: bool) -> None:
        self._random = random.Random(f"{seed} {sender}")
        self._sender = sender
        self._with_seq = with_seq
        self._base_ms = _monday_ms() - 60_000
        self._moments = 0

    def batch(self, rows: int) -> list[Tick]:
        rng, ticks = self._random, list[Tick]()
        while len(ticks) < rows:
            # Counted backwards within blocks: most ticks come later than newer ones.
            at_ms = self._base_ms + (self._moments ^ 0x3F) * SENDERS + self._sender
            self._moments += 1
            symbol = rng.choice(SYMBOLS)
            same_moment = [self._tick(symbol, at_ms) for _ in range(rng.choice((1, 1, 2, 4)))]
            if rng.random() < 0.1:
                same_moment.append(dict(same_moment[0]))  # equal in all: two ticks nevertheless
            if self._with_seq:
                for seq, tick in enumerate(same_moment):
                    tick["seq"] = seq
            ticks += same_moment
        rng.shuffle(ticks)
        return ticks

    def _tick(self, symbol: str, at_ms: int) -> Tick:
        rng = self._random
        bid = rng.randint(1000, 1100) / 10
        quote: Tick = {
            "bid": bid,
            "ask": round(bid + rng.choice((0.1, 0.2, -0.1)), 1),
            "last": None,
            "volume": 0,
        }
        if rng.random() < 0.3:
            quote |= {
                "last": bid,
                "volume": rng.randint(1, 900) / 100,
                "flags": rng.choice((24, 56, 88, 120)),
            }
        elif rng.random() < 0.2:
            quote |= {"ask": None, "flags": 2}
        else:
            quote["flags"] = 6
        return {"symbol": symbol, "timestamp": at_ms, "spread": rng.choice((None, 1, 2.5)), **quote}


class Load:
    """Senders in threads; entered and left like a file. After `finish` everything sent is acknowledged."""

    def __init__(self, server: Server, seed: int, *, with_seq: bool, rows: int = 40, pause_s: float = 0.01):
        self._server = server
        self._rows = rows
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._give_up = threading.Event()
        self.acknowledged: list[list[Tick]] = []
        self.acknowledged_rows = 0
        """Rows of every 200, resends included."""
        self.errors: list[BaseException] = []
        self.refusals = Counter[int]()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(Ticks(seed, sender, with_seq=with_seq), random.Random(f"{seed} net {sender}")),
                daemon=True,
            )
            for sender in range(SENDERS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._give_up.set()
        for thread in self._threads:
            thread.join(ANSWER_S + 5)

    def finish(self) -> None:
        """Begin no new batch, and wait until those under way are acknowledged."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a batch was not acknowledged within a minute"
        assert not self.errors, self.errors

    def expected(self) -> Counter[Content]:
        return Counter(content(tick) for batch in self.acknowledged for tick in batch)

    def rows(self) -> int:
        """Rows of the batches that are acknowledged, each batch once."""
        with self._lock:
            return sum(map(len, self.acknowledged))

    def more(self, rows: int) -> None:
        """Wait until so many more rows are acknowledged."""
        goal = self.rows() + rows
        wait_until(lambda: self.rows() >= goal or self.errors, what=f"{rows} more rows to be acknowledged")

    def _run(self, ticks: Ticks, rng: random.Random) -> None:
        try:
            while not self._stop.wait(self._pause_s):
                batch = ticks.batch(rng.randint(1, 2 * self._rows))
                body = json.dumps({"ticks": batch}).encode()
                if rng.random() < 0.15:
                    self._send_and_cut(body)
                while not self._sent(body, len(batch)):
                    if self._give_up.wait(0.05):
                        return
                with self._lock:
                    self.acknowledged.append(batch)
                if rng.random() < 0.15:
                    self._sent(body, len(batch))  # a client that did not believe the answer
        except BaseException as error:
            self.errors.append(error)

    def _sent(self, body: bytes, rows: int) -> bool:
        try:
            status, answer, _ = self._server.request("POST", "/tick/batch", body, ANSWER_S)
        except (OSError, http.client.HTTPException):
            return False
        with self._lock:
            if status == 200:
                assert answer == {"status": "success", "received": rows}, answer
                self.acknowledged_rows += rows
                return True
            assert status == 503, (status, answer)
            self.refusals[status] += 1
        return False

    def _send_and_cut(self, body: bytes) -> None:
        """Send a batch, and go without waiting for the answer."""
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=5)) as client:
                client.request("POST", "/tick/batch", body, {"Content-Type": "application/json"})
        except OSError:
            return


class Probe:
    """A client that asks /health/live over and over: its event loop must turn whatever the database does."""

    LONGEST_S = 4.5
    """An answer that takes longer counts as none; one that waits for a database waits for five seconds at least."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers = 0
        self.failures: list[str] = []

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(ANSWER_S)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            try:
                status = self._server.request("GET", "/health/live", timeout_s=self.LONGEST_S)[0]
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                continue
            if status == 200:
                self.answers += 1
            else:
                self.failures.append(f"status {status}")
