"""deploy/compose.yml without containers: each service's own command and health check, on programs that Debian has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from app.backup.following import following
from app.storage.embedded_place import installed_binaries
from tests.composition import Composition
from tests.process.deployed import Deployed, as_plain_user, give_away, install, plain_environ, run
from tests.process.harness import WAIT_S, folder, free_port, wait_until
from tests.process.pgbouncer import pgbouncer_binary
from tests.process.redis_server import redis_binary
from tests.process.wire import batch, tick
from tests.waiting import skip_here

pytestmark = pytest.mark.long

IMAGE = ("app", "sql", "deploy", "wsgi.py", "gunicorn.conf.py", "pyproject.toml", "requirements.txt")


class Stack:
    """The services on ports of this machine: what they call each other, and their directories, are put in place."""

    def __init__(self, parent: Path, stack: ExitStack) -> None:
        self.compose = Composition()
        self.home, self._stack = parent, stack
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.code = install(IMAGE, parent / "opt")
        names = ("postgres", "pgbouncer", "redis", "prometheus", "server")
        self.ports = {name: free_port() for name in names}
        for name in ("data", "backups", "cluster", "run", "prometheus"):
            (parent / name).mkdir(mode=0o700)
            give_away(parent / name)
        own = (5432, 6432, 6379, 9090, 5000)
        self._instead = {
            **{f"{name}:{port}": f"127.0.0.1:{self.ports[name]}" for name, port in zip(names, own, strict=True)},
            **{f"127.0.0.1:{port}": f"127.0.0.1:{self.ports[name]}" for name, port in zip(names, own, strict=True)},
            "127.0.0.1/6432": f"127.0.0.1/{self.ports['pgbouncer']}",
            "/backups": str(parent / "backups"),
            "/data": str(parent / "data"),
            "/tmp/": f"{parent / 'run'}/",
            "/prometheus": str(parent / "prometheus"),
            "/etc/postgresql/pg_hba.conf": str(self.code / "deploy/postgres/pg_hba.conf"),
        }

    def here(self, text: str) -> str:
        """Return a text of the composition as it has to be on this machine."""
        pattern = "|".join(re.escape(old) for old in sorted(self._instead, key=len, reverse=True))
        return re.sub(rf"(?<![\w.])(?:{pattern})", lambda found: self._instead[found[0]], text)

    def environ(self, service: str, **more: str) -> dict[str, str]:
        """Return a service's environment; of the image's it has what the Dockerfile says."""
        own = {name: self.here(text) for name, text in self.compose.environment(service).items()}
        image = {"TICKHUB_DATA_DIR": str(self.home / "data")} if self.compose.is_tickhub(service) else {}
        return plain_environ(**image, **own, **more)

    def command(self, service: str) -> list[str]:
        return [self.here(word) for word in self.compose.command(service)]

    def start(
        self, service: str, command: list[str], environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a service as a plain user; it is gone when the test is."""
        with (self.home / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(
                [*as_plain_user(), *command],
                cwd=self.code,
                env=dict(environ or self.environ(service)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                umask=0o077,
            )
        self._stack.callback(_end, process)
        self._processes[service] = process
        return process

    def stop(self, *services: str) -> None:
        """End services, as Docker does."""
        for service in services:
            if service in self._processes:
                _end(self._processes.pop(service))

    def log(self, service: str) -> str:
        return (self.home / f"{service}.log").read_text(errors="replace")

    def wait_healthy(self, service: str, **more: str) -> None:
        """Wait until the service's own health check says so; more: of its environment."""
        environ = self.environ(service, **more)
        check = [self.here(word) for word in self.compose.health_check(service)]
        try:
            wait_until(lambda: run(check, self.code, environ).returncode == 0, what=f"{service} to be healthy")
        except AssertionError as why:
            last = run(check, self.code, environ)
            raise AssertionError(f"{why}\n{check}: {last.stderr}\n{self.log(service)[-4000:]}") from None

    def database(self, role: str, password: str, name: str = "tickhub") -> str:
        return f"postgresql://{role}:{password}@127.0.0.1:{self.ports['postgres']}/{name}"

    def rows(self, query: str, role: str = "tickhub_read", password: str = "READ_PASSWORD") -> list[tuple[Any, ...]]:
        url = self.database(role, self.compose.secrets[password])
        with closing(psycopg2.connect(url, connect_timeout=10)) as conn, conn, conn.cursor() as cur:
            cur.execute(query)
            return cur.fetchall()


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    process.kill()
    process.wait(WAIT_S)


def start_postgres(stack: Stack) -> None:
    """Do what the image of PostgreSQL does: a cluster, its superuser's password, the scripts, then the command."""
    binaries, cluster = installed_binaries(), stack.home / "cluster" / "pg"
    environ = stack.environ("postgres", PGHOST=str(stack.home / "run"), PGPORT=str(stack.ports["postgres"]))
    environ |= {"POSTGRES_USER": "postgres", "PGPASSWORD": environ["POSTGRES_PASSWORD"]}
    environ["PATH"] = f"{binaries}:{environ['PATH']}"
    secret = stack.home / "run" / "superuser"
    secret.write_text(environ["POSTGRES_PASSWORD"])
    give_away(secret)
    options = environ["POSTGRES_INITDB_ARGS"].split()
    initdb = ["initdb", "-D", str(cluster), "--username=postgres", f"--pwfile={secret}", *options]
    made = run(initdb, stack.code, environ)
    assert made.returncode == 0, made.stderr
    command = [*stack.command("postgres"), "-D", str(cluster), "-p", environ["PGPORT"], "-k", environ["PGHOST"]]
    stack.start("postgres", [*command, "-c", "listen_addresses=127.0.0.1"], environ)
    wait_until(lambda: run(["pg_isready", "-q"], stack.code, environ).returncode == 0, what="the cluster")
    script = stack.compose.mounted("postgres", "/docker-entrypoint-initdb.d/roles.sh")
    roles = run([str(script)], stack.code, environ)
    assert (roles.returncode, roles.stdout) == (0, ""), roles.stderr
    assert not [secret for secret in stack.compose.secrets.values() if secret in stack.log("postgres")]


def start_pgbouncer(stack: Stack) -> None:
    """Do what its image does: the entrypoint, on the files that it was given."""
    place = stack.code / "deploy" / "pgbouncer"
    changed = {
        "compose.ini": {
            "/tmp/": f"{stack.home / 'run'}/",
            "/etc/pgbouncer": str(place),
            "host=postgres port=5432": f"host=127.0.0.1 port={stack.ports['postgres']}",
            "listen_addr = *": f"listen_addr = 127.0.0.1\nlisten_port = {stack.ports['pgbouncer']}",
        },
        "entrypoint.sh": {"/tmp/": f"{stack.home / 'run'}/"},
    }
    for name, texts in changed.items():
        path = place / name
        text = path.read_text()
        for old, new in texts.items():
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
    environ = stack.environ("pgbouncer")
    environ["PATH"] = f"{Path(pgbouncer_binary()).parent}:{environ['PATH']}"
    stack.start("pgbouncer", [str(place / "entrypoint.sh"), str(place / "compose.ini")], environ)


def start_redis(stack: Stack) -> None:
    assert redis_binary()
    command = [
        word.replace("appendonly no", f"appendonly no\nport {stack.ports['redis']}\nbind 127.0.0.1")
        for word in stack.command("redis")
    ]
    stack.start("redis", command)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with folder() as parent, ExitStack() as ends:
        found = Stack(parent, ends)
        start_postgres(found)
        path = f"{installed_binaries()}:{plain_environ()['PATH']}"
        found.wait_healthy("postgres", PATH=path, PGPORT=str(found.ports["postgres"]))
        migrated = run(found.command("migrate"), found.code, found.environ("migrate"))
        assert migrated.returncode == 0, migrated.stderr
        assert "migrated to 0001" in migrated.stdout
        assert "WARNING" not in migrated.stdout
        start_pgbouncer(found)
        start_redis(found)
        found.wait_healthy("pgbouncer")
        found._instead["redis-cli"] = f"redis-cli -p {found.ports['redis']}"
        found.wait_healthy("redis")
        yield found


@pytest.fixture(scope="module")
def server(stack: Stack) -> Iterator[Deployed]:
    """The server by its image's command; published on one port of this machine."""
    environ = stack.environ("server", TICKHUB_PORT=str(stack.ports["server"]), TICKHUB_METRICS_INTERVAL_S="0")
    found = Deployed(stack.home / "data", stack.command("server"), stack.code, environ)
    found.port = stack.ports["server"]
    try:
        found.start().wait_ready()
        yield found
        assert "Traceback" not in found.log()
        assert "permission denied" not in found.log()
        assert found.stop() == 0
    finally:
        found.kill9()


def ask(server: Deployed, path: str, key: str, body: bytes | None = None) -> Any:
    """Return a JSON answer, None for an error."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", body, {"X-API-Key": key})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:
        return None


def metrics(stack: Stack, server: Deployed) -> str:
    key = {"X-API-Key": stack.compose.secrets["PROMETHEUS_API_KEY"]}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", None, key)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def test_ticks_are_stored_by_the_role_that_writes_through_the_pooler(stack: Stack, server: Deployed) -> None:
    health = run(stack.compose.health_check("server"), stack.code, server.environ)
    assert health.returncode == 0, health.stderr
    command = [*stack.compose.entrypoint("migrate"), "keys", "add", "bridge", "--scopes", "ingest"]
    key = run(command, stack.code, stack.environ("migrate")).stdout.strip()
    ticks = batch(*[tick(bid=190.0 + number) for number in range(50)])
    wait_until(lambda: ask(server, "/tick/batch", key, ticks), what="the key to be known")
    wait_until(lambda: stack.rows("SELECT count(*) FROM ticks") == [(50,)], what="the ticks to be stored")
    seen = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name LIKE 'tickhub %'"
    assert stack.rows(seen, "tickhub_write", "WRITE_PASSWORD") == [("tickhub_write",)]
    wait_until(lambda: "tickhub_database_statements_known 1" in metrics(stack, server), what="books of statements")


def test_no_password_is_in_the_books_of_statements(stack: Stack) -> None:
    books = "SELECT query FROM pg_stat_statements"
    kept = [query for (query,) in stack.rows(books, "tickhub_write", "WRITE_PASSWORD")]
    assert kept
    assert not [query for query in kept if any(secret in query for secret in stack.compose.secrets.values())]


def test_wal_is_followed_and_the_backup_of_the_day_is_taken_at_once_and_once(stack: Stack, server: Deployed) -> None:
    stack.start("wal", stack.command("wal"))
    stack.wait_healthy("wal")
    stack.start("backup", stack.command("backup"))
    wait_until((stack.home / "backups" / ".daily").exists, what=f"a backup: {stack.log('backup')}")
    said = run([*stack.compose.entrypoint("wal"), "backup", "list"], stack.code, stack.environ("wal")).stdout
    assert said.count("sound") == 1, said
    assert following(stack.home / "backups")
    wait_until(lambda: 'tickhub_backups{state="sound"} 1' in metrics(stack, server), what="the server to see it")
    assert "failed" not in stack.log("backup")


def test_upkeep_is_done_by_the_owner(stack: Stack) -> None:
    stack.start("upkeep", stack.command("upkeep"))
    wait_until(
        lambda: (stack.home / "data" / ".upkeep").exists() or "failed" in stack.log("upkeep"), what="a first round"
    )
    assert "vacuum: " in stack.log("upkeep")
    assert "failed" not in stack.log("upkeep")


def test_prometheus_gets_in_with_its_key(stack: Stack, server: Deployed) -> None:
    if shutil.which("prometheus") is None:
        skip_here("prometheus is not installed (Debian: apt-get install prometheus)")
    config = stack.compose.mounted("prometheus", "/etc/prometheus/compose.yml")
    changed = stack.here(config.read_text().replace("15s", "1s")).replace("- rules.yml", f"- {config.parent}/rules.yml")
    (stack.home / "run" / "compose.yml").write_text(changed)
    command = [
        word.replace("/etc/prometheus/", f"{stack.home / 'run'}/") for word in stack.command("prometheus")
    ]
    stack.start("prometheus", [*command, f"--web.listen-address=127.0.0.1:{stack.ports['prometheus']}"])
    url = f"http://127.0.0.1:{stack.ports['prometheus']}"

    def up() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/api/v1/query?query=up", timeout=10) as answer:
                return [one["value"][1] for one in json.load(answer)["data"]["result"]] == ["1"]
        except OSError:
            return False

    wait_until(up, what=f"a scrape: {stack.log('prometheus')}")
    health = next(word for word in stack.compose.health_check("prometheus") if word.startswith("http"))
    with urllib.request.urlopen(stack.here(health).replace("127.0.0.1:9090", url[7:]), timeout=10) as answer:
        assert answer.status == 200
    if os.geteuid() == 0:
        assert (stack.home / "run" / "tickhub-api-key").stat().st_mode & 0o077 == 0


def test_grafana_reads_by_sql_and_changes_nothing(stack: Stack, server: Deployed) -> None:
    said = stack.compose.environment("grafana")
    asked = stack.compose.mounted("grafana", "/etc/grafana/provisioning") / "datasources" / "tickhub.yml"
    wanted = set(re.findall(r"\$(TICKHUB_\w+)", asked.read_text()))
    assert wanted <= said.keys()
    assert stack.here(said["TICKHUB_SQL_ADDRESS"]) == f"127.0.0.1:{stack.ports['postgres']}"
    assert said["TICKHUB_SQL_PASSWORD"] == stack.compose.secrets["READ_PASSWORD"]
    assert stack.rows("SELECT count(*) > 0 FROM instruments") == [(True,)]
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        stack.rows("DELETE FROM ticks RETURNING 1")


def test_nobody_else_comes_in_from_the_network(stack: Stack) -> None:
    """What is asked from this machine itself is another matter: inside of the container the superuser gets in."""
    for role, password, database in (
        ("tickhub_owner", "wrong", "tickhub"),
        ("tickhub_backup", stack.compose.secrets["BACKUP_PASSWORD"], "postgres"),
        ("tickhub_write", stack.compose.secrets["WRITE_PASSWORD"], "postgres"),
    ):
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(stack.database(role, password, database), connect_timeout=5)


def test_a_dump_is_put_in_the_place_of_what_is_there(stack: Stack, server: Deployed) -> None:
    """The last one here: what has the database is stopped for it."""
    app = stack.compose.entrypoint("wal")
    taken = run([*app, "backup", "dump"], stack.code, stack.environ("wal"))
    assert taken.returncode == 0, taken.stderr
    (dump,) = (stack.home / "backups" / "dumps").iterdir()
    before = stack.rows("SELECT count(*) FROM ticks")
    restore = [*app, "restore", str(dump), "--drop-existing"]
    refused = run(restore, stack.code, stack.environ("migrate"))
    assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)
    assert server.stop() == 0
    stack.stop("pgbouncer", "wal", "backup")
    done = run(restore, stack.code, stack.environ("migrate"))
    assert done.returncode == 0, done.stderr
    assert stack.rows("SELECT count(*) FROM ticks") == before
    assert stack.rows("SELECT has_table_privilege('tickhub_write', 'ticks', 'INSERT')") == [(True,)]
