"""docs/sql.md: every query on the page works for the role that reads, and answers what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from sql_page import HOW, PAGE, Query, answer, fill, queries, setup

ROOT = PAGE.parents[1]
QUERIES = queries()


@contextmanager
def _session(url: str) -> Iterator[psycopg2.extensions.cursor]:
    with closing(psycopg2.connect(url)) as conn, conn.cursor() as cur:
        conn.autocommit = True
        yield cur


@pytest.fixture(scope="module")
def filled(server: str, template: str) -> Iterator[str]:
    """Yield the URL by which the role that reads gets to the page's market."""
    name = "page_of_queries"
    with _session(server.format(name="postgres")) as cur:
        cur.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        cur.execute(f'ALTER DATABASE {name} SET search_path = "$user", public, history')
        cur.execute("ALTER ROLE tickhub_read LOGIN")
        fill(server.format(name=name))
        yield server.format(name=name).replace("user=tickhub", "user=tickhub_read")
        cur.execute("ALTER ROLE tickhub_read NOLOGIN")
        cur.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _title(query: Query) -> str:
    before = PAGE.read_text().split(query.sql)[0]
    return before.rsplit("### ", 1)[1].split("\n")[0]


@pytest.mark.parametrize("query", QUERIES, ids=_title)
def test_a_query_of_the_page_answers_what_the_page_says(filled: str, query: Query) -> None:
    found = answer(filled, query.sql)
    assert not re.search(r"^\(0 rows\)$", found, re.MULTILINE), "it finds nothing"
    assert found == query.answer, f"if that is meant, write the answers anew: {HOW}"


def test_every_block_of_the_page_is_looked_at() -> None:
    text = PAGE.read_text()
    opened = re.findall(r"^```(\S.*)$", text, re.MULTILINE)
    assert opened.count("sql") == len(QUERIES) >= 14
    assert set(opened) == {"sql", "text", "sql admin", "sql owner"}
    assert opened.count("text") == len([query for query in QUERIES if query.answer is not None])


def test_the_page_names_every_table_and_view(filled: str) -> None:
    with _session(filled) as cur:
        cur.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p', 'v') AND NOT relispartition AND relname <> 'alembic_version'"
        )
        names = {name for (name,) in cur.fetchall()}
    table = PAGE.read_text().split("## What is there")[1].split("\n\n")[1]
    assert names == {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])} - {
        "tsla_history"
    }


def test_the_statements_for_a_database_of_ones_own_let_the_role_in(empty_database_url: str, template: str) -> None:
    """Where the role that migrates may make no roles: an admin makes it afterwards, and the owner lets it read."""
    from app.storage.schema import migrate

    with _session(empty_database_url) as admin:
        admin.execute("ALTER ROLE tickhub_read RENAME TO put_aside")
        admin.execute("CREATE ROLE keeper LOGIN")
        admin.execute("SELECT current_database()")
        (name,) = admin.fetchone() or ("",)
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO keeper").format(sql.Identifier(name)))
        try:
            keepers_url = empty_database_url.replace("user=tickhub", "user=keeper")
            assert any("docs/sql.md" in line for line in migrate(keepers_url))
            admin.execute(setup("admin"))
            with _session(keepers_url) as owner:
                owner.execute(setup("owner"))
                owner.execute("INSERT INTO instruments (symbol) VALUES ('LATER')")
            with _session(empty_database_url.replace("user=tickhub", "user=tickhub_read")) as reader:
                for view in ("ticks_view", "bars_5m", "tsla_history", "later_history"):
                    reader.execute(f"SELECT * FROM {view}")
                reader.execute("SHOW default_transaction_read_only")
                assert reader.fetchone() == ("on",)
        finally:
            admin.execute("REASSIGN OWNED BY keeper TO tickhub; DROP OWNED BY keeper; DROP ROLE keeper")
            admin.execute("DROP OWNED BY tickhub_read; DROP ROLE tickhub_read")
            admin.execute("ALTER ROLE put_aside RENAME TO tickhub_read")


@pytest.mark.parametrize(("flags", "status"), [([], 0), (["--read-only"], 1)])
def test_psql_changes_nothing_if_told_so(database_url: str, tmp_path: Path, flags: list[str], status: int) -> None:
    command = [sys.executable, "-m", "app", "psql", *flags, "--database-url", database_url, "--data-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--", "-X", "-c", "DELETE FROM rejected_ticks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status
    assert done.stdout == ("" if status else "DELETE 0\n")
    assert ("read-only transaction" in done.stderr) == bool(status)
