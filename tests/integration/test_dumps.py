"""A dump that is restored takes the database's name in one step, or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection, parse_dsn

from app.backup import dumps
from app.backup.catalog import Catalog
from app.backup.tools import BackupError, Tools
from app.storage.embedded_place import installed_binaries
from tests.batches import execute, rows_of
from tests.waiting import WAIT_S, wait_until

RENAMES = "SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND wait_event_type = 'Lock'"


def names(conn: connection, name: str) -> list[str]:
    return [found for (found,) in rows_of(conn, "SELECT datname FROM pg_database WHERE datname LIKE %s", (f"{name}%",))]


def test_a_restored_dump_that_cannot_take_the_name_leaves_the_database_its_own(
    server: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Tools(installed_binaries(), database_url)
    name = parse_dsn(database_url)["dbname"]
    path = dumps.dump(Catalog(tmp_path), tools)
    with (
        ThreadPoolExecutor(1) as pool,
        closing(psycopg2.connect(server.format(name="postgres"))) as holder,
        closing(psycopg2.connect(server.format(name="postgres"))) as watcher,
    ):
        watcher.autocommit = True

        def hold(_: object) -> None:
            """Have whoever renames the restored database wait for this transaction's end."""
            with holder.cursor() as cur:
                cur.execute(f"COMMENT ON DATABASE {name}_restoring IS 'held'")

        monkeypatch.setattr(dumps, "grant", hold)
        restoring = pool.submit(dumps.restore_dump, tools, path, drop_existing=True)
        [[pid]] = wait_until(lambda: rows_of(watcher, RENAMES, (f"ALTER DATABASE%{name}_restoring%",)))
        assert sorted(names(watcher, name)) == [name, f"{name}_restoring"], "between the two renames"
        execute(watcher, f"SELECT pg_terminate_backend({pid}, 10000)")
        holder.rollback()
        with pytest.raises(BackupError):
            restoring.result(WAIT_S)
        assert names(watcher, name) == [name]
