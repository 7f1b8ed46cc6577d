"""The database's schema: which one this program needs, which one is there, and how to get there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import errorcodes
from psycopg2.extensions import connection as Connection

from app.errors import DatabaseAway, StorageError

HEAD = "0022"
"""Newest revision in sql/versions. A constant, because asking Alembic costs every worker its import."""

SCRIPTS = Path(__file__).resolve().parents[2] / "sql"

_CONNECT_TIMEOUT_S = 10
_WAITING = {errorcodes.LOCK_NOT_AVAILABLE, errorcodes.DEADLOCK_DETECTED, errorcodes.QUERY_CANCELED}


def revision(conn: Connection) -> str | None:
    """Return the revision of the database, None when it has no schema yet.

    Two quick queries in the connection's open or new transaction, which it leaves healthy and open.
    """
    with conn.cursor() as cur:
        cur.execute("SELECT to_regclass('public.alembic_version') IS NOT NULL")
        if cur.fetchone() != (True,):
            return None
        cur.execute("SELECT version_num FROM public.alembic_version")
        row = cur.fetchone()
    return str(row[0]) if row else None


def migrate(url: str) -> list[str]:
    """Bring the database at a libpq URL to HEAD; return what was done, a line each, [] if nothing was.

    All or nothing, and safe when several run at once: one migrates, the others wait for it.
    Raises DatabaseAway when trying again may help, StorageError when it cannot.
    """
    with _translated(), closing(_connect(url)) as conn:
        found = revision(conn)
        conn.rollback()
        if found == HEAD:
            return []
        if found is not None and found > HEAD:
            raise StorageError(
                f"the database has schema {found}, this tickhub knows {HEAD}: run the newer tickhub"
            )
        return _upgrade(conn)


def _connect(url: str) -> Connection:
    if not url.startswith(("postgresql://", "postgres://")):
        raise StorageError("the database URL must begin with postgresql:// or postgres://")
    try:
        return psycopg2.connect(url, connect_timeout=_CONNECT_TIMEOUT_S, application_name="tickhub migrate")
    except psycopg2.Error as error:
        if not isinstance(error, psycopg2.ProgrammingError) and "for connection option" not in str(error):
            raise
        # From None, and without its text: libpq repeats parts of the URL, which may be of the password.
        raise StorageError(
            "the database URL cannot be read: postgresql://user:password@host:port/name"
        ) from None


def _upgrade(conn: Connection) -> list[str]:
    # Imported here: together they cost 25 MB, and a worker imports this module only to read a revision.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.pool import StaticPool

    from app.storage.roles import grant

    lines: list[str] = []

    def on_version_apply(step: Any, **_: Any) -> None:
        lines.append(f"migrated to {step.up_revision_id}: {step.up_revision.doc}")

    # SQLAlchemy would log what the server has to say, and forget it.
    conn.notices = _Warnings(lines)  # type: ignore[assignment]  # any object with append, says psycopg2
    engine = create_engine("postgresql+psycopg2://", creator=lambda: conn, poolclass=StaticPool)
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    with engine.connect() as connection:
        config.attributes.update(connection=connection, on_version_apply=on_version_apply, grant=grant)
        command.upgrade(config, HEAD)
        connection.commit()
    engine.dispose()
    return lines


class _Warnings:
    """Keeps the warnings of what psycopg2 appends, a line each."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def append(self, notice: str) -> None:
        if notice.startswith("WARNING"):
            self._lines.append(notice.strip())


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what drivers raise into one of our errors with a line that helps."""
    try:
        yield
    except Exception as error:
        cause = getattr(error, "orig", None) or error
        if not isinstance(cause, psycopg2.Error):
            raise
        text = str(cause).strip().split("\n")[0]
        if cause.pgcode in _WAITING:
            raise DatabaseAway(f"cannot migrate now, another session holds a lock: {text}") from error
        if cause.pgcode == errorcodes.INSUFFICIENT_PRIVILEGE:
            raise StorageError(f"cannot migrate, this role may not: {text}. Migrate as the owner") from error
        if cause.pgcode is None or isinstance(cause, psycopg2.OperationalError):
            raise DatabaseAway(f"cannot reach the database: {text}") from error
        raise StorageError(f"cannot migrate: {text}") from error
