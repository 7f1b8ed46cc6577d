"""The scripts on a stand-in house: the real scripts beside an `app` that only says how it was started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import waiting

pytestmark = pytest.mark.long  # environments, made from nothing by the dozen

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [ROOT / "scripts" / name for name in ("serve", "test", "bench", "_bootstrap.sh")] + [
    ROOT / ".ci" / "run"
]

APP = """
import json, os, sys
try:
    os.fstat(9)
    lock = "inherited"
except OSError:
    lock = "closed"
about = {"argv": sys.argv[1:], "cwd": os.getcwd(), "lock": lock, "prefix": sys.prefix, "file": __file__}
print(json.dumps(about))
sys.exit(7)
"""


def make_house(place: Path) -> Path:
    (place / "app").mkdir(parents=True)
    (place / "app" / "__init__.py").touch()
    (place / "app" / "__main__.py").write_text(APP)
    shutil.copytree(ROOT / "scripts", place / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "requirements-dev.txt"):
        (place / name).write_text("# nothing\n")
    return place


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_house(tmp_path_factory.mktemp("with space") / "a house")
    first = start(place / "scripts" / "serve")
    assert "making the environment" in first.stderr
    assert "installing requirements.txt" in first.stderr
    assert said(first)["lock"] == "closed"
    return place


def start(
    script: Path, *arguments: str, cwd: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *arguments], capture_output=True, text=True, cwd=cwd, env=os.environ | environ, timeout=120
    )


def said(got: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert got.stdout, got.stderr
    found: dict[str, object] = json.loads(got.stdout.splitlines()[-1])
    return found


def wait_until(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    def look() -> bool:
        assert process.poll() is None, "it ended too early"
        return done()

    waiting.wait_until(look)


def test_scripts_are_valid_posix_shell() -> None:
    for script in SCRIPTS:
        subprocess.run(["sh", "-n", script], check=True)


def test_scripts_can_be_run() -> None:
    assert all(os.access(script, os.X_OK) for script in SCRIPTS if script.suffix == "")


def test_the_second_start_installs_nothing_and_passes_all_on(house: Path, tmp_path: Path) -> None:
    got = start(house / "scripts" / "serve", "--port", "1", "a b", "", "$x", cwd=tmp_path)
    assert (got.stderr, got.returncode) == ("", 7)
    about = said(got)
    assert about["argv"] == ["serve", "--port", "1", "a b", "", "$x"]
    assert about["cwd"] == str(tmp_path.resolve())
    assert about["prefix"] == str(house.resolve() / ".venv")
    assert about["lock"] == "closed"


def test_it_works_through_symlinks(house: Path, tmp_path: Path) -> None:
    (tmp_path / "direct").symlink_to(house / "scripts" / "serve")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "relative").symlink_to("../direct")
    got = start(tmp_path / "bin" / "relative", cwd=tmp_path)
    assert said(got)["prefix"] == str(house.resolve() / ".venv")


def test_another_package_named_app_does_not_shadow_ours(house: Path, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    (tmp_path / "app" / "__main__.py").write_text("print('{}')")
    got = start(house / "scripts" / "serve", cwd=tmp_path)
    assert said(got)["file"] == str(house.resolve() / "app" / "__main__.py")


def test_a_home_that_cannot_be_written_is_enough(house: Path, tmp_path: Path) -> None:
    (house / "requirements.txt").write_text("# another nothing\n")
    got = start(house / "scripts" / "serve", HOME="/dev/null")
    assert got.returncode == 7


def test_changed_requirements_are_installed_once(house: Path) -> None:
    (house / "requirements.txt").write_text("# changed\n")
    assert "installing requirements.txt" in start(house / "scripts" / "serve").stderr
    assert start(house / "scripts" / "serve").stderr == ""


def test_what_the_tests_need_covers_what_the_server_needs(house: Path) -> None:
    (house / "requirements.txt").write_text("# changed again\n")
    checked = start(house / "scripts" / "test")  # installs, then fails: there is no ruff here
    assert "installing requirements-dev.txt" in checked.stderr
    assert checked.returncode == 1
    assert start(house / "scripts" / "serve").stderr == ""


def test_a_failure_of_pip_is_shown_and_tried_again(house: Path) -> None:
    good = (house / "requirements.txt").read_text()
    (house / "requirements.txt").write_text("./there-is-no-such-package\n")
    for _ in range(2):
        got = start(house / "scripts" / "serve", cwd=house)
        assert got.returncode == 1
        assert "there-is-no-such-package" in got.stderr
        assert "could not install requirements.txt" in got.stderr
    (house / "requirements.txt").write_text(good)
    assert start(house / "scripts" / "serve").returncode == 7


def test_without_a_fitting_python_one_line_says_what_is_needed(tmp_path: Path) -> None:
    place = make_house(tmp_path / "house")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "readlink", "cat", "cmp"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    for name in ("python3", "python3.11"):
        (tools / name).write_text("#!/bin/sh\nexit 1\n")
        (tools / name).chmod(0o755)
    got = start(place / "scripts" / "serve", PATH=str(tools))
    assert got.returncode == 1
    assert got.stderr.count("\n") == 1
    assert "Python 3.11 or newer" in got.stderr


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Give a house whose first start is in the middle of its installation."""
    place = make_house(tmp_path / "house")
    process = subprocess.Popen(
        [place / "scripts" / "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until((place / ".venv" / ".installing").exists, process)
    yield place, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def test_two_starts_at_once_install_once(begun: tuple[Path, subprocess.Popen[str]]) -> None:
    place, process = begun
    second = start(place / "scripts" / "serve")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, second.returncode) == (7, 7)
    assert "making the environment" in errors
    assert second.stderr == ""


def test_a_killed_installation_is_begun_again_from_nothing(begun: tuple[Path, subprocess.Popen[str]]) -> None:
    place, process = begun
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    again = start(place / "scripts" / "serve")
    assert again.returncode == 7
    assert "making the environment" in again.stderr
    assert start(place / "scripts" / "serve").stderr == ""


def test_an_installation_killed_within_pip_leaves_nothing_half(house: Path) -> None:
    good = (house / "requirements.txt").read_text()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # pip will wait for its answer
        silent.settimeout(60)
        (house / "requirements.txt").write_text(
            f"http://127.0.0.1:{silent.getsockname()[1]}/x-1-py3-none-any.whl\n"
        )
        process = subprocess.Popen(
            [house / "scripts" / "serve"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        )
        try:
            silent.accept()[0].close()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)
    (house / "requirements.txt").write_text(good)
    assert "making the environment" in start(house / "scripts" / "serve").stderr
    assert start(house / "scripts" / "serve").stderr == ""


def test_a_vanished_interpreter_is_replaced(house: Path) -> None:
    for name in ("python", "python3"):
        (house / ".venv" / "bin" / name).unlink()
        (house / ".venv" / "bin" / name).symlink_to("/nowhere/python3")
    got = start(house / "scripts" / "serve")
    assert got.returncode == 7
    assert "making the environment" in got.stderr


def test_ci_finds_the_real_data_beside_the_checkout(tmp_path: Path) -> None:
    place = tmp_path / "checkout"
    (place / "scripts").mkdir(parents=True)
    shutil.copytree(ROOT / ".ci", place / ".ci")
    (place / "scripts" / "test").write_text('#!/bin/sh\necho "$* ${REAL_MARKET_DATA-none}"\n')
    (place / "scripts" / "test").chmod(0o755)
    without = {name: text for name, text in os.environ.items() if name != "REAL_MARKET_DATA"}

    def run(**environ: str) -> str:
        return subprocess.run(
            [place / ".ci" / "run"], capture_output=True, text=True, env=without | environ, check=True
        ).stdout

    assert run() == "--all none\n"
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert run() == f"--all {tmp_path.resolve()}/shared/data\n"
    assert run(REAL_MARKET_DATA="/elsewhere") == "--all /elsewhere\n"
