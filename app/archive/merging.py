"""Late ticks: those that came for archived times, into the archive or back among the others. Blocking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg2.extensions import cursor as Cursor

from app.archive.checking import compare, read_file
from app.archive.place import ArchiveError, Place
from app.archive.weeks import Range, Week, hold, set_manifest
from app.archive.writing import write_file, write_manifest
from app.market import bars
from app.market.columns import I8, Mask, StoredTicks
from app.storage.archive_files import Manifest, TickFile, load
from app.storage.archive_reader import nothing, read_keys
from app.storage.archive_rows import SELECT, WholeTicks, joined, read_late
from app.storage.bars_sql import merge_bars, merge_current
from app.storage.connection import Connection
from app.storage.resent import add_resent
from app.storage.set_aside import set_aside
from app.storage.ticks_writer import TickStore

LATE_ROWS = 20_000
"""Late ticks merged in a transaction, some 0.2 s: flushes with ticks of that week wait so long."""

_IDENTITY = ("bid", "ask", "last", "volume", "flags")
_CONFLICT = ("seq_conflict", "another tick has this symbol, time and seq; this one differs from it")
_LATE = """
    SELECT {columns}, row_no FROM late_ticks WHERE {where}
    ORDER BY symbol_id, time, seq LIMIT %(limit)s
"""
_OF_A_WEEK = "time >= %(start)s::timestamptz AND time < %(end)s::timestamptz"
_STRAYS = """NOT EXISTS (SELECT FROM tick_ranges r WHERE r.range @> time AND r.state IN ('archiving', 'archived'))"""
_COUNT = "SELECT count(*) FROM late_ticks WHERE time >= %(start)s::timestamptz AND time < %(end)s::timestamptz"
_DELETE = """
    DELETE FROM late_ticks l USING unnest(%(ids)s::integer[], %(times)s::bigint[], %(seqs)s::bigint[]) k (id, us, seq)
    WHERE l.symbol_id = k.id AND l.seq = k.seq
        AND l.time = timestamptz '1970-01-01 00:00:00Z' + k.us * interval '1 microsecond'
"""
# Relative, as a flush's: whichever comes second adds to what the first one left.
_LEDGER = """
    UPDATE ingest_log SET stored = stored - %(gone)s - %(aside)s, duplicates = duplicates + %(gone)s,
        set_aside = set_aside + %(aside)s
    WHERE journal_no = %(journal_no)s
