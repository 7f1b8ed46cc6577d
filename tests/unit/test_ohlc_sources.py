"""Sources of daily bars against a ledger in memory: what is asked for again after an end, and what never is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.cli import ohlc_files
from app.cli.fastconnect import TRIES, Access, Clock, FastConnect, VendorAway
from app.cli.ohlc_sources import FileBars, Journal, Target, VendorDays
from app.market.batches import LedgerEntry
from app.storage.instruments import Known
from tests.process.fastconnect_stand_in import CONSUMER_ID, CONSUMER_SECRET, StandIn, stand_in

FIRST = date(2024, 1, 2)


class Rows:
    """What RowsImport does, without a database."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key

    def open(self) -> LedgerEntry:
        return self.store.entries.setdefault(self.key, LedgerEntry(1, 0))

    def write(self, entry: LedgerEntry, rows: Sequence[dict[str, Any]], end_row: int) -> LedgerEntry:
        assert entry == self.open()
        assert len(rows) <= end_row - entry.next_row
        if self.store.dies_after == len(self.store.writes):
            raise KeyboardInterrupt
        self.store.writes.append(len(rows))
        self.store.rows += rows
        moved = replace(entry, next_row=end_row, stored=entry.stored + len(rows))
        self.store.entries[self.key] = moved
        return moved


class Store(Target):
    def __init__(self) -> None:
        self.entries: dict[str, LedgerEntry] = {}
        self.rows: list[dict[str, Any]] = []
        self.writes: list[int] = []
        self.dies_after = -1
        self.salt = ""

    def instrument(self, name: str) -> Known | None:
        known = {"aapl": "AAPL", "aapl.us": "AAPL", "vcb": "VCB"}.get(name.lower())
        return Known(1, known, None, False) if known else None

    def journal(self, *identity: object) -> Journal:
        return Journal(Rows(self, f"{identity} {self.salt}"))  # type: ignore[arg-type]


@pytest.fixture
def vendor() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


def days(vendor: StandIn, last: date, folder: Path) -> VendorDays:
    access = Access(vendor.url, CONSUMER_ID, CONSUMER_SECRET, 1000)
    asking = FastConnect(access, Clock(sleep=lambda _: None))
    return VendorDays(asking, "vendor", "ssi", "VCB", FIRST, last, folder)


def nothing(*_: object) -> None:
    pass


def asked(vendor: StandIn) -> list[tuple[str, str]]:
    return [(one["fromDate"], one["toDate"]) for one in vendor.asked]


def test_the_vendor_is_asked_for_thirty_days_at_a_time_and_for_each_once(vendor: StandIn, tmp_path: Path) -> None:
    vendor.add_weekdays("VCB", FIRST, 60)
    store, done = Store(), []
    tally = days(vendor, date(2024, 3, 10), tmp_path).run(store, done.append)
    assert asked(vendor) == [
        ("02/01/2024", "31/01/2024"),
        ("01/02/2024", "01/03/2024"),
        ("02/03/2024", "10/03/2024"),
    ]
    assert tally.stored == len(store.rows) == sum(day.weekday() < 5 for day in span(FIRST, date(2024, 3, 10)))
    assert sum(done) == (date(2024, 3, 10) - FIRST).days + 1
    vendor.asked.clear()
    assert days(vendor, date(2024, 3, 10), tmp_path).run(store, nothing).rows == 0
    assert asked(vendor) == []
    assert days(vendor, date(2024, 3, 12), tmp_path).run(store, nothing).stored == 2
    assert asked(vendor) == [("11/03/2024", "12/03/2024")]


def test_a_day_that_the_vendor_has_late_is_asked_for_again_until_it_is_settled(vendor: StandIn, tmp_path: Path) -> None:
    vendor.add_weekdays("VCB", FIRST, 4)
    store, last = Store(), date(2024, 1, 9)

    def run(settled: date) -> int:
        vendor.asked.clear()
        return replace(days(vendor, last, tmp_path), settled=settled).run(store, nothing).stored

    assert run(date(2024, 1, 4)) == 4
    vendor.add("VCB", date(2024, 1, 8), 100)
    assert run(date(2024, 1, 4)) == 1
    assert asked(vendor) == [("06/01/2024", "09/01/2024")]
    assert run(last) == 0
    assert asked(vendor) == [("09/01/2024", "09/01/2024")]
    assert run(last) == 0
    assert asked(vendor) == []


