"""One history, backed up in a chain, and what restores of it bring: into new directories, over old ones, killed."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from app.backup.following import FILE, Following
from tests.process.backups import backups_of, everything, follows, now, send, stored, ticks
from tests.process.commands import app
from tests.process.harness import ROOT, Server, copy_template, folder
from tests.waiting import WAIT_S, wait_until

pytestmark = pytest.mark.long

BATCHES = (range(50), range(100, 150), range(200, 250))
OF_THE_ELECTION = {"leases"}
"""Written every second."""

DYING = """
import os, pathlib, sys
from app.backup import recovering, restoring, taking
from app.backup.catalog import Catalog
from app.cli import main

step = sys.argv[1]
rename, real = pathlib.Path.rename, restoring.put_in_place

def die(*_):
    os.kill(os.getpid(), 9)

def between(path, target):
    return die() if pathlib.Path(target).name == "postgres" else rename(path, target)

def after(*given):
    real(*given)
    die()

if step == "combined":
    recovering.clean_settings = die
elif step == "trial":
    recovering._look = die
elif step == "before the switch":
    restoring.put_in_place = die
elif step == "in the switch":
    pathlib.Path.rename = between
elif step == "behind the switch":
    restoring.put_in_place = after
elif step == "taken":
    taking.verify_files = die
elif step == "verified":
    taking.archived.copy_all = die
elif step == "named":
    Catalog.sync = die
sys.exit(main(sys.argv[2:]))
"""


NO_NOTES = """
import sys
from app.backup.catalog import Catalog
from app.backup.tools import BackupError
from app.cli import main

def full(*_):
    raise BackupError("no space")

Catalog.save = full
if main(sys.argv[1:]) == 0:
    print("(no notes)")
"""


@dataclass
class History:
    """A server that is stopped, its backups, a moment behind each batch, and all its rows."""

    server: Server
    backups: Path
    moments: list[str]
    rows: dict[str, list[str]]
    parent: Path

    def fresh(self, stack: ExitStack, name: str) -> Server:
        """Return a server with a new data directory and these backups."""
        server = Server(self.parent / name, environ={"TICKHUB_BACKUP_DIR": str(self.backups)})
        stack.callback(server.close)
        return server


@pytest.fixture(scope="module")
def history(data_template: Path) -> Iterator[History]:
    with folder() as parent, ExitStack() as stack:
        home, backups = copy_template(data_template, parent / "data"), parent / "backups"
        server = Server(home, environ={"TICKHUB_BACKUP_DIR": str(backups)})
        stack.callback(server.close)
        server.start().wait_ready()
        follows(server)
        moments = []
        for kind, batch in zip(("full", "incremental", "incremental"), BATCHES, strict=True):
            app(server, "backup", kind)
            send(server, batch.start, len(batch))
            moments.append(now())
        follows(server)
        rows = everything(server.database)
        assert server.stop() == 0
        yield History(server, backups, moments, rows, parent)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def test_a_chain_comes_back_row_for_row_in_a_new_directory(history: History, stack: ExitStack) -> None:
    server = history.fresh(stack, "row-for-row")
    told = app(server, "restore")
    assert "3 backups in its chain" in told
    assert "CANNOT BE READ" not in told
    server.database.up()
    found = everything(server.database)
    assert found.keys() == history.rows.keys()
    assert len(found["ticks"]) == sum(map(len, BATCHES))
    assert found["bars"]
    for name in found.keys() - OF_THE_ELECTION:
        assert found[name] == history.rows[name], name
    # And it goes on: the same ticks are known, new ones are taken.
    server.start().wait_ready()
    send(server, 0, 50)
    send(server, 300, 1)
    assert stored(server.database) == [*BATCHES[0], *BATCHES[1], *BATCHES[2], 300]


def test_a_moment_between_two_batches_is_met_whichever_backup_it_begins_with(
    history: History, stack: ExitStack
) -> None:
    for count, moment in enumerate(history.moments, 1):
        server = history.fresh(stack, f"moment-{count}")
        assert f"{50 * count} ticks" in app(server, "restore", "--at", moment)
        server.database.up()
        assert stored(server.database) == [number for batch in BATCHES[:count] for number in batch]
        server.database.remove()
        shutil.rmtree(server.home)


def test_backups_that_can_only_be_read_are_restored(history: History, stack: ExitStack) -> None:
    there = history.parent / "read-only"
    there.mkdir()
    if subprocess.run(["mount", "--bind", history.backups, there], check=False).returncode:
        pytest.skip("mounting is not allowed here; the test below runs everywhere")
    stack.callback(subprocess.run, ["umount", "-l", there], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", there], check=True)
    server = history.fresh(stack, "from-read-only")
    server.environ["TICKHUB_BACKUP_DIR"] = str(there)
    assert "3 backups in its chain" in app(server, "restore", "--verify-only")
    # As after a crash: journals of this database are there, whose last was not copied.
    shutil.copytree(history.backups / "journal", server.home / "journal")
    last = sorted(server.home.glob("journal/*/*.seg"))[-1]
    copied = last.read_bytes()
    last.write_bytes(copied + b"TKJ1")
    told = app(server, "restore", expect=1)
    assert "Read-only file system. Copy the backups to where they can be written" in told
    last.write_bytes(copied)
    assert f"{there} can only be read" in app(server, "restore")
    server.database.up()
    assert stored(server.database) == [number for batch in BATCHES for number in batch]


def test_what_cannot_be_noted_is_told_and_keeps_nobody_from_trying_a_restore(
    history: History, stack: ExitStack
) -> None:
    def no_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    server = history.fresh(stack, "no-notes")
    done = run(server, "-m", "app", "backup", "verify", preexec=no_files)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.fullmatch(r"tickhub: \S+-full is sound, but: \S+-full\.json cannot be written: .+\n", done.stderr)
    assert "(no notes)" in run(server, "-c", NO_NOTES, "restore", "--verify-only").stdout


@pytest.fixture
def linked(history: History, stack: ExitStack) -> Path:
    """The history's backups once more, to take files of them away."""
    less = history.parent / "linked"
    shutil.copytree(history.backups, less, copy_function=os.link)
    stack.callback(shutil.rmtree, less)
    return less


