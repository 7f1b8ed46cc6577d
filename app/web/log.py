"""Logging that never blocks the event loop: lines are written by a native thread.

A terminal or pipe that nobody reads stops whoever writes to it. The queue is bounded; lines beyond are dropped and
counted, and the next line that fits says how many.
"""

from __future__ import annotations

import logging
from _queue import SimpleQueue
from typing import Any

from gevent.monkey import get_original

MAX_LINES = 10_000


class ThreadedHandler(logging.Handler):
    """Formats on the greenlet side, writes through `target`'s stream on a native thread."""

    def __init__(self, target: logging.StreamHandler[Any]) -> None:
        super().__init__(target.level)
        self.setFormatter(target.formatter)
        self._target = target
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._dropped = 0
        get_original("_thread", "start_new_thread")(self._write, ())

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        if self._lines.qsize() >= MAX_LINES:
            self._dropped += 1
            return
        if self._dropped:
            self._lines.put(f"[WARNING] {self._dropped} log lines were dropped: the log is not read fast enough")
            self._dropped = 0
        self._lines.put(self.format(record))

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            stream = self._target.stream
            try:
                stream.write(line + "\n")
                stream.flush()
            except (OSError, ValueError):
                continue  # a log that is gone must not end the thread: it may come back (rotation, USR1)


def log_from_a_thread(log: Any) -> None:
    """Route gunicorn's loggers, and ours with its handlers, through a native thread."""
    for logger in (log.error_log, log.access_log):
        logger.handlers = [
            ThreadedHandler(handler) if isinstance(handler, logging.StreamHandler) else handler
            for handler in logger.handlers
        ]
    ours = logging.getLogger("tickhub")
    ours.handlers = log.error_log.handlers
    ours.setLevel(log.error_log.level)
    ours.propagate = False
