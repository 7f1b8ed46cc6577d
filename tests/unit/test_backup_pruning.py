"""Dumps that are too old go; the newest stays."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.backup.catalog import Catalog
from app.backup.pruning import prune

NOW = datetime(2026, 1, 13, 2, tzinfo=UTC)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    made = Catalog(tmp_path / "backups")
    made.base.mkdir(parents=True)
    made.dumps.mkdir()
    return made


def dumped(catalog: Catalog, days_ago: int) -> str:
    at = NOW - timedelta(days=days_ago)
    path = catalog.dumps / f"{at:%Y%m%dT%H%M%SZ}.dump"
    path.write_bytes(b"PGDMP")
    os.utime(path, (at.timestamp(), at.timestamp()))
    return path.name


def pruned(catalog: Catalog, keep_days: int) -> int:
    return prune(catalog, catalog.root / "archive", NOW, keep_days, 0).dumps


def dumps(catalog: Catalog) -> set[str]:
    return {path.name for path in catalog.dumps.iterdir()}


def test_dumps_go_by_age_but_for_the_newest(catalog: Catalog) -> None:
    *_, newest = (dumped(catalog, days) for days in (90, 60, 40))
    assert pruned(catalog, 50) == 2
    assert dumps(catalog) == {newest}
    assert pruned(catalog, 30) == 0, "it may be all that there is"
    assert dumps(catalog) == {newest}
    young = dumped(catalog, 29)
    assert pruned(catalog, 30) == 1
    assert dumps(catalog) == {young}


def test_dumps_are_kept_for_ever_when_nothing_goes_by_age(catalog: Catalog) -> None:
    kept = {dumped(catalog, days) for days in (900, 600)}
    assert pruned(catalog, 0) == 0
    assert dumps(catalog) == kept


def test_where_no_dump_was_taken_there_is_none_to_remove(catalog: Catalog) -> None:
    catalog.dumps.rmdir()
    assert pruned(catalog, 30) == 0
