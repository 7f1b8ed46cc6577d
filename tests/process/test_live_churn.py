"""Clients of /ws that come and go in every way for a while: no socket, greenlet or memory of theirs is left."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import pytest

from tests.process.harness import Server, copy_template, folder, wait_until
from tests.process.test_live_fuzz import CLOSE, HANDSHAKE, framed
from tests.process.test_query_lanes import Probed
from tests.process.wire import ask, batch, post, tick

CHURN_S = float(os.environ.get("LIVE_CHURN_S", "80"))
WARM_SHARE = 0.3
"""What of it comes before the first look: by then everything that is made once, or grows to its size, is there."""

CLIENTS = 6
STALLED_EACH = 25
"""Clients at once, and how many sockets each of them keeps that it does not read from."""

MOST_GROWTH_MB = 12.0
"""Of a worker's own memory; some thousand connections each leave that much when they leave some kilobytes."""

SYMBOLS = ["AAPL", "TSLA", "NVDA", "MSFT", "VIX", "NatGas", "SpotCrude", "NAS100"]
CHANNELS = ["quotes", "trades", "bars", "alerts"]
RESET = struct.pack("ii", 1, 0)
WITHIN_S = 30.0

METRICS = HANDSHAKE.replace(b"/ws ", b"/ws/metrics ")


