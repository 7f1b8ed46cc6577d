"""Logging that never blocks the event loop: lines are written by a native thread.

A terminal or pipe that nobody reads stops whoever writes to it. The queue is bounded; lines beyond are dropped and
counted, and the next line that fits says how many.
"""

from __future__ import annotations

import logging
import select
import time
from _queue import SimpleQueue
from types import TracebackType
from typing import Any

from gevent.hub import get_hub
from gevent.monkey import get_original

MAX_LINES = 10_000

FLUSH_S = 1.0
"""How long the end of the process waits for its last lines to be written; a log that nobody reads gets no more."""

_sleep = get_original("time", "sleep")


class PatientHandler(logging.StreamHandler[Any]):
    """Leaves out what its stream would not take at once: gunicorn's master must hear signals, whatever its log does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or drop it."""
        ready = select.poll()
        ready.register(self.stream, select.POLLOUT)
        if ready.poll(0):
            super().emit(record)


class ThreadedHandler(logging.Handler):
    """Formats on the greenlet side, writes through `target`'s stream on a native thread."""

    def __init__(self, target: logging.StreamHandler[Any]) -> None:
        super().__init__(target.level)
        self.setFormatter(target.formatter)
        self._target = target
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._dropped = 0
        self._queued = self._done = 0
        get_original("_thread", "start_new_thread")(self._write, ())

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        if self._lines.qsize() >= MAX_LINES:
            self._dropped += 1
            return
        if self._dropped:
            said = f"[WARNING] {self._dropped} log lines were dropped: the log is not read fast enough"
            self._put(self.format(logging.LogRecord(record.name, logging.WARNING, "", 0, said, None, None)))
            self._dropped = 0
        self._put(self.format(record))

    def reopen(self) -> None:
        """Go on in a file of the same name, behind what is queued: the present one was renamed, by logrotate say."""
        self._put(None)

    def flush(self) -> None:
        """Wait until what is queued is written, FLUSH_S at most. Blocks: for the end of the process, when logging
        calls it."""
        until = time.monotonic() + FLUSH_S
        while not self.written() and time.monotonic() < until:
            _sleep(0.01)

    def written(self) -> bool:
        """Tell whether all lines are written."""
        return self._done >= self._queued

    def _put(self, line: str | None) -> None:
        self._queued += 1
        self._lines.put(line)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            try:
                if line is None:
                    self._open_anew()
                else:
                    self._target.stream.write(line + "\n")
                    self._target.stream.flush()
            except (OSError, ValueError):
                continue  # a log that is gone must not end the thread: it may come back (rotation, USR1)
            finally:
                self._done += 1

    def _open_anew(self) -> None:
        if isinstance(self._target, logging.FileHandler):
            old, self._target.stream = self._target.stream, self._target._open()
            if old is not None:
                old.close()


def never_wait(log: Any) -> None:
    """Keep gunicorn's own log, in its master, from waiting for a terminal or pipe that nobody reads."""
    handlers = log.error_log.handlers
    for at, handler in enumerate(handlers):
        if type(handler) is logging.StreamHandler:
            handlers[at] = PatientHandler(handler.stream)
            handlers[at].setFormatter(handler.formatter)


def last_words(log: Any) -> bool:
    """Wait for the threads of `log_from_a_thread`, FLUSH_S each at most; return whether all is written. Blocks."""
    threaded = [
        handler
        for logger in (log.error_log, log.access_log)
        for handler in logger.handlers
        if isinstance(handler, ThreadedHandler)
    ]
    for handler in threaded:
        handler.flush()
    return all(handler.written() for handler in threaded)


def reopen_files(log: Any) -> None:
    """Have the files of `log_from_a_thread` opened anew, each by its thread."""
    for logger in (log.error_log, log.access_log):
        for handler in logger.handlers:
            if isinstance(handler, ThreadedHandler):
                handler.reopen()


def log_from_a_thread(log: Any) -> None:
    """Route gunicorn's loggers, and with its handlers ours, those of libraries, and what ends a greenlet, through a
    native thread: all lines have one form."""
    for logger in (log.error_log, log.access_log):
        logger.handlers = [
            ThreadedHandler(handler) if isinstance(handler, logging.StreamHandler) else handler
            for handler in logger.handlers
        ]
    ours = logging.getLogger("tickhub")
    ours.handlers = log.error_log.handlers
    ours.setLevel(log.error_log.level)
    ours.propagate = False
    others = logging.getLogger()
    others.handlers = log.error_log.handlers
    others.setLevel(max(logging.WARNING, log.error_log.level))
    logging.captureWarnings(True)

    def ended(context: object, kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        ours.error("%r ended", context, exc_info=(kind, value, trace))

    get_hub().print_exception = ended  # gevent's own goes past all logs
