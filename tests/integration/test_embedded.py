"""The embedded server: made, started, adopted, killed, stopped."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
from embedded_home import ask, config, copy, folder, make_template, output, python, server, wait_until

from app.storage import embedded
from app.storage.embedded import EmbeddedError
from app.storage.embedded_place import installed_binaries
from app.storage.embedded_postmaster import postmaster
from tests.ports import free_port

pytestmark = pytest.mark.long  # real servers and environments, made and ended by the dozen

START = "print(*embedded.start(config), sep='\\n', flush=True)\n"
HALTING = """
rename = Path.rename
def halting(path, target):
    if "initdb" in path.name:
        sys.stdin.readline()
    return rename(path, target)
Path.rename = halting
"""
"""A new cluster, however quickly it is made, gets its name when it is sent a line."""


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with folder() as path:
        yield make_template(path / "t")


@pytest.fixture
def home(template: Path) -> Iterator[Path]:
    with folder() as path:
        yield copy(template, path / "h")


@pytest.fixture
def empty() -> Iterator[Path]:
    with folder() as path:
        yield path / "h"


def test_a_first_start_makes_a_safe_cluster_with_the_database(empty: Path) -> None:
    lines = embedded.start(config(empty))

    assert any("made a new cluster" in line for line in lines)
    assert any("started" in line for line in lines)
    names = "fsync", "full_page_writes", "data_checksums", "listen_addresses", "timezone", "log_timezone"
    assert [ask(empty, f"SHOW {name}")[0][0] for name in names] == ["on", "on", "on", "", "UTC", "UTC"]
    found = ask(
        empty,
        "SELECT current_database(), current_user, rolsuper, datlocprovider, datlocale, datcollate,"
        " pg_encoding_to_char(encoding) FROM pg_database, pg_roles"
        " WHERE datname = current_database() AND rolname = current_user",
    )
    assert found == [("tickhub", "tickhub", True, "b", "C.UTF-8", "C", "UTF8")]
    assert ask(empty, "SELECT * FROM pg_file_settings WHERE error IS NOT NULL") == []
    assert ask(empty, "SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL") == []
    sockets = (empty / "postgres.run").stat()
    assert stat.S_IMODE(sockets.st_mode) == 0o700
    assert sockets.st_uid == (empty / "postgres").stat().st_uid


def test_a_start_killed_during_initdb_leaves_nothing_in_the_way(empty: Path) -> None:
    starter = python(HALTING + START, empty, start_new_session=True, stdin=subprocess.PIPE)
    wait_until(lambda: list(empty.glob(".postgres-initdb-*/base/1/*")) or starter.poll() is not None)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate()
    assert not (empty / "postgres").exists(), "killed too late to show anything"

    embedded.start(config(empty))

    assert ask(empty, "SELECT 1") == [(1,)]
    assert not list(empty.glob(".postgres-initdb-*"))


def test_kill_9_of_the_postmaster_loses_nothing_committed(home: Path) -> None:
    embedded.start(config(home))
    ask(home, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    process = server(home)
    process.kill()
    wait_until(lambda: not embedded.is_running(config(home)))

    lines = embedded.start(config(home))

    assert any("started" in line for line in lines)
    assert server(home).pid != process.pid
    assert ask(home, "SELECT count(*) FROM kept") == [(1000,)]


def test_a_start_waits_for_a_dead_servers_backends(home: Path) -> None:
    embedded.start(config(home))
    with closing(psycopg2.connect(embedded.url(config(home)))) as connection:
        orphan = psutil.Process(connection.info.backend_pid)
        orphan.suspend()  # it cannot notice that its postmaster dies
        server(home).kill()
        wait_until(lambda: not embedded.is_running(config(home)))
        log = home / "postgres.log"
        done: list[list[str]] = []
        starting = threading.Thread(target=lambda: done.append(embedded.start(config(home))))
        starting.start()
        try:
            wait_until(lambda: "pre-existing shared memory block" in log.read_text())
            assert not done
        finally:
            orphan.kill()
            starting.join()
    assert ask(home, "SELECT 1") == [(1,)]
    assert any("started" in line for line in done[0])


def test_a_running_server_is_adopted(home: Path) -> None:
    embedded.start(config(home))
    process = server(home)

    lines = embedded.start(config(home))

    assert any("adopted" in line for line in lines)
    assert server(home) == process


def test_two_starts_at_once_make_one_server(home: Path) -> None:
    starters = [python(START, home) for _ in range(2)]
    verbs = sorted(output(starter).strip().split("\n")[-1].split()[0] for starter in starters)

    assert verbs == ["adopted", "started"]
    assert ask(home, "SELECT 1") == [(1,)]


def test_whoever_comes_may_stop_the_server(home: Path) -> None:
    output(python(START, home))
    assert embedded.is_running(config(home))

    assert embedded.stop(config(home))

    assert not embedded.is_running(config(home))
    assert embedded.stop(config(home)), "stopping it again is no trouble"
    assert "database system is shut down" in (home / "postgres.log").read_text()


def test_ctrl_c_to_the_starters_group_leaves_the_server_alone(home: Path) -> None:
    starter = python(START + "import time; time.sleep(60)", home, start_new_session=True)
    assert starter.stdout is not None
    wait_until(lambda: "PostgreSQL (pid" in starter.stdout.readline())
    process = server(home)
    os.killpg(starter.pid, signal.SIGINT)
    starter.communicate()

    assert server(home) == process
    assert os.getsid(process.pid) != starter.pid
    assert ask(home, "SELECT 1") == [(1,)]


def test_ctrl_c_while_the_server_starts_leaves_it_to_the_next(home: Path) -> None:
    starter = python(START, home, start_new_session=True)
    wait_until(lambda: postmaster(home / "postgres") or starter.poll() is not None)
    os.killpg(starter.pid, signal.SIGINT)
    starter.communicate()
    process = server(home)

    assert any("adopted" in line for line in embedded.start(config(home)))
    assert server(home) == process


def test_the_server_inherits_neither_the_lock_nor_files(home: Path) -> None:
    with (home / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        embedded.start(config(home))

    held = {os.readlink(entry) for entry in Path(f"/proc/{server(home).pid}/fd").iterdir()}
    assert not held & {str(home / "secret"), str(home / "postgres.lock")}
    assert str(home / "postgres.log") in held
    with (home / "postgres.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises when somebody holds it


def test_a_changed_setting_takes_effect_at_the_next_start(home: Path) -> None:
    embedded.start(config(home, max_connections=21))
    embedded.start(config(home, max_connections=34))
    assert ask(home, "SHOW max_connections") == [("21",)], "a running server is left as it is"
    embedded.stop(config(home))

    embedded.start(config(home, max_connections=34, memory_mb=128))

    assert ask(home, "SHOW max_connections") == [("34",)]
    assert ask(home, "SHOW shared_buffers") == [("64MB",)]


def test_wal_is_compressed_with_lz4_where_the_build_can(home: Path) -> None:
    embedded.start(config(home))

    built = subprocess.run(
        [installed_binaries() / "pg_config", "--configure"], capture_output=True, text=True
    )
    lz4 = "--with-lz4" in built.stdout
    assert ask(home, "SHOW wal_compression") == [("lz4" if lz4 else "off",)]


def test_a_process_id_that_is_somebody_elses_now_does_not_stop_a_start(home: Path) -> None:
    embedded.start(config(home))
    remains = (home / "postgres" / "postmaster.pid").read_text()
    server(home).kill()
    wait_until(lambda: not embedded.is_running(config(home)))
    owner = (home / "postgres").stat().st_uid
    identity = {} if owner == os.geteuid() else {"user": owner}
    sleeper = subprocess.Popen(["sleep", "60"], **identity)
    try:
        for path in home / "postgres" / "postmaster.pid", home / "postgres.run" / ".s.PGSQL.5432.lock":
            path.write_text("\n".join([str(sleeper.pid), *remains.split("\n")[1:]]))
        assert not embedded.is_running(config(home))

        embedded.start(config(home))

        assert ask(home, "SELECT 1") == [(1,)]
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_process_id_that_is_another_clusters_server_is_not_adopted(home: Path, template: Path) -> None:
    other = copy(template, home.with_name("other"))
    embedded.start(config(other))
    (home / "postgres" / "postmaster.pid").write_text((other / "postgres" / "postmaster.pid").read_text())
    assert not embedded.is_running(config(home))
    assert embedded.stop(config(home)), "there is none to stop"

    embedded.start(config(home))

    assert server(home) != server(other)
    assert ask(home, "SHOW data_directory") == [(str(home / "postgres"),)]


def test_another_server_at_the_socket_is_refused_and_left_alone(home: Path, template: Path) -> None:
    other = copy(template, home.with_name("other"))
    both = f"{other}/postgres.run, {home}/postgres.run"
    with (other / "postgres" / "postgresql.auto.conf").open("a") as conf:
        conf.write(f"unix_socket_directories = '{both}'\n")
    embedded.start(config(other))

    with pytest.raises(EmbeddedError, match="another server answers"):
        embedded.start(config(home))

    assert not embedded.is_running(config(home))
    assert ask(other, "SHOW data_directory") == [(str(other / "postgres"),)]
    assert embedded.stop(config(home))
    assert embedded.is_running(config(other))


def test_a_server_that_lost_its_socket_is_restarted(home: Path) -> None:
    embedded.start(config(home))
    (home / "postgres.run" / ".s.PGSQL.5432").unlink()

    lines = embedded.start(config(home))

    assert any("lost its socket" in line for line in lines)
    assert ask(home, "SELECT 1") == [(1,)]


def test_a_server_whose_data_directory_moved_is_restarted_there(home: Path) -> None:
    embedded.start(config(home))
    moved = home.rename(home.with_name("moved"))
    assert embedded.is_running(config(moved))

    embedded.start(config(moved))

    assert ask(moved, "SHOW data_directory") == [(str(moved / "postgres"),)]


def test_a_server_that_does_not_answer_is_waited_for_and_named(home: Path) -> None:
    embedded.start(config(home))
    process = server(home)
    process.suspend()
    try:
        with pytest.raises(EmbeddedError, match=rf"pid {process.pid}.*does not answer"):
            embedded.start(config(home), timeout_s=0.2)
    finally:
        process.resume()
    assert any("adopted" in line for line in embedded.start(config(home)))


def test_a_killed_start_before_the_database_was_made_is_completed(home: Path) -> None:
    embedded.start(config(home))
    with closing(
        psycopg2.connect(embedded.url(config(home)).replace("/tickhub?", "/postgres?"))
    ) as connection:
        connection.autocommit = True
        connection.cursor().execute("DROP DATABASE tickhub")

    embedded.start(config(home))

    assert ask(home, "SELECT current_database()") == [("tickhub",)]


def test_the_url_is_the_same_everywhere_and_always(empty: Path) -> None:
    before = embedded.url(config(empty))
    assert before == f"postgresql:///tickhub?host={empty}/postgres.run&port=5432&user=tickhub"
    assert not empty.exists(), "asking starts nothing"
    embedded.start(config(empty, max_connections=25))

    assert embedded.url(config(empty)) == before
    assert (
        output(python("print(embedded.url(config))", empty, env=os.environ | {"PGPORT": "1"})).strip()
        == before
    )
    embedded.stop(config(empty))
    assert embedded.url(config(empty)) == before


def test_a_path_too_long_or_odd_for_a_socket_works_through_a_short_one(template: Path) -> None:
    with folder() as path:
        deep = path / 'a "b", $(c) d%20' / ("long" * 40)
        deep.parent.mkdir()
        copy(template, deep)
        address = embedded.url(config(deep))
        assert output(python("print(embedded.url(config))", deep)).strip() == address

        embedded.start(config(deep))

        assert ask(deep, "SHOW data_directory") == [(str(deep / "postgres"),)]
        assert embedded.url(config(deep)) == address
        short = (deep / "postgres.socket").readlink()
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
        assert short.stat().st_uid == (deep / "postgres").stat().st_uid
        embedded.stop(config(deep))
        assert not short.exists(), "nothing is left behind in /tmp"
        embedded.start(config(deep))
        assert embedded.url(config(deep)) == address
        assert ask(deep, "SELECT 1") == [(1,)]
        embedded.stop(config(deep))

        short.symlink_to(path)  # as somebody who knew the name might do
        try:
            assert embedded.url(config(deep)) != address
            embedded.start(config(deep))
            assert ask(deep, "SELECT 1") == [(1,)]
        finally:
            short.unlink()


def test_a_short_socket_path_handed_out_during_initdb_stays_true() -> None:
    with folder() as path:
        deep = path / ("long" * 40)
        starter = python(HALTING + START, deep, stdin=subprocess.PIPE)
        wait_until(lambda: list(deep.glob(".postgres-initdb-*")) or starter.poll() is not None)
        addresses = {embedded.url(config(deep))}
        assert starter.stdin is not None
        starter.stdin.write("\n")
        starter.stdin.flush()
        while not (deep / "postgres").exists() and starter.poll() is None:
            addresses.add(embedded.url(config(deep)))
        assert "started" in output(starter)
        assert addresses == {embedded.url(config(deep))}
        assert ask(deep, "SELECT 1") == [(1,)]
        assert embedded.stop(config(deep))


def test_a_copied_data_directory_does_not_share_its_socket(template: Path) -> None:
    with folder() as path:
        first, second = path / ("a" * 100), path / ("b" * 100)
        copy(template, first)
        address = embedded.url(config(first))
        copy(first, second)
        assert embedded.url(config(second)) != address
        assert embedded.url(config(first)) == address


def test_tcp_is_for_the_role_that_reads_on_loopback_with_a_password(home: Path) -> None:
    port = free_port()
    embedded.start(config(home, tcp_port=port))
    ask(home, *(f"CREATE ROLE {role} LOGIN PASSWORD 'right'" for role in ("tickhub_read", "other")))
    ask(home, "ALTER ROLE tickhub PASSWORD 'right'", "CREATE DATABASE another")

    def over_tcp(user: str, password: str, database: str = "tickhub") -> list[tuple[int]]:
        with closing(
            psycopg2.connect(host="127.0.0.1", port=port, user=user, password=password, dbname=database)
        ) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT 1")
            return list(cursor.fetchall())

    assert over_tcp("tickhub_read", "right") == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="password"):
        over_tcp("tickhub_read", "wrong")
    for user, database in (("tickhub", "tickhub"), ("other", "tickhub"), ("tickhub_read", "another")):
        with pytest.raises(psycopg2.OperationalError, match="no pg_hba"):
            over_tcp(user, "right", database)
    ends = [end.laddr.ip for end in server(home).net_connections("inet") if end.status == "LISTEN"]
    assert ends == ["127.0.0.1"]
    assert ask(home, "SHOW port") == [(str(port),)]
    assert embedded.tcp_port(config(home)) == port
    assert embedded.stop(config(home))
    assert embedded.tcp_port(config(home)) == 0


def test_a_port_that_another_program_has_is_said_so(home: Path) -> None:
    port = free_port()
    said = f"another program has port {port} on 127.0.0.1"
    with socket.create_server(("127.0.0.1", port)), pytest.raises(EmbeddedError, match=said):
        embedded.start(config(home, tcp_port=port))
    assert any("started" in line for line in embedded.start(config(home, tcp_port=port)))


@pytest.mark.parametrize("before", [0, 1])
def test_an_adopted_server_keeps_its_port_and_says_how_another_one_counts(home: Path, before: int) -> None:
    port = free_port() * before
    embedded.start(config(home, tcp_port=port))
    ask(home, "CREATE TABLE kept (mine integer)")
    with closing(psycopg2.connect(embedded.url(config(home)))) as at_work, at_work.cursor() as cur:
        lines = embedded.start(config(home, tcp_port=1234))
        cur.execute("SELECT * FROM kept")  # whoever is at work is not cut off
    words = f"on TCP port {port}" if before else "on no TCP port"
    assert [line for line in lines if words in line and "for port 1234 end it first" in line]
    assert embedded.tcp_port(config(home)) == port
    for same in (port, 0):
        assert len(embedded.start(config(home, tcp_port=same))) == len(lines) - 1


def test_a_log_that_grew_is_put_aside_at_a_start(home: Path) -> None:
    (home / "postgres.log").write_bytes(b"x" * 10_000_001)
    (home / "postgres.log.1").write_text("older")

    embedded.start(config(home))

    assert (home / "postgres.log.1").stat().st_size == 10_000_001
    assert "ready to accept connections" in (home / "postgres.log").read_text()


def test_a_stop_gives_up_when_somebody_holds_the_lock(home: Path) -> None:
    embedded.start(config(home))
    with (home / "postgres.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not embedded.stop(config(home), timeout_s=0.1)
        with pytest.raises(EmbeddedError, match="Another process"):
            embedded.start(config(home), timeout_s=0.1)
    assert embedded.is_running(config(home))


def test_what_cannot_be_a_data_directory_is_refused_in_words(empty: Path, home: Path) -> None:
    empty.write_text("a file")
    with pytest.raises(EmbeddedError, match="cannot use"):
        embedded.start(config(empty))

    strange = home.with_name("strange")
    owner = (home / "postgres").stat()
    (strange / "postgres" / "mine").mkdir(parents=True)
    os.chown(strange / "postgres", owner.st_uid, owner.st_gid)
    with pytest.raises(EmbeddedError, match="postgres"):
        embedded.start(config(strange))
    assert (strange / "postgres" / "mine").exists()


def test_a_configuration_that_does_not_start_is_told_with_the_servers_words(home: Path) -> None:
    with (home / "postgres" / "postgresql.auto.conf").open("a") as conf:
        conf.write("shared_buffers = '1 potato'\n")
    with pytest.raises(EmbeddedError, match="potato"):
        embedded.start(config(home))
    assert postmaster(home / "postgres") is None
