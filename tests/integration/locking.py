"""Who waits for a lock in a test's database."""

from __future__ import annotations

from contextlib import closing

import psycopg2

from tests.batches import rows_of
from tests.waiting import wait_until

_WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def somebody_waits(url: str) -> bool:
    """Tell whether a session waits for a lock now."""
    with closing(psycopg2.connect(url)) as watcher:
        return bool(rows_of(watcher, _WAITING))


def wait_for_a_waiter(url: str) -> None:
    """Wait until a session waits for a lock."""
    wait_until(lambda: somebody_waits(url), what="somebody to wait for a lock")
