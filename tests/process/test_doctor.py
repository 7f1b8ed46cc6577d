"""The doctor on this host: each fault is made for real, and found; nothing is started, made or told of secrets."""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import json
import os
import pty
import pwd
import re
import resource
import shutil
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.doctor import clocks, doors, host
from app.doctor.case import Case
from app.doctor.examining import ROOMS, examine
from tests.process.conftest import MakeServer
from tests.process.examined import FAIL, OK, WARN, doctor, line_of, look, look_as, settings
from tests.process.harness import ROOT, folder, free_port
from tests.process.redis_server import RedisServer
from tests.process.wire import AWAY
from tests.waiting import wait_until

PASSWORD = "Tr0ub4dor-and-3"
KEY = "a-key-that-nobody-may-see"


@pytest.fixture
def home() -> Iterator[Path]:
    """A data directory with nothing in it, which other users can pass through."""
    with folder() as parent:
        made = parent / "data"
        made.mkdir(mode=0o711)
        yield made


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for what is asked from this process than a busy machine takes."""
    monkeypatch.setattr(doors, "ASK_TIMEOUT_S", 30.0)


def doctor_of_a_server(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command, and again when the server did not answer within the command's few seconds."""

    def made() -> subprocess.CompletedProcess[str] | None:
        done = doctor(*arguments)
        return None if "nothing answers as tickhub" in done.stdout else done

    found: subprocess.CompletedProcess[str] = wait_until(made, what="the server to answer")
    return found


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.long
def test_a_server_that_serves_is_found_well_and_is_left_alone(make_server: MakeServer) -> None:
    server = make_server(workers=2).start().wait_ready()
    server.database.rows("SELECT 1")
    flags = ("--data-dir", str(server.home), "--port", str(server.port))
    before, workers = server.database.postmaster_pid(), server.worker_pids()
    done = doctor_of_a_server(*flags)
    # The tests' databases do not sync: that, and nothing else, is wrong.
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert failed == [line_of(done.stdout, "durability")], done.stdout + done.stderr
    assert done.returncode == 1
    assert "fsync is off" in failed[0]
    assert line_of(done.stdout, "port").startswith("OK ")
    assert line_of(done.stdout, "migrations").startswith("OK ")
    server.database.rows("SELECT 1")
    told = json.loads(doctor_of_a_server(*flags, "--json").stdout)
    assert told["outcome"] == "FAIL"
    assert [one["name"] for one in told["checks"] if one["outcome"] == "FAIL"] == ["durability"]
    assert (server.database.postmaster_pid(), server.worker_pids()) == (before, workers)
    assert server.status("/health") == 200
    assert "Traceback" not in server.log() + done.stderr


def test_looking_where_nothing_is_makes_nothing(home: Path) -> None:
    found = look(home / "data")
    assert not (home / "data").exists()
    assert found["database"].outcome is OK
    assert "is not made yet" in found["database"].found
    assert found["permissions"].outcome is OK
    assert doctor("--data-dir", str(home / "data")).returncode == 0
    assert not (home / "data").exists()
    assert {found[name].outcome for name in ("python", "packages", "port", "exposure", "journals")} == {OK}


def test_a_settings_mistake_is_one_line(home: Path) -> None:
    done = doctor("--data-dir", str(home), "--tick-timezone", "Europe/Nowhere")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Europe/Nowhere" in done.stderr
    assert "Europe/Athens: there it is" in look(home, tick_timezone="Europe/Athens")["tick_timezone"].found


