"""Backups and restores of a real server's data: nothing acknowledged is missing, nothing later comes back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.backups import caught_up, flip_a_bit, now, receiving, send, stored, ticks, wal_received
from tests.process.commands import app
from tests.process.conftest import MakeServer
from tests.process.harness import ROOT
from tests.waiting import wait_until


@pytest.mark.long
def test_a_restore_to_a_moment_brings_what_was_acknowledged_before_it_and_nothing_later(
    make_server: MakeServer,
) -> None:
    server = make_server().start().wait_ready()
    with receiving(server):
        app(server, "backup", "full")
        assert server.post(ticks(0, 300))[0] == 200
        server.wait_drained()
        app(server, "backup", "incremental")
        assert server.post(ticks(1000, 200))[0] == 200
        server.wait_drained()
        wal_received(server)
        server.database.pause()
        # Acknowledged, and the database never hears of it.
        assert server.post(ticks(2000, 100))[0] == 200
        moment = now()
        assert server.post(ticks(3000, 50))[0] == 200
        caught_up(server)
    server.kill9()
    server.database.resume()
    server.database.remove()

    assert "say --drop-existing" in app(server, "restore", "--at", moment, expect=1)
    tried = app(server, "restore", "--at", moment, "--verify-only")
    assert "500 ticks" in tried
    assert "100 acknowledged rows" in tried
    assert "nothing was replaced" in tried
    told = app(server, "restore", "--at", moment, "--drop-existing")
    assert "500 ticks" in told
    assert "100 acknowledged rows" in told
    assert len(list(server.home.glob("postgres.before-*"))) == len(list(server.home.glob("journal.before-*"))) == 1

    server.start().wait_ready()
    server.wait_drained()
    expected = [*range(300), *range(1000, 1200), *range(2000, 2100)]
    assert stored(server.database) == expected
    # What came later is sent again by who sent it: once, as ever.
    assert server.post(ticks(2000, 100)) == (200, {"status": "success", "received": 100})
    assert server.post(ticks(3000, 50))[0] == 200
    server.wait_drained()
    assert stored(server.database) == [*expected, *range(3000, 3050)]
    [(bars,)] = server.database.rows("SELECT sum(ticks)::int FROM bars WHERE resolution = 60")
    assert bars == len(expected) + 50
    assert server.stop() == 0


@pytest.mark.long
def test_a_moment_between_two_batches_is_met_exactly(make_server: MakeServer) -> None:
    server = make_server().start().wait_ready()
    moments = []
    with receiving(server):
        app(server, "backup", "full")
        for batch in range(4):
            assert server.post(ticks(100 * batch, 10))[0] == 200
            server.wait_drained()
            moments.append(now())
        caught_up(server)
        wal_received(server)
    assert server.stop() == 0
    for batch, moment in reversed(list(enumerate(moments))):
        told = app(server, "restore", "--at", moment, "--drop-existing")
        assert f"{10 * (batch + 1)} ticks" in told
    server.database.up()
    assert stored(server.database) == list(range(10))
    server.database.down()
    assert len(list(server.home.glob("postgres.before-*"))) == 4


@pytest.mark.long
def test_without_a_moment_all_that_there_is_comes_back(make_server: MakeServer) -> None:
    server = make_server().start().wait_ready()
    with receiving(server):
        app(server, "backup", "full")
        assert server.post(ticks(0, 40))[0] == 200
        server.wait_drained()
        caught_up(server)
        wal_received(server)
    server.kill9()
    server.database.remove()
    assert "40 ticks" in app(server, "restore", "--drop-existing")


@pytest.mark.long
def test_what_was_acknowledged_last_comes_back_though_nobody_copied_the_journals(make_server: MakeServer) -> None:
    server = make_server().start().wait_ready()
    send(server, 0, 40)
    app(server, "backup", "full")
    server.database.pause()
    assert server.post(ticks(100, 25))[0] == 200
    server.kill9()
    server.database.resume()
    server.database.remove()
    assert "25 acknowledged rows" in app(server, "restore", "--drop-existing")
    server.start().wait_ready()
    server.wait_drained()
    assert stored(server.database) == [*range(40), *range(100, 125)]


@pytest.mark.long
def test_a_moment_that_no_wal_reaches_is_refused_and_nothing_replaced(make_server: MakeServer) -> None:
    server = make_server().start().wait_ready()
    app(server, "backup", "full")
    assert server.post(ticks(0, 10))[0] == 200
    server.wait_drained()
    moment = now()
    assert server.stop() == 0
    assert "the archived WAL ends before" in app(server, "restore", "--at", moment, "--drop-existing", expect=1)
    assert not list(server.home.glob("*.before-*"))
    assert not list(server.home.glob("*.restoring*"))
    server.database.up()
    assert stored(server.database) == list(range(10))


@pytest.mark.long
def test_a_damaged_backup_is_found_and_not_restored(make_server: MakeServer) -> None:
    server = make_server()
    app(server, "backup", "full")
    app(server, "backup", "incremental")
    assert "DAMAGED" not in app(server, "backup", "verify")
    [full] = (server.home / "backups" / "base").glob("*-full")
    largest = max((path for path in (full / "base").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    flip_a_bit(largest)
    told = app(server, "backup", "verify", expect=1)
    assert told.count("DAMAGED") == 1
    assert largest.name in told
    app(server, "database", "down")
    # The incremental one needs it.
    label = next((server.home / "backups" / "base").glob("*-incremental")).name
    assert f"backup {full.name} is damaged" in app(server, "restore", label, "--drop-existing", expect=1)
    assert not list(server.home.glob("*.before-*"))


@pytest.mark.long
def test_a_backup_that_is_killed_leaves_none_behind(make_server: MakeServer) -> None:
    server = make_server()
    app(server, "database", "up")
    base = server.home / "backups" / "base"
    process = subprocess.Popen([sys.executable, "-m", "app", "backup", "full"], cwd=ROOT, env=server.environ)
    wait_until(lambda: base.exists() and list(base.glob(".taking-*")), what="the backup to begin")
    process.kill()
    process.wait()
    assert "no backups" in app(server, "backup", "list")
    assert "sound" in app(server, "backup", "full")
    assert not list(base.glob(".taking-*"))


def test_only_one_backup_command_is_at_work(make_server: MakeServer) -> None:
    import fcntl

    server = make_server()
    root = server.home / "backups"
    root.mkdir()
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert "another backup command is at work" in app(server, "backup", "prune", expect=1)
    os.close(fd)
    app(server, "backup", "prune")


@pytest.mark.long
def test_a_running_server_is_not_restored_over(make_server: MakeServer) -> None:
    server = make_server().start().wait_ready()
    app(server, "backup", "full")
    assert "stop it first" in app(server, "restore", "--drop-existing", expect=1)
    assert "nothing was replaced" in app(server, "restore", "--verify-only")


@pytest.mark.long
def test_a_dump_moves_everything_and_what_was_there_is_kept(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server().start().wait_ready()
    assert server.post(ticks(0, 25))[0] == 200
    server.wait_drained()
    app(server, "backup", "dump")
    assert server.post(ticks(100, 5))[0] == 200
    server.wait_drained()
    assert server.stop() == 0
    [dump] = (server.home / "backups" / "dumps").glob("*.dump")
    assert "say --drop-existing" in app(server, "restore", str(dump), expect=1)
    assert "sound" in app(server, "restore", str(dump), "--verify-only")
    told = app(server, "restore", str(dump), "--drop-existing")
    assert "25 ticks" in told
    assert "journals: 5 acknowledged rows that are not in the dump are stored at the next start" in told
    server.database.up()
    assert stored(server.database) == list(range(25))
    [(allowed,)] = server.database.rows("SELECT datacl::text FROM pg_database WHERE datname = 'tickhub'")
    assert "tickhub_write=Tc" in allowed
    aside = re.findall(r"tickhub_before_\w+", told)[0]
    [(count,)] = server.database.rows("SELECT count(*) FROM ticks", name=aside)
    assert count == 30
    broken = tmp_path / "broken.dump"
    broken.write_bytes(dump.read_bytes()[:-2000])
    assert "pg_restore failed" in app(server, "restore", str(broken), "--verify-only", expect=1)


@pytest.mark.parametrize(
    "text", ["2026-01-13 17:54:43", "yesterday", "2999-01-01 00:00:00+00", "0001-01-01 00:00:00+14"]
)
def test_a_moment_must_be_one(make_server: MakeServer, text: str) -> None:
    assert "tickhub: --at" in app(make_server(), "restore", "--at", text, "--verify-only", expect=1)


def test_a_moment_of_another_clock_is_told_in_utc(make_server: MakeServer) -> None:
    told = app(make_server(), "restore", "--at", "2026-01-13", "--verify-only", expect=1)
    assert 'say which clock that is, as "2026-01-13 00:00:00+00"' in told
    told = app(make_server(), "restore", "--at", "2026-01-13 17:54:43+05:30", "--verify-only", expect=1)
    assert "no verified backup that ended before 2026-01-13 12:24:43Z" in told
