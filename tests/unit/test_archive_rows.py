"""Ticks as columns of a Parquet file: what comes out is what went in, in every bit; what follows is not stored."""

from __future__ import annotations

from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.archive.checking import compare, in_order, read_file
from app.archive.compacting import MOST_FILES, to_write_anew
from app.archive.writing import write_file
from app.errors import ArchiveAway
from app.market.flags import sides
from app.market.identity import derive_seq, seq_of
from app.storage import archive_reader
from app.storage.archive_files import Manifest, TickFile
from app.storage.archive_reader import Place, read_archived
from app.storage.archive_rows import RAW, WholeTicks, ordinals
from tests.tick_sets import MIDNIGHT_US, Row, rows

NAMES = {1: "TSLA", 2: "NVDA", 3: "OIL"}


def whole(made: list[Row]) -> WholeTicks:
    """Return rows as they are stored, by (symbol_id, time, seq)."""
    made = sorted(made, key=lambda row: (row.symbol_id, row.time_us, row.seq))

    def column(name: str, kind: type) -> np.ndarray:
        return np.array([getattr(row, name) for row in made], kind)

    flags, volume = column("flags", np.int32), column("volume", np.float64)
    return WholeTicks(
        column("symbol_id", np.int32),
        column("time_us", np.int64),
        column("seq", np.int64),
        *(column(name, np.float64) for name in ("bid", "ask", "last", "spread")),
        volume,
        *sides(flags, volume),
        flags,
        column("journal_no", np.int32),
        column("received_us", np.int64),
    )


def with_derived(ticks: WholeTicks, wanted: list[bool]) -> WholeTicks:
    """Give some ticks the seq that they would have without one, each equal to the others of its kind once more."""
    number = np.array(wanted[: len(ticks)] + [False] * (len(ticks) - len(wanted)), np.bool_)
    names = list(NAMES.values())
    symbol = ticks.symbol_id - 1
    made = derive_seq(names, symbol, ticks.time_us, ticks.bid, ticks.ask, ticks.last, ticks.volume, ticks.flags)
    ticks.seq = np.where(number, made, ticks.seq)
    return ticks.take(np.lexsort((ticks.seq, ticks.time_us, ticks.symbol_id)))


@settings(max_examples=60, deadline=None)
@given(rows(), st.lists(st.booleans(), max_size=40))
def test_what_comes_out_is_what_went_in(
    tmp_path_factory: pytest.TempPathFactory, made: list[Row], derived: list[bool]
) -> None:
    if not made:
        return
    ticks = with_derived(whole(made), derived)
    path = tmp_path_factory.mktemp("archive") / "ticks-1.parquet"
    file = write_file(path, [ticks], NAMES, lambda _: None)
    assert compare([ticks], read_file(path, file.symbols), lambda _: None) == len(ticks) == file.rows


def test_a_file_gets_to_the_disk_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("app.archive.writing.sync", lambda path: synced.append(path.stat().st_size))
    monkeypatch.setattr("app.archive.writing.PORTION_BYTES", 1 << 14)
    ticks = whole([Row(time_us=MIDNIGHT_US + i * i, bid=1.0 + i / 7) for i in range(2000)])
    file = write_file(tmp_path / "ticks-1.parquet", [ticks] * 20, NAMES, lambda _: None)
    assert synced[-1] == file.bytes
    assert len(synced) > 3
    a_part = max(synced[0], *(after - before for before, after in pairwise(synced)))
    assert a_part < (1 << 14) + file.bytes / 10  # what is written between two looks comes on top


def test_the_ordinal_of_a_derived_seq_is_found_and_that_of_another_is_not() -> None:
    ticks = whole([Row(seq=i, last=2.0, volume=1.0, flags=24) for i in range(20)])
    occurrence = np.arange(20)
    names = ["TSLA"]
    columns = ticks.time_us, ticks.bid, ticks.ask, ticks.last, ticks.volume, ticks.flags
    ticks.seq = seq_of(names, np.zeros(20, np.int32), *columns, occurrence)
    assert np.array_equal(ticks.seq, derive_seq(names, np.zeros(20, np.int32), *columns))
    found = ordinals(ticks, NAMES)
    assert found[:16].tolist() == [-1 - i for i in range(16)]
    assert (found[16:] == RAW).all(), "too many equal ones: they keep their numbers"
    assert (ordinals(ticks, {1: "ANOTHER"}) == RAW).all()
    ticks.seq = np.array([0, 7, *[-5] * 18])
    assert ordinals(ticks, NAMES)[:3].tolist() == [0, 7, RAW]


@settings(max_examples=40, deadline=None)
@given(rows(), st.lists(st.integers(0, 4), min_size=40, max_size=40), st.integers(1, 6))
def test_files_come_in_one_order(made: list[Row], files: list[int], page_rows: int) -> None:
    parts = [whole([row for row, of in zip(made, files, strict=False) if of == number]) for number in range(5)]
    pages = [[part.take(slice(at, at + page_rows)) for at in range(0, len(part), page_rows)] for part in parts]
    assert compare([whole(made)], in_order(pages), lambda _: None) == len(made)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**9), st.lists(st.integers(1, 30_000), max_size=300))
def test_files_stay_few_and_each_is_written_anew_only_to_be_larger_by_a_quarter(archived: int, late: list[int]) -> None:
    def file(rows: int) -> TickFile:
        return TickFile(str(next(names)), rows, 0, "", {}, [], (0, 0))

    names = count()
    files = [file(archived)]
    for some in late:
        files.append(file(some))
        anew = to_write_anew(files)
        if anew:
            largest, total = max(one.rows for one in anew), sum(one.rows for one in anew)
            assert total >= largest * 5 / 4
            files = [*(one for one in files if one not in anew), file(total)]
        assert len(files) <= MOST_FILES
    assert sum(one.rows for one in files) == archived + sum(late)


