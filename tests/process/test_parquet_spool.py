"""The files that pieces of Parquet answers are of: made once, whole or not there, bounded, in nobody's way."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import psutil
import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Server, wait_until
from tests.process.pieces import (
    AGED_S,
    DAY,
    MIB,
    TSLA,
    age,
    columns_of,
    files,
    kept_open,
    moments,
    more,
    spool_bytes,
    table,
    url,
    whole,
)
from tests.process.reading import made_ticks, store
from tests.process.test_journal_full import limit_files
from tests.process.test_query_lanes import busy, locked_ticks
from tests.process.wire import get, running

ROWS = 130_000
"""More than a row group: some of a file is written before its last rows are read."""


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2) as server:
        store(server, made_ticks("TSLA", moments(ROWS)))
        yield server
        wait_until(lambda: not kept_open(server), what="files to be closed")
        assert "Traceback" not in server.log()


def at(second: int) -> str:
    """An address of almost all ticks that no other test asks for."""
    return f"/api/ticks/TSLA?start=2026-01-13T00:00:{second:02}Z&end=2026-01-14&format=parquet"


def ask_and_leave(server: Server, path: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=-100\r\n\r\n".encode())
    return client


def newest_wait(server: Server) -> Any:
    """When the newest query that waits for ticks began."""
    query = "SELECT max(query_start) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return server.database.rows(query)[0][0]


@pytest.mark.long
def test_what_several_ask_for_at_once_is_made_once(server: Server) -> None:
    path, before = at(1), files(server)
    with ThreadPoolExecutor() as pool:
        with locked_ticks(server.database):
            asked = [pool.submit(get, server, path, "bytes=-100", User_Agent=f"client {n}") for n in range(6)]
            wait_until(lambda: busy(server.database), what="the making")
            time.sleep(0.5)  # nothing tells that the others are there; a making of theirs would show by then
            assert len(busy(server.database)) == 1
            assert len(files(server, "part")) == 1
        answers = [each.result() for each in asked]
    assert {answer.status for answer in answers} == {206}
    assert {answer.data for answer in answers} == {whole(server, path)[-100:]}
    assert len(files(server)) == len(before) + 1
    assert files(server, "part") == []


def test_a_client_that_leaves_ends_the_making_and_whoever_waits_takes_it_over(server: Server) -> None:
    path = at(2)
    with ThreadPoolExecutor() as pool:
        with locked_ticks(server.database):
            with closing(ask_and_leave(server, path)):
                wait_until(lambda: busy(server.database) and len(files(server, "part")) == 1, what="the making")
            wait_until(lambda: not busy(server.database) and not files(server, "part"), 20, "the making to end")
            with closing(ask_and_leave(server, path)):
                first = wait_until(lambda: newest_wait(server), what="the making")
                waiting = pool.submit(get, server, path, "bytes=-100")
                time.sleep(0.3)  # nothing tells that it is there; a making of its own would show by then
                assert newest_wait(server) == first
            wait_until(lambda: (newest_wait(server) or first) > first, 20, "the making by who waited")
        assert waiting.result().status == 206
    assert waiting.result().data == whole(server, path)[-100:]
    assert files(server, "part") == []


def test_a_slow_reader_gets_its_bytes_though_the_file_has_made_room(server: Server) -> None:
    path = at(3)
    data, before = whole(server, path), files(server)
    with closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
        client.settimeout(30)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"GET {path} HTTP/1.0\r\nRange: bytes=0-\r\n\r\n".encode())
        received = client.recv(1000)
        (made,) = set(files(server)) - set(before)
        made.unlink()
        assert busy(server.database) == []
        while part := client.recv(1 << 16):
            received += part
    assert received.partition(b"\r\n\r\n")[2] == data


def test_a_reader_whose_file_has_made_room_is_told_and_begins_again(server: Server) -> None:
    path = f"/api/ticks/CSCO?{DAY}"
    more(server, "CSCO", 2000, seed=1)
    before = files(server)
    assert get(server, path, "bytes=-9").status == 206
    (made,) = set(files(server)) - set(before)
    made.unlink()
    more(server, "CSCO", 100, seed=2)
    refused = get(server, path, "bytes=4-9")
    assert (refused.status, refused.json["code"]) == (409, "conflict")
    assert "begin again" in refused.json["message"]
    assert get(server, path, "bytes=-9").status == 206
    assert columns_of(pl.read_parquet(url(server, path)).to_arrow()) == columns_of(table(whole(server, path)))


@pytest.mark.long
def test_the_files_take_no_more_room_than_they_may_and_the_oldest_unread_go_first(make_server: MakeServer) -> None:
    server = make_server("--spool-max-bytes", str(2 * MIB), workers=2).start().wait_ready()
    store(server, made_ticks("TSLA", moments(30_000)))
    paths = [at(second) for second in range(6)]
    size = len(whole(server, paths[0]))
    assert MIB // 2 < size < MIB
    stop = False

    def watch() -> int:
        most = 0
        while not stop:
            most = max(most, spool_bytes(server))
            time.sleep(0.002)  # the workers want the lock too
        return most

    with ThreadPoolExecutor() as pool:
        watching = pool.submit(watch)
        try:
            assert [get(server, path, "bytes=-9").status for path in paths[:3]] == [206, 206, 200], "two are being read"
            age(server)
            assert get(server, paths[1], "bytes=4-9").status == 206
            (oldest,) = (path for path in files(server) if time.time() - path.stat().st_mtime > AGED_S / 2)
            assert get(server, paths[2], "bytes=-9").status == 206
            assert not oldest.exists()
            assert get(server, paths[1], "bytes=4-9").status == 206
            for path in paths * 3:
                age(server)
                assert list(pool.map(lambda path: get(server, path, "bytes=-9").status, [path] * 3)) == [206] * 3
        finally:
            stop = True
        most = watching.result()
    assert size <= most <= 2 * MIB
    assert len(pl.read_parquet(url(server, paths[5]))) > 0
    assert "fill spool_max_bytes" in server.log()
    assert "Traceback" not in server.log()


@pytest.mark.long
def test_an_answer_that_fits_nowhere_is_streamed_and_who_insists_on_pieces_says_so(make_server: MakeServer) -> None:
    server = make_server("--spool-max-bytes", "0").start().wait_ready()
    store(server, made_ticks("TSLA", moments(2000)))
    answer = get(server, TSLA, "bytes=-9")
    assert (answer.status, answer.headers["transfer-encoding"]) == (200, "chunked")
    assert answer.data == whole(server)
    head = get(server, TSLA, method="HEAD")
    assert (head.status, "accept-ranges" in head.headers, "content-length" in head.headers) == (200, False, False)
    with pytest.raises(OSError, match="Range request not supported"):
        pl.read_parquet(url(server))
    assert len(pd.read_parquet(url(server))) == 2000
    assert spool_bytes(server) == 0
    assert server.log().count("larger than spool_max_bytes") == 1


@pytest.mark.long
def test_a_disk_that_takes_no_more_has_the_answer_streamed(make_server: MakeServer) -> None:
    server = make_server(workers=2).start().wait_ready()
    store(server, made_ticks("TSLA", moments(30_000)))
    data = whole(server)
    limit_files(server, 100_000)
    for _ in range(4):
        answer = get(server, TSLA, "bytes=-9")
        assert (answer.status, answer.data) == (200, data)
    assert spool_bytes(server) == 0
    limit_files(server, -1)
    assert get(server, TSLA, "bytes=-9").data == data[-9:]
    assert "Traceback" not in server.log()


@contextmanager
def small_disk(spool: Path) -> Iterator[Path]:
    """Put the files on a disk of 8 MiB with something to remove on it; yield that."""
    spool.mkdir(mode=0o700, parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", spool], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield spool / "ballast"
    finally:
        subprocess.run(["umount", "--lazy", spool], check=True)


@pytest.mark.long
def test_the_last_of_a_disk_is_left_to_the_journal(make_server: MakeServer) -> None:
    server = make_server(workers=2)
    spool = server.home / "run" / "spool"
    with ExitStack() as stack:
        ballast = stack.enter_context(small_disk(spool))
        stack.callback(server.close)
        server.start().wait_ready()
        store(server, made_ticks("TSLA", moments(90_000)))
        data = whole(server)
        assert len(data) > 2 * MIB
        ballast.write_bytes(bytes(6 * MIB))
        reserve = 8 * MIB // 32
        answer = get(server, TSLA, "bytes=-9")
        assert (answer.status, answer.data) == (200, data)
        assert spool_bytes(server) == 0
        assert "the disk is full" in server.log()
        few = get(server, f"{TSLA}&limit=20000", "bytes=-9")
        assert few.status == 206
        assert shutil.disk_usage(spool).free >= reserve
        ballast.unlink()
        assert get(server, TSLA, "bytes=-9").status == 206
        assert get(server, TSLA, "bytes=4-99").data == data[4:100]
        assert "Traceback" not in server.log()


@pytest.mark.long
def test_what_was_being_made_when_its_worker_was_killed_is_never_served(server: Server) -> None:
    killed = 0
    for attempt in range(40):
        path = f"/api/ticks/TSLA?start=2026-01-13T00:00:00.{attempt:03}Z&end=2026-01-14&format=parquet"
        with closing(socket.create_connection(("127.0.0.1", server.port))) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=-100\r\n\r\n".encode())
            if not begun_to_write(server):
                continue  # too quick to be seen
            for pid in server.worker_pids():
                psutil.Process(pid).send_signal(signal.SIGKILL)
        left = files(server, "part")
        killed += len(left)
        wait_until(lambda: server.status("/health") == 200 and len(server.worker_pids()) == 2, what="workers")
        assert get(server, path, "bytes=-100").data == whole(server, path)[-100:]
        assert columns_of(pl.read_parquet(url(server, path)).to_arrow()) == columns_of(table(whole(server, path)))
        assert files(server, "part") == []
        if killed:
            return
    raise AssertionError("no making was caught midway")


def begun_to_write(server: Server) -> bool:
    """Wait for bytes in a file that is being made."""
    seen = False
    for _ in range(100_000):
        with suppress(FileNotFoundError):
            for path in files(server, "part"):
                seen = True
                if path.stat().st_size:
                    return True
        if seen and not files(server, "part"):
            return False
    return False