def span(first: date, last: date) -> list[date]:
    return [first + timedelta(number) for number in range((last - first).days + 1)]


def test_what_was_answered_before_the_vendor_went_away_is_kept(vendor: StandIn, tmp_path: Path) -> None:
    traded = vendor.add_weekdays("VCB", FIRST, 60)
    vendor.faults = [None, *["500"] * TRIES]  # type: ignore[list-item]
    store = Store()
    with pytest.raises(VendorAway, match="HTTP 500"):
        days(vendor, traded[-1], tmp_path).run(store, nothing)
    before = len(store.rows)
    assert 0 < before < 60
    assert days(vendor, traded[-1], tmp_path).run(store, nothing).stored == 60 - before
    stored = [date(1970, 1, 1) + timedelta(microseconds=row["timestamp"]) for row in store.rows]
    assert stored == traded
    assert len(asked(vendor)) == len(set(asked(vendor)))


def test_bad_rows_of_the_vendor_are_listed_and_the_others_go_in(vendor: StandIn, tmp_path: Path) -> None:
    vendor.add_weekdays("VCB", FIRST, 3)
    vendor.add("VCB", date(2024, 1, 8), 100, Open="0")
    vendor.add("VCB", date(2024, 1, 9), 100, Volume="many")
    vendor.add("VCB", date(2024, 1, 10), 100, TradingDate="31/02/2024")
    vendor.add("VCB", date(2024, 1, 11), 100, Symbol="FPT")
    vendor.add("VCB", date(2024, 1, 12), 100)
    vendor.add("VCB", date(2024, 1, 12), 200)
    store = Store()
    tally = days(vendor, date(2024, 1, 20), tmp_path).run(store, nothing)
    assert (tally.stored, tally.rejected) == (4, 4)
    listed = (tmp_path / "ssi.VCB.rejects").read_text()
    for why in ("open is not above zero", "volume is no number: 'many'", "no such day: '31/02/2024'", "not FPT"):
        assert why in listed
    assert store.rows[-1]["close"] == 200, "of a day that comes twice the later row counts"


def test_a_file_goes_on_at_the_row_that_the_ledger_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ohlc_files, "BLOCK_ROWS", 10)
    rows = [f"aapl.us,{FIRST + timedelta(number)},10,12,9,11,{number}" for number in range(45)]
    rows[3], rows[30] = "aapl,?,10,12,9,11,3", "NOBODY,2024-01-02,1,1,1,1,30"
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["symbol,date,open,high,low,close,volume", *rows]))
    source = FileBars(path, "import", None, "dmy", [], tmp_path)
    store = Store()
    store.dies_after = 2
    with pytest.raises(KeyboardInterrupt):
        source.run(store, nothing, nothing)
    assert (tmp_path / "a.csv.rejects").read_text().splitlines()[1].startswith("5\t")
    store.dies_after = -1
    tally = source.run(store, nothing, nothing)
    assert (tally.stored, tally.rejected, store.writes) == (24, 1, [9, 10, 10, 9, 5])
    assert [row["volume"] for row in store.rows] == [number for number in range(45) if number not in (3, 30)]
    assert {row["symbol"] for row in store.rows} == {"AAPL"}
    listed = (tmp_path / "a.csv.rejects").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == ["line", "5", "32"]
    assert "Unknown symbol: NOBODY" in listed[2]
    assert source.run(store, nothing, nothing).rows == 0
    store.salt = "again"
    assert source.run(store, nothing, nothing).stored == 43


def test_only_the_symbols_that_are_wanted_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("symbol,date,open,high,low,close\nAAPL,2024-01-02,1,1,1,1\nVCB,2024-01-02,1,1,1,1\n")
    store = Store()
    tally = FileBars(path, "import", None, "dmy", ["aapl.us"], tmp_path).run(store, nothing, nothing)
    assert (tally.stored, tally.left_out, tally.rejected) == (1, 1, 0)
    assert store.rows[0]["symbol"] == "AAPL"
