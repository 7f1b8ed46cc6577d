"""API keys of the database, made beside a running server: what opens, what closes, and when."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.keys import FILE
from tests.process.conftest import MakeServer
from tests.process.harness import ROOT, Server
from tests.process.live import client
from tests.process.test_query_lanes import connect, everything, probed
from tests.process.wire import AWAY, Answer, ask, batch, post, tick
from tests.process.workers import Workers
from tests.waiting import wait_until

CONFIGURED = "configured-0123456789"


def keys(server: Server, *arguments: str, status: int = 0) -> str:
    """Run the command on the server's data directory; return what it printed last, or said when it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "app", "keys", *arguments],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stderr if status else (done.stdout.splitlines() or [""])[-1]


def stats(server: Server, key: str | None = None) -> Answer:
    return ask(server, "GET", "/stats", headers={"X-API-Key": key} if key else {})


def wait_status(server: Server, status: int, key: str | None = None) -> None:
    """Wait until every worker answers so: each learns of keys by itself.

    200 is also what one answers that knows of no key yet: wait for 401 without any before.
    """
    headers = {"X-API-Key": key} if key else {}
    with closing(Workers(server)) as workers:
        pids = workers.reach(server.workers)
        wait_until(
            lambda: {workers.get(pid, "/stats", headers)[0] for pid in pids} == {status}, 20, f"{status} for this key"
        )


@pytest.fixture
def fresh(make_server: MakeServer) -> Iterator[Server]:
    """A server that has no key yet."""
    server = make_server(workers=2).start().wait_ready()
    yield server
    assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    """A server that asks for keys: each test makes its own."""
    with probed(data_template, workers=2) as server:
        keys(server, "add", "first", "--scopes", "admin")
        wait_status(server, 401)
        yield server
        assert "Traceback" not in server.log()


@pytest.mark.long
def test_the_first_key_closes_the_door_for_whoever_has_none(fresh: Server) -> None:
    server = fresh
    wait_status(server, 200)
    with client(server) as watching:
        watching.subscribe("AAPL")
        reader = keys(server, "add", "desk", "--scopes", "read")
        wait_status(server, 401)
        assert watching.close_code() == 1008
    wait_status(server, 200, reader)
    assert stats(server, reader + "x").status == 401
    assert stats(server, f"{reader[:-1]}{'a' if reader[-1] != 'a' else 'b'}").status == 401
    headers = {"Authorization": f"Bearer {reader}"}
    assert ask(server, "GET", "/api/symbols", headers=headers).status == 200
    refused = ask(server, "POST", "/tick/batch", batch(tick()), headers)
    assert (refused.status, refused.json["code"]) == (403, "forbidden")
    bridge = keys(server, "add", "bridge", "--scopes", "ingest")
    wait_status(server, 403, bridge)
    assert post(server, batch(tick()), X_API_Key=bridge).status == 200
    assert ask(server, "GET", "/health/live").status == 200
    assert reader not in server.log()
    # Nor does the end of the last one open the door again.
    for name in ("desk", "bridge"):
        keys(server, "revoke", name)
    wait_status(server, 401, reader)
    assert stats(server).status == 401


@pytest.mark.long
def test_a_revoked_key_is_none_within_seconds_and_its_websockets_end(server: Server) -> None:
    kept, revoked = keys(server, "add", "kept", "--scopes", "read"), keys(server, "add", "gone", "--scopes", "admin")
    for key in (kept, revoked):
        wait_status(server, 200, key)
    with (
        client(server, additional_headers={"X-API-Key": revoked}) as first,
        client(server) as second,
        client(server, additional_headers={"X-API-Key": kept}) as third,
    ):
        second.say(action="auth", key=revoked)
        second.next("authenticated")
        for reader in (first, second, third):
            reader.subscribe("AAPL")
        keys(server, "revoke", "gone")
        wait_status(server, 401, revoked)
        assert first.close_code() == second.close_code() == 1008
        third.sync()
    assert "no key in force" in keys(server, "revoke", "gone", status=1)
    done = server.database.rows("SELECT action FROM audit_log WHERE details ->> 'name' = 'gone' ORDER BY audit_id")
    assert done == [("add key",), ("revoke key",)]


