"""The schema, by what it promises to whoever speaks SQL."""

from __future__ import annotations

from psycopg2.extensions import connection


def test_a_fresh_database_knows_the_seeded_symbols(conn: connection) -> None:
    with conn.cursor() as cur:
        cur.execute("SELECT count(*) FROM instruments")
        assert cur.fetchone() == (17,)
