"""A connection that belongs to one lane. Lane side, but for `interrupt`.

Made on first use, dropped on trouble, made anew at the next use. Settings go into each transaction (SET LOCAL), never
into the session, so that it also works behind a transaction pooler.
"""

from __future__ import annotations

import os
from _socket import SHUT_RDWR, socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2.extensions import cursor as Cursor

from app.errors import DatabaseAway, TickhubError

ROW_CLASSES = ("22", "23")
"""SQLSTATE classes that are about a row (data exception, integrity violation); all else is about the database."""


def is_about_a_row(error: psycopg2.Error) -> bool:
    """Tell whether the database refuses a row, as opposed to being in trouble itself."""
    if isinstance(error, psycopg2.errors.CheckViolation) and not error.diag.constraint_name:
        return False  # no constraint refuses the row: there is no partition for it
    return (error.pgcode or "")[:2] in ROW_CLASSES


class Connection:
    """One connection of one lane to the database at `url()`.

    The URL is asked for at each new connection: an embedded server that is just being made may still choose
    where its socket is.
    """

    def __init__(self, url: Callable[[], str], connect_timeout_s: float, statement_timeout_s: float, name: str) -> None:
        self._url = url
        self._connect_timeout_s = max(2, round(connect_timeout_s))  # libpq takes 1 for 2
        self._begin = (
            "SET LOCAL synchronous_commit = on; "
            f"SET LOCAL statement_timeout = {round(statement_timeout_s * 1000)}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {round(statement_timeout_s * 1000)}; "
            "SET LOCAL timezone = 'UTC'"
        )
        self._name = name
        self._connection: psycopg2.extensions.connection | None = None
        self._fd: int | None = None
        self.generation = 0
        """Counts connections: whoever caches what a connection told it starts anew when this changes."""

    def open(self) -> psycopg2.extensions.connection:
        """Return the connection, made if there is none. Raises DatabaseAway."""
        if self._connection is None or self._connection.closed:
            try:
                self._connection = psycopg2.connect(
                    self._url(),
                    connect_timeout=self._connect_timeout_s,
                    application_name=f"tickhub {self._name}",
                    keepalives_idle=10,
                    keepalives_interval=5,
                    keepalives_count=3,
                    tcp_user_timeout=20_000,
                )
            except psycopg2.Error as error:
                raise DatabaseAway(first_line(error)) from error
            self._fd = self._connection.fileno()
            self.generation += 1
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Run a transaction: committed at the end, rolled back on any exception.

        Errors of the database come out as DatabaseAway and drop the connection; other TickhubErrors pass.
        """
        connection = self.open()
        try:
            with connection.cursor() as cur:
                cur.execute(self._begin)
                yield cur
            connection.commit()
        except TickhubError:
            self._roll_back()
            raise
        except psycopg2.Error as error:
            self.close()
            raise DatabaseAway(first_line(error)) from error
        except BaseException:
            self.close()
            raise

    def notices(self) -> list[str]:
        """Return and forget what the server had to say (warnings of our own functions)."""
        if self._connection is None:
            return []
        lines = [line.strip() for line in self._connection.notices if line.startswith("WARNING")]
        self._connection.notices.clear()
        return lines

    def close(self) -> None:
        """Drop the connection; the next use makes a new one."""
        connection, self._connection, self._fd = self._connection, None, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        """Wake a lane that waits for a database which does not answer. Greenlet side.

        Shuts the socket down under it: its call fails at once as if the server had gone.
        """
        fd = self._fd
        if fd is not None:
            with_own = socket(fileno=os.dup(fd))
            try:
                with_own.shutdown(SHUT_RDWR)
            except OSError:
                return  # the server was faster
            finally:
                with_own.close()

    def _roll_back(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.rollback()
        except psycopg2.Error:
            self.close()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its name."""
    return str(error).strip().split("\n")[0] or type(error).__name__
