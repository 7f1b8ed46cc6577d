"""The one PostgreSQL that all contenders of a bench share, with a fresh database for each run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from psycopg2.extensions import connection as Connection

from app.storage import embedded


class Postgres:
    """A running server; databases are made and dropped by name."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._conn = psycopg2.connect(url)
        self._conn.autocommit = True
        backend_pid, version, cluster, sockets = self._row(
            "SELECT pg_backend_pid(), current_setting('server_version'), current_setting('data_directory'),"
            " current_setting('unix_socket_directories')"
        )
        self.version = str(version)
        self.directories = [Path(cluster).parent, Path(sockets)]
        self.pid: int = psutil.Process(backend_pid).ppid()
        """The postmaster's: its CPU includes every backend's, ended ones too."""

    def close(self) -> None:
        self._conn.close()

    def _row(self, sql: str) -> tuple[Any, ...]:
        with self._conn.cursor() as cur:
            cur.execute(sql)
            return cur.fetchone() or ()

    def url(self, name: str) -> str:
        """Return the URL of a database of this server."""
        head, _, query = self._url.partition("?")
        return f"{head.rpartition('/')[0]}/{name}?{query}"

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """Give the URL of a fresh, empty database; it is dropped, and the disk settled, at the end."""
        with self._conn.cursor() as cur:
            cur.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
            try:
                yield self.url(name)
            finally:
                cur.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
                self.settle()

    def settle(self) -> None:
        """Write out what earlier runs left dirty, so that the next one does not pay for it."""
        with self._conn.cursor() as cur:
            cur.execute("CHECKPOINT")
        os.sync()
        time.sleep(1.0)  # what the disk still does by itself


def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of one statement on a connection of its own."""
    conn: Connection = psycopg2.connect(url)
    try:
        with conn, conn.cursor() as cur:
            cur.execute(sql)
            return cur.fetchall()
    finally:
        conn.close()


@contextmanager
def running(directory: Path) -> Iterator[Postgres]:
    """Start the server that tickhub embeds, tuned as tickhub tunes it, and remove it at the end."""
    directory.mkdir()
    with kept_in(directory) as server:
        yield server


@contextmanager
def kept_in(directory: Path) -> Iterator[Postgres]:
    """Start the server of a data directory; stop it at the end, and remove what it has elsewhere."""
    config = embedded.EmbeddedConfig(data_dir=directory)
    embedded.start(config)
    elsewhere: list[Path] = []
    try:
        server = Postgres(embedded.url(config))
        try:
            elsewhere = [path for path in server.directories if not path.is_relative_to(directory)]
            yield server
        finally:
            server.close()
    finally:
        embedded.stop(config)
        for path in elsewhere:
            # Cluster and socket may live outside of the data directory, in places made for it alone.
            shutil.rmtree(path, ignore_errors=True)
