"""What all checks look at: the settings, whether a server runs, and the database where it can be asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.settings import TABLE, Settings

if TYPE_CHECKING:
    from app.storage.connection import Connection

QUERY_TIMEOUT_S = 5.0
_HIDDEN = "***"
_PASSWORD_OF_URL = re.compile(r"(?<=:)[^:/@\s]+(?=@)")
_PASSWORD_WORD = re.compile(r"(password=)('[^']*'|[^\s&]+)")
_SHORTEST_SECRET = 4
"""Shorter texts are in any sentence."""


class Case:
    """One look at everything. Connections are opened when they are first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database_trouble: str | None = None
        """Why the database cannot be asked; None: it can, or nobody has tried yet."""
        self.revision: str | None = None
        """The schema's, as its check found it."""
        self._connection: Connection | None = None
        self._secrets = sorted(_secrets(settings), key=len, reverse=True)

    @property
    def server_pid(self) -> int | None:
        """Return the process that serves this data directory, None: none does.

        By the number that it leaves in its lock file: the lock itself is not tried, for a server that starts at that
        moment would find it taken.
        """
        import psutil

        with suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int((self.settings.data_dir / "serve.lock").read_text()))
            command = process.cmdline()
            if process.status() != psutil.STATUS_ZOMBIE and any("gunicorn" in word for word in command):
                return process.pid
        return None

    @property
    def backup_dir(self) -> Path:
        """Return where backups are."""
        return Path(self.settings.backup_dir or self.settings.data_dir / "backups")

    def url(self) -> str:
        """Return the URL of the database itself, past a pooler. For the embedded one only while its server runs."""
        from app.runtime_config import embedded_config
        from app.storage import embedded

        settings = self.settings
        return settings.direct_database_url or settings.database_url or embedded.url(embedded_config(settings))

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return what a query answers, in a read-only transaction of its own.

        Raises DatabaseAway, QueryTimeout, psycopg2.Error for what this role may not see or what is not there.
        """
        with self.connection().reading(QUERY_TIMEOUT_S) as cur:
            cur.execute(query, parameters or None)
            return list(cur.fetchall())

    def connection(self) -> Connection:
        """Return the connection to the database. Raises DatabaseAway where it is known not to answer."""
        from app.errors import DatabaseAway
        from app.storage.connection import Connection

        if self.database_trouble is not None:
            raise DatabaseAway(self.database_trouble)
        if self._connection is None:
            settings = self.settings
            self._connection = Connection(self.url, settings.db_connect_timeout_s, QUERY_TIMEOUT_S, "doctor")
        return self._connection

    def hide(self, text: str) -> str:
        """Return a text on one line, without anything that is secret."""
        text = " ".join(text.split())
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _PASSWORD_WORD.sub(rf"\1{_HIDDEN}", _PASSWORD_OF_URL.sub(_HIDDEN, text))

    def close(self) -> None:
        """Close what was opened."""
        if self._connection is not None:
            self._connection.close()


def _secrets(settings: Settings) -> set[str]:
    """Return all texts that must not be shown: passwords of URLs, and settings that are nothing but a secret."""
    from urllib.parse import unquote, urlsplit

    found: set[str] = set()
    for row in TABLE:
        if not row.secret:
            continue
        value = getattr(settings, row.name)
        for text in value if isinstance(value, tuple) else (value,):
            if "://" not in text:
                found.add(text)
                continue
            with suppress(ValueError):
                if password := urlsplit(text).password:
                    found |= {password, unquote(password)}
    return {text for text in found if len(text) >= _SHORTEST_SECRET}