def test_no_secret_is_told(home: Path) -> None:
    environ = {
        "TICKHUB_DATABASE_URL": f"postgresql://desk:{PASSWORD}@127.0.0.1:1/x",
        "TICKHUB_DIRECT_DATABASE_URL": f"postgresql://owner:{PASSWORD}@127.0.0.1:1/x",
        "TICKHUB_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:1/0",
        "TICKHUB_API_KEY_READ": KEY,
        "TICKHUB_DATA_DIR": str(home),
    }
    done = doctor(environ=environ)
    assert done.returncode == 1
    assert line_of(done.stdout, "database").startswith("FAIL")
    assert line_of(done.stdout, "redis").startswith("WARN")
    assert PASSWORD not in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
    # libpq repeats what it takes for a port.
    found = look(home, database_url=f"postgresql://desk:{PASSWORD}/@127.0.0.1:1/x")["database"]
    assert found.outcome is FAIL
    assert PASSWORD not in found.found
    case = Case(settings(home, database_url=f"postgresql://desk:{PASSWORD}@127.0.0.1:1/x"))
    told = case.hide(f"no {PASSWORD}, no postgresql://a:other-one@b/c, no password='a third'\nhere")
    assert told == "no ***, no postgresql://a:***@b/c, no password=*** here"


def test_a_check_that_breaks_is_a_line_and_the_others_are_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_thing(case: Case) -> Iterator[None]:
        raise RuntimeError(f"with {KEY}")
        yield

    monkeypatch.setattr(host, "CHECKS", (broken_thing, host.python))
    found = {finding.name: finding for finding in examine(settings(home, api_key_read=KEY))}
    assert found["broken thing"].outcome is FAIL
    assert found["broken thing"].found == "cannot be looked at: RuntimeError: with ***"
    assert found["python"].outcome is OK
    assert found["tick_timezone"].outcome is OK


@pytest.mark.long
def test_a_python_that_is_too_old_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "sys", SimpleNamespace(version_info=(3, 10, 4), prefix="/opt/tickhub/.venv"))
    [found] = host.python(Case(settings(home)))
    assert (found.outcome, found.found) == (FAIL, "3.10.4, and 3.11 is needed")


def test_packages_that_are_missing_or_other_ones_are_named(home: Path, tmp_path: Path) -> None:
    # As an environment has it that was made for another version of tickhub.
    other = tmp_path / "flask-0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: flask\nVersion: 0.1\n")
    broken = tmp_path / "psycopg2"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('libpq is not there')\n")
    done = doctor("--data-dir", str(home), environ={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "flask 0.1 (tried with" in line_of(done.stdout, "packages")
    line = line_of(done.stdout, "database")
    assert line.startswith("FAIL")
    assert "libpq is not there -> pip install" in line
    assert "Traceback" not in done.stderr
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "def version(name, real=m.version):\n"
        "    if name == 'duckdb':\n"
        "        raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    line = line_of(doctor("--data-dir", str(home), environ={"PYTHONPATH": str(tmp_path)}).stdout, "packages")
    assert line.startswith("FAIL")
    assert "missing: duckdb" in line


def test_a_low_limit_of_descriptors_and_more_workers_than_memory_are_found(home: Path) -> None:
    done = doctor("--data-dir", str(home), before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512)))
    line = line_of(done.stdout, "file descriptors")
    assert line.startswith("FAIL")
    assert "512 here" in line
    assert line_of(done.stdout, "memory").startswith("OK")
    found = look(home, workers=256, pg_max_connections=4000)["memory"]
    assert found.outcome is WARN


