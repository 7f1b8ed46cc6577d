"""Logical dumps, for moving between versions and servers: pg_dump's custom format. Blocking.

A restore goes into a database beside the present one, is looked at, and takes its name; what was there keeps another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import quote

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import make_dsn, parse_dsn

from app.backup.catalog import Catalog
from app.backup.tools import BackupError, Tools
from app.storage.roles import grant
from app.storage.schema import HEAD, revision
from app.storage.statement_books import SCHEMA

_JOBS = 2

_NOT_DUMPED = ("--exclude-extension=pg_stat_statements", f"--exclude-schema={SCHEMA}")
"""Books of statements are one server's, and another one may not have what they need."""


def dump(catalog: Catalog, tools: Tools, *, now: datetime | None = None) -> Path:
    """Write a dump and return its path. Raises BackupError."""
    catalog.dumps.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = catalog.dumps / f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump"
    fresh = path.with_suffix(".new")
    try:
        tools.run("pg_dump", "--format=custom", "--no-password", *_NOT_DUMPED, f"--file={fresh}")
        check(tools, fresh)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)
    return path


def check(tools: Tools, path: Path) -> int:
    """Return how many entries a dump lists; all of it is read. Raises BackupError when it is none, or damaged."""
    found = len(_entries(tools, path))
    tools.run("pg_restore", f"--file={os.devnull}", path)
    return found


def is_dump(path: Path) -> bool:
    """Tell whether a file is one of pg_dump's custom format."""
    try:
        with path.open("rb") as file:
            return file.read(5) == b"PGDMP"
    except OSError as why:
        raise BackupError(f"{path}: {why.strerror}") from why


def restore_dump(tools: Tools, path: Path, *, drop_existing: bool, now: datetime | None = None) -> tuple[int, str]:
    """Restore a dump into the database of `tools`; return the ticks that it holds, and the name of what was there.

    A database that holds tables is only replaced when `drop_existing`, and even then renamed, not dropped. Nobody else
    may be connected to it. Raises BackupError; then nothing was replaced.
    """
    name = parse_dsn(tools.url).get("dbname", "tickhub")
    stamp = f"{now or datetime.now(UTC):%Y%m%dt%H%M%Sz}".lower()
    fresh, aside = f"{name}_restoring", f"{name}_before_{stamp}"
    server = Tools(tools.binaries, _other(tools.url, "postgres"))
    check(tools, path)
    (held,) = tools.row("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    if held and not drop_existing:
        raise BackupError(f"the database {name} holds {held} tables: to replace them say --drop-existing")
    _execute(server, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(fresh)))
    _execute(server, sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(fresh)))
    try:
        restored = Tools(tools.binaries, _other(tools.url, fresh))
        with _list_of(tools, path) as wanted:
            restored.run(
                "pg_restore",
                "--exit-on-error",
                "--no-password",
                "--no-owner",  # whoever restores is the owner, whatever the other server called its own
                f"--use-list={wanted}",
                f"--jobs={_JOBS}",
                f"--dbname={fresh}",
                path,
            )
        with restored.connection() as conn, conn.cursor() as cur:
            found = revision(conn)
            if found is None:
                raise BackupError(f"{path} is no dump of a tickhub database")
            if found == HEAD:
                grant(cur)  # what is said of the database itself is in no dump; an older schema's migration does it
        (ticks,) = restored.row("SELECT count(*) FROM ticks")
        # In one transaction: whoever is killed between them leaves what was there under its name.
        with server.connection() as conn, conn.cursor() as cur:
            conn.autocommit = False
            cur.execute(_renaming(name, aside))
            cur.execute(_renaming(fresh, name))
            conn.commit()
    except BaseException:
        _execute(server, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(fresh)))
        raise
    return int(ticks), aside


@contextmanager
def _list_of(tools: Tools, path: Path) -> Iterator[Path]:
    """Give a list of all that is in a dump but the rights on tables to come, which name the other server's owner.

    `grant` gives them anew.
    """
    with NamedTemporaryFile("w", prefix="tickhub-", suffix=".list") as file:
        file.writelines(f"{entry}\n" for entry in _entries(tools, path) if " DEFAULT ACL " not in entry)
        file.flush()
        yield Path(file.name)


def _entries(tools: Tools, path: Path) -> list[str]:
    with NamedTemporaryFile(prefix="tickhub-", suffix=".list") as file:
        tools.run("pg_restore", "--list", f"--file={file.name}", path)
        lines = Path(file.name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(";")]


def _renaming(old: str, new: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))


def _execute(server: Tools, statement: sql.Composed) -> None:
    with server.connection() as conn, conn.cursor() as cur:
        cur.execute(statement)


def _other(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    try:
        return make_dsn(url, dbname=name)
    except psycopg2.ProgrammingError as why:
        raise BackupError(f"not a database URL: {quote(str(why))}") from why
