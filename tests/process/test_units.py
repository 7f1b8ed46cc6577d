"""systemd's units: taken by systemd, tight, and run for real: the server, a backup, and the WAL beside it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.backup.following import following
from app.settings import Settings, load
from tests.process.deployed import Deployed, as_plain_user, give_away, install, notify_socket, plain_environ, run
from tests.process.harness import ROOT, WAIT_S, folder, free_port, wait_until
from tests.process.wire import batch, tick
from tests.waiting import skip_here

UNITS = ROOT / "deploy" / "systemd"
SERVICES = ("tickhub.service", "tickhub-backup.service", "tickhub-wal.service")
INSTALLED = ("app", "sql", "deploy", "wsgi.py", "gunicorn.conf.py", "pyproject.toml", "requirements.txt")
MOST_EXPOSED = 20  # tenths; systemd calls it "OK" up to 40


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    found = shutil.which("systemd-analyze")
    if found is None:
        skip_here("systemd-analyze is not installed (Debian: apt-get install systemd)")
    return subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def directives(name: str) -> dict[str, list[str]]:
    """Return what a unit says, by directive."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def one(name: str, key: str) -> str:
    (value,) = directives(name)[key]
    return value


class Place:
    """An installation: code in `code`, data in `data`, as docs/deployment.md makes it in /opt and /var/lib."""

    def __init__(self, parent: Path) -> None:
        self.code, self.data = parent / "opt", parent / "data"
        install(INSTALLED, self.code)
        (self.code / ".venv").symlink_to(Path(sys.prefix).resolve())
        self.data.mkdir(mode=0o700)
        give_away(self.data)

    def command(self, name: str, key: str = "ExecStart") -> list[str]:
        """Return a unit's command, which begins where the code is."""
        assert one(name, "WorkingDirectory") == "/opt/tickhub"
        return shlex.split(one(name, key).replace("/opt/tickhub", str(self.code)))

    def python(self, *arguments: str) -> list[str]:
        return [str(self.code / ".venv" / "bin" / "python"), *arguments]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with folder() as parent:
        yield Place(parent)


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Deployed]:
    """The server as tickhub.service starts it, its settings from the file beside the unit."""
    said = notify_socket(place.code / "notify")
    environ = plain_environ(NOTIFY_SOCKET=str(place.code / "notify"))
    found = Deployed(place.data, place.command("tickhub.service"), place.code, environ)
    changed = {"/var/lib/tickhub": str(place.data), "TICKHUB_PORT=5000": f"TICKHUB_PORT={found.port}"}
    text = (UNITS / "tickhub.env").read_text() + "TICKHUB_PG_MEMORY_MB=128\n"
    for old, new in changed.items():
        assert old in text
        text = text.replace(old, new)
    (place.code / ".env").write_text(text)
    (place.code / ".env").chmod(0o600)
    give_away(place.code / ".env")
    try:
        found.start()
        assert said.recv(4096).splitlines()[0] == b"READY=1"
        yield found.wait_ready()
        assert "Traceback" not in found.log()
    finally:
        said.close()
        found.close()


