"""The examples in docs/notebooks, run against a real server: what they print is what the page shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.testing.compare import compare_images

from tests.process.harness import ROOT, wait_until

NOTEBOOKS = ROOT / "docs" / "notebooks"


@pytest.mark.long
def test_the_first_look_prints_and_draws_what_its_page_shows(make_server, tmp_path: Path) -> None:
    server = make_server(workers=2).start().wait_ready()
    wait_until(lambda: server.log().count("the database is connected") == 2, what="both workers")
    for name in ("first_look.py", "render.py"):
        shutil.copy(NOTEBOOKS / name, tmp_path)
    environ = os.environ | {"MARKET_SERVER": f"http://127.0.0.1:{server.port}"}
    for _ in range(2):  # the second time everything is there already
        command = [sys.executable, "render.py", "first_look.py"]
        subprocess.run(command, cwd=tmp_path, env=environ, check=True, timeout=120)
        assert (tmp_path / "first_look.md").read_text() == (NOTEBOOKS / "first_look.md").read_text()
    assert compare_images(str(NOTEBOOKS / "first_look.png"), str(tmp_path / "first_look.png"), tol=5) is None
    assert server.stats()["duplicates"] == server.stats()["stored"] == 20_000


def test_the_pictures_are_small() -> None:
    pictures = list(NOTEBOOKS.glob("*.png"))
    assert pictures
    assert all(path.stat().st_size < 200_000 for path in pictures)
