"""Real files through the bridge, with everything killed: what the importer loads from them, and what they say."""

from __future__ import annotations

import filecmp
import gzip
import random
import re
from bisect import bisect_left as bisect
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import CLEAN, Server
from tests.process.plain import (
    COPY_BARS,
    COPY_CURRENT,
    COPY_TICKS,
    HEADER,
    Export,
    Row,
    bars_that_differ,
    copy_out,
    read_copy,
    read_plainly,
    repeated_lines,
    wall_line,
)
from tests.process.proof import assert_ledger_adds_up
from tests.process.replaying import add_instruments, import_clean, replay_through, replays
from tests.process.test_kill import kill_all, kill_master, kill_postmaster, kill_worker
from tests.real_market import REAL, real_data

SEED = 20_131_008
NEW_YORK, UTC_ZONE = "America/New_York", "UTC"
SET_BACK = datetime(2025, 11, 2, 6, tzinfo=UTC)
"""When New York's clock was set back an hour."""

FILES = {
    NEW_YORK: [
        ("SPY", "SPY_trades_20131008", 451_545, 66_984, None),
        ("IBM", "IBM_20131008-10", 449_508, 8_914, 2),
    ],
    UTC_ZONE: [
        ("XAUUSD", "XAUUSD_oanda_20140506-09", 721_783, None, 3),
        ("EURUSD", "EURUSD_oanda_20140506-09", 221_698, None, 5),
        ("GC", "GCZ13_trades_20131007-09", 156_452, 27_350, 1),
    ],
}


def real_exports(zone: str) -> list[Export]:
    folder = Path(str(REAL)) / "ticks"
    return [
        Export(symbol, folder / f"{name}.tsv.gz", zone, rows, repeated, digits)
        for symbol, name, rows, repeated, digits in FILES[zone]
    ]


def assert_holds_what_the_file_says(server: Server, export: Export, folder: Path) -> Path:
    """Compare the stored ticks with the file, row for row; return them as a file."""
    path = copy_out(server.database, COPY_TICKS, export.symbol, folder / f"{export.symbol}.ticks")
    count = 0
    for count, (said, has) in enumerate(zip_longest(read_plainly(export), read_copy(path)), 1):
        assert said == has, f"{export.symbol}, row {count}"
    assert count == export.rows
    return path


def assert_as_imported(server: Server, export: Export, clock: str, ticks: Path) -> None:
    """Compare ticks, bars and current with those of the importer, in every column but the journal's."""
    import_clean(export, server, clock)
    imported = copy_out(server.database, COPY_TICKS, export.symbol, ticks.with_suffix(".imported"), CLEAN)
    assert filecmp.cmp(ticks, imported, shallow=False), f"{export.symbol}: the importer stored other ticks"
    for what, query in (("bars", COPY_BARS), ("current", COPY_CURRENT)):
        mine, theirs = (
            copy_out(server.database, query, export.symbol, ticks.with_suffix(f".{what}.{name}"), name)
            for name in ("tickhub", CLEAN)
        )
        assert mine.stat().st_size > 0
        assert filecmp.cmp(mine, theirs, shallow=False), f"{export.symbol}: the importer's {what} are others"


def assert_accounted_for(server: Server, exports: list[Export]) -> None:
    """The ledger adds up, and the figures of the server's present life with it; nothing was refused."""
    stats = server.wait_drained()
    assert stats["ticks_received"] == stats["ticks_processed"]
    assert stats["ticks_received"] == stats["stored"] + stats["duplicates"]
    assert (stats["rejected"], stats["set_aside"], stats["buffer_size"]) == (0, 0, 0)
    assert_ledger_adds_up(server, sum(export.rows for export in exports))
    assert server.database.rows("SELECT count(*) FROM rejected_ticks") == [(0,)]
    assert server.database.rows("SELECT sum(stored), sum(skipped) FROM ingest_log") == [
        (sum(export.rows for export in exports), 0)
    ]


@pytest.mark.long
@pytest.mark.timeout(900)
@real_data
@pytest.mark.parametrize("zone", [NEW_YORK, UTC_ZONE])
def test_real_files_arrive_row_for_row_though_everything_is_killed(
    make_server: MakeServer, tmp_path: Path, zone: str
) -> None:
    exports, rng = real_exports(zone), random.Random(SEED)
    server = make_server("--tick-timezone", zone, workers=2)
    server.database.up()
    add_instruments(server.database, exports)
    server.start().wait_ready()
    kills = [None, kill_worker, kill_postmaster, None, kill_master, kill_worker, kill_all, None]
    with replays(exports, server, tmp_path / "bridges") as begun:
        replay_through(kills, begun, server, rng)
        assert sum(replay.log().count("going on behind line") for replay in begun) >= 2
    assert_accounted_for(server, exports)
    for export in exports:
        ticks = assert_holds_what_the_file_says(server, export, tmp_path)
        assert export.repeated in (None, repeated_lines(export))
        assert_as_imported(server, export, zone, ticks)
    assert bars_that_differ(server.database) == []
    assert server.stop() == 0, server.log()


