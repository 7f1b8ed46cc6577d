"""How lines of the log look: text for people, JSON for programs; access lines; the request that a line is about. None
has an API key, wherever in a request somebody put one.

Loaded by gunicorn's master before anything is patched: light on purpose.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gunicorn.glogging import Logger

from app import request_ids
from app.settings import load
from app.storage.key_form import WithoutKeys

_ACCESS = "access"
"""Attribute of a record that is an access line: its fields."""


class _Lines(logging.Formatter):
    """Lines of one form."""

    def __init__(self, form: str | None = None, dates: str | None = None, keys: Collection[str] = ()) -> None:
        """Take the form, and the settings' keys, which nobody could tell from other words."""
        super().__init__(form, dates)
        self._without_keys = WithoutKeys(keys)


class AccessLines(_Lines):
    """Access lines for people, which have their request's id."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return self._without_keys(super().format(record))


class TextLines(_Lines):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the request's id behind the first one of a traceback."""
        line = super().format(record)
        asked = request_ids.current()
        if asked is not None:
            first, newline, rest = line.partition("\n")
            line = f"{first} [request {asked.id}]{newline}{rest}"
        return self._without_keys(line)


class JsonLines(_Lines):
    """One JSON object a line: time, level, pid, message; request_id and request where there is one; exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "pid": record.process or os.getpid(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        access: Mapping[str, Any] | None = getattr(record, _ACCESS, None)
        if access is not None:
            line |= access
        elif (asked := request_ids.current()) is not None:
            line |= {"request_id": asked.id, "request": asked.what}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        told = {name: self._without_keys(value) if isinstance(value, str) else value for name, value in line.items()}
        return json.dumps(told, ensure_ascii=True, default=str)


class LogLines(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's log in the form that the settings ask for; the workers' own lines take its handlers."""

    as_json = False

    def setup(self, cfg: Any) -> None:
        """Open what is logged to, and give it its form."""
        settings = load()
        self.as_json = settings.log_format == "json"
        super().setup(cfg)
        keys = (*settings.api_key_ingest, *settings.api_key_read, *settings.api_key_admin)
        lines = JsonLines(keys=keys) if self.as_json else TextLines(self.error_fmt, self.datefmt, keys)
        for handler in self.error_log.handlers:
            handler.setFormatter(lines)
        for handler in self.access_log.handlers:
            handler.setFormatter(lines if self.as_json else AccessLines(self.access_fmt, keys=keys))

    def access(self, resp: Any, req: Any, environ: Mapping[str, Any], request_time: timedelta) -> None:
        """Log a request that was answered, if that is asked for."""
        if not self.as_json:
            super().access(resp, req, environ, request_time)
        elif self.access_log_enabled:
            line = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}"
            self.access_log.info("%s", line, extra={_ACCESS: _access(resp, environ, request_time)})


def _access(resp: Any, environ: Mapping[str, Any], request_time: timedelta) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in resp.headers}
    return {
        "request_id": headers.get("x-request-id"),
        "remote": environ.get("REMOTE_ADDR"),
        "method": environ["REQUEST_METHOD"],
        "target": environ["RAW_URI"],
        "status": int(str(resp.status).split(None, 1)[0]),
        "sent_bytes": getattr(resp, "sent", None),
        "seconds": round(request_time.total_seconds(), 6),
        "user_agent": environ.get("HTTP_USER_AGENT"),
    }
