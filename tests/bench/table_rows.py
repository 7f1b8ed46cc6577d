"""All rows of a database's tables as digests, to see that two databases hold the same."""

from __future__ import annotations

import hashlib

import psycopg2
from psycopg2 import sql

_TABLES = """
    SELECT n.nspname, c.relname, array_agg(a.attname::text ORDER BY a.attnum)
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    GROUP BY n.nspname, c.relname
"""
_MEMORY = "SET work_mem = '512MB'"


class _Digest:
    """A file that keeps a digest of what is written to it, and how much that was."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._sha.update(data)
        return len(data)

    def hex(self) -> str:
        return self._sha.hexdigest()


def digests(url: str) -> dict[str, str]:
    """Return the digest of every table's rows, sorted by all of their columns, by the table's name."""
    found = {}
    conn = psycopg2.connect(url)
    try:
        with conn.cursor() as cur:
            cur.execute(_MEMORY)
            cur.execute(_TABLES)
            for schema, table, columns in cur.fetchall():
                # As text: not every type has an order of its own.
                query = sql.SQL("COPY (SELECT * FROM {} ORDER BY {}) TO STDOUT").format(
                    sql.Identifier(schema, table),
                    sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns),
                )
                digest = _Digest()
                cur.copy_expert(query.as_string(cur), digest)
                found[f"{schema}.{table}"] = digest.hex()
    finally:
        conn.close()
    return found
