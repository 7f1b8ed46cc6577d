"""How the server gets into the embedded database: as the role that writes, which needs no password there. Lane side.

The socket is the server's user's alone, so whoever takes over the process could come in as the owner, too. What it is
for are mistakes: no request, however it was put, drops a table or removes a tick.
"""

from __future__ import annotations

from contextlib import closing

import psycopg2

from app.errors import DatabaseAway
from app.storage.connection import first_line
from app.storage.embedded_user import EmbeddedError
from app.storage.role_names import WRITE
from app.storage.statement_books import SCHEMA

_MAY = f"""
    SELECT rolcanlogin AND pg_has_role(oid, 'pg_monitor', 'MEMBER')
        AND (to_regnamespace('{SCHEMA}') IS NULL OR has_schema_privilege(oid, to_regnamespace('{SCHEMA}'), 'USAGE'))
    FROM pg_roles WHERE rolname = '{WRITE}'
"""  # noqa: S608 - the constants above
_ADMIT = f"ALTER ROLE {WRITE} LOGIN; GRANT pg_monitor TO {WRITE}"
_SHOW_STATEMENTS = f"GRANT USAGE ON SCHEMA {SCHEMA} TO {WRITE}"


def admit(url: str) -> None:
    """Let the role that writes log in, and see what /metrics show of the database; url: its owner's, migrated.

    Idempotent, and writes nothing where that was done. Raises EmbeddedError when there is no such role, DatabaseAway.
    """
    try:
        with closing(psycopg2.connect(url, connect_timeout=10)) as conn, conn, conn.cursor() as cur:
            cur.execute(_MAY)
            if cur.fetchone() == (True,):
                return
            cur.execute(_ADMIT)
            cur.execute("SELECT to_regnamespace(%s) IS NOT NULL", (SCHEMA,))
            if cur.fetchone() == (True,):
                cur.execute(_SHOW_STATEMENTS)
    except psycopg2.errors.UndefinedObject as why:
        raise EmbeddedError(f"there is no role {WRITE}: python -m app roles apply") from why
    except psycopg2.Error as why:
        raise DatabaseAway(first_line(why)) from why
