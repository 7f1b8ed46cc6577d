"""A database that a test killed leaves nothing behind in the system's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.harness import Database, running_database
from tests.process.shared_memory import SharedMemory, shared_memory, unattached


@pytest.mark.parametrize("killed_before", [False, True], ids=["running", "postmaster killed before"])
def test_a_removed_database_leaves_no_memory(data_template: Path, killed_before: bool) -> None:
    with running_database(data_template) as database:
        memory = _memory(database)
        assert memory.segments
        assert len(memory.files) >= 2  # the list and what it lists
        assert all(Path(file).exists() for file in memory.files)
        if killed_before:
            database.kill9()
    assert not memory.segments & set(unattached())
    assert not any(Path(file).exists() for file in memory.files)


def test_a_database_that_runs_again_keeps_its_memory(database: Database) -> None:
    before = _memory(database)
    database.kill9()
    database.up()
    assert _memory(database) != before
    before.remove()
    assert database.rows("SELECT 1") == [(1,)]


def _memory(database: Database) -> SharedMemory:
    pid = database.postmaster_pid()
    assert pid is not None
    return shared_memory(pid)
