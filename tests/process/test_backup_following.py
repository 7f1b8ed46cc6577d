"""A server that has its WAL and journals follow into its backups, whatever happens to its processes."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from app.backup.following import FILE
from tests.process.backups import backups_of, follows, send, stored, ticks
from tests.process.commands import app
from tests.process.conftest import MakeServer
from tests.process.harness import Server, far_from_now, runs, words_of
from tests.waiting import wait_until


@pytest.fixture
def server(make_server: MakeServer, tmp_path: Path) -> Server:
    return make_server(workers=2, environ={"TICKHUB_BACKUP_DIR": str(tmp_path / "backups")})


def follower(server: Server) -> psutil.Process | None:
    """Return the process that follows, None when there is none."""
    for pid in server.worker_pids():
        with suppress(psutil.Error):  # of those that end meanwhile
            for child in psutil.Process(pid).children():
                if words_of(child)[-2:-1] == ["--parent"]:
                    return child
    return None


def receiver_of(process: psutil.Process) -> psutil.Process | None:
    with suppress(psutil.Error):
        return next((child for child in process.children() if child.name() == "pg_receivewal"), None)
    return None


@pytest.mark.long
def test_after_a_crash_every_acknowledged_tick_comes_back_though_the_one_who_followed_was_killed(
    server: Server,
) -> None:
    server.start().wait_ready()
    follows(server)
    app(server, "backup", "full")
    send(server, 0, 50)
    first = wait_until(lambda: follower(server), what="one who follows")
    receiving = wait_until(lambda: receiver_of(first), what="pg_receivewal")
    worker = first.parent()
    assert worker is not None
    worker.kill()
    wait_until(lambda: not runs(first), what="what it started to end with the worker")
    wait_until(lambda: not runs(receiving), what="pg_receivewal to end with it")
    send(server, 100, 50)
    second = wait_until(lambda: follower(server), what="another worker to take over")
    assert second.pid != first.pid
    # The follower itself is killed, and what it started.
    second.kill()
    send(server, 200, 50)
    third = wait_until(lambda: follower(server), what="it to be started again")
    assert third.pid != second.pid
    received = wait_until(lambda: receiver_of(third), what="pg_receivewal to be started")
    received.kill()
    send(server, 300, 50)
    told = follows(server)
    assert told["trouble"] is None
    metrics = server_metrics(server)
    assert "tickhub_backup_followed_timestamp_seconds{" in metrics
    assert "tickhub_backup_wal_behind_bytes" in metrics
    assert "`backup wal` ended" in server.log()
    # Acknowledged, and the database never hears of it.
    server.database.pause()
    assert server.post(ticks(400, 25))[0] == 200
    acknowledged = datetime.now(UTC)
    wait_until(
        lambda: datetime.fromisoformat(known(server)["journals_until"]) > acknowledged, what="the journals to follow"
    )
    server.kill9()
    server.database.resume()
    server.database.remove()
    app(server, "restore", "--drop-existing")
    server.start().wait_ready()
    server.wait_drained()
    expected = [number for first in (0, 100, 200, 300) for number in range(first, first + 50)]
    assert stored(server.database) == [*expected, *range(400, 425)]


def known(server: Server) -> dict[str, Any]:
    return dict(json.loads((backups_of(server) / FILE).read_text()))


def server_metrics(server: Server) -> str:
    with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


@pytest.mark.long
def test_one_follows_and_it_ends_with_its_server(server: Server) -> None:
    server.start().wait_ready()
    follows(server)
    assert "the replication slot is gone" not in server.log()
    found = wait_until(lambda: follower(server), what="one who follows")
    assert "another `backup wal` is at work" in app(server, "backup", "wal", expect=75)
    send(server, 0, 10)
    assert server.stop(signal.SIGTERM) == 0
    assert not runs(found)
    # What was stored before the end was received: the database that is lost now is not needed for it.
    assert "no verified backup" in app(server, "restore", "--drop-existing", expect=1)
    state = known(server)
    assert datetime.fromisoformat(state["wal_until"]) <= datetime.fromisoformat(state["written_at"])


@pytest.mark.long
def test_a_backup_is_taken_by_schedule_verified_and_shown(make_server: MakeServer) -> None:
    server = make_server(environ={"TICKHUB_BACKUP_SCHEDULE": "on", "TICKHUB_BACKUP_AT": far_from_now()})
    server.start().wait_ready()
    assert server.stats()["backup_following"] is None, "nowhere to follow to"

    def taken(count: int) -> str:
        wait_until(lambda: server.database.rows("SELECT name FROM jobs"), what="the job to be known")
        server.database.rows("UPDATE jobs SET due_at = due_at - interval '1 day'")
        ended = "SELECT message FROM jobs WHERE state = 'ok' AND runs = %s"
        return str(wait_until(lambda: server.database.rows(ended, count), what="the backup to be taken"))

    assert "-full" in taken(1)
    assert "-incremental" in taken(2)
    wait_until(lambda: 'tickhub_backups{state="sound"} 2.0' in server_metrics(server), what="both to be counted")
    assert 'tickhub_backups{state="damaged"} 0.0' in server_metrics(server)
    assert 'tickhub_backup_newest_timestamp_seconds{kind="full"}' in server_metrics(server)
    assert "[JOB] backup begins" in server.log()


@pytest.mark.long
def test_trouble_is_told_by_log_and_stats(server: Server) -> None:
    backups = backups_of(server)
    (backups / FILE).parent.mkdir(parents=True)
    (backups / FILE).write_text(json.dumps({"system": "7", "since": "2026-01-01T00:00:00Z"}))
    server.start().wait_ready()
    words = "are of another database: set another backup_dir"
    wait_until(lambda: any(words in one for one in server.stats()["warnings"]), what="the warning")
    # Each worker looks for itself, now and then.
    wait_until(lambda: server.stats()["backup_following"]["state"] == "trouble", what="its state")
    assert words in server.log()
    assert "[BACKUP]" in server.log()
    # Nor do its journals come there: a restore would mix the two.
    send(server, 0, 5)
    written = known(server)["written_at"]
    wait_until(lambda: known(server)["written_at"] > written, what="another look")
    assert not list(backups.glob("journal/*/*.seg"))