@pytest.mark.long
def test_a_revoked_key_ends_the_answers_that_are_being_sent(server: Server) -> None:
    kept, revoked = keys(server, "add", "stays", "--scopes", "read"), keys(server, "add", "ends", "--scopes", "read")
    for key in (kept, revoked):
        wait_status(server, 200, key)
    page_bytes = 8 << 20  # more than what is on the way when nobody reads
    with closing(connect(server)) as ending, closing(connect(server)) as staying:
        for reader, key, count in ((ending, revoked, 30), (staying, kept, 3)):
            asked = f"/probe/pages?count={count}&bytes={page_bytes}"
            reader.sendall(f"GET {asked} HTTP/1.0\r\nX-API-Key: {key}\r\n\r\n".encode())
            assert reader.recv(12) == b"HTTP/1.0 200"
        keys(server, "revoke", "ends")

        def broken_off() -> bool:
            """Read on, far slower than the other worker, which may know of it later, takes to learn."""
            try:
                assert ending.recv(1 << 18), "all of it came"
            except ConnectionResetError:
                return True
            return False

        wait_until(broken_off, 30, "the answer to be broken off")
        assert len(everything(staying)) > 3 * page_bytes
    assert "broken off: the API key holds no more" in server.log()


@pytest.mark.long
def test_a_rotated_key_goes_on_for_its_grace(server: Server) -> None:
    old = keys(server, "add", "rotated", "--scopes", "read")
    new = keys(server, "rotate", "rotated", "--grace", "1h")
    assert new != old
    for key in (old, new):
        wait_status(server, 200, key)
    newest = keys(server, "rotate", new[3:11], "--grace", "0s")
    wait_status(server, 401, new)
    for key in (old, newest):
        wait_status(server, 200, key)


@pytest.mark.long
def test_an_expired_key_is_none(server: Server) -> None:
    short = keys(server, "add", "short", "--scopes", "read", "--expires", "1h")
    wait_status(server, 200, short)
    server.database.rows("UPDATE secret.api_keys SET expires_at = now() + interval '1 s' WHERE name = 'short'")
    wait_status(server, 401, short)


@pytest.mark.long
def test_known_keys_go_on_while_the_database_is_away_and_over_a_restart(fresh: Server) -> None:
    server = fresh
    reader = keys(server, "add", "desk", "--scopes", "read,ingest")
    wait_status(server, 401)
    wait_status(server, 200, reader)
    path = server.home / FILE
    wait_until(path.exists, what="the copy of the keys")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert reader[12:] not in path.read_text()
    server.database.pause()
    try:
        for _ in range(6):
            assert post(server, batch(tick()), X_API_Key=reader).status == 200
            assert stats(server, reader).status == 200
            assert stats(server).status == 401
    finally:
        server.database.resume()
    assert server.stop() == 0
    away = Server(server.home, "--database-url", AWAY)
    with closing(away):
        away.start().wait_accepting()
        assert post(away, batch(tick()), X_API_Key=reader).status == 200
        assert stats(away, reader[:-3] + "abc").status == 401
        assert stats(away).status == 401


@pytest.mark.long
def test_damaged_copies_of_the_keys_do_not_open_the_door(make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY)
    (server.home / FILE).write_text('{"any":tr')
    server.start().wait_accepting()
    assert stats(server).status == 401
    assert stats(server, "some-other-key-012345").status == 401


@pytest.mark.long
def test_a_key_that_may_be_good_is_told_to_come_again_until_keys_were_read(make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY, "--require-api-keys", environ={"TICKHUB_API_KEY_READ": CONFIGURED})
    server.start().wait_accepting()
    answer = stats(server, "th_abcdefgh_" + "A" * 43)
    assert (answer.status, answer.json["code"]) == (503, "not_ready")
    assert stats(server, "th_abcdefgh_short").status == 401
    assert stats(server).status == 401
    assert stats(server, CONFIGURED).status == 200


