"""Books of the statements that the embedded server ran: pg_stat_statements, where it can be had. Lane side.

In a schema of its own, out of sight of those who read. A database given by its URL has them if its owner wants:
CREATE EXTENSION pg_stat_statements, and the library among shared_preload_libraries.
"""

from __future__ import annotations

from contextlib import closing

import psycopg2

from app.errors import DatabaseAway
from app.storage.connection import first_line

SCHEMA = "watching"

_LOADED = "SELECT 1 FROM pg_settings WHERE name = 'pg_stat_statements.max'"
_THERE = "SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements'"
_MAKE = f"""
    SET lock_timeout = '5s';
    CREATE SCHEMA IF NOT EXISTS {SCHEMA};
    CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA {SCHEMA}
"""


def keep_statements(url: str) -> list[str]:
    """Have books of statements kept, where the server has loaded the library; return what is worth logging.

    Idempotent. What does not work is told and no more: it is for watching only. Raises DatabaseAway.
    """
    try:
        with closing(psycopg2.connect(url, connect_timeout=10)) as conn:
            try:
                with conn, conn.cursor() as cur:
                    cur.execute(_LOADED)
                    if cur.fetchone() is None:
                        return []
                    cur.execute(_THERE)
                    if cur.fetchone() is None:
                        cur.execute(_MAKE)
            except psycopg2.Error as error:
                return [f"no books of statements are kept: {first_line(error)}"]
    except psycopg2.OperationalError as error:
        raise DatabaseAway(first_line(error)) from error
    return []