def test_over_wal_that_is_missing_in_the_middle_nothing_is_restored_unless_it_is_asked_for(
    history: History, stack: ExitStack, linked: Path
) -> None:
    [full] = sorted((history.backups / "base").glob("*-full"))
    server = history.fresh(stack, "missing-wal")
    assert "CANNOT BE READ" not in app(server, "restore", full.name, "--verify-only")
    reached = msgspec.json.decode((linked / FILE).read_bytes(), type=Following).wal_reached
    segments = sorted(path for path in (linked / "wal").iterdir() if len(path.name) == 24)
    assert reached is not None
    assert reached[0] == 1
    assert reached[1] > int(segments[-1].name[16:], 16) * (1 << 24)
    segments[-2].unlink()
    nobody_copied_between(linked, history.moments[1], history.moments[2])
    server.environ["TICKHUB_BACKUP_DIR"] = str(linked)
    damage = "CANNOT BE READ: a segment from there on is damaged or missing. The database is as it was at "
    told = app(server, "restore", full.name, "--at", history.moments[2], expect=1)
    assert damage in told
    assert "to go on all the same --up-to-the-damage" in told
    assert "no commit after that moment" not in told
    assert re.search(r"nobody made those may be missing: \S+ \S+Z to \S+ \S+Z\); imports, ", told)
    assert not (server.home / "postgres").exists()
    tried = app(server, "restore", full.name, "--verify-only")
    assert damage in tried
    assert "a restore would need --up-to-the-damage" in tried
    assert damage in app(server, "restore", full.name, "--up-to-the-damage")
    server.start().wait_ready()
    server.wait_drained()
    assert stored(server.database) == [number for batch in BATCHES for number in batch]


def nobody_copied_between(backups: Path, begin: str, end: str) -> None:
    file = backups / FILE
    known = msgspec.json.decode(file.read_bytes(), type=Following)
    gap = (datetime.fromisoformat(begin), datetime.fromisoformat(end))
    file.unlink()  # a link to that of others
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(known, gaps=(gap,))))


def test_a_restore_that_could_not_be_noted_is_refused_at_once(history: History, stack: ExitStack, linked: Path) -> None:
    server = history.fresh(stack, "no-room")
    (linked / "wal" / "room.new").symlink_to("/dev/full")
    server.environ["TICKHUB_BACKUP_DIR"] = str(linked)
    told = app(server, "restore", expect=1)
    assert re.fullmatch(
        r"tickhub: the restore cannot be noted in \S+/wal: No space left on device: .+ free there\n", told
    )


def test_a_restore_that_is_killed_at_any_step_is_done_by_doing_it_again(history: History, stack: ExitStack) -> None:
    server = history.fresh(stack, "killed")
    app(server, "restore", "--at", history.moments[0])
    server.start().wait_ready()
    send(server, 1000, 7)
    server.stop()
    args = ["restore", "--at", history.moments[1], "--drop-existing"]
    for step in ("combined", "trial", "before the switch", "in the switch", "behind the switch"):
        dies(server, step, *args)
        if "switch" in step:
            # Neither the database nor its journals are in order now: nobody may take ticks.
            assert "do it again" in app(server, "database", "up", expect=1)
            process = server.start().process
            assert process is not None
            assert process.wait(WAIT_S) != 0
            assert "do it again" in server.log()
        else:
            server.database.up()
            assert stored(server.database) == [*BATCHES[0], *range(1000, 1007)]
            server.database.down()
    app(server, *args)
    server.start().wait_ready()
    server.wait_drained()
    assert stored(server.database) == [*BATCHES[0], *BATCHES[1]]
    assert not list(server.home.glob("*.restoring*"))


