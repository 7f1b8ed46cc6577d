"""A connection that belongs to one lane. Lane side, but for `interrupt` and `canceller`.

Made on first use, dropped on trouble, made anew at the next use. Settings go into each transaction (SET LOCAL), never
into the session, so that it also works behind a transaction pooler.
"""

from __future__ import annotations

import os
from _socket import MSG_DONTWAIT, MSG_PEEK, SHUT_RDWR, socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import cursor as Cursor

from app.errors import DatabaseAway, QueryTimeout, TickhubError
from app.storage.cancelling import Canceller

ROW_CLASSES = ("22", "23")
"""SQLSTATE classes that are about a row (data exception, integrity violation); all else is about the database."""

OUR_MISTAKES = ("22", "42", "25006")
"""Starts of the SQLSTATEs that a read gets for what it asked (data exception, no such column, a write), however well
the database is: asking again would not help."""

IDLE_GRACE_MS = 60_000
"""Making bytes of the rows happens inside the transaction too, on a machine that may be busy or asleep."""

LOOK_FOR_THE_CLIENT = 14_00_00
"""From this version on a server can look during a query whether its client is still there; before, only at its end."""


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

    def __init__(
        self,
        url: Callable[[], str],
        connect_timeout_s: float,
        statement_timeout_s: float,
        name: str,
        archive_dir: Path | None = None,
    ) -> None:
        """Take what it needs; nothing is opened. archive_dir: given to every cursor, for who reads archived ticks."""
        self._url = url
        self._archive_dir = archive_dir
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
        self._canceller: Canceller | None = None
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
            self._canceller = Canceller(self._connection)
            self.generation += 1
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Run a transaction: committed at the end, rolled back on any exception.

        Errors of the database come out as DatabaseAway and drop the connection; other TickhubErrors pass.
        """
        connection = self.open()
        try:
            connection.autocommit = False
            with connection.cursor(cursor_factory=ArchiveCursor) as cur:
                cur.archive_dir = self._archive_dir
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

    @contextmanager
    def reading(self, timeout_s: float) -> Iterator[Cursor]:
        """Run a read-only transaction, all of whose statements see one snapshot; there is nothing to commit.

        timeout_s: of each statement, kept by the server. Raises QueryTimeout when that is over or `cancel` was called
        (the connection stays), psycopg2.Error for a statement that is wrong, else DatabaseAway, which drops the
        connection; other TickhubErrors pass.
        """
        connection = self._ready()
        try:
            connection.autocommit = True
            with connection.cursor(cursor_factory=_Reading) as cur:
                settings = _reading_settings(connection, round(timeout_s * 1000))
                cur.archive_dir = self._archive_dir
                cur.begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {settings}; "
                yield cur
                if not cur.begin:
                    cur.execute("ROLLBACK")
        except psycopg2.errors.QueryCanceled as error:
            self._end_reading()
            raise QueryTimeout(QueryTimeout.__doc__) from error
        except TickhubError:
            self._end_reading()
            raise
        except psycopg2.Error as error:
            if (error.pgcode or "").startswith(OUR_MISTAKES):
                self._end_reading()
                raise
            self.close()
            raise DatabaseAway(first_line(error)) from error
        except BaseException:
            self.close()
            raise

    @contextmanager
    def looking(self, timeout_s: float) -> Iterator[Cursor]:
        """Run statements each of which is a read-only transaction of its own, and one round trip.

        For what is answered many times a second: on a busy machine each round trip waits for its turn twice. Raises
        what `reading` raises.
        """
        connection = self._ready()
        try:
            connection.autocommit = True
            with connection.cursor(cursor_factory=_Look) as cur:
                # A string of several statements is a transaction.
                cur.before = f"SET TRANSACTION READ ONLY; {_reading_settings(connection, round(timeout_s * 1000))}; "
                yield cur
        except psycopg2.errors.QueryCanceled as error:
            raise QueryTimeout(QueryTimeout.__doc__) from error
        except TickhubError:
            raise
        except psycopg2.Error as error:
            if (error.pgcode or "").startswith(OUR_MISTAKES):
                raise
            self.close()
            raise DatabaseAway(first_line(error)) from error
        except BaseException:
            self.close()
            raise

    def _ready(self) -> psycopg2.extensions.connection:
        """Return the connection, made anew where the server ended it since it was last used (a restart, say)."""
        if self._fd is not None and _has_news(self._fd):
            self.close()
        return self.open()

    def _end_reading(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            with connection.cursor() as cur:
                cur.execute("ROLLBACK")
        except psycopg2.Error:
            self.close()

    @property
    def canceller(self) -> Canceller | None:
        """Return what cancels statements of the connection that is open now, and never one of a later connection.

        On another lane than the connection's, of course. None: nothing is open.
        """
        return self._canceller

    def notices(self) -> list[str]:
        """Return and forget what the server had to say (warnings of our own functions)."""
        if self._connection is None:
            return []
        lines = [line.strip() for line in self._connection.notices if line.startswith("WARNING")]
        self._connection.notices.clear()
        return lines

    def close(self) -> None:
        """Drop the connection; the next use makes a new one."""
        connection, self._connection, self._fd, self._canceller = self._connection, None, None, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        """Wake a lane that waits for a database which does not answer. Greenlet side.

        Shuts the socket down under it: its call fails at once as if the server had gone.
        """
        fd = self._fd
        if fd is not None:
            try:
                with_own = socket(fileno=os.dup(fd))
            except OSError:
                return  # closed meanwhile
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


class ArchiveCursor(Cursor):
    """Knows where archived ticks are: the snapshot says which files hold them, not where this machine has them."""

    archive_dir: Path | None = None


class _Reading(ArchiveCursor):
    """Begins its transaction with the first statement: psycopg2 would take a round trip for that."""

    begin = ""

    def execute(self, query: str | bytes | Any, vars: Any = None) -> None:
        begin, self.begin = self.begin, ""
        super().execute(begin.encode() + self.mogrify(query, vars))

    def copy_expert(self, sql: str | bytes | Any, file: Any, size: int = 8192) -> None:
        if self.begin:
            self.execute("SELECT")
        super().copy_expert(sql, file, size)


class _Look(Cursor):
    """Sends `before` along with every statement."""

    before = ""

    def execute(self, query: str | bytes | Any, vars: Any = None) -> None:
        super().execute(self.before.encode() + self.mogrify(query, vars))


def _reading_settings(connection: psycopg2.extensions.connection, timeout_ms: int) -> str:
    settings = (
        f"SET LOCAL statement_timeout = {timeout_ms}; "
        f"SET LOCAL idle_in_transaction_session_timeout = {timeout_ms + IDLE_GRACE_MS}; "
        "SET LOCAL timezone = 'UTC'; "
        "SET LOCAL extra_float_digits = 1; "  # as many as it takes
        "SET LOCAL jit = off"  # compiling takes longer than a page of rows
    )
    if connection.server_version >= LOOK_FOR_THE_CLIENT:
        settings += "; SET LOCAL client_connection_check_interval = '1s'"
    return settings


def _has_news(fd: int) -> bool:
    """Tell whether an idle connection has something to say: hardly anything else than that it ends."""
    own = socket(fileno=os.dup(fd))
    try:
        own.recv(1, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        own.close()
    return True


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its name."""
    return str(error).strip().split("\n")[0] or type(error).__name__
