"""The webhook and the outbox: tried again later and later, given up in the end, and only by who is elected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor

from app import webhook
from app.errors import DatabaseAway
from app.storage.alert_outbox import StoredAlert
from app.storage.connection import Connection
from app.webhook import BACKOFF_FIRST_S, BACKOFF_MOST_S, MOST_TRIES, NotPosted, Webhook

URL = "http://127.0.0.1/?token=secret"


class World:
    """An outbox of two alerts, and an address that takes what it is told to take."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connection = Connection(lambda: url, 5, 10, "webhook")
        self.elected = True
        self.takes = True
        self.posted: list[int] = []
        self.webhook = Webhook(URL, lambda: self.elected, self.run)
        monkeypatch.setattr(webhook, "post", self.post)
        self.ids = []
        for number in range(2):
            ((alert_id,),) = self.rows(
                "INSERT INTO alerts (time, alert_type, message) VALUES (now(), 'x', %s) RETURNING alert_id", str(number)
            )
            self.rows("INSERT INTO alert_outbox (alert_id, is_pushed, is_posted) VALUES (%s, true, false)", alert_id)
            self.ids.append(alert_id)

    def post(self, url: str, alert: StoredAlert) -> None:
        assert url == URL
        self.posted.append(alert.alert_id)
        if not self.takes:
            raise NotPosted("it answers 500")

    def run(self, fn: Callable[[Cursor], object]) -> object:
        with self.connection.transaction() as cur:
            return fn(cur)

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self.connection.transaction() as cur:
            cur.execute(query, parameters or None)
            return cur.fetchall() if cur.description else []


@pytest.fixture
def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(database_url, monkeypatch)
    yield made
    made.connection.close()


def test_what_was_taken_leaves_the_outbox(world: World) -> None:
    assert world.webhook._post_some() is False
    assert world.posted == world.ids
    assert world.rows("SELECT count(*) FROM alert_outbox") == [(0,)]
    assert world.rows("SELECT count(*) FROM alerts") == [(2,)]


def test_what_was_not_taken_is_tried_later_and_later_and_given_up_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_s, most_s = 100 * BACKOFF_FIRST_S, 100 * BACKOFF_MOST_S  # none is over before it was looked at
    monkeypatch.setattr(webhook, "BACKOFF_FIRST_S", first_s)
    monkeypatch.setattr(webhook, "BACKOFF_MOST_S", most_s)
    world.takes = False
    waits = []
    for _ in range(MOST_TRIES - 1):
        world.webhook._post_some()
        waits.append(world.rows("SELECT extract(epoch FROM max(next_try) - now())::float8 FROM alert_outbox")[0][0])
        world.webhook._post_some()  # too early
        world.rows("UPDATE alert_outbox SET next_try = now()")
    assert len(world.posted) == 2 * (MOST_TRIES - 1)
    assert waits[0] <= first_s < waits[3] <= 8 * first_s < waits[-1] <= most_s
    world.webhook._post_some()
    assert world.rows("SELECT count(*) FROM alert_outbox") == [(0,)]


def test_only_who_is_elected_posts(world: World) -> None:
    world.elected = False
    world.webhook._post_some()
    assert world.posted == []


def test_a_database_that_goes_away_meanwhile_means_that_it_is_posted_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(cur: Cursor, alert_id: int) -> None:
        raise DatabaseAway("it went")

    with monkeypatch.context() as patch:
        patch.setattr(webhook, "posted", away)
        with pytest.raises(DatabaseAway):
            world.webhook._post_some()
    world.webhook._post_some()
    assert world.posted == [world.ids[0], *world.ids]


def test_what_waited_for_a_day_is_given_up_and_counted(world: World) -> None:
    counts: list[tuple[str, int]] = []
    world.webhook = Webhook(URL, lambda: world.elected, world.run, lambda *said: counts.append(said))
    world.rows("UPDATE alerts SET received_at = now() - interval '25 hours' WHERE alert_id = %s", world.ids[0])
    world.webhook._post_some()
    assert world.posted == world.ids[1:]
    assert counts == [("given_up", 1), ("posted", 1)]
    assert world.rows("SELECT count(*) FROM alert_outbox") == [(0,)]
