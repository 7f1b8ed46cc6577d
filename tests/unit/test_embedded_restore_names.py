"""How a restore calls what was there before."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from app.storage.embedded_restore import free_name


def test_two_restores_in_a_second_keep_both_clusters_that_were_there(tmp_path: Path) -> None:
    now = datetime(2026, 1, 13, 17, 54, 43, tzinfo=UTC)
    names = []
    for _ in range(3):
        name = free_name(tmp_path / "postgres", now)
        name.mkdir()
        names.append(name.name)
    assert names == [f"postgres.before-20260113T175443Z{suffix}" for suffix in ("", "-2", "-3")]
