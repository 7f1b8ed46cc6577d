"""The journal meets its bound, a full disk and damaged bytes: nothing acknowledged is lost without a word."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.pipeline.records import MAGIC
from tests.process.conftest import MakeServer
from tests.process.harness import Database, Server, wait_until
from tests.process.load import Tick, Ticks, content
from tests.process.proof import assert_ledger_adds_up, assert_stored_once, wait_for_line
from tests.process.proxy import Proxy

SEED = 13
MIB = 1 << 20


def away(
    proxy: Proxy,
    database: Database,
    make_server: MakeServer,
    *flags: str,
    workers: int = 1,
    **environ: object,
) -> Server:
    """Make a server whose database is still away."""
    texts = {f"TICKHUB_{name.upper()}": str(value) for name, value in environ.items()}
    server = make_server("--database-url", proxy.url, *flags, workers=workers, environ=texts)
    server.database = database
    return server


class Feed:
    """Sends batches, and remembers the acknowledged ones."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ticks = Ticks(SEED, 0, with_seq=False)
        self.acknowledged: list[list[Tick]] = []
        self.refused: list[list[Tick]] = []

    def send(self, rows: int) -> tuple[int, Any]:
        batch = self._ticks.batch(rows)
        status, answer = self._server.post(batch)
        assert status in (200, 503), answer
        (self.acknowledged if status == 200 else self.refused).append(batch)
        return status, answer

    def send_until_refused(self, rows: int) -> Any:
        for _ in range(1000):
            status, answer = self.send(rows)
            if status == 503:
                return answer
        raise AssertionError("it is never full")

    def send_again(self) -> None:
        """Send the refused ones until they are taken, as their sender would."""
        while self.refused:
            if self._server.post(self.refused[-1])[0] == 200:
                self.acknowledged.append(self.refused.pop())

    def rows(self) -> int:
        return sum(map(len, self.acknowledged))

    def expected(self) -> Counter[Any]:
        return Counter(content(tick) for batch in self.acknowledged for tick in batch)


def check(server: Server, feed: Feed) -> None:
    server.wait_drained()
    assert_stored_once(server.database, feed.expected())
    assert_ledger_adds_up(server, feed.rows())


@pytest.mark.long
def test_a_full_journal_answers_503_until_the_database_is_back(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = away(
        proxy,
        database,
        make_server,
        workers=2,
        journal_max_bytes=MIB,
        journal_segment_bytes=64 * 1024,
    )
    server.start().wait_accepting()
    feed = Feed(server)
    answer = feed.send_until_refused(500)
    assert (answer["status"], answer["code"]) == ("error", "buffer_full")
    body = (
        b'{"ticks":['
        + b",".join(
            [b'{"symbol":"VIX","bid":1,"ask":2,"spread":null,"volume":0,"flags":6,"timestamp":1700000000000}']
            * 5000
        )
        + b"]}"
    )
    status, _, headers = server.post_raw("/tick/batch", body)
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    # Segments begin with a head of their own.
    assert server.stats()["journal_bytes"] <= MIB + 1024
    assert sum(path.stat().st_size for path in (server.home / "journal").rglob("*.seg")) <= MIB + 1024
    proxy.open()
    wait_until(lambda: feed.send(10)[0] == 200, what="room in the journal")
    feed.send_again()
    check(server, feed)


@contextmanager
def small_disk(journal: Path) -> Iterator[Path]:
    """Put the journals on a disk of 8 MiB with something to remove on it; yield that."""
    journal.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", journal], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        ballast = journal / "ballast"
        ballast.write_bytes(bytes(4 * MIB))
        yield ballast
    finally:
        subprocess.run(["umount", "--lazy", journal], check=True)


def limit_files(server: Server, limit: int) -> None:
    """Let no file of the workers grow beyond `limit` bytes."""
    for pid in server.worker_pids():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


@pytest.mark.long
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_a_write_that_fails_midway_is_refused_and_costs_no_acknowledged_tick(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = away(proxy, database, make_server)
    server.start().wait_accepting()
    feed = Feed(server)
    for _ in range(3):
        assert feed.send(100)[0] == 200
        (segment,) = sorted((server.home / "journal").rglob("*.seg"))[-1:]
        limit_files(server, segment.stat().st_size + 1000)
        answer = feed.send(100)[1]
        assert answer["code"] == "buffer_full"
        assert server.status("/health/ready") == 503
        limit_files(server, resource.RLIM_INFINITY)
        assert feed.send(50)[0] == 200, "it does not recover"
    assert "the journal cannot be written" in server.log()
    assert server.status("/health/ready") == 200
    server.kill9()
    proxy.open()
    server.start().wait_ready()
    check(server, feed)
    assert database.rows("SELECT sum(skipped) >= 300 FROM ingest_log") == [(True,)]


@pytest.mark.long
@pytest.mark.parametrize("how", ["something is removed", "the database comes back after a restart"])
def test_a_disk_that_fills_up_takes_ticks_again_as_soon_as_there_is_room(
    make_server: MakeServer, database: Database, proxy: Proxy, how: str
) -> None:
    server = away(proxy, database, make_server, workers=2, journal_segment_bytes=256 * 1024)
    with ExitStack() as stack:
        ballast = stack.enter_context(small_disk(server.home / "journal"))
        stack.callback(server.close)
        server.start().wait_accepting()
        feed = Feed(server)
        for _ in range(4):
            answer = feed.send_until_refused(3000)
            assert answer["code"] == "buffer_full"
        assert shutil.disk_usage(ballast).free < MIB
        if how == "something is removed":
            ballast.unlink()
            # Who asks this before sending must not wait for somebody else to send.
            wait_until(lambda: server.status("/health/ready") == 200, what="it to be noticed")
            proxy.open()
        else:
            server.kill9()
            server.start().wait_accepting()
            assert feed.send(3000)[0] == 503
            proxy.open()
        wait_until(lambda: feed.send(10)[0] == 200, what="the journal to be written again")
        feed.send_again()
        check(server, feed)
        assert server.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("where", ["its payload", "its head"])
def test_a_damaged_record_costs_its_own_rows_and_is_named(
    make_server: MakeServer, database: Database, proxy: Proxy, where: str
) -> None:
    server = away(proxy, database, make_server, flush_interval_s=0.05)
    server.start().wait_accepting()
    feed = Feed(server)
    for _ in range(5):
        assert feed.send(40)[0] == 200
    assert server.stop() == 0
    (segment,) = (server.home / "journal").rglob("*.seg")
    data = segment.read_bytes()
    heads = [at for at in range(len(data)) if data.startswith(MAGIC, at)]
    assert len(heads) == 6  # the segment's own, and one a batch
    damaged = heads[3] + (12 if where == "its head" else 500)
    with segment.open("r+b") as file:
        file.seek(damaged)
        file.write(bytes(byte ^ 0xFF for byte in data[damaged : damaged + 8]))
    lost = feed.acknowledged.pop(2)
    proxy.open()
    server.start().wait_ready()
    stats = server.wait_drained()
    assert_stored_once(database, feed.expected())
    assert stats["stored"] == feed.rows()
    assert database.rows("SELECT sum(lost), sum(skipped) FROM ingest_log") == [(len(lost), 0)]
    assert any(f"{len(lost)} acknowledged rows were not in the journals any more" in line for line in stats["warnings"])
    assert segment.parent.name in wait_for_line(server, "damaged bytes at")
