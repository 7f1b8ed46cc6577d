"""The archive of ticks as a part of backups: it comes back as the restored database names it."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.backup.tools import Tools
from app.cli.restore import archive_of
from app.cli.url import owner_url
from app.settings import load
from app.storage.embedded_place import installed_binaries
from tests.process.backups import backups_of, flip_a_bit, follows, now
from tests.process.commands import app
from tests.process.conftest import MakeServer
from tests.process.harness import Server
from tests.process.reading import DAY_MS, Row, made_ticks, rows_of, store, ticks_path

WEEK_MS = 7 * 86_400_000
EARLY_MS = DAY_MS - 4 * WEEK_MS


def rows(server: Server) -> list[Row]:
    return rows_of(server, ticks_path("TSLA"), start=0, end=DAY_MS + WEEK_MS, limit=1000)


def days_since(time_ms: int) -> int:
    return int((time.time() * 1000 - time_ms) / 86_400_000)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_archive_comes_back_as_it_was_at_the_moment_though_all_of_it_is_lost(
    make_server: MakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = make_server(environ={"TICKHUB_BACKUP_DIR": str(tmp_path / "backups")}).start().wait_ready()
    follows(server)
    store(server, made_ticks("TSLA", range(EARLY_MS, EARLY_MS + 100)))
    store(server, made_ticks("TSLA", range(DAY_MS, DAY_MS + 50)))
    app(server, "archive", "run", "--hot-days", str(days_since(DAY_MS - 2 * WEEK_MS)))
    assert server.database.rows("SELECT count(*) FROM ticks") == [(50,)]
    app(server, "backup", "full")
    follows(server)
    then, at_that_moment = rows(server), now()
    # After the moment the other week moves, and the first one gets another manifest.
    store(server, made_ticks("TSLA", range(EARLY_MS + 500, EARLY_MS + 510)))
    app(server, "archive", "run", "--hot-days", "1")
    assert server.database.rows("SELECT count(*) FROM ticks") == [(0,)]
    assert len(rows(server)) == 160
    both_moved = now()
    follows(server)
    server.kill9()
    server.database.remove()

    archive = server.home / "archive"
    shutil.rmtree(archive)
    told = app(server, "restore", "--at", at_that_moment, "--drop-existing")
    assert "50 ticks, 1 weeks in the archive" in told
    assert "brought back into the archive" in told
    server.start().wait_ready()
    assert rows(server) == then
    assert app(server, "archive", "verify").count("sound") == 1
    # The week that was moved after the moment moves again; its first files are nobody's and are set aside.
    app(server, "archive", "run", "--hot-days", "1")
    assert rows(server) == then
    assert app(server, "archive", "verify").count("sound") == 2
    assert server.stop() == 0

    # A dump has rows alone: its files come from the backups, or it is said that they are missing.
    app(server, "backup", "dump")
    [dump] = (backups_of(server) / "dumps").glob("*.dump")
    other = make_server(environ={"TICKHUB_BACKUP_DIR": str(tmp_path / "backups")})
    told = app(other, "restore", str(dump), "--drop-existing")
    assert told.count("brought back into the archive") == 2
    assert "0 ticks; what was there is in the database" in told
    assert "archive: 2 weeks are named" in told
    assert app(other, "archive", "verify").count("sound") == 2
    # Where they cannot be put, the database is replaced all the same, and that is told.
    shutil.rmtree(other.home / "archive")
    (other.home / "archive").touch()
    told = app(other, "restore", str(dump), "--drop-existing")
    assert "0 ticks; what was there is in the database" in told
    assert f"Not a directory: '{other.home}/archive/ticks'; ticks of weeks whose files are not in" in told
    (other.home / "archive").unlink()

    app(server, "database", "down")
    [copy] = (backups_of(server) / "archive").glob(f"{week_of(EARLY_MS)}-*")
    flip_a_bit(copy / "ticks-1.parquet", at=100)
    shutil.rmtree(archive)
    assert "the archive beside it is DAMAGED" in app(server, "backup", "verify", expect=1)
    told = app(server, "restore", "--at", at_that_moment, "--drop-existing", expect=1)
    assert "is not what was archived" in told
    assert "--without-archive" in told
    # The other week is whole, and comes back.
    told = app(server, "restore", "--at", both_moved, "--drop-existing", "--without-archive")
    assert "0 ticks, 2 weeks in the archive" in told
    assert told.count("brought back into the archive") == 1
    environ = {"TICKHUB_DATA_DIR": str(other.home), "TICKHUB_BACKUP_DIR": str(backups_of(server))}
    here = load(environ, None, None)
    capsys.readouterr()
    assert archive_of(Tools(installed_binaries(), owner_url(here)), here) == 2
    said = capsys.readouterr().err
    assert "cannot be read until they are" in said
    assert said.count("brought back into the archive") == 1


def week_of(time_ms: int) -> str:
    day = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{day - timedelta(days=day.weekday()):%Y%m%d}"
