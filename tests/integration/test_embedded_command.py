"""`python -m app database`, as a person or the keeper calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from embedded_home import ROOT, ask, folder

from app.storage import schema


def database(action: str, home: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-m", "app", "database", action, "--data-dir", str(home), *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.long
def test_up_starts_and_migrates_and_down_stops() -> None:
    with folder() as path:
        home = path / "h"
        small = "--pg-memory", "64", "--pg-max-connections", "33"
        assert database("status", home).returncode == 1

        up = database("up", home, *small)

        assert up.returncode == 0, up.stderr
        assert up.stdout == ""
        assert "started PostgreSQL" in up.stderr
        assert ask(home, "SELECT version_num FROM alembic_version") == [(schema.HEAD,)]
        assert ask(home, "SHOW max_connections") == [("33",)]
        again = database("up", home, *small)
        assert again.returncode == 0
        assert "adopted PostgreSQL" in again.stderr
        assert database("status", home).returncode == 0
        down = database("down", home)
        assert (down.returncode, down.stderr) == (0, "PostgreSQL is down\n")
        assert database("status", home).returncode == 1


def test_with_a_database_url_nothing_embedded_is_touched() -> None:
    with folder() as path:
        home = path / "h"
        away = "--database-url", f"postgresql:///x?host={path}"

        up = database("up", home, *away)

        assert up.returncode == 1
        assert "Traceback" not in up.stderr
        for action in "down", "status":
            done = database(action, home, *away)
            assert done.returncode == 0
            assert "not ours" in done.stderr
        assert not home.exists()


def test_a_failure_is_one_line() -> None:
    with folder() as path:
        (path / "h").write_text("a file")
        up = database("up", path / "h")
        assert up.returncode == 1
        assert len(up.stderr.splitlines()) == 1
