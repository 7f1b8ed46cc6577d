"""What `python -m app serve` leaves to the process that it becomes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from app.cli import serve
from app.settings import load


def test_pages_of_rows_come_out_of_memory_that_the_server_keeps_unless_it_is_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: became.append(arguments))
    monkeypatch.setattr(os, "chdir", lambda path: None)
    monkeypatch.setattr(os, "environ", {"MALLOC_TRIM_THRESHOLD_": "1", "TICKHUB_DATA_DIR": str(tmp_path / "data")})
    serve.run(argparse.Namespace(), load())
    (arguments,) = became
    assert arguments[1:3] == ["-m", "gunicorn"]
    assert os.environ["MALLOC_TRIM_THRESHOLD_"] == "1"
    assert os.environ["MALLOC_MMAP_THRESHOLD_"] == "4194304"
