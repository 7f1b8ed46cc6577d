"""The read-only way into the embedded server: `--pg-port`, the password's file, `url --read-only`."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from embedded_home import PATIENCE_S, ROOT, ask, config, copy, folder, server

from app.errors import StorageError
from app.storage import embedded
from app.storage.embedded_reader import PASSWORD_FILE, admit, password_of, read_only_url
from app.storage.schema import migrate
from tests.ports import free_port

pytestmark = pytest.mark.long  # real servers, as in test_embedded.py


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A migrated data directory whose server is down."""
    with folder() as path:
        embedded.start(config(path / "h"), PATIENCE_S)
        migrate(embedded.url(config(path / "h")))
        assert embedded.stop(config(path / "h"), PATIENCE_S)
        yield path / "h"


@pytest.fixture
def home(template: Path) -> Iterator[Path]:
    with folder() as path:
        yield copy(template, path / "h")


HARM = [
    # Fill the disk that the journal needs.
    "CREATE TEMPORARY TABLE mine (x integer)",
    "SELECT lo_from_bytea(0, 'mine')",
    "SELECT lo_create(0)",
    "SELECT pg_logical_emit_message(false, 'mine', 'mine')",
    "SET temp_file_limit = -1",
    "SELECT count(*) FROM (SELECT g FROM generate_series(1, 200000000) AS g ORDER BY -g) AS sorted",
    # Keep others out: migrations, new partitions, new symbols.
    "SELECT pg_advisory_lock(x'7469636B68756201'::bigint)",
    "SELECT pg_advisory_xact_lock(x'7469636B68756202'::bigint)",
    "SELECT pg_try_advisory_lock(1, 2)",
]
"""What readers could do to everybody else."""


def _app(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-m", "app", *words, "--data-dir", str(home)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _user(url: str) -> str:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cur:
        cur.execute("SELECT current_user FROM bars_5m RIGHT JOIN (SELECT 1) AS one ON true")
        return str((cur.fetchone() or ("",))[0])


def test_with_a_port_readers_come_in_by_the_url_that_the_command_prints() -> None:
    port = free_port()
    with folder() as path:
        home = path / "h"
        up = _app(home, "database", "up", "--pg-memory", "64", "--pg-max-connections", "30", "--pg-port", str(port))
        assert up.returncode == 0, up.stderr
        assert f"SQL for reading on 127.0.0.1:{port}; its URL: python -m app url --read-only" in up.stderr
        url = _app(home, "url", "--read-only").stdout.splitlines()[-1]  # it knows the port by itself
        assert url.startswith("postgresql://tickhub_read:")
        assert url.endswith(f"@127.0.0.1:{port}/tickhub")
        assert _user(url) == "tickhub_read"
        password = home / PASSWORD_FILE
        assert stat.S_IMODE(password.stat().st_mode) == 0o600
        assert password.read_text().strip() in url
        assert password.read_text().strip() not in up.stderr + up.stdout + (home / "postgres.log").read_text()
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            _user(url.replace(password.read_text().strip(), "guessed-word"))
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cur:
            cur.execute("SET default_transaction_read_only = off")
            connection.commit()
            for statement in HARM:
                with pytest.raises((psycopg2.errors.InsufficientPrivilege, psycopg2.errors.ConfigurationLimitExceeded)):
                    cur.execute(statement)
                connection.rollback()
        # They cannot take all the connections.
        assert ask(home, "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'tickhub_read'") == [(10,)]
        # Another up changes neither the password nor anything else.
        assert _app(home, "database", "up", "--pg-port", str(port)).returncode == 0
        assert _app(home, "url", "--read-only").stdout.splitlines()[-1] == url
        assert _app(home, "database", "down").returncode == 0


def test_without_a_port_nobody_comes_in_and_the_command_says_how(home: Path) -> None:
    down = _app(home, "url", "--read-only")
    assert (down.returncode, down.stdout) == (1, "")
    assert "PostgreSQL is down and no port is set: start it with --pg-port" in down.stderr
    assert _app(home, "database", "up", "--pg-memory", "64").returncode == 0
    assert [end for end in server(home).net_connections("inet") if end.status == "LISTEN"] == []
    assert ask(home, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'tickhub_read'") == [(False,)]
    assert not (home / PASSWORD_FILE).exists()
    running = _app(home, "url", "--read-only")
    assert (running.returncode, running.stdout) == (1, "")
    assert "PostgreSQL runs without a TCP port" in running.stderr


@pytest.mark.parametrize("content", [None, b"", b"\n", b"short\n", b"two\nlines of words\n", b"\xff" * 30, b"x" * 2000])
def test_a_password_file_that_is_gone_or_broken_is_made_anew(tmp_path: Path, content: bytes | None) -> None:
    first = password_of(tmp_path)
    file = tmp_path / PASSWORD_FILE
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    second = password_of(tmp_path)
    assert len(second) >= 32
    assert second != first
    assert password_of(tmp_path) == second
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if PASSWORD_FILE in path.name] == [PASSWORD_FILE]


def test_a_password_of_ones_own_counts_from_the_next_bring_up(home: Path) -> None:
    wanted = config(home, tcp_port=free_port())
    embedded.start(wanted)
    before = read_only_url(wanted)
    file = home / PASSWORD_FILE
    file.write_text("open:sesame@'/%40\n")
    file.chmod(0o644)
    admit(wanted)
    after = read_only_url(wanted)
    assert "open:sesame" not in after  # quoted
    assert _user(after) == "tickhub_read"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        _user(before)


def test_the_url_is_known_before_the_server_runs(home: Path) -> None:
    wanted = config(home, tcp_port=free_port())
    url = read_only_url(wanted)
    embedded.start(wanted)
    admit(wanted)
    assert read_only_url(wanted) == url
    assert _user(url) == "tickhub_read"


def test_several_who_bring_it_up_at_once_agree_on_the_password(home: Path) -> None:
    wanted = config(home, tcp_port=free_port())
    embedded.start(wanted)
    with ThreadPoolExecutor(6) as pool:
        passwords = set(pool.map(lambda _: admit(wanted), range(12)))
    assert passwords == {password_of(home)}
    assert _user(read_only_url(wanted)) == "tickhub_read"


def test_a_file_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("somebody-elses-secret")
    (tmp_path / PASSWORD_FILE).symlink_to(secret)
    with pytest.raises(StorageError, match=PASSWORD_FILE):
        password_of(tmp_path)


def test_a_database_without_the_role_is_said_so(home: Path) -> None:
    wanted = config(home, tcp_port=free_port())
    embedded.start(wanted)
    ask(home, "DROP OWNED BY tickhub_read", "DROP ROLE tickhub_read")
    with pytest.raises(StorageError, match="no role tickhub_read yet: python -m app database up"):
        admit(wanted)


def test_a_database_of_ones_own_has_its_own_ways(tmp_path: Path) -> None:
    done = _app(tmp_path, "url", "--read-only", "--database-url", "postgresql://me@127.0.0.1/x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "docs/sql.md" in done.stderr