class Client:
    """One that connects over and over, and leaves each time in another way."""

    def __init__(self, server: Server, seed: int) -> None:
        self._address = ("127.0.0.1", server.port)
        self._random = random.Random(seed)
        self._stalled: deque[tuple[float, socket.socket]] = deque()
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []

    def run(self, over: threading.Event) -> None:
        """Go on until it is over; then let go of what is stalled."""
        ways: list[Callable[[], None]] = [
            self.polite, self.polite, self.reset, self.hangs_up, self.stalls, self.half_a_handshake,
            self.leaves_a_replay, self.rubbish, self.figures, self.changes_its_mind,
        ]  # fmt: skip
        try:
            while not over.is_set():
                way = self._random.choice(ways)
                try:
                    way()
                    self.done[way.__name__] += 1
                except (ConnectionError, TimeoutError) as error:
                    self.failed.append(f"{way.__name__}: {error!r}")
                self._leave_stalled(before_s=time.monotonic() - 5)
        finally:
            self._leave_stalled(before_s=float("inf"))

    def polite(self) -> None:
        """Subscribe, read a while, and close with the whole handshake."""
        with closing(self._open()) as sock:
            self._subscribe(sock)
            self._read(sock, b'"subscribed"')
            self._pause()
            sock.sendall(CLOSE)
            data = b""
            while piece := sock.recv(65536):
                data = (data + piece)[-65536:]
            assert data.endswith(b"\x88\x02\x03\xe8"), data[-100:]

    def reset(self) -> None:
        with closing(self._open()) as sock:
            self._subscribe(sock)
            self._pause()
            self._reset(sock)

    def hangs_up(self) -> None:
        with closing(self._open()) as sock:
            self._subscribe(sock)
            self._read(sock, b'"subscribed"')

    def stalls(self) -> None:
        """Ask for everything, and read nothing for some seconds."""
        sock = self._open(receive_bytes=4096)
        self._say(sock, action="subscribe", symbol="*", channels=CHANNELS, conflate_ms=0)
        self._stalled.append((time.monotonic(), sock))
        if len(self._stalled) > STALLED_EACH:
            self._leave_one()

    def half_a_handshake(self) -> None:
        with closing(socket.create_connection(self._address, timeout=WITHIN_S)) as sock:
            sock.sendall(HANDSHAKE[: self._random.randrange(1, len(HANDSHAKE))])
            if self._random.random() < 0.5:
                self._reset(sock)

    def leaves_a_replay(self) -> None:
        with closing(self._open(receive_bytes=4096)) as sock:
            self._say(sock, action="subscribe", symbol="*", channels=["trades"], since="2020-01-01T00:00:00Z")
            if self._random.random() < 0.7:
                self._read(sock, b'"trade"')
            self._reset(sock)

    def rubbish(self) -> None:
        with closing(self._open()) as sock:
            self._subscribe(sock)
            sock.sendall(self._random.randbytes(self._random.randrange(200)))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

    def figures(self) -> None:
        with closing(self._open(METRICS)) as sock:
            self._read(sock, b'"market_data"')

    def changes_its_mind(self) -> None:
        with closing(self._open()) as sock:
            for _ in range(5):
                self._subscribe(sock)
                symbols = self._random.sample(SYMBOLS, 3)
                self._say(sock, action="unsubscribe", symbols=symbols, channels=self._random.sample(CHANNELS, 2))
            self._read(sock, b'"unsubscribed"')
            sock.sendall(framed(0x81, b"ping"))
            self._read(sock, b'"pong"')
            self._reset(sock)

    def _open(self, handshake: bytes = HANDSHAKE, receive_bytes: int = 0) -> socket.socket:
        sock = socket.socket()
        try:
            if receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            sock.settimeout(WITHIN_S)
            sock.connect(self._address)
            sock.sendall(handshake)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = sock.recv(1)
                if not piece:
                    raise ConnectionError(f"no handshake, but {head!r}")
                head += piece
            assert head.startswith(b"HTTP/1.1 101 "), head
        except BaseException:
            sock.close()
            raise
        return sock

    def _subscribe(self, sock: socket.socket) -> None:
        symbols = ["*"] if self._random.random() < 0.5 else self._random.sample(SYMBOLS, 3)
        channels = self._random.sample(CHANNELS, self._random.randrange(1, 5))
        conflate_ms, batched = self._random.choice((0, 20, 100)), self._random.random() < 0.5
        self._say(sock, action="subscribe", symbols=symbols, channels=channels, conflate_ms=conflate_ms, batch=batched)

    def _say(self, sock: socket.socket, **fields: Any) -> None:
        sock.sendall(framed(0x81, json.dumps(fields).encode()))

    def _read(self, sock: socket.socket, wanted: bytes) -> None:
        data, until_s = b"", time.monotonic() + WITHIN_S
        while wanted not in data:
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError(f"the end came instead of {wanted!r}: {data[-200:]!r}")
            if time.monotonic() > until_s:  # heartbeats come for ever
                raise TimeoutError(f"no {wanted!r}, but {data[-200:]!r}")
            data = data[-200:] + piece

    def _pause(self) -> None:
        time.sleep(self._random.random() * 0.2)  # people take their time

    def _reset(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _leave_stalled(self, before_s: float) -> None:
        while self._stalled and self._stalled[0][0] < before_s:
            self._leave_one()

    def _leave_one(self) -> None:
        _, sock = self._stalled.popleft()
        if self._random.random() < 0.5:
            self._reset(sock)
        sock.close()


class Crowd:
    """Clients and a stream of ticks, from entering to leaving."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._over = threading.Event()
        self._clients = [Client(server, seed * 100 + number) for number in range(CLIENTS)]
        targets = [self._ticks, *(partial(one.run, self._over) for one in self._clients)]
        self._threads = [threading.Thread(target=self._caught, args=(target,)) for target in targets]
        self._errors: list[BaseException] = []

    def churn(self, seconds: float) -> Counter[str]:
        """Go on for so long; return how often which way was gone to its end."""
        for thread in self._threads:
            thread.start()
        self._over.wait(seconds)
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        done = sum((one.done for one in self._clients), Counter())
        failed = [why for one in self._clients for why in one.failed]
        # What a way counts on may not come before WITHIN_S on a busy machine; now and then is not always.
        assert len(failed) <= done.total() // 100, failed[:10]
        return done

    def _caught(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            self._errors.append(error)
            self._over.set()

    def _ticks(self) -> None:
        rng = random.Random(1)
        while not self._over.wait(0.02):
            price = 1 + rng.random()
            rows = [tick(symbol=name, bid=price, last=price, volume=1, flags=30) for name in SYMBOLS]
            assert post(self._server, batch(*rows)).status == 200


@dataclass(frozen=True)
class Held:
    """What a worker holds when nobody is there."""

    readers: int
    objects: int
    greenlets: int
    client_sockets: int
    descriptors: int
    memory_mb: float


def held(server: Server) -> dict[int, Held]:
    """Return what each worker holds, by process."""
    told: dict[int, dict[str, Any]] = {}
    pids = set(server.worker_pids())

    def asked() -> bool:
        said = ask(server, "GET", "/probe/left", headers={"Connection": "close"}).json
        told[said["pid"]] = said
        return set(told) == pids

    wait_until(asked, what="an answer of each worker")
    found = {}
    for pid, said in told.items():
        process = psutil.Process(pid)
        clients = [one for one in process.net_connections("tcp") if one.laddr.port == server.port and one.raddr]
        found[pid] = Held(
            readers=said["readers"],
            objects=sum(count for name, count in said.items() if name not in ("pid", "readers", "greenlets")),
            greenlets=said["greenlets"],
            client_sockets=len(clients),
            descriptors=process.num_fds(),
            memory_mb=process.memory_full_info().uss / 1e6,
        )
    return found


def quiet(server: Server) -> dict[int, Held]:
    """Wait until no client is left, then until the rest is still, and return what each worker holds."""
    server.wait_drained()
    last = [held(server)]

    def still() -> dict[int, Held] | None:
        time.sleep(0.5)  # in which nothing may change
        last.append(held(server))
        before, now = last[-2:]
        empty = all((one.readers, one.objects, one.client_sockets) == (0, 0, 0) for one in now.values())
        same = all(before[pid].greenlets == one.greenlets for pid, one in now.items())
        return now if empty and same else None

    try:
        return dict(wait_until(still, what="the clients to be gone"))
    except AssertionError as why:
        raise AssertionError(f"{why}: {last[-1]}") from None


@pytest.mark.long
@pytest.mark.timeout(CHURN_S + 840)
def test_coming_and_going_for_long_leave_nothing(data_template: Any) -> None:
    with folder() as parent:
        server = Probed(copy_template(data_template, parent / "data"), workers=2)
        try:
            server.start().wait_ready()
            pids = wait_until(lambda: len(found := server.worker_pids()) == 2 and found, what="two workers")
            Crowd(server, 1).churn(CHURN_S * WARM_SHARE)
            before = quiet(server)
            done = Crowd(server, 2).churn(CHURN_S * (1 - WARM_SHARE))
            after = quiet(server)
            assert sorted(server.worker_pids()) == sorted(pids) == sorted(after)
            assert len(done) == 9, done
            assert done.total() > 5 * CHURN_S, done
            for pid, one in after.items():
                assert one.greenlets <= before[pid].greenlets + 2, (before, after)
                assert one.descriptors <= before[pid].descriptors + 8, (before, after)
                assert one.memory_mb < before[pid].memory_mb + MOST_GROWTH_MB, (before, after)
            print(done, before, after, sep="\n")
            assert "Traceback" not in server.log()
            assert server.stop() == 0
        finally:
            server.close()
