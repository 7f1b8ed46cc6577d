"""Write the records of any declared dataset, by its policy. Lane side.

Records of one request have one policy; the rows of a flush are written request by request in the order in which they
were accepted. Of a key that comes several times in one, the rows are first made one, as if each had been written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import psycopg2
from psycopg2.extensions import cursor as Cursor

from app.datasets.declare import Dataset, Policy
from app.datasets.records import Records
from app.market.batches import Outcome, Record
from app.storage.connection import Connection, first_line, is_about_a_row
from app.storage.instruments import InstrumentIds, canonical_names
from app.storage.partitions import MonthPartitions
from app.storage.rollups import Rollup
from app.storage.rows_folding import Row, fold
from app.storage.rows_policies import Raced, apply_policy, lock_stored
from app.storage.rows_rejected import Refused, set_aside

_KEPT_FROM = "SELECT (extract(epoch FROM time) * 1000000)::bigint FROM kept_from WHERE dataset = %s"
"""Read in the transaction that writes: who drops a range waits for all that have read it (storage/retention.py)."""
_TOO_OLD = ("too_old", "records of this time were removed from the database")
MAX_RACES = 10
"""Others write the same new keys at the same moment: once, perhaps twice."""


@dataclass(slots=True)
class Prepared:
    """Rows ready to be written, in order, in parts of one policy."""

    journal_no: int
    parts: list[tuple[Policy, list[Row]]]


@dataclass(slots=True)
class _Part:
    """What became of some rows; it counts only if their savepoint is kept."""

    stored: int = 0
    duplicates: int = 0

    def __iadd__(self, other: _Part) -> _Part:
        self.stored += other.stored
        self.duplicates += other.duplicates
        return self


class RowsWriter:
    """The writer of one dataset; `ids` may be shared by those of one connection."""

    def __init__(self, dataset: Dataset, ids: InstrumentIds) -> None:
        self.dataset = dataset
        self._ids = ids
        self._partitions = None if dataset.partitions is None else MonthPartitions(dataset.table)
        self._rollup = Rollup(dataset) if dataset.rollup else None

    def prepare(self, connection: Connection, journal_no: int, records: Sequence[Record]) -> Prepared | None:
        """Decode the records to rows with ids; make missing instruments and partitions. Raises DatabaseAway."""
        dataset = self.dataset
        decoded = [Records.decode(dataset, record.payload, record.layout) for record in records]
        ids: Mapping[str, int | str] = {}
        if dataset.symbol is not None:
            names = sorted({name for part in decoded for name in part.columns[dataset.symbol] if isinstance(name, str)})
            if dataset.adds_symbols:
                ids = canonical_names(connection, names)
            else:
                found = self._ids.resolve(connection, names)
                if found is None:
                    return None
                ids = {name: known.symbol_id for name, known in zip(names, found, strict=True)}
        if self._partitions is not None and dataset.time is not None:
            times = np.array([us for part in decoded for us in part.columns[dataset.time]], np.int64)
            if not self._partitions.ensure(connection, times):
                return None
        rows: list[tuple[Policy, Row]] = []
        for record, part in zip(records, decoded, strict=True):
            named = list(part.columns)
            for at, values in enumerate(zip(*part.columns.values(), strict=True)):
                row = Row.of(dataset, dict(zip(named, values, strict=True)), ids)
                row.row_no, row.received_us = record.first_row + at, record.received_us + at
                rows.append((part.policy, row))
        return Prepared(
            journal_no, [(policy, [row for _, row in part]) for policy, part in groupby(rows, lambda pair: pair[0])]
        )

    def write(self, cur: Cursor, prepared: Prepared) -> Outcome:
        """Write the rows in the open transaction; set aside what cannot be stored."""
        outcome, total = Outcome(), _Part()
        refused: list[Refused] = []
        for policy, rows in self._without_dropped(cur, prepared.parts, refused):
            self._write_or_split(cur, policy, rows, total, refused)
        if self._rollup is not None and total.stored:
            gone = {one.row.row_no for one in refused if one.reason == _TOO_OLD}
            written = (row for _, rows in prepared.parts for row in rows if row.row_no not in gone)
            self._rollup.remake(cur, (row.key for row in written))
        set_aside(cur, self.dataset, prepared.journal_no, refused)
        outcome.stored, outcome.duplicates, outcome.set_aside = total.stored, total.duplicates, len(refused)
        for (code, message), alike in groupby(sorted(one.reason for one in refused)):
            count = len(list(alike))
            outcome.notes.append(f"{count} of {self.dataset.name} set aside in rejected_records: {code}: {message}")
        return outcome

    def _without_dropped(
        self, cur: Cursor, parts: list[tuple[Policy, list[Row]]], refused: list[Refused]
    ) -> list[tuple[Policy, list[Row]]]:
        """Return what is of a time whose records are kept."""
        time = self.dataset.time
        if self._partitions is None or time is None:
            return parts
        cur.execute(_KEPT_FROM, (self.dataset.name,))
        found = cur.fetchone()
        if found is None:
            return parts
        at, kept = self.dataset.key.index(time), []
        for policy, rows in parts:
            refused += [Refused(row, *_TOO_OLD) for row in rows if row.key[at] < found[0]]
            kept.append((policy, [row for row in rows if row.key[at] >= found[0]]))
        return [(policy, rows) for policy, rows in kept if rows]

    def _write_or_split(
        self, cur: Cursor, policy: Policy, rows: list[Row], total: _Part, refused: list[Refused]
    ) -> None:
        """Write the rows; when the database refuses one of them, find it by halves and set it aside."""
        for _ in range(MAX_RACES):
            part, aside = _Part(), list[Refused]()
            cur.execute("SAVEPOINT records")
            try:
                self._write(cur, policy, rows, part, aside)
            except Raced:
                cur.execute("ROLLBACK TO SAVEPOINT records; RELEASE SAVEPOINT records")
                continue
            except psycopg2.Error as error:
                # A text too long for an index is the row's own trouble, too: a limit of the program (class 54).
                if not is_about_a_row(error) and not (error.pgcode or "").startswith("54"):
                    raise
                cur.execute("ROLLBACK TO SAVEPOINT records; RELEASE SAVEPOINT records")
                if len(rows) == 1:
                    refused.append(Refused(rows[0], "refused", first_line(error)))
                    return
                half = len(rows) // 2
                self._write_or_split(cur, policy, rows[:half], total, refused)
                self._write_or_split(cur, policy, rows[half:], total, refused)
                return
            cur.execute("RELEASE SAVEPOINT records")
            total += part
            refused += aside
            return
        raise psycopg2.OperationalError(f"the same {self.dataset.name} are being written by others over and over")

    def _write(self, cur: Cursor, policy: Policy, rows: list[Row], part: _Part, refused: list[Refused]) -> None:
        own, known = self.dataset.own_time, None
        if own is not None and policy == "keep_newest":
            # A row that is older than the stored one must not be made one with a newer row of its key.
            told = list(zip(rows, lock_stored(cur, self.dataset, rows), strict=True))
            told = [
                (row, stored_us) for row, stored_us in told if stored_us is None or row.values[own.name] >= stored_us
            ]
            known = len({row.key for row, stored_us in told if stored_us is not None})
            part.duplicates += len(rows) - len(told)
            rows = [row for row, _ in told]
        folded = fold(self.dataset, policy, rows)
        outcome = apply_policy(cur, self.dataset, policy, folded.rows)
        if known is not None and outcome.found > known:
            raise Raced
        later = apply_policy(cur, self.dataset, policy, folded.later)
        part.stored += outcome.stored + folded.stored
        part.duplicates += outcome.duplicates + later.duplicates + folded.duplicates
        message = "another record of the same key is there, and on_duplicate is error"
        refused += [Refused(row, "conflict", message) for row in [*outcome.conflicts, *later.conflicts]]
