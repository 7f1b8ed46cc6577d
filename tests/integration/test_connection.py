"""A lane's connection on a real server: whose timeouts nobody but the server keeps."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from psycopg2.extensions import cursor as Cursor

from app.errors import QueryTimeout
from app.storage.connection import Connection

Run = Callable[[Cursor], object]
FIRST: Run = lambda cur: cur.execute("SELECT pg_sleep(20)")  # noqa: E731
LATER: Run = lambda cur: (cur.execute("SELECT 1"), cur.execute("SELECT pg_sleep(20)"))  # noqa: E731
COPY: Run = lambda cur: cur.copy_expert("COPY (SELECT pg_sleep(20)) TO STDOUT", io.BytesIO())  # noqa: E731


@pytest.mark.parametrize(
    ("kind", "run"),
    [("reading", FIRST), ("reading", LATER), ("reading", COPY), ("looking", FIRST), ("looking", LATER)],
    ids=["reading", "reading on", "copying", "looking", "looking again"],
)
def test_the_server_ends_a_statement_though_its_timeout_came_in_the_same_message(
    own: Connection, kind: str, run: Run
) -> None:
    """Nobody cancels it here."""
    begin = own.reading if kind == "reading" else own.looking
    with pytest.raises(QueryTimeout), begin(0.1) as cur:
        run(cur)
    with begin(20) as cur:  # which has a timeout of its own
        cur.execute("SELECT 1 FROM pg_sleep(0.3)")
        assert cur.fetchone() == (1,)
    assert own.generation == 1