def place_of(ticks: WholeTicks, row: int) -> Place:
    time_us, seq = int(ticks.time_us[row]), int(ticks.seq[row])
    if seq >= 0:
        return time_us, False, seq, 0, 0
    return time_us, True, 0, int(ticks.received_us[row]), int(ticks.journal_no[row])


@settings(max_examples=25, deadline=None)
@given(rows(), rows(max_size=10), st.integers(1, 7), st.booleans(), st.sampled_from([2, 3, 1000]), st.booleans())
def test_pages_of_files_hold_every_tick_once_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[Row],
    late: list[Row],
    page_rows: int,
    descending: bool,
    group_rows: int,
    large: bool,
) -> None:
    """Row groups of a few rows: what a page leaves out for having enough must not be missing."""
    keys = {(row.symbol_id, row.time_us, row.seq) for row in made}
    orders = {place_key(row) for row in made}
    late = [row for row in late if (row.symbol_id, row.time_us, row.seq) not in keys and place_key(row) not in orders]
    root = tmp_path_factory.mktemp("archive")
    (root / "w").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.archive.writing.GROUP_ROWS", group_rows)
        files = [
            write_file(root / "w" / f"ticks-{n}.parquet", [whole(part)], NAMES, lambda _: None)
            for n, part in enumerate((made, late), 1)
            if part
        ]
    if not files:
        return
    manifest = manifest_of(files)
    ticks = whole([*made, *late])
    size = 0 if large else archive_reader.SMALL_ROWS
    for symbol_id in (1, 2, 3):
        own = ticks.take(ticks.symbol_id == symbol_id)
        order = sorted(range(len(own)), key=lambda row: place_of(own, row), reverse=descending)
        wanted = [own.key(row) for row in order]
        found: list[tuple[int, int, int]] = []
        after: Place | None = None
        while True:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(archive_reader, "SMALL_ROWS", size)
                page = read_archived(
                    root,
                    "w",
                    manifest,
                    symbol_id,
                    manifest.start_us,
                    manifest.end_us,
                    after=after,
                    descending=descending,
                    max_rows=page_rows,
                )
            found += [page.key(row) for row in range(len(page))]
            if len(page) < page_rows:
                break
            time_us, derived, number, received_us, no = place_of(page, -1)
            edge = -(2**62) if descending else 2**62
            after = (time_us, derived, number, received_us if derived else edge, no)
        assert found == wanted


def place_key(row: Row) -> tuple[object, ...]:
    if row.seq >= 0:
        return row.symbol_id, row.time_us, row.seq
    return row.symbol_id, row.time_us, "derived", row.received_us, row.journal_no


def manifest_of(files: list[TickFile]) -> Manifest:
    day_us = 86_400_000_000
    total = sum(file.rows for file in files)
    return Manifest(1, MIDNIGHT_US - 2 * day_us, MIDNIGHT_US + 2 * day_us, total, 0, 0, "", [], files)


def test_a_page_decodes_the_row_groups_that_it_needs_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").mkdir()
    monkeypatch.setattr("app.archive.writing.GROUP_ROWS", 100)
    ticks = whole([Row(time_us=MIDNIGHT_US + i, bid=1.0) for i in range(5000)])
    file = write_file(tmp_path / "w" / "ticks-1.parquet", [ticks], NAMES, lambda _: None)
    asked: list[tuple[int, int]] = []
    real = archive_reader._run

    def noted(query: str, parameters: dict[str, object], paths: list[Path]) -> object:
        asked.append((int(str(parameters["low"])), int(str(parameters["high"]))))
        return real(query, parameters, paths)

    monkeypatch.setattr(archive_reader, "_run", noted)
    manifest = manifest_of([file])

    def first_us(after_us: int, rows: int, descending: bool = False) -> int:
        after = (after_us, False, 0, -(2**62) if descending else 2**62, 0)
        bounds = (MIDNIGHT_US, MIDNIGHT_US + 5000)
        page = read_archived(tmp_path, "w", manifest, 1, *bounds, after=after, descending=descending, max_rows=rows)
        assert len(page) == rows
        return int(page.time_us[0]) - MIDNIGHT_US

    for descending in (False, True):
        assert first_us(MIDNIGHT_US + 2500, 50, descending) == (2499 if descending else 2501)
    assert all(high - low == 100 for low, high in asked), asked
    asked.clear()
    monkeypatch.setattr(archive_reader, "SMALL_ROWS", 100)
    for at in range(900):
        assert first_us(MIDNIGHT_US + 100 + at, 150) == 101 + at
    assert [high - MIDNIGHT_US for _, high in asked] == [400, 800, 1200], "each is decoded once"


def test_a_file_that_is_gone_is_noticed_though_its_rows_were_decoded(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    ticks = whole([Row(time_us=MIDNIGHT_US + i, bid=1.0) for i in range(5)])
    file = write_file(tmp_path / "w" / "ticks-1.parquet", [ticks], NAMES, lambda _: None)
    bounds = (MIDNIGHT_US, MIDNIGHT_US + 5)

    def read() -> WholeTicks:
        return read_archived(tmp_path, "w", manifest_of([file]), 1, *bounds, after=None, descending=False, max_rows=9)

    assert len(read()) == 5
    with pytest.raises(ValueError, match="read-only"):
        read().bid[0] = 2.0
    (tmp_path / "w" / "ticks-1.parquet").unlink()
    with pytest.raises(ArchiveAway):
        read()