@pytest.mark.timeout(600)
def test_who_restored_to_too_early_a_moment_can_go_to_a_later_one_and_nothing_undone_comes_back(
    history: History, stack: ExitStack
) -> None:
    server = history.fresh(stack, "again")
    backups = history.parent / "backups-again"
    shutil.copytree(history.backups, backups)
    server.environ["TICKHUB_BACKUP_DIR"] = str(backups)
    app(server, "restore", "--at", history.moments[0])
    server.start().wait_ready()
    follows(server)
    assert "the database was restored since its newest backup" in app(server, "backup", "incremental", expect=1)
    assert "-full" in app(server, "backup", "daily")
    send(server, 500, 10)
    follows(server)
    on_the_new_course = now()
    send(server, 600, 10)
    follows(server)
    server.kill9()
    server.database.remove()
    # Of the new course, of which what was undone is no part.
    app(server, "restore", "--at", on_the_new_course, "--drop-existing")
    server.database.up()
    assert stored(server.database) == [*BATCHES[0], *range(500, 510)]
    server.database.down()
    # The later moment of the old one, as if it had never been restored.
    assert "150 ticks" in app(server, "restore", "--at", history.moments[2], "--drop-existing")
    server.start().wait_ready()
    follows(server)
    assert stored(server.database) == [number for batch in BATCHES for number in batch]
    assert server.post(ticks(700, 1))[0] == 200
    wait_until(lambda: len(stored(server.database)) == 151, what="it to go on")
    assert server.stop() == 0
    # That last one is undone by hand: the cluster that was set aside goes on, and its backups do.
    for name in ("postgres", "journal"):
        (server.home / name).rename(server.home / f"{name}.left")
        sorted(server.home.glob(f"{name}.before-*"))[-1].rename(server.home / name)
    server.start().wait_ready()
    follows(server)
    assert stored(server.database) == [*BATCHES[0], *range(500, 510)]
    app(server, "backup", "full")
    send(server, 800, 5)
    follows(server)
    server.kill9()
    server.database.remove()
    assert "65 ticks" in app(server, "restore", "--drop-existing")


def test_what_a_restore_undid_stays_undone_also_where_the_first_wal_after_it_was_never_received(
    history: History, stack: ExitStack
) -> None:
    server = history.fresh(stack, "gap")
    backups = history.parent / "backups-gap"
    shutil.copytree(history.backups, backups)
    server.environ["TICKHUB_BACKUP_DIR"] = str(backups)
    app(server, "restore", "--at", history.moments[0])
    server.environ["TICKHUB_BACKUP_WAL"] = "false"
    server.start().wait_ready()
    send(server, 500, 10)
    for _ in range(8):
        server.database.rows("SELECT pg_switch_wal()")
        send(server, 510, 1)
    assert server.stop() == 0
    server.environ["TICKHUB_BACKUP_WAL"] = "true"
    server.start().wait_ready()
    follows(server)
    send(server, 520, 5)
    follows(server)
    server.kill9()
    said = app(server, "restore", "--drop-existing")
    assert "of the WAL behind the restore that left timeline 1 at " in said
    assert "ticks and records since then come back by copies of their journals" in said
    server.start().wait_ready()
    server.wait_drained()
    assert stored(server.database) == [*BATCHES[0], *range(500, 511), *range(520, 525)]


@pytest.fixture
def elsewhere(history: History, stack: ExitStack) -> Server:
    """The history's server, its database running, with an empty directory for backups."""
    environ = {"TICKHUB_BACKUP_DIR": str(history.parent / "elsewhere")}
    server = Server(history.server.home, environ=environ)
    stack.callback(shutil.rmtree, history.parent / "elsewhere")
    stack.callback(server.close)
    server.database.up()
    return server


def test_a_backup_that_is_killed_at_any_step_is_none_and_the_next_one_is_sound(elsewhere: Server) -> None:
    for step in ("taken", "verified", "named"):
        dies(elsewhere, step, "backup", "full")
        assert "no backups" in app(elsewhere, "backup", "list")
    assert app(elsewhere, "backup", "full").count("sound") == 1
    [found] = (backups_of(elsewhere) / "base").glob("*/")
    assert found.with_name(f"{found.name}.json").exists()
    assert app(elsewhere, "backup", "verify").count("sound") == 1


def test_a_file_that_a_backup_cannot_write_leaves_no_half_backup(elsewhere: Server) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = run(elsewhere, "-m", "app", "backup", "full", preexec=small_files)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "pg_basebackup failed" in done.stderr
    assert list((backups_of(elsewhere) / "base").iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_it_is_full(elsewhere: Server) -> None:
    backups = backups_of(elsewhere)
    backups.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", backups], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here; the test above runs everywhere")
    try:
        assert "GB free: prune, or set another backup_dir" in app(elsewhere, "backup", "full", expect=1)
        assert "no backups" in app(elsewhere, "backup", "list")
    finally:
        subprocess.run(["umount", "-l", backups], check=True)


def run(server: Server, *args: str, preexec: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env=server.environ,
        timeout=2 * WAIT_S,
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=preexec,
    )


def dies(server: Server, step: str, *args: str) -> None:
    """Run a command that is killed at a step."""
    done = run(server, "-c", DYING, step, *args)
    assert done.returncode == -9, done.stdout + done.stderr
