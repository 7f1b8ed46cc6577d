"""Sender processes: each builds its requests before the clock starts, then posts them on a signal."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

import numpy as np

from tests.bench.client import BenchError, Client, Sent, post_request
from tests.bench.rows import body, market

BUILD_WITHIN_S = 300.0
RUN_WITHIN_S = 1200.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: `ticks` ticks of the seeded market in batches of `batch`.

    Sender number k mod senders posts batch k.
    per_second: batches a second over all senders; 0 = as fast as they are answered.
    skip, of: the ticks are a part of a market of `of` ticks, which `skip` ticks come before; a market of another
    size has other ticks.
    """

    ticks: int
    batch: int
    senders: int = 2
    connections: int = 8
    per_second: float = 0.0
    seed: int = 1
    skip: int = 0
    of: int = 0


@dataclass(slots=True)
class Report:
    """What all senders saw together; ack_ms: float64[requests], milliseconds. Times are time.monotonic()."""

    ack_ms: np.ndarray
    retries: int
    reconnects: int
    first_s: float
    last_s: float
    cpu_s: float

    def ack(self, percent: float) -> float:
        """Return a percentile of the time from sending to the answer, in milliseconds."""
        return float(np.percentile(self.ack_ms, percent))


class Senders:
    """The sender processes of one load; entering waits until every request is built and connected."""

    def __init__(self, address: tuple[str, int], load: Load) -> None:
        # Spawned, not forked: the bench may hold threads and database connections.
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for sender in range(load.senders):
            ours, theirs = context.Pipe()
            process = context.Process(target=_sender, args=(theirs, address, load, sender), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Senders:
        try:
            for pipe in self._pipes:
                _answer(pipe, BUILD_WITHIN_S)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def run(self) -> Report:
        """Send everything once and return what was seen; raises BenchError if a sender gave up."""
        for pipe in self._pipes:
            pipe.send("go")
        seen = [_answer(pipe, RUN_WITHIN_S) for pipe in self._pipes]
        return Report(
            ack_ms=np.concatenate([np.asarray(sent.ack_s) for sent in seen]) * 1e3,
            retries=sum(sent.retries for sent in seen),
            reconnects=sum(sent.reconnects for sent in seen),
            first_s=min(sent.first_s for sent in seen),
            last_s=max(sent.last_s for sent in seen),
            cpu_s=sum(sent.cpu_s for sent in seen),
        )

    def _close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(2)
            if process.is_alive():
                process.kill()
                process.join()


def _answer(pipe: Connection, within_s: float) -> Sent:
    if not pipe.poll(within_s):
        raise BenchError(f"a sender did not answer within {within_s:.0f} s")
    try:
        answer = pipe.recv()
    except EOFError:
        raise BenchError("a sender died") from None
    if isinstance(answer, str):
        raise BenchError(answer)
    assert isinstance(answer, Sent)
    return answer


def _sender(pipe: Connection, address: tuple[str, int], load: Load, sender: int) -> None:
    # Ctrl-C reaches the whole foreground group; the parent alone decides how the senders end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ticks = market(load.of or load.ticks, load.seed).part(load.skip, load.skip + load.ticks)
        requests, rows = [], []
        for start in range(sender * load.batch, load.ticks, load.senders * load.batch):
            part = ticks.part(start, min(start + load.batch, load.ticks))
            requests.append(post_request("/tick/batch", body(part)))
            rows.append(len(part))
        client = Client(address, load.connections)
        pipe.send(Sent())
        while pipe.recv() == "go":
            pipe.send(client.post_all(requests, rows, load.per_second / load.senders))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        # A parent that already gave up has closed its end; nobody is left to tell.
        with contextlib.suppress(BrokenPipeError):
            pipe.send(f"{type(error).__name__}: {error}")
