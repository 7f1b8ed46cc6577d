"""How lines of the log look: text for people, JSON for programs; access lines; the request that a line is about. None
has an API key, wherever in a request somebody put one.

Loaded by gunicorn's master before anything is patched: light on purpose.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gunicorn.glogging import Logger

from app import request_ids
from app.settings import load
from app.storage.key_form import without_keys

_ACCESS = "access"
"""Attribute of a record that is an access line: its fields."""


class AccessLines(logging.Formatter):
    """Access lines for people, which have their request's id."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return without_keys(super().format(record))


class TextLines(AccessLines):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the request's id behind the first one of a traceback."""
        asked = request_ids.current()
        if asked is None:
            return super().format(record)
        first, newline, rest = super().format(record).partition("\n")
        return f"{first} [request {asked.id}]{newline}{rest}"


class JsonLines(logging.Formatter):
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
        return without_keys(json.dumps(line, ensure_ascii=True, default=str))


class LogLines(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's log in the form that the settings ask for; the workers' own lines take its handlers."""

    as_json = False

    def setup(self, cfg: Any) -> None:
        """Open what is logged to, and give it its form."""
        self.as_json = load().log_format == "json"
        super().setup(cfg)
        lines = JsonLines() if self.as_json else TextLines(self.error_fmt, self.datefmt)
        for handler in self.error_log.handlers:
            handler.setFormatter(lines)
        for handler in self.access_log.handlers:
            handler.setFormatter(lines if self.as_json else AccessLines(self.access_fmt))

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
