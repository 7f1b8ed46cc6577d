"""The formats where they run: on lanes beside an event loop, with bounded memory, importing no more than they need."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.formats.arrow_rows import ROW_GROUP_ROWS, Parquet
from app.formats.encoders import make_encoder
from app.formats.table import NULL_INT, Field, Table

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60

FIELDS = (Field("timestamp", "time"), Field("price", "float"), Field("seq", "int"), Field("side", "text"))

SETTING = """
import json, sys
import numpy as np
from app.formats.encoders import Gzipped, make_encoder
from app.formats.table import Field, Table

FIELDS = (Field("timestamp", "time"), Field("price", "float"), Field("seq", "int"), Field("side", "text"))
ROWS = 3000
TABLE = Table(FIELDS, [np.arange(ROWS) * 10**9, np.arange(ROWS) / 7, np.arange(ROWS), ["buy", None, 'a"b'] * 1000])

def answer(form, gzip=False):
    into = make_encoder(form, FIELDS, list_name="rows", extra={})
    into = Gzipped(into) if gzip else into
    return b"".join([into.head(), into.rows(TABLE), into.rows(TABLE), into.tail(None)])
"""

ON_LANES = (
    "from gevent import monkey; monkey.patch_all()"
    + SETTING
    + """
import gevent
from app.lanes import Lane

beats = 0
def beat():
    global beats
    while True:
        gevent.sleep(0.0005)  # the beat that is counted
        beats += 1

gevent.spawn(beat)
FORMATS = ["csv", "arrow", "parquet", "json", "ndjson"]
lanes = [Lane(str(place)) for place in range(3)]
# Each lane begins with another format, so that several import pyarrow at once.
waiting = [
    gevent.spawn(lambda lane, place: {
        (form, gzip): lane.call(answer, form, gzip)
        for gzip in (False, True) for form in FORMATS[place:] + FORMATS[:place]
    }, lane, place)
    for place, lane in enumerate(lanes)
]
gevent.joinall(waiting)
answers = [found.get() for found in waiting]
for lane in lanes:
    lane.stop()
print(json.dumps({
    "sizes": {form: len(answers[0][form, False]) for form in FORMATS},
    "equal": all(other == answers[0] for other in answers[1:]),
    "as_here": all(answers[0][form, gzip] == answer(form, gzip) for form in FORMATS for gzip in (False, True)),
    "beats": beats,
}))
"""
)


def run(source: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_format_runs_on_several_lanes_beside_a_patched_event_loop_and_the_process_ends() -> None:
    found = run(ON_LANES)
    assert min(found["sizes"].values()) > 5_000
    assert found["equal"]
    assert found["as_here"]
    assert found["beats"] > 0


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_a_format_imports_only_what_it_needs(form: str) -> None:
    loaded = run(SETTING + f"answer({form!r}); print(json.dumps(sorted(set(sys.modules) & {{'pyarrow', 'pandas'}})))")
    assert loaded == ([] if form in ("json", "ndjson") else ["pyarrow"])


def page(first: int, rows: int) -> Table:
    numbers = np.arange(first, first + rows, dtype=np.int64)
    return Table(FIELDS, [numbers * 10**6, numbers / 7, numbers, ["buy"] * rows])


def test_parquet_lets_go_of_the_rows_of_a_row_group_once_it_is_written() -> None:
    into = Parquet(FIELDS)
    data = [into.head()]
    kept: list[weakref.ref[Any]] = []
    most_kept = most_bytes = 0
    page_rows = ROW_GROUP_ROWS // 4
    for place in range(40):
        now = page(place * page_rows, page_rows)
        kept += [weakref.ref(now.columns[1])]
        data.append(into.rows(now))
        del now
        most_kept = max(most_kept, sum(ref() is not None for ref in kept))
        most_bytes = max(most_bytes, pa.total_allocated_bytes())
    assert most_kept == 3  # the fourth page fills the row group, and all four leave
    assert [bool(part) for part in data[1:]] == [False, False, False, True] * 10
    assert most_bytes < 16 * 2**20
    data.append(into.tail(None))
    found = pq.ParquetFile(io.BytesIO(b"".join(data)))
    assert [found.metadata.row_group(group).num_rows for group in range(found.num_row_groups)] == [ROW_GROUP_ROWS] * 10
    assert found.read().column("seq").to_numpy().tolist() == list(range(40 * page_rows))


def test_a_page_larger_than_a_row_group_is_written_as_several() -> None:
    into = Parquet(FIELDS)
    rows = 2 * ROW_GROUP_ROWS + 5
    data = into.head() + into.rows(page(0, rows)) + into.tail(None)
    found = pq.ParquetFile(io.BytesIO(data)).metadata
    assert [found.row_group(group).num_rows for group in range(found.num_row_groups)] == [ROW_GROUP_ROWS] * 2 + [5]


def test_another_reader_of_parquet_finds_the_extremes(tmp_path: Path) -> None:
    # Steps between these numbers do not fit into 64 bits, in which the encoding by steps counts.
    numbers = [2**63 - 1, -(2**63) + 1, NULL_INT, 0, 2**63 - 1, -1, -(2**63) + 1]
    floats = [5e-324, -0.0, 1.7976931348623157e308, float("nan"), 0.1, -1e300, 0.0]
    times = [253_402_300_799_999_999, -62_135_596_800_000_000, 0, NULL_INT, -1, 1, 1_768_326_883_000_001]
    texts = ["", None, "ü€😀", "a\nb", '"', ",", "x" * 10_000]
    into = make_encoder("parquet", FIELDS, list_name="rows", extra={})
    path = tmp_path / "extremes.parquet"
    columns = [np.array(times), np.array(floats), np.array(numbers), list(texts)]
    path.write_bytes(into.head() + into.rows(Table(FIELDS, columns)) + into.tail(None))
    found = duckdb.sql(
        "SELECT epoch_us(timestamp), price, seq, side, typeof(timestamp) FROM read_parquet($path)",
        params={"path": str(path)},
    ).fetchall()
    got_times, got_floats, got_numbers, got_texts, types = zip(*found, strict=True)
    assert list(got_times) == [None if time_us == NULL_INT else time_us for time_us in times]
    assert [repr(value) for value in got_floats] == [repr(value).replace("nan", "None") for value in floats]
    assert list(got_numbers) == [None if number == NULL_INT else number for number in numbers]
    assert list(got_texts) == texts
    assert set(types) == {"TIMESTAMP WITH TIME ZONE"}


@pytest.mark.parametrize("form", ["json", "csv", "arrow", "parquet"])
def test_numbers_in_the_databases_byte_order_come_out_right(form: str) -> None:
    native = page(1_768_326_883, 100)
    swapped = Table(FIELDS, [v if isinstance(v, list) else v.astype(v.dtype.newbyteorder(">")) for v in native.columns])
    native_answer, swapped_answer = (
        b"".join([into.head(), into.rows(table), into.tail(None)])
        for table in (native, swapped)
        for into in [make_encoder(form, FIELDS, list_name="rows", extra={})]  # type: ignore[arg-type]
    )
    assert native_answer == swapped_answer
