"""API keys as they are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from psycopg2.extensions import connection

from app.errors import BadField, Conflict, NotFound
from app.storage.connection import Connection
from app.storage.key_store import (
    KnownKeys,
    add_key,
    hash_of,
    list_keys,
    prefix_of,
    read_known,
    revoke_key,
    rotate_key,
)

DAY = timedelta(days=1)


@pytest.fixture
def lane(database_url: str) -> Connection:
    return Connection(lambda: database_url, 5, 5, "test")


def add(conn: connection, name: str = "bridge", *scopes: str, expires_in: timedelta | None = None) -> str:
    with conn, conn.cursor() as cur:
        return add_key(cur, name, scopes or ("ingest",), rate_per_s=None, expires_in=expires_in)[0]


def known(lane: Connection) -> KnownKeys:
    found = read_known(lane)
    lane.close()
    return found


def test_a_key_is_kept_as_its_hash_and_nowhere_else(conn: connection) -> None:
    key = add(conn)
    prefix, secret = key[3:11], key[12:]
    assert prefix_of(key) == prefix
    with conn.cursor() as cur:
        cur.execute("SELECT k::text, hash FROM secret.api_keys k")
        ((row, hash_),) = cur.fetchall()
    assert bytes(hash_) == hash_of(key)
    assert prefix in row
    assert secret not in row
    assert len(secret) >= 43  # 256 bits


def test_no_two_keys_are_alike(conn: connection) -> None:
    keys = {add(conn, f"bot {number}") for number in range(50)}
    assert len({prefix_of(key) for key in keys}) == len({key[12:] for key in keys}) == 50


def test_the_server_knows_those_in_force_and_no_others(conn: connection, lane: Connection) -> None:
    assert known(lane) == KnownKeys(any=False, keys=())
    kept, revoked, expired = (add(conn, name, "read") for name in ("kept", "revoked", "expired"))
    with conn, conn.cursor() as cur:
        revoke_key(cur, "revoked")
        cur.execute("UPDATE secret.api_keys SET expires_at = now() - interval '1 s' WHERE name = 'expired'")
    found = known(lane)
    assert [key.hash for key in found.keys] == [hash_of(kept)]
    assert found.keys[0].scopes == ("read",)
    assert revoked != expired


def test_that_there_were_keys_is_known_when_none_holds_any_more(conn: connection, lane: Connection) -> None:
    add(conn)
    with conn, conn.cursor() as cur:
        revoke_key(cur, "bridge")
    assert known(lane) == KnownKeys(any=True, keys=())


def test_a_rotated_key_holds_until_its_grace_is_over(conn: connection, lane: Connection) -> None:
    old = add(conn, "bridge", "ingest", "read", expires_in=90 * DAY)
    with conn, conn.cursor() as cur:
        new, made, ends = rotate_key(cur, "bridge", DAY)
    assert new != old
    assert (made.name, made.scopes) == ("bridge", ("ingest", "read"))
    now = datetime.now(UTC)
    assert ends.expires_at is not None
    assert made.expires_at is not None
    assert timedelta(0) < ends.expires_at - now <= DAY
    assert 89 * DAY < made.expires_at - now <= 90 * DAY
    assert {key.hash for key in known(lane).keys} == {hash_of(old), hash_of(new)}
    with conn, conn.cursor() as cur, pytest.raises(Conflict, match="several keys are named bridge"):
        revoke_key(cur, "bridge")
    with conn, conn.cursor() as cur:
        revoke_key(cur, prefix_of(old) or "")
    assert [key.hash for key in known(lane).keys] == [hash_of(new)]


def test_rotating_once_more_does_not_let_the_old_one_live_longer(conn: connection) -> None:
    old = add(conn, "bridge", expires_in=timedelta(hours=1))
    with conn, conn.cursor() as cur:
        ends = rotate_key(cur, prefix_of(old) or "", DAY)[2]
    assert ends.expires_at is not None
    assert ends.expires_at - datetime.now(UTC) <= timedelta(hours=1)


def test_what_was_revoked_stays_in_the_list_and_cannot_be_revoked_again(conn: connection) -> None:
    add(conn)
    with conn, conn.cursor() as cur:
        revoke_key(cur, "bridge")
    with conn, conn.cursor() as cur:
        (only,) = list_keys(cur)
        assert only.revoked_at is not None
        for named in ("bridge", only.prefix, "nobody"):
            with pytest.raises(NotFound):
                revoke_key(cur, named)


@pytest.mark.parametrize(
    ("name", "scopes", "rate", "expires", "word"),
    [
        ("", ("read",), None, None, "name"),
        ("x" * 101, ("read",), None, None, "name"),
        ("a\nb", ("read",), None, None, "name"),
        ("bot", (), None, None, "scopes"),
        ("bot", ("read", "root"), None, None, "scopes"),
        ("bot", ("read",), 0.0, None, "rate"),
        ("bot", ("read",), float("nan"), None, "rate"),
        ("bot", ("read",), None, timedelta(0), "expires"),
    ],
)
def test_a_key_that_cannot_be_is_refused(
    conn: connection, name: str, scopes: tuple[str, ...], rate: float | None, expires: timedelta | None, word: str
) -> None:
    with conn, conn.cursor() as cur, pytest.raises(BadField, match=word):
        add_key(cur, name, scopes, rate_per_s=rate, expires_in=expires)


def test_a_name_in_force_is_taken(conn: connection) -> None:
    add(conn)
    with pytest.raises(Conflict, match="there is a key named bridge"):
        add(conn)
    with conn, conn.cursor() as cur:
        revoke_key(cur, "bridge")
    add(conn)


def test_who_reads_by_sql_does_not_see_them(conn: connection) -> None:
    with conn.cursor() as cur:
        cur.execute("SET ROLE tickhub_read")
        for name in ("api_keys", "keys_in_force", "keys_made"):
            cur.execute("SAVEPOINT one")
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cur.execute(f"SELECT * FROM secret.{name}")
            cur.execute("ROLLBACK TO one")