def test_disks_that_fill_up_are_found_before_they_are_full(home: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for name in ("data", "backups"):
            stack.enter_context(small_disk(tmp_path / name, "16m"))
        places = {"home": tmp_path / "data", "backup_dir": tmp_path / "backups"}
        found = look(**places)
        assert found["disk data"].outcome is WARN, "the journal's bound is larger"
        assert "the journal may grow to 4.0 GiB" in found["disk data"].found
        assert found["disk backup"].outcome is OK
        assert "disk archive" not in found, "it is in the data directory, and not there"
        (tmp_path / "data" / "filler").write_bytes(bytes(14_500_000))
        (tmp_path / "backups" / "filler").write_bytes(bytes(16_200_000))
        found = look(**places)
        assert found["disk data"].outcome is WARN
        assert found["disk backup"].outcome is FAIL


def test_data_that_others_may_write_or_read_is_found(home: Path) -> None:
    mine = OK if os.geteuid() else WARN  # root should not do this
    assert look(home)["permissions"].outcome is mine
    home.chmod(0o777)
    found = look(home)["permissions"]
    assert found.outcome is FAIL
    assert f"chmod go-w {home}" in found.remedy
    home.chmod(0o711)
    (home / "api_keys.json").write_text("{}")
    (home / "api_keys.json").chmod(0o644)
    found = look(home)["permissions"]
    assert found.outcome is WARN
    assert found.remedy == f"chmod 600 {home}/api_keys.json"


def test_a_data_directory_of_another_user_is_found(home: Path) -> None:
    if os.geteuid():
        pytest.skip("acting as another user needs root")
    nobody = pwd.getpwnam("nobody").pw_uid
    look(home)  # so that all is imported
    found = look_as(nobody, home)["permissions"]
    assert found.outcome is FAIL
    assert "used as nobody" in found.found
    found = look_as(nobody, home / "deeper" / "data")["permissions"]
    assert found.outcome is FAIL
    assert "can not make" in found.found
    os.chown(home, nobody, -1)
    assert look_as(nobody, home)["permissions"].outcome is OK
    # Some command was run as root.
    (home / "journal" / ("0" * 32)).mkdir(parents=True, mode=0o700)
    found = look_as(nobody, home)["permissions"]
    assert found.outcome is FAIL
    assert str(home / "journal") in found.found


def test_backups_and_an_archive_that_cannot_be_written_are_found(home: Path) -> None:
    if os.geteuid():
        pytest.skip("acting as another user needs root")
    nobody = pwd.getpwnam("nobody").pw_uid
    look(home)  # so that all is imported
    os.chown(home, nobody, -1)
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    for places in (
        {"backup_dir": elsewhere},
        {"backup_dir": elsewhere / "new"},
        {"archive_dir": elsewhere, "hot_days": 9},
    ):
        found = look_as(nobody, home, **places)["permissions"]
        assert found.outcome is FAIL, places
        assert str(elsewhere) in found.found
        assert "nobody" in found.remedy
    only_seen = look_as(nobody, home, backup_dir=elsewhere, backup_wal="false")
    assert only_seen["permissions"].outcome is OK, "another service writes there"
    os.chown(elsewhere, nobody, -1)
    assert look_as(nobody, home, backup_dir=elsewhere, archive_dir=elsewhere, hot_days=9)["permissions"].outcome is OK


def test_a_port_that_another_program_has_is_found_with_its_name(home: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        found = look(home, port=other.getsockname()[1])["port"]
        assert found.outcome is FAIL
        assert f"(process {os.getpid()})" in found.found
    found = look(home, host="192.0.2.1", port=5000, insecure="true")
    assert found["port"].outcome is FAIL
    assert "that this machine has" in found["port"].remedy
    assert found["exposure"].outcome is WARN
    assert look(home, host="0.0.0.0", port=free_port(), api_key_read=KEY)["exposure"].outcome is OK


@contextmanager
def another_tickhub() -> Iterator[int]:
    """What answers as a tickhub does; its port."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status":"healthy","database":"connected","workers":2,"uptime_seconds":8}')

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            yield other.server_port
        finally:
            other.shutdown()
            thread.join()


@pytest.mark.long
def test_a_server_that_does_not_answer_is_found(make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY).start().wait_accepting()
    assert look(server.home, port=server.port, database_url=AWAY)["port"].outcome is OK
    found = look(server.home, port=free_port(), database_url=AWAY)["port"]
    assert found.outcome is FAIL
    assert "nothing answers as tickhub" in found.found
    with another_tickhub() as number:
        found = look(server.home, port=number, database_url=AWAY)["port"]
    assert (found.outcome, "another server" in found.found) == (FAIL, True), "its health says nothing of this one"
    assert server.process is not None
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (1000, hard))
    found = look(server.home, port=server.port, database_url=AWAY)["file descriptors"]
    assert (found.outcome, "1,000 for the server" in found.found) == (FAIL, True)
    assert "point in time" not in look(server.home, port=server.port, database_url=AWAY)
    found = look(server.home, port=server.port, database_url=AWAY, backup_dir=server.home / "elsewhere")
    assert found["point in time"].outcome is WARN, "with these settings it would be followed"
    server.kill9()
    assert (server.home / "serve.lock").exists()
    assert "is free" in look(server.home, port=server.port, database_url=AWAY)["port"].found


def test_certificates_are_looked_at(home: Path, certificate: tuple[str, str], tmp_path: Path) -> None:
    key, cert = certificate

    def found(**changes: str) -> tuple[object, str]:
        finding = look(home, **{"ssl_keyfile": key, "ssl_certfile": cert, **changes})["certificate"]
        return finding.outcome, finding.found

    outcome, text = found()
    assert outcome is WARN
    assert "expires in 1 days" in text
    others = tmp_path / "others.pem"
    others.write_bytes(Path(shutil.copy(key, tmp_path / "copy.pem")).read_bytes())
    subprocess.run(["openssl", "genrsa", "-out", others], check=True, capture_output=True)
    assert found(ssl_keyfile=str(others))[0] is FAIL
    request = tmp_path / "request.pem"
    subprocess.run(["openssl", "req", "-new", "-key", key, "-subj", "/CN=localhost", "-out", request], check=True)
    for days, expected in ((400, OK), (-1, FAIL)):
        path = tmp_path / f"{days}.pem"
        made = ("openssl", "x509", "-req", "-in", request, "-signkey", key, "-days", str(days), "-out", path)
        subprocess.run(made, check=True, capture_output=True)
        assert found(ssl_certfile=str(path))[0] is expected
    Path(key).chmod(0o644)
    assert found(ssl_certfile=str(tmp_path / "400.pem"))[0] is WARN


def test_for_a_keys_pass_phrase_nobody_is_asked(home: Path, certificate: tuple[str, str], tmp_path: Path) -> None:
    key, cert = certificate
    locked = tmp_path / "locked.pem"
    subprocess.run(["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked], check=True)
    ours, theirs = pty.openpty()  # OpenSSL asks at the terminal, which nobody sits at
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "app",
                "doctor",
                "--data-dir",
                home,
                "--ssl-keyfile",
                locked,
                "--ssl-certfile",
                cert,
            ],
            cwd=ROOT,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert re.search("^FAIL  certificate .*pass phrase", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.long
def test_redis_is_asked_with_its_password(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = RedisServer(tmp_path).start("--requirepass", PASSWORD)
    try:
        url = redis.url.replace("//", f"//:{PASSWORD}@")
        found = look(home, redis_url=url)["redis"]
        assert found.outcome is OK
        found = look(home, redis_url=url.replace(PASSWORD, "a-wrong-one"))["redis"]
        assert found.outcome is WARN
        redis.pause()
        monkeypatch.setattr(doors, "ASK_TIMEOUT_S", 1.0)
        assert look(home, redis_url=url)["redis"].outcome is WARN
        redis.resume()
    finally:
        redis.kill9()
    assert "redis" not in look(home)


def test_the_clock_is_as_right_as_the_kernel_says(home: Path) -> None:
    found = look(home)["clock"]
    synchronized = clocks._is_synchronized()
    assert found.outcome is (WARN if synchronized is False else OK)
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    assert synchronized == (state != 5), "TIME_ERROR"


def test_every_check_is_in_the_handbook() -> None:
    handbook = (ROOT / "docs" / "handbook.md").read_text()
    for name in ROOMS:
        room = importlib.import_module(f"app.doctor.{name}")
        for check in (*room.CHECKS, *room.OF_DATABASE):
            what = check.__name__.replace("_", " ")
            assert f"| {what}" in handbook or f", {what}" in handbook, f"docs/handbook.md does not have {what}"


def test_a_server_is_known_by_its_process_and_not_by_a_number(home: Path) -> None:
    lock = home / "serve.lock"
    for text in ("", "no number", str(os.getpid()), "4000000"):
        lock.write_text(text)
        assert Case(settings(home)).server_pid is None
