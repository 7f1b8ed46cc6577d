"""Records of a file into the database, each once.

What a file holds that can be taken is a journal of its own, named by its content: an import that was cut off goes on
where the ledger stands, and a second one finds nothing to do.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from app.datasets.accept import AcceptedRecords, accept_records
from app.datasets.declare import Dataset, Policy
from app.datasets.decode import SentAs, decode_records
from app.datasets.records import LAYOUT, Records
from app.errors import DatabaseAway, LedgerMoved, TickhubError
from app.formats.encoders import Format
from app.market.accept import Limits
from app.market.batches import Batch, LedgerEntry, Record
from app.market.clock import BrokerClock
from app.market.decode import Rejected
from app.market.symbols import SymbolMap
from app.settings import Settings
from app.storage import ledger
from app.storage.connection import Connection
from app.storage.instruments import read_instruments
from app.storage.sink import DatabaseSink
from app.storage.writers import writers

BLOCK_ROWS = 5000
"""Records of a transaction: some tenths of a second, which an import that was cut off does again at most."""

TRIES = 6
"""A database that restarts is waited for: 0.5 + 1 + 2 + 4 + 8 s."""

SHOWN_REFUSALS = 20
MOST_ROWS = 1 << 40


@dataclass(slots=True)
class Imported:
    """What became of a file's records in this run."""

    dataset: str
    stored: int = 0
    duplicates: int = 0
    set_aside: int = 0
    refused: int = 0
    before: int = 0

    def __str__(self) -> str:
        """Return it as a line for people."""
        again = f" ({self.before:,} had been imported before)" if self.before else ""
        return (
            f"{self.stored:,} of {self.dataset} stored, {self.duplicates:,} there already, {self.set_aside:,} set "
            f"aside in rejected_records, {self.refused:,} refused{again}"
        )


def import_records(
    connection: Connection,
    dataset: Dataset,
    path: Path,
    form: Format,
    zipped: bool,
    policy: Policy,
    settings: Settings,
) -> Imported:
    """Import a file, telling on stderr which records are refused. Raises TickhubError."""
    try:
        body = path.read_bytes()
        body = gzip.decompress(body) if zipped else body
    except (OSError, EOFError, zlib.error) as error:
        raise TickhubError(f"{path}: {error}") from error
    accepted = _accepted(connection, dataset, body, form, policy, settings)
    for refused in accepted.rejected[:SHOWN_REFUSALS]:
        print(f"record {refused.index + 1}: {refused.message}", file=sys.stderr)
    records = accepted.records
    journal_id = hashlib.sha256(dataset.name.encode() + records.encode()).hexdigest()[:32]
    sink = DatabaseSink(connection, writers())
    entry = before = _patiently(lambda: _entry(connection, journal_id))
    with tqdm(total=len(records), unit="record", unit_scale=True, disable=None, file=sys.stderr) as bar:
        while entry.next_row < len(records):
            bar.update(entry.next_row - bar.n)
            entry = _patiently(lambda: _write(connection, sink, dataset, journal_id, records))
        bar.update(entry.next_row - bar.n)
    return Imported(
        dataset.name,
        entry.stored - before.stored,
        entry.duplicates - before.duplicates,
        entry.set_aside - before.set_aside,
        len(accepted.rejected),
        before.next_row,
    )


def _accepted(
    connection: Connection, dataset: Dataset, body: bytes, form: Format, policy: Policy, settings: Settings
) -> AcceptedRecords:
    if form in ("arrow", "parquet"):
        body, form = _lines(body, form), "ndjson"
    elif form == "json":
        body = _records_of(body)
    sent_as: SentAs = "csv" if form == "csv" else "ndjson" if form == "ndjson" else "json"
    symbols = SymbolMap(_patiently(lambda: read_instruments(connection)))
    limits = Limits(0, "", settings.max_future_skew_s * 1_000_000)

    def unknown(name: str) -> Rejected:
        return Rejected(0, "unknown_symbol", f"Unknown symbol: {name[:64]}")

    decoded = decode_records(dataset, body, sent_as, MOST_ROWS)
    now_us, clock = time.time_ns() // 1000, BrokerClock(settings.tick_timezone)
    return accept_records(dataset, decoded, policy, symbols, clock, limits, now_us, unknown)


class _Exported(msgspec.Struct):
    records: msgspec.Raw


def _records_of(body: bytes) -> bytes:
    """Return the list of records in an answer of /api or a file of `export`; any other body as it is."""
    try:
        return bytes(msgspec.json.decode(body, type=_Exported).records)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body


def _lines(body: bytes, form: Format) -> bytes:
    """Return an Arrow stream or a Parquet file as NDJSON. Raises TickhubError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pa.ipc.open_stream(io.BytesIO(body)).read_all() if form == "arrow" else pq.read_table(io.BytesIO(body))
        rows: list[dict[str, Any]] = table.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise TickhubError(f"this is no {form} file: {error}") from error
    return b"\n".join(map(msgspec.json.encode, rows))


def _entry(connection: Connection, journal_id: str) -> LedgerEntry:
    with connection.transaction() as cur:
        return ledger.open_entry(cur, journal_id)


def _write(
    connection: Connection, sink: DatabaseSink, dataset: Dataset, journal_id: str, records: Records
) -> LedgerEntry:
    """Write the next block, wherever the ledger is by now, and return its new entry."""
    entry = _entry(connection, journal_id)
    first = entry.next_row
    end = min(first + BLOCK_ROWS, len(records))
    block = Records(records.policy, end - first, {name: column[first:end] for name, column in records.columns.items()})
    record = Record(dataset.name, LAYOUT, len(block), first, time.time_ns() // 1000, block.encode())
    batch = Batch([record] if len(block) else [], len(block), first, end)
    return sink.write(journal_id, entry, batch).entry


def _patiently(do: Any) -> Any:
    """Do it, again and again for a while where the database is away, or somebody else was faster."""
    for attempt in range(TRIES):
        try:
            return do()
        except (DatabaseAway, LedgerMoved):
            if attempt == TRIES - 1:
                raise
            time.sleep(0.5 * 2**attempt)
    raise AssertionError("unreachable")
