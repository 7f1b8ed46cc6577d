"""Alerts posted to a URL, one after another, tried again with back-off; the elected process does. Greenlet side.

At least once: `Idempotency-Key` (the alert's number) tells a repetition. What is still to be posted is in the database,
so a process that ends, or an address that is away, loses none. Whatever the address does, nothing else waits for it.
"""

from __future__ import annotations

import http.client
import logging
import random
import ssl
from collections.abc import Callable
from contextlib import closing
from functools import cache
from urllib.parse import urlsplit

import gevent
import msgspec
from gevent.event import Event
from psycopg2.extensions import cursor as Cursor

from app.errors import TickhubError
from app.storage.alert_outbox import StoredAlert, give_up, post_later, posted, unposted

TIMEOUT_S = 5.0
"""For connecting, and for each piece of an answer. No post is longer than DEADLINE_S in all."""
DEADLINE_S = 10.0

BACKOFF_FIRST_S, BACKOFF_MOST_S = 1.0, 300.0
MOST_TRIES = 20
"""Some three quarters of an hour: then whoever reads the alert would be misled more than helped. It stays in the table
of alerts."""

MOST_AGE_S = 86_400.0
"""What is older is no more posted, however seldom it was tried: a slow address is asked for one alert after another,
and what waits for it must not grow for ever."""

MOST_AT_ONCE = 20
LOOK_S = 1.0

log = logging.getLogger("tickhub")


class NotPosted(TickhubError):
    """The webhook did not take an alert."""


class Webhook:
    """Posts what is to be posted while `is_elected()`. run_on_lane: runs a function with a cursor, in a transaction."""

    def __init__(
        self,
        url: str,
        is_elected: Callable[[], bool],
        run_on_lane: Callable[[Callable[[Cursor], object]], object],
        count: Callable[[str, int], None] = lambda result, alerts: None,
    ) -> None:
        """count: called with what became of alerts (posted, failed, given_up), and how many."""
        self._url, self._is_elected, self._run_on_lane, self._count = url, is_elected, run_on_lane, count
        self.wake = Event()

    def run(self) -> None:
        """Post for ever; to be spawned as a greenlet."""
        while True:
            self.wake.wait(LOOK_S)
            self.wake.clear()
            try:
                while self._is_elected() and self._post_some():
                    pass
            except TickhubError as error:
                log.debug("alerts were not posted: %s", error)
            except Exception:
                log.exception("posting alerts failed")
                gevent.sleep(BACKOFF_FIRST_S)

    def _post_some(self) -> bool:
        """Post what is due; tell whether there may be more."""
        given_up: int = self._run_on_lane(lambda cur: give_up(cur, MOST_AGE_S))  # type: ignore[assignment]
        if given_up:
            self._count("given_up", given_up)
            log.error("[ERROR] %d alerts were not posted to the webhook for a day, and will not be", given_up)
        due: list[StoredAlert] = self._run_on_lane(lambda cur: unposted(cur, MOST_AT_ONCE))  # type: ignore[assignment]
        for alert in due:
            if not self._is_elected():
                return False
            try:
                post(self._url, alert)
            except NotPosted as error:
                self._failed(alert, str(error))
            else:
                self._count("posted", 1)
                self._run_on_lane(lambda cur, number=alert.alert_id: posted(cur, number))  # type: ignore[misc]
        return len(due) == MOST_AT_ONCE

    def _failed(self, alert: StoredAlert, why: str) -> None:
        number, tries = alert.alert_id, alert.tries + 1
        self._count("given_up" if tries >= MOST_TRIES else "failed", 1)
        if tries >= MOST_TRIES:
            log.error("[ERROR] alert %d was not posted to the webhook, and will not be: %s", number, why)
            self._run_on_lane(lambda cur: posted(cur, number))
            return
        wait_s = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        log.log(logging.WARNING if tries == 1 else logging.DEBUG, "alert %d was not posted yet: %s", number, why)
        self._run_on_lane(lambda cur: post_later(cur, number, wait_s))


def post(url: str, alert: StoredAlert) -> None:
    """Post an alert. Raises NotPosted, whose text does not hold the URL: it may be a secret."""
    body = msgspec.to_builtins(alert)
    del body["tries"]
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "tickhub",
        "Idempotency-Key": str(alert.alert_id),
        "Connection": "close",
    }
    try:
        client, path = _client(url)
        with closing(client), gevent.Timeout(DEADLINE_S, NotPosted(f"no answer within {DEADLINE_S:.0f} s")):
            client.request("POST", path, msgspec.json.encode({**body, "text": alert.message}), headers)
            status = client.getresponse().status
    except OSError as error:
        raise NotPosted(f"{type(error).__name__}: {error.strerror or error}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise NotPosted(type(error).__name__) from error  # their texts repeat parts of the URL
    if not 200 <= status < 300:
        raise NotPosted(f"it answers {status}")


def _client(url: str) -> tuple[http.client.HTTPConnection, str]:
    """Return an unopened connection, and the path to ask for. Raises ValueError."""
    parts = urlsplit(url)
    host, path = parts.hostname or "", (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=_tls()), path
    return http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S), path


@cache
def _tls() -> ssl.SSLContext:
    # Once: to read all certificates that this machine believes in takes the event loop some 20 ms.
    return ssl.create_default_context()