"""
_INSTRUMENTS = "SELECT symbol_id, symbol, allow_nonpositive FROM instruments"


@dataclass(slots=True)
class Merged:
    """What became of late ticks."""

    added: int = 0
    duplicates: int = 0
    set_aside: int = 0

    @property
    def rows(self) -> int:
        """Return how many they were."""
        return self.added + self.duplicates + self.set_aside

    def __iadd__(self, other: Merged) -> Merged:
        self.added += other.added
        self.duplicates += other.duplicates
        self.set_aside += other.set_aside
        return self


@dataclass(slots=True)
class _Late:
    """Late ticks by (symbol_id, time, seq), and where each came from."""

    ticks: WholeTicks
    row_no: I8
    names: dict[int, str]
    nonpositive: set[int]

    def stored(self, rows: Mask | npt.NDArray[np.intp]) -> StoredTicks:
        """Return some of them as a flush has them."""
        ticks = self.ticks.take(rows)
        return StoredTicks(
            symbol_id=ticks.symbol_id,
            time_us=ticks.time_us,
            seq=ticks.seq,
            bid=ticks.bid,
            ask=ticks.ask,
            last=ticks.last,
            spread=ticks.spread,
            volume=ticks.volume,
            flags=ticks.flags,
            journal_no=ticks.journal_no,
            received_us=ticks.received_us,
            row_no=self.row_no[rows],
            nonpositive_ok=np.isin(ticks.symbol_id, sorted(self.nonpositive)),
        )


def late_rows(cur: Cursor, week: Week) -> int:
    """Return how many late ticks of a week wait."""
    cur.execute(_COUNT, week.bounds)
    row = cur.fetchone()
    assert row is not None
    return int(row[0])


def merge_page(connection: Connection, place: Place, known: Range, step: Callable[[str], None]) -> Merged | None:
    """Merge some late ticks of an archived week; None: there are none. Call again with the week's new row.

    Raises ArchiveError, ArchiveAway, DatabaseAway; then nothing was changed that counts.
    """
    week = known.week
    if known.manifest is None or known.sha256 is None or known.derived_rows is None:
        raise ArchiveError(f"the week {week.name} is {known.state}, not archived")
    with connection.transaction() as cur:
        late = _read(cur, _OF_A_WEEK, week.bounds)
    if not len(late.ticks):
        return None
    below, _, name = known.manifest.rpartition("/")
    folder = place.root / below
    manifest = load(place.root, known.manifest, known.sha256)
    same, other = _compared(late.ticks, _archived(place, below, manifest, late.ticks))
    new = ~(same | other)
    sha256: str = known.sha256
    sizes: dict[str, int] | None = None
    if new.any():
        files = [*manifest.files, _add_file(place, folder, late, new, step)]
        derived = known.derived_rows + int((late.ticks.seq[new] < 0).sum())
        name, sha256, sizes = write_manifest(folder, week, next_number(folder, "manifest"), files, derived)
        place.copy(folder)
        step("late kept")
    with connection.transaction() as cur:
        # First, as a flush does: else each could hold what the other waits for.
        hold(cur, week, known.manifest)
        _take_out(cur, late)
        added = late.stored(new)
        if len(added):
            merge_bars(cur, bars.aggregate(added))
            merge_current(cur, bars.newest(added), late.names)
        _correct(cur, late, same, other)
        if sizes is not None:
            set_manifest(cur, week, "archived", f"{below}/{name}", sha256, sizes)
    step("late merged")
    return Merged(int(new.sum()), int(same.sum()), int(other.sum()))


def put_back(connection: Connection) -> bool:
    """Write some late ticks of times that are not archived (any more) as a flush would have; False: there are none.

    Raises DatabaseAway.
    """
    with connection.transaction() as cur:
        late = _read(cur, _STRAYS, {})
        if not len(late.ticks):
            return False
        _take_out(cur, late)
        for journal_no in np.unique(late.ticks.journal_no):
            rows = late.ticks.journal_no == journal_no
            outcome = TickStore().write(cur, late.stored(rows), late.names)
            cur.execute(
                _LEDGER,
                {"gone": outcome.duplicates, "aside": outcome.set_aside, "journal_no": int(journal_no)},
            )
    return True


def _read(cur: Cursor, where: str, parameters: dict[str, str]) -> _Late:
    cur.execute(_INSTRUMENTS)
    instruments = cur.fetchall()
    query = cur.mogrify(_LATE.format(columns=SELECT, where=where), {**parameters, "limit": LATE_ROWS})
    ticks, row_no = read_late(cur, query)
    names = dict.fromkeys(set(ticks.symbol_id.tolist()), "")
    names |= {number: symbol for number, symbol, _ in instruments}
    return _Late(ticks, row_no, names, {number for number, _, nonpositive_ok in instruments if nonpositive_ok})


def _archived(place: Place, folder: str, manifest: Manifest, late: WholeTicks) -> WholeTicks:
    """Return the archived ticks that share symbol and time with late ones."""
    parts = [nothing()]
    for symbol_id in np.unique(late.symbol_id):
        times = np.unique(late.time_us[late.symbol_id == symbol_id])
        parts.append(read_keys(place.root, folder, manifest, int(symbol_id), times.tolist()))
    return joined(parts)


def _compared(late: WholeTicks, archived: WholeTicks) -> tuple[Mask, Mask]:
    """Tell which late ticks are archived already, and which have a key of another archived tick."""
    at = {archived.key(row): row for row in range(len(archived))}
    same, other = np.zeros(len(late), np.bool_), np.zeros(len(late), np.bool_)
    for row in range(len(late)):
        found = at.get(late.key(row))
        if found is not None:
            same[row] = all(_equal(getattr(late, name)[row], getattr(archived, name)[found]) for name in _IDENTITY)
            other[row] = not same[row]
    return same, other


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # NaN: none was sent


def _add_file(place: Place, folder: Path, late: _Late, new: Mask, step: Callable[[str], None]) -> TickFile:
    """Write the new ones to one more file of the week and read it back; nothing names it yet."""
    made = place.new_folder()
    name = f"ticks-{next_number(folder, 'ticks')}.parquet"
    ticks = late.ticks.take(new)
    file = write_file(made / name, [ticks], late.names, lambda _: None)
    step("late written")
    compare([ticks], read_file(made / name, file.symbols), lambda _: None)
    place.add(made, folder)
    return file


def next_number(folder: Path, kind: str) -> int:
    """Return a number that no file of that kind in the directory has."""
    numbers = [int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{kind}-*")]
    return max(numbers, default=0) + 1


def _take_out(cur: Cursor, late: _Late) -> None:
    keys = late.ticks
    times_and_seqs = {"times": keys.time_us.tolist(), "seqs": keys.seq.tolist()}
    cur.execute(_DELETE, {"ids": keys.symbol_id.tolist(), **times_and_seqs})
    if cur.rowcount != len(keys):
        raise ArchiveError("late ticks were taken away by somebody else")


def _correct(cur: Cursor, late: _Late, same: Mask, other: Mask) -> None:
    """Count in the ledger what turned out to be no new tick, and keep what is in conflict with an archived one."""
    if other.any():
        set_aside(cur, late.stored(other), late.names, *_CONFLICT)
    if same.any():
        again = late.ticks.take(same)
        add_resent(cur, again.symbol_id, again.time_us, again.journal_no)
    for journal_no in np.unique(late.ticks.journal_no[same | other]).tolist():
        mine = late.ticks.journal_no == journal_no
        counts = {"gone": int((same & mine).sum()), "aside": int((other & mine).sum())}
        cur.execute(_LEDGER, {**counts, "journal_no": journal_no})
