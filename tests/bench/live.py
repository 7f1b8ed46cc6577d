"""How fast ticks go out to who watches: tickhub's /ws beside a plain asyncio broadcast server."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.bench import live_feed, live_report, live_viewers, machine
from tests.bench.asking import Address, Asker
from tests.bench.client import BenchError
from tests.bench.ingest import verify
from tests.bench.live_feed import Fed
from tests.bench.live_report import (
    DESK,
    FEWER,
    FIGURES,
    QUICK,
    STALLED,
    Phase,
    Results,
)
from tests.bench.live_viewers import Seen
from tests.bench.postgres import Postgres
from tests.bench.rows import MARKET
from tests.bench.running import progress
from tests.bench.server import Server, free_port, tickhub

HELP = "ticks out: 1,000 viewers over WebSocket, beside a plain asyncio broadcast server"
QUICK_IS = "some seconds each"
REPORT = live_report

VIEWERS, STALLING, AT_ONCE = 1_000, 200, 100
CONFLATE_MS = 100
FIGURES_MS = 100
"""Between two objects of /ws/metrics."""

SECONDS, QUICK_SECONDS = 20.0, 4.0
STALL_SECONDS = 30.0
WARM_S = 2.0
"""Before the figures begin: of those who stall, longer than the buffers of both ends take."""
STALL_WARM_S = 8.0
BEGIN_AFTER_S = 1.0
"""What a process may take to build its requests."""
LOOK_EVERY_S = 2.0
"""How often the memory is looked at; it costs some milliseconds of CPU."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=2, help="tickhub's workers (default 2)")
    parser.add_argument("--seconds", type=float, help=f"of each run (default {SECONDS:.0f})")


class Contender:
    """One server, the process that feeds it, and the one that watches."""

    def __init__(
        self, server: Server, feed_address: Address, pids: Callable[[], list[int]], askers: tuple[Asker, Asker]
    ) -> None:
        """pids: the processes whose CPU and memory count."""
        self._server, self._feed_address, self._pids = server, feed_address, pids
        self._feeder, self._crowd = askers
        self.phases: list[Phase] = []
        self.ticks = 0

    def join(self, viewers: int, conflate_ms: int, *, stalled: bool = False) -> None:
        """Have viewers of all symbols connect."""
        subscription = {"action": "subscribe", "symbol": "*", "conflate_ms": conflate_ms, "batch": True}
        self._crowd.call(live_viewers.join, self._server.address, viewers, subscription, stalled)

    def join_figures(self, viewers: int) -> None:
        """Have some connect to /ws/metrics."""
        self._crowd.call(live_viewers.join, self._server.address, viewers, None, False, "/ws/metrics")

    def leave(self) -> None:
        """Have them hang up."""
        self._crowd.call(live_viewers.leave)
        time.sleep(1.0)  # the server ends what was theirs, at no cost of the next run

    def run(self, name: str, seconds: float, warm_s: float = WARM_S, *, conflate_ms: int = -1) -> None:
        """Feed it, and measure for so long after a while; conflate_ms: of those who watch, -1 when nobody does."""
        start_ns = time.time_ns() + round(BEGIN_AFTER_S * 1e9)
        from_ns = start_ns + round(warm_s * 1e9)
        to_ns = from_ns + round(seconds * 1e9)
        watched = conflate_ms >= 0
        self._feeder.start(live_feed.feed, self._feed_address, warm_s + seconds + 0.5, start_ns)
        if watched:
            self._crowd.start(live_viewers.watch, from_ns, to_ns)
        _sleep_until(from_ns)
        pids = self._pids()
        before_s = [machine.tree_cpu_s(pid) for pid in pids]
        began_s = time.monotonic()
        memory_mb = 0.0
        while (left_s := (to_ns - time.time_ns()) / 1e9) > 0:
            time.sleep(min(LOOK_EVERY_S, left_s))
            memory_mb = max(memory_mb, sum(map(machine.shared_memory_mb, pids)))
        cpu_s = [machine.tree_cpu_s(pid) - used_s for pid, used_s in zip(pids, before_s, strict=True)]
        took_s = time.monotonic() - began_s
        if self._pids() != pids:
            raise BenchError(f"a worker died\n{self._server.log_tail()}")
        fed: Fed = self._feeder.result()
        seen: Seen | None = self._crowd.result() if watched else None
        if watched and name != FIGURES and (behind := self._crowd.call(live_viewers.behind, fed.newest)):
            raise BenchError(f"{behind} viewers did not get the last ticks")
        self.ticks += fed.batches * len(MARKET)
        # Measured a little longer or shorter than the viewers counted: as a rate it is the same.
        cpu_s = [used_s * seconds / took_s for used_s in cpu_s]
        phase = Phase(name, conflate_ms, seconds, fed, cpu_s, memory_mb, seen)
        self.phases.append(phase)
        told = f"p99 {seen.latency(99):.1f} ms, " if seen else ""
        progress(f"{name or 'nobody watches'}: {told}ack p99 {fed.ack_ms(99):.1f} ms, {phase.cores:.3f} cores")


def _sleep_until(ns: int) -> None:
    time.sleep(max(0.0, (ns - time.time_ns()) / 1e9))


def reference(directory: Path) -> tuple[Server, Address]:
    """Return the broadcast server, and where it takes ticks."""
    directory.mkdir()
    port, feed_port = free_port(), free_port()
    command = ["tests.bench.live_reference", str(port), str(feed_port)]
    return Server(command, directory / "server.log", {}, port), ("127.0.0.1", feed_port)


def measure(directory: Path, server: Postgres, args: argparse.Namespace) -> Results:
    """Measure in an empty directory, and return the results."""
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    stall_s = args.seconds or (QUICK_SECONDS if args.quick else STALL_SECONDS)
    results = Results()
    with ExitStack() as stack:
        askers = stack.enter_context(Asker()), stack.enter_context(Asker())
        with server.database("bench_live") as url, tickhub(directory / "tickhub", url, args.workers) as served:
            served.wait_alone()
            server.settle()
            progress("tickhub")
            ours = Contender(served, served.address, served.workers, askers)
            _common_runs(ours, seconds)
            ours.join(VIEWERS - STALLING, CONFLATE_MS)
            ours.run(FEWER, stall_s, conflate_ms=CONFLATE_MS)
            ours.join(STALLING, CONFLATE_MS, stalled=True)
            ours.run(STALLED, stall_s, STALL_WARM_S, conflate_ms=CONFLATE_MS)
            ours.leave()
            ours.join_figures(AT_ONCE)
            ours.run(FIGURES, seconds, conflate_ms=FIGURES_MS)
            ours.leave()
            served.wait_processed(ours.ticks)
            verify(url, ours.ticks)
            results.tickhub = ours.phases
        progress("websockets")
        plain, feed_address = reference(directory / "reference")
        with plain:
            theirs = Contender(plain, feed_address, lambda: [plain.pid], askers)
            _common_runs(theirs, seconds)
            results.reference = theirs.phases
    return results


def _common_runs(contender: Contender, seconds: float) -> None:
    contender.run("", seconds)
    for name, viewers, conflate_ms in ((DESK, VIEWERS, CONFLATE_MS), (QUICK, AT_ONCE, 0)):
        contender.join(viewers, conflate_ms)
        contender.run(name, seconds, conflate_ms=conflate_ms)
        contender.leave()