@real_data
def test_the_beginning_of_a_real_file_arrives_once_though_all_is_killed_and_it_is_sent_again(
    make_server: MakeServer, tmp_path: Path
) -> None:
    rows, path = 20_000, tmp_path / "SPY.tsv.gz"
    whole = real_exports(NEW_YORK)[0]
    with gzip.open(whole.path, "rt", newline="") as lines:
        path.write_bytes(gzip.compress("".join(next(lines) for _ in range(rows + 1)).encode(), 1))
    export = Export("SPY", path, NEW_YORK, rows)
    server = make_server("--tick-timezone", NEW_YORK, "--unknown-symbols", "register", workers=2)
    server.start().wait_accepting()
    small = ["--batch", "50", "--spool-max-rows", "1000"]
    kills = [kill_postmaster, None, kill_worker, kill_master, None]
    with replays([export], server, tmp_path / "bridge", *small) as begun:
        replay_through(kills, begun, server, random.Random(SEED))
    assert_accounted_for(server, [export])
    before = server.stats()
    with replays([export], server, tmp_path / "bridge") as begun:
        replay_through([], begun, server, random.Random(SEED))
    assert_accounted_for(server, [export])
    after = server.stats()
    assert after["ticks_received"] - before["ticks_received"] == rows
    assert after["duplicates"] - before["duplicates"] == rows
    ticks = assert_holds_what_the_file_says(server, export, tmp_path)
    assert_as_imported(server, export, NEW_YORK, ticks)
    assert bars_that_differ(server.database) == []
    assert server.stop() == 0, server.log()


def moments(rng: random.Random) -> list[datetime]:
    """Return ascending moments around both changes of New York's clock in 2025, many of them equal."""
    found: list[datetime] = []
    for change in (datetime(2025, 3, 9, 7, tzinfo=UTC), SET_BACK):
        # In whole half seconds, so that the repeated hour shows the same readings twice.
        found += [change + timedelta(seconds=rng.randrange(-14_400, 14_400) / 2) for _ in range(3000)]
        found += [change + timedelta(microseconds=us) for us in (-1000, -1000, 0, 0, 1000)]
        found += [change + timedelta(hours=1, microseconds=us) for us in (-1000, 0, 0)]
    return sorted(found)


@pytest.mark.long
def test_ticks_of_an_hour_that_the_clock_repeats_arrive_as_they_were_by_bridge_and_importer(
    make_server: MakeServer, tmp_path: Path
) -> None:
    rng, clock = random.Random(SEED), "America/New_York+7h"
    expected, times = list[Row](), moments(rng)
    path, symbol = tmp_path / "TSLA.csv", "TSLA"
    with path.open("w", newline="") as file:
        file.write(HEADER)
        for utc in times:
            bid, last = rng.randint(1000, 1010) / 10, rng.random() < 0.3
            prices = f"\t\t{bid}\t1.50000000\t56" if last else f"{bid}\t\t\t\t2"
            file.write(wall_line(utc, NEW_YORK, 7, prices))
            time_us = (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
            seq = expected[-1][1] + 1 if expected and expected[-1][0] == time_us else 0
            values = (
                (None, None, bid, 1.5, 56, None, 1.5, 0.0)
                if last
                else (bid, None, None, 0.0, 2, None, 0.0, 0.0)
            )
            expected.append((time_us, seq, *values))
    export = Export(symbol, path, NEW_YORK, len(expected))
    server = make_server("--tick-timezone", clock).start().wait_ready()
    # Read in steps of 5,000 lines and held back by a small spool, a bridge dies with the second pass half read.
    with replays([export], server, tmp_path / "bridge", "--batch", "100", "--spool-max-rows", "200") as begun:
        replay_through([None, kill_worker, None, None], begun, server, rng)
        behind = [int(line) for line in re.findall(r"going on behind line (\d+)", begun[0].log())]
    second_pass = range(*(bisect(times, at) for at in (SET_BACK, SET_BACK + timedelta(hours=1))))
    assert any(line in second_pass for line in behind)
    assert_accounted_for(server, [export])
    ticks = copy_out(server.database, COPY_TICKS, symbol, tmp_path / "TSLA.ticks")
    assert list(read_copy(ticks)) == expected
    assert_as_imported(server, export, clock, ticks)
    assert server.stop() == 0, server.log()