def test_systemd_takes_the_units(place: Place, tmp_path: Path) -> None:
    for unit in UNITS.glob("tickhub*.*"):
        if unit.suffix in (".service", ".timer"):
            (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/tickhub", str(place.code)))
    units = sorted(tmp_path.iterdir())
    assert len(units) == 4
    found = analyze("verify", "--man=no", *units)
    ours = [line for line in (found.stdout + found.stderr).splitlines() if "tickhub" in line]
    assert (found.returncode, ours) == (0, [])
    assert analyze("calendar", one("tickhub-backup.timer", "OnCalendar")).returncode == 0


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_little_that_it_does_not_need(name: str) -> None:
    found = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", UNITS / name)
    assert found.returncode == 0, found.stdout + found.stderr
    said = directives(name)
    # One user has them all, and with the first that ends RemoveIPC would take the database's memory away.
    assert (said["User"], "RemoveIPC" in said) == (["tickhub"], False)
    assert (said["ProtectSystem"], said["NoNewPrivileges"]) == (["strict"], ["true"])
    assert said["CapabilityBoundingSet"] == [""]
    assert not any("PASSWORD" in line or "EnvironmentFile" in line for line in (UNITS / name).read_text().splitlines())


def test_a_stop_gives_the_server_the_time_to_drain() -> None:
    assert int(one("tickhub.service", "TimeoutStopSec")) > Settings().shutdown_grace_s + 10
    assert one("tickhub.service", "KillMode") == "mixed"
    assert int(one("tickhub.service", "RestartPreventExitStatus")) == 2


def test_the_file_of_settings_asks_for_keys_and_names_what_there_is() -> None:
    settings = load({}, env_file=UNITS / "tickhub.env")
    assert settings.require_api_keys
    assert (str(settings.data_dir), settings.host) == ("/var/lib/tickhub", "127.0.0.1")
    with_all = "".join(line.lstrip("#") for line in (UNITS / "tickhub.env").open() if not line.startswith("# "))
    names = dict(line.split("=", 1) for line in with_all.splitlines() if line)
    assert load(names, env_file=None).direct_database_url


@pytest.mark.long
def test_the_units_serve_follow_and_back_up_as_a_plain_user(server: Deployed, place: Place) -> None:
    assert server.process is not None
    if os.geteuid() == 0:
        assert not any(user == 0 for user in psutil.Process(server.process.pid).uids())
    key = run(place.python("-m", "app", "keys", "add", "bridge", "--scopes", "ingest"), place.code)
    assert key.returncode == 0, key.stderr
    with subprocess.Popen(
        [*as_plain_user(), *place.command("tickhub-wal.service")], cwd=place.code, env=plain_environ(), umask=0o077
    ) as wal:
        try:
            wait_until(lambda: (said := following(place.data / "backups")) and said.since, what="WAL to be followed")
            request = urllib.request.Request(
                f"http://127.0.0.1:{server.port}/tick/batch", batch(tick()), {"X-API-Key": key.stdout.strip()}
            )
            wait_until(lambda: answered(request) == {"status": "success", "received": 1}, what="the key to be known")
            for step in ("ExecStartPre", "ExecStart"):
                done = run(place.command("tickhub-backup.service", step), place.code)
                assert done.returncode == 0, done.stderr
            listed = run(place.python("-m", "app", "backup", "list"), place.code).stdout
            assert listed.count("sound") == 1, listed
            # Not as root: the restored server allows as much as the one before, without its settings.
            tried = run(place.python("-m", "app", "restore", "--verify-only"), place.code)
            assert "nothing was replaced" in tried.stdout, tried.stderr
            # What `systemctl reload` does, for logrotate.
            _, name, pid = shlex.split(one("tickhub.service", "ExecReload"))
            assert pid == "$MAINPID"
            server.process.send_signal(getattr(signal, f"SIG{name.removeprefix('-')}"))
            assert server.status("/health") == 200
            assert server.stop() == 0
            # As the unit does: it ends after the server.
            wal.terminate()
            assert wal.wait(WAIT_S) == 0
        finally:
            wal.kill()
    without = place.command("tickhub-backup.service", "ExecStartPre")
    without[without.index("--wait") + 1] = "0"
    gone = run(without, place.code)
    assert (gone.returncode, "refused" in gone.stderr) == (1, True)


def answered(request: urllib.request.Request) -> object:
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


def test_settings_that_cannot_be_end_it_with_the_status_that_is_not_tried_again(place: Place) -> None:
    refused = run(
        place.command("tickhub.service"),
        place.code,
        plain_environ(TICKHUB_DATA_DIR=str(place.data), TICKHUB_PORT=str(free_port()), TICKHUB_WORKERS="-1"),
    )
    assert refused.returncode == int(one("tickhub.service", "RestartPreventExitStatus")), refused.stderr
