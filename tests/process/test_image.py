"""The Dockerfile without Docker: what it copies is enough, and its command and health check do what they should."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import COMMANDS
from app.storage.embedded_place import installed_binaries
from tests.composition import ENTRYPOINT, Composition
from tests.process.deployed import Deployed, give_away, install, plain_environ, run
from tests.process.harness import ROOT, far_from_now, folder
from tests.process.wire import AWAY

IN_SLIM = {"libc", "libm", "libdl", "librt", "libpthread", "libz", "linux-vdso", "ld-linux-x86-64", "ld-linux-aarch64"}
"""Of a python:slim image: the C library, and zlib, which Python needs."""

POSTGRES = ("postgres", "initdb", "psql", "pg_basebackup", "pg_receivewal", "pg_combinebackup", "pg_verifybackup",
            "pg_dump", "pg_restore")  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with what follows it in one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(kind, rest.strip()) for kind, rest in (line.split(None, 1) for line in text.splitlines() if line.strip())]


def of(kind: str) -> list[str]:
    return [rest for found, rest in instructions() if found == kind]


def copied() -> dict[str, str]:
    """Return what is copied of the repository, and where to below the working directory."""
    found = {}
    for rest in of("COPY"):
        *sources, target = rest.split()
        for source in sources:
            found[source] = (Path(target) / Path(source).name).as_posix() if target.endswith("/") else target
    return found


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for rest in of("ENV") for word in shlex.split(rest))


def ignored(path: str) -> bool:
    """Tell whether .dockerignore keeps a path out: the last line that fits it, or a directory above, decides."""
    parts = Path(path).parts
    above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    result = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        fits = any(
            fnmatch.fnmatchcase(one, pattern)
            or (pattern.startswith("**/") and fnmatch.fnmatchcase(Path(one).name, pattern[3:]))
            for one in above
        )
        if fits:
            result = not line.startswith("!")
    return result


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """What the image holds of the repository, as a plain user finds it."""
    with folder() as parent:
        yield install(list(copied()), parent / "opt")


@pytest.fixture
def server(image: Path) -> Iterator[Deployed]:
    """The image's command in its environment; of its addresses only the port is another one."""
    with folder() as parent:
        data = parent / "data"
        data.mkdir(mode=0o700)
        give_away(data)
        assert environment()["TICKHUB_DATA_DIR"] in json.loads(of("VOLUME")[0])
        environ = plain_environ(**environment() | {"TICKHUB_DATA_DIR": str(data)})
        command = [*json.loads(of("ENTRYPOINT")[0]), *json.loads(of("CMD")[0])]
        found = Deployed(data, command, image, environ)
        found.environ |= {"TICKHUB_PORT": str(found.port), "TICKHUB_DATABASE_URL": AWAY}
        try:
            yield found
        finally:
            found.kill9()


def test_it_is_built_of_one_known_base_and_run_by_a_number_that_is_not_roots() -> None:
    (base,) = of("FROM")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    (user,) = of("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert f"useradd --uid {user.split(':')[0]}" in " ".join(of("RUN"))
    order = [kind for kind, _ in instructions()]
    assert order.index("USER") > max(at for at, kind in enumerate(order) if kind in ("RUN", "COPY"))
    assert tuple(json.loads(of("ENTRYPOINT")[0])) == ENTRYPOINT
    assert of("CMD") == ['["serve"]']


def test_what_is_copied_is_there_and_nothing_else_gets_to_the_builder() -> None:
    for source in copied():
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    assert ignored("app/web/__pycache__/api.pyc")
    for secret in (".env", "deploy/.env", "data", "data/journal", ".git", ".venv", "tests/waiting.py", "app.pem"):
        assert ignored(secret), secret


def test_the_programs_of_postgresql_need_nothing_that_a_slim_image_lacks() -> None:
    binaries = installed_binaries()
    ldd = shutil.which("ldd")
    assert ldd is not None
    for name in POSTGRES:
        said = subprocess.run([ldd, binaries / name], capture_output=True, text=True, check=True).stdout
        assert "not found" not in said
        for line in said.splitlines():
            library, _, where = line.strip().partition(" => ")
            own = str(binaries.parent.parent) in where
            assert own or Path(library.split()[0]).name.split(".")[0] in IN_SLIM, (name, line)


@pytest.mark.long
def test_its_command_serves_as_a_plain_user_and_its_health_check_says_so(server: Deployed, image: Path) -> None:
    options, words = of("HEALTHCHECK")[0].split(" CMD ")
    check = json.loads(words)
    assert "--start-period" in options
    # From a container's own address others can reach it: it does not start without keys.
    for status, command in ((2, server.command), (1, check)):
        refused = run(command, image, server.environ)
        assert (refused.returncode, "API key" in refused.stderr, "Traceback" in refused.stderr) == (status, True, False)
    server.environ["TICKHUB_REQUIRE_API_KEYS"] = "true"
    down = run(check, image, server.environ)
    assert (down.returncode, "refused" in down.stderr) == (1, True)
    server.start().wait_accepting()
    assert run(check, image, server.environ).returncode == 0
    assert run([*check, "--database"], image, server.environ).returncode == 1
    assert not list(image.rglob("__pycache__")), "where nothing can be written nothing is tried"
    assert server.stop() == 0
    assert of("STOPSIGNAL") == ["SIGTERM"]
    assert run(check, image, server.environ).returncode == 1


@pytest.mark.long
def test_every_command_has_what_it_needs(image: Path) -> None:
    modules = sorted({module for module, _ in COMMANDS.values()})
    every = ["python", "-c", f"import importlib; [importlib.import_module(name) for name in {modules!r}]"]
    done = run(every, image)
    assert done.returncode == 0, done.stderr
    doctor = run([*ENTRYPOINT, "doctor"], image, plain_environ(TICKHUB_DATA_DIR=str(image.parent / "none")))
    assert "FileNotFoundError" not in doctor.stdout + doctor.stderr
    for service, spec in Composition().services.items():
        for word in spec.get("entrypoint", []):
            assert not word.startswith("deploy/") or word in copied(), service


def test_the_script_that_waits_for_the_day_runs_what_was_missed_once(image: Path, tmp_path: Path) -> None:
    stamp, said = tmp_path / "stamp", tmp_path / "said"
    script = ["sh", str(image / "deploy" / "daily.sh"), far_from_now(), str(stamp)]
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    # The third rest ends it: what is between is what a day is.
    fake = f'#!/bin/sh\necho "sleep $1" >> {said}\n[ "$(wc -l < {said})" -lt 3 ] || kill $PPID\n'
    (bin_dir / "sleep").write_text(fake)
    (bin_dir / "sleep").chmod(0o755)
    environ = plain_environ()
    environ["PATH"] = f"{bin_dir}:{environ['PATH']}"

    def daily(*command: str) -> list[str]:
        said.write_text("")
        done = subprocess.run([*script, *command], env=environ, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return said.read_text().splitlines()

    assert daily("sh", "-c", "exit 1") == ["sleep 3600", "sleep 30", "sleep 3600"]
    assert not stamp.exists()
    count = f"echo ran >> {tmp_path}/ran"
    assert daily("sh", "-c", count) == ["sleep 30"] * 3
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert daily("sh", "-c", count) == ["sleep 30"] * 3
    assert (tmp_path / "ran").read_text() == "ran\n"
    yesterday = stamp.stat().st_mtime - 86_400
    os.utime(stamp, (yesterday, yesterday))
    daily("sh", "-c", count)
    assert (tmp_path / "ran").read_text() == "ran\nran\n"