@pytest.mark.long
def test_why_the_database_is_away_is_told_to_those_who_may_read(make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY, environ={"TICKHUB_API_KEY_READ": CONFIGURED}).start().wait_accepting()
    for headers, told in (
        ({}, False),
        ({"X-API-Key": "some-other-key-012345"}, False),
        ({"X-API-Key": CONFIGURED}, True),
    ):
        answer = ask(server, "GET", "/health", headers=headers)
        assert (answer.status, answer.json["database"], "reason" in answer.json) == (503, "disconnected", told)


@pytest.mark.long
def test_keys_of_the_settings_go_on_beside_those_of_the_database(make_server: MakeServer) -> None:
    server = make_server(environ={"TICKHUB_API_KEY_READ": CONFIGURED}).start().wait_ready()
    wait_status(server, 200, CONFIGURED)
    made = keys(server, "add", "desk", "--scopes", "read")
    wait_status(server, 200, made)
    assert stats(server, CONFIGURED).status == 200
    keys(server, "revoke", "desk")
    wait_status(server, 401, made)
    assert stats(server, CONFIGURED).status == 200


@pytest.mark.long
def test_a_key_that_asks_too_much_is_told_when_to_come_again(server: Server) -> None:
    slow, other = (
        keys(server, "add", "slow", "--scopes", "read,ingest", "--rate", "0.05"),
        keys(server, "add", "other", "--scopes", "read"),
    )
    wait_status(server, 200, other)
    wait_status(server, 429, slow)
    for _ in range(10):  # whichever worker is asked
        answer = stats(server, slow)
        assert (answer.status, answer.json["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 20
        assert stats(server, other).status == 200
    # What it sends is counted apart from what it asks.
    assert post(server, batch(tick()), X_API_Key=slow).status == 200
    assert post(server, batch(tick()), X_API_Key=slow).status == 429
    with pytest.raises(Exception, match="429"), client(server, additional_headers={"X-API-Key": slow}):
        pass


def test_the_settings_limit_every_key_that_has_no_rate_of_its_own(make_server: MakeServer) -> None:
    flags = ("--rate-limit-read", "0.05", "--database-url", AWAY)
    server = make_server(*flags, environ={"TICKHUB_API_KEY_ADMIN": f"{CONFIGURED},another-0123456789"})
    server.start().wait_accepting()
    assert [stats(server, CONFIGURED).status for _ in range(3)] == [200, 429, 429]
    assert stats(server, "another-0123456789").status == 200
    for _ in range(20):  # there is no limit for sending unless it is asked for
        assert post(server, batch(tick()), X_API_Key=CONFIGURED).status == 200


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("add", "x", "--scopes", "root"), 1, "scopes"),
        (("add", "x", "--scopes", "read", "--rate", "0"), 1, "rate"),
        (("add", "x", "--scopes", "read", "--expires", "soon"), 2, "90d"),
        (("add", "x"), 2, "--scopes"),
        (("revoke", "nobody"), 1, "nobody"),
    ],
)
def test_a_wrong_word_of_the_command_is_said_in_a_line(
    server: Server, arguments: tuple[str, ...], status: int, word: str
) -> None:
    said = keys(server, *arguments, status=status)
    assert word in said
    assert "Traceback" not in said


@pytest.mark.long
def test_a_key_is_shown_once_and_the_list_says_the_rest(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "keys", "add", "bot 7", "--scopes", "read", "--rate", "5", "--expires", "90d"],
        cwd=ROOT,
        env={**os.environ, **server.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (key,) = done.stdout.split()
    assert key not in done.stderr
    assert "shown once" in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "app", "keys", "list", "--json"],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (only,) = [row for row in json.loads(done.stdout)["api_keys"] if row["name"] == "bot 7"]
    assert (only["prefix"], only["name"], only["scopes"]) == (key[3:11], "bot 7", "read")
    assert (only["rate"], only["state"]) == ("5/s", "holds")
    assert key[12:] not in done.stdout
