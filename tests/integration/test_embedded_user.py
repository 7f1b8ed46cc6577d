"""The embedded server as root, who may not run PostgreSQL, and as a plain user."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_home import ROOT, ask, config, copy, folder, make_template, output, python, server

from app.storage import embedded, embedded_place
from app.storage.embedded import EmbeddedError
from app.storage.embedded_place import copied_binaries, installed_binaries
from app.storage.embedded_user import User, reaches, user_by_id, user_for

pytestmark = pytest.mark.long  # real servers and environments, made and ended by the dozen

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users, which root only can")

START = "print(*embedded.start(config), sep='\\n', flush=True)\n"


@pytest.fixture(scope="module")
def user() -> User:
    """A user who did not make the other clusters here."""
    return next(user_by_id(pwd.getpwnam(name).pw_uid) for name in ("daemon", "nobody"))


@pytest.fixture(scope="module")
def plain(user: User) -> dict[str, Any]:
    """What makes `python` run as that user, by a Python that it can reach."""
    packages = next(entry for entry in sys.path if entry.endswith("site-packages"))
    same = "python{}.{}".format(*sys.version_info)
    programs = [sys.executable, *(f"{place}/{same}" for place in ("/usr/bin", "/usr/local/bin"))]
    program = next((each for each in programs if reaches(user, Path(each).resolve())), None)
    if program is None or not reaches(user, ROOT / "app") or not reaches(user, Path(packages)):
        pytest.skip(f"{user.name} cannot reach {ROOT}, its packages or a {same}")
    environment = os.environ | {"PYTHONPATH": packages}
    identity = {"user": user.uid, "group": user.gid, "extra_groups": []}
    return {"program": program, "env": environment, **identity}


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with folder() as path:
        yield make_template(path / "t")


@root_only
def test_what_roots_user_cannot_reach_is_served_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with folder(mode=0o700, of_programs=True) as private, folder(of_programs=True) as system:
        package = installed_binaries().parents[1]
        hidden = private / "lib" / package.name
        shutil.copytree(package, hidden, ignore=shutil.ignore_patterns("include"), symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, hidden.with_name(libraries.name))
        monkeypatch.setattr(embedded_place, "installed_binaries", lambda: hidden / "pginstall" / "bin")
        homes = [private / "one", private / "two"]
        system_root = system / "r"

        told = [embedded.start(config(home), system_root=system_root) for home in homes]

        for home, lines in zip(homes, told, strict=True):
            text = "\n".join(lines)
            assert f"cannot reach {home}" in text, "it says so"
            assert "programs are in" in text
            cluster = (home / "postgres").resolve()
            assert cluster.is_relative_to(system_root)
            assert ask(home, "SHOW data_directory") == [(str(cluster),)]
            assert embedded.url(config(home)).split("host=")[1].startswith(f"{home}/")
            assert Path(server(home).exe()).is_relative_to(system_root)
        assert len({(home / "postgres").resolve() for home in homes}) == 2
        assert len(list(system_root.glob("embedded-postgres-*"))) == 1
        assert stat.S_IMODE(private.stat().st_mode) == 0o700, "no parent's mode is touched"

        process = server(homes[0])
        again = embedded.start(config(homes[0]), system_root=system_root)
        assert any("adopted" in line for line in again)
        assert server(homes[0]) == process
        for home in homes:
            assert embedded.stop(config(home))
            assert not embedded.is_running(config(home))

        shutil.rmtree((homes[0] / "postgres").resolve())
        with pytest.raises(EmbeddedError, match="which is gone"):
            embedded.start(config(homes[0]), system_root=system_root)


@root_only
def test_the_programs_are_copied_once_a_version_whatever_their_modes() -> None:
    with folder(of_programs=True) as path:
        package = path / "site" / "embedded_postgres"
        for part in "bin", "lib", "share":
            (package / "pginstall" / part).mkdir(parents=True, mode=0o700)
        program = package / "pginstall" / "bin" / "postgres"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o700)

        copied = copied_binaries(path / "system", program.parent)

        assert reaches(user_for(path / "none"), copied / "postgres")
        first = (copied / "postgres").stat()
        assert copied_binaries(path / "system", program.parent) == copied
        assert (copied / "postgres").stat().st_ino == first.st_ino
        assert len(list((path / "system").iterdir())) == 1


@root_only
def test_a_plain_user_runs_it_and_root_takes_over_as_that_user(user: User, plain: dict[str, Any]) -> None:
    with folder() as path:
        os.chown(path, user.uid, user.gid)
        home = path / "h"
        assert "started" in output(python(START, home, **plain))
        assert server(home).username() == user.name
        assert {entry.owner() for entry in home.iterdir()} == {user.name}
        check = "print(embedded.is_running(config), embedded.stop(config), embedded.is_running(config))"
        assert output(python(check, home, **plain)).split() == ["True", "True", "False"]

        lines = embedded.start(config(home))

        assert any(f"runs as user {user.name}" in line for line in lines)
        assert server(home).username() == user.name
        assert ask(home, "SELECT 1") == [(1,)]
        assert "adopted" in output(python(START, home, **plain)), "and the user may have it back"


@root_only
def test_a_plain_user_is_told_whose_a_foreign_data_directory_is(
    template: Path, plain: dict[str, Any]
) -> None:
    with folder() as path:
        home = copy(template, path / "h")
        owner = user_by_id((home / "postgres").stat().st_uid).name
        embedded.start(config(home))
        for call in "start", "stop", "is_running":
            process = python(f"embedded.{call}(config)", home, **plain)
            _, err = process.communicate(timeout=30)
            assert process.returncode != 0
            assert "EmbeddedError" in err.splitlines()[-1], err
            assert "run as" in err
            assert owner in err or "no access" in err
        process = python("embedded.start(config)", path / "new", **plain)
        assert "EmbeddedError: no access to" in process.communicate(timeout=30)[1]
        assert embedded.is_running(config(home))
        assert ask(home, "SELECT 1") == [(1,)]


@root_only
def test_nobody_else_gets_to_the_socket(template: Path, plain: dict[str, Any]) -> None:
    with folder() as path:
        home = copy(template, path / "h")
        embedded.start(config(home))
        code = "import psycopg2; psycopg2.connect(embedded.url(config))"
        process = python(code, home, **plain)
        assert "Permission denied" in process.communicate(timeout=30)[1]


@root_only
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
def test_root_without_the_right_to_look_into_processes_adopts_too(template: Path) -> None:
    with folder() as path:
        home = copy(template, path / "h")
        embedded.start(config(home))
        container = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
        refused = subprocess.run(
            [*container, "readlink", f"/proc/{server(home).pid}/cwd"], capture_output=True
        )
        assert refused.returncode != 0, "this must be what a container's root meets"

        assert "adopted" in output(python(START, home, before=container))


@root_only
def test_a_cluster_that_belongs_to_root_is_refused(template: Path) -> None:
    with folder() as path:
        home = copy(template, path / "h")
        os.chown(home / "postgres", 0, 0)
        with pytest.raises(EmbeddedError, match="belongs to root"):
            embedded.start(config(home))


def test_root_prefers_tickhub_then_postgres_then_a_new_user_then_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = [
        pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/sh"))
        for name, uid in (("root", 0), ("nobody", 65534), ("postgres", 70), ("tickhub", 71))
    ]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwall", lambda: known)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: next(entry for entry in known if entry.pw_uid == uid))

    def chosen(create: tuple[str, ...] = ("false",)) -> str:
        return user_for(Path("/nonexistent/postgres"), create).name

    assert chosen() == "tickhub"
    tickhub = known.pop()
    assert chosen() == "postgres"
    known.pop()
    assert chosen() == "nobody"
    assert chosen(("no-such-command",)) == "nobody"

    run = subprocess.run

    def useradd(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        assert command[-1] == "tickhub"
        known.append(tickhub)
        return run(["true"], check=True)

    monkeypatch.setattr(subprocess, "run", useradd)
    assert chosen(("true",)) == "tickhub"
