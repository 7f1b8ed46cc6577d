"""Declarations, and how bodies of records become accepted columns: bad rows are named, the others are taken."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import UNSET

from app.datasets.accept import AcceptedRecords, accept_records
from app.datasets.declare import KEY_BYTES, Dataset, Policy
from app.datasets.decode import decode_records
from app.datasets.records import LAYOUT, Records
from app.datasets.registry import DATASETS
from app.errors import BadJson, TickhubError, TooLarge
from app.formats.encoders import Format, make_encoder
from app.formats.table import Field, Table
from app.market.accept import Limits
from app.market.clock import BrokerClock
from app.market.decode import Rejected
from app.market.symbols import SEED, SymbolMap
from app.storage.rows_folding import Row, fold
from tests.dataset_list import PAGE, page

NEWS, SNAPSHOTS, INFO = DATASETS["news"], DATASETS["foreign_snapshots"], DATASETS["financial_info"]
NOW_US = 1_768_400_000_000_000  # 2026-01-14T14:13:20Z
LIMITS = Limits(oldest_us=631_152_000_000_000, oldest="1990-01-01", max_ahead_us=86_400_000_000)
NOT_LIKELY = "timestamp: numbers are milliseconds since 1970"
STORY = {"symbol": "AAPL", "timestamp": "2026-01-13T17:54:43Z", "url": "https://example.com/1"}


def accepted(
    dataset: Dataset, body: bytes, sent_as: Any = "json", clock: str = "UTC", policy: Policy = "ignore"
) -> AcceptedRecords:
    def unknown(name: str) -> Rejected:
        return Rejected(0, "unknown_symbol", f"Unknown symbol: {name}")

    decoded = decode_records(dataset, body, sent_as, 1000)
    return accept_records(dataset, decoded, policy, SymbolMap(SEED), BrokerClock(clock), LIMITS, NOW_US, unknown)


def news(*records: Any) -> AcceptedRecords:
    return accepted(NEWS, json.dumps(list(records)).encode())


def refusals(found: AcceptedRecords) -> list[tuple[int, str, str]]:
    return [(one.index, one.code, one.message) for one in found.rejected]


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)
def test_every_declaration_holds_together_and_says_what_its_fields_are(dataset: Dataset) -> None:
    dataset.check()
    assert dataset.help
    assert dataset.record.__doc__
    assert all(column.help for column in dataset.columns)
    assert {column.name for column in dataset.order} == {*dataset.key, *([dataset.time] if dataset.time else [])}
    for column in dataset.values:
        if column.kind in ("float", "int"):
            assert "(" in column.help, f"{column.name} has no unit"


def test_the_list_in_the_documentation_is_what_the_declarations_say() -> None:
    assert PAGE.read_text() == page(), "python -m tests.dataset_list"


def test_instruments_are_called_as_they_are_known_or_as_they_may_be() -> None:
    sent = [{"symbol": "aapl.us", "digits": 2}, {"symbol": " New/One "}, {"symbol": "no;good"}, {"symbol": "X" * 65}]
    sent += [{"symbol": "A", "timezone": "Moon/Base"}, {"symbol": "A", "name": "a\tb"}, {"symbol": "A", "digits": 16}]
    found = accepted(DATASETS["instruments"], json.dumps(sent).encode())
    assert found.records.columns["symbol"] == ["AAPL", "New/One"]
    assert refusals(found) == [
        (2, "bad_field", "symbol is not a usable name: 'no;good'"),
        (3, "bad_field", "symbol must have length <= 64"),
        (
            4,
            "bad_field",
            "timezone: no time zone is called 'Moon/Base': give an IANA name, as America/New_York",
        ),
        (5, "bad_field", "name holds characters that cannot be printed, or nothing"),
        (6, "bad_field", "digits must be <= 15"),
    ]


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        ({"symbol": "FOO"}, "unknown_symbol", "Unknown symbol: FOO"),
        ({"symbol": 7}, "bad_field", "symbol must be text"),
        ({"symbol": ""}, "bad_field", "symbol must have length >= 1"),
        ({"timestamp": "yesterday"}, "bad_field", "timestamp is not a time: 'yesterday'"),
        ({"timestamp": True}, "bad_field", "timestamp must be a time (text or epoch milliseconds)"),
        ({"timestamp": None}, "bad_field", "timestamp must be a time (text or epoch milliseconds)"),
        ({"timestamp": "2026-01-16T00:00:00Z"}, "bad_field", "timestamp is too far ahead of this server's clock"),
        ({"timestamp": "1899-12-31"}, "too_old", "timestamp is before 1900-01-01"),
        ({"timestamp": 10**30}, "bad_field", "timestamp is not a time: '1000000000000000000000000000000'"),
        ({"timestamp": 1_768_327_200}, "bad_field", f"{NOT_LIKELY}, 1768327200 is not likely one"),
        ({"timestamp": "20260113"}, "bad_field", f"{NOT_LIKELY}, 20260113 is not likely one"),
        ({"headline": 5}, "bad_field", "headline must be text or null"),
        ({"summary": "x" * 65_537}, "bad_field", "summary is too long: 65,537 characters, 65,536 at most"),
        ({"headline": "a\0b"}, "bad_field", "headline must not hold a NUL"),
        ({"headline": "\ud800"}, "bad_field", "headline must be text: it holds half a character"),
        ({"url": "é" * (KEY_BYTES // 2 + 1)}, "bad_field", f"url must be {KEY_BYTES} bytes at most"),
    ],
)
def test_a_bad_record_is_refused_with_its_reason_and_the_others_are_taken(
    changed: dict[str, Any], code: str, message: str
) -> None:
    found = news(STORY, STORY | changed, STORY)
    assert refusals(found) == [(1, code, message)]
    assert len(found.records) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"symbol": "AAPL", "date": "2026-01-13", "price": NaN}', "price must be a finite number"),
        ('{"symbol": "AAPL", "date": "2026-01-13", "price": 1e999}', "price must be a finite number"),
        ('{"symbol": "AAPL", "date": "2026-01-13", "price": "1"}', "price must be a number or null"),
        ('{"symbol": "AAPL", "date": "2026-01-13", "price": -1}', "price must be >= 0.0"),
        ('{"symbol": "AAPL", "date": "2026-02-30", "price": 1}', "date must be a date (YYYY-MM-DD)"),
        ("[]", "a record must be an object"),
    ],
)
def test_numbers_and_dates_that_are_none_spoil_only_their_record(text: str, message: str) -> None:
    good = '{"symbol": "AAPL", "date": "2026-01-13", "price": 1.5}'
    for body, sent_as in ((f"[{good},{text}]", "json"), (f"{good}\n{text}\n", "ndjson")):
        found = accepted(INFO, body.encode(), sent_as)
        assert refusals(found) == [(1, "bad_field", message)]
        assert found.records.columns["price"] == [1.5]


def test_what_is_missing_is_named() -> None:
    found = news({"symbol": "AAPL", "headline": "x"})
    assert refusals(found) == [(0, "missing_field", "Missing required fields: timestamp, url")]


def test_a_record_of_a_broken_line_is_named_and_the_other_lines_are_taken() -> None:
    body = json.dumps(STORY).encode() + b'\n{"symbol": \n\n' + json.dumps(STORY).encode()
    found = accepted(NEWS, body, "ndjson")
    assert refusals(found) == [(1, "bad_field", "this record has a number or text that cannot be read")]
    assert len(found.records) == 2


@pytest.mark.parametrize("body", [b"", b"hello", b"[1,", b'"text"', b"5", b'{"symbol"'])
def test_a_body_that_is_no_json_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(BadJson):
        accepted(NEWS, body)


def test_lines_of_json_are_understood_though_nothing_says_that_they_are() -> None:
    found = accepted(NEWS, (json.dumps(STORY) + "\n" + json.dumps(STORY | {"url": "b"}) + "\n").encode())
    assert found.records.columns["url"] == [STORY["url"], "b"]
    one = accepted(NEWS, json.dumps(STORY, indent=2).encode())
    assert len(one.records) == 1


def test_more_records_than_are_allowed_are_refused() -> None:
    for body, sent_as in ((b"[" + b"1," * 1000 + b"1]", "json"), (b"1\n" * 1001, "ndjson")):
        with pytest.raises(TooLarge):
            accepted(NEWS, body, sent_as)


def test_csv_says_what_json_says() -> None:
    rows = [
        {"symbol": "AAPL", "timestamp": "2026-01-13T02:00:00Z", "f_buy_vol": 1.5, "f_sell_vol": 2},
        {"symbol": "tsla.us", "timestamp": 1768269600000, "f_sell_vol": 1e3},
    ]
    text = "symbol,timestamp,f_buy_vol,f_sell_vol\nAAPL,2026-01-13T02:00:00Z,1.5,2\ntsla.us,1768269600000,,1e3\n"
    by_csv = accepted(SNAPSHOTS, text.encode(), "csv")
    assert not by_csv.rejected
    assert by_csv.records == accepted(SNAPSHOTS, json.dumps(rows).encode()).records
    assert by_csv.records.columns["symbol"] == ["AAPL", "TSLA"]
    assert by_csv.records.columns["f_buy_vol"] == [1.5, UNSET]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_of_spreadsheets_is_read(separator: str) -> None:
    text = "\ufeffSymbol,DATE, Price \r\nAAPL,2026-01-13,271.5\r\n".replace(",", separator)
    read = accepted(INFO, text.encode(), "csv")
    assert not read.rejected
    assert read.records.columns["price"] == [271.5]


def test_bad_lines_of_csv_are_named() -> None:
    text = (
        'symbol,timestamp,url,headline\nAAPL,2026-01-13,a,"one, two"\nAAPL,2026-01-13\nFOO,2026-01-13,b,x\nAAPL,no,c,\n'
    )
    found = accepted(NEWS, text.encode(), "csv")
    assert refusals(found) == [
        (1, "bad_field", "line 3: 2 cells for 4 fields"),
        (2, "unknown_symbol", "Unknown symbol: FOO"),
        (3, "bad_field", "timestamp is not a time: 'no'"),
    ]
    assert found.records.columns["headline"] == ["one, two"]
    for number in ("nan", "inf", "1,5"):
        told = accepted(INFO, f'symbol,date,price\nAAPL,2026-01-13,"{number}"\n'.encode(), "csv")
        assert [one.code for one in told.rejected] == ["bad_field"]


@pytest.mark.parametrize("body", [b"", b"a,b\n1,2\n", b"symbol,symbol\nA,B\n", b'symbol,url\n"AAPL,x\n'])
def test_csv_that_is_none_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(BadJson):
        accepted(NEWS, body, "csv")


def test_times_are_those_of_ticks_and_a_date_is_its_midnight() -> None:
    midnight_us = int(datetime(2026, 1, 13, tzinfo=UTC).timestamp()) * 1_000_000
    times = ["2026-01-13T01:00:00+01:00", midnight_us // 1000, "2026-01-13", "2026-01-13T02:00:00"]
    body = json.dumps([STORY | {"timestamp": time} for time in times]).encode()
    found = accepted(NEWS, body, clock="Europe/Helsinki")
    assert found.records.columns["timestamp"] == [midnight_us] * 4


def test_a_day_to_come_is_no_error_where_the_dataset_has_such() -> None:
    body = b'[{"symbol": "AAPL", "ex_date": "2035-01-02", "action_type": "dividend"}]'
    found = accepted(DATASETS["corporate_actions"], body)
    assert found.records.columns["ex_date"] == ["2035-01-02"]


def test_unknown_keys_are_ignored_and_null_is_told_from_absent() -> None:
    found = news(STORY | {"mood": "good", "headline": None})
    assert found.records.columns["headline"] == [None]
    assert found.records.columns["summary"] == [UNSET]


# the journal


def test_the_journal_gives_back_what_it_took_with_the_policy() -> None:
    given = accepted(NEWS, json.dumps([STORY | {"headline": None}, STORY | {"source": "x"}]).encode(), policy="error")
    assert Records.decode(NEWS, given.records.encode(), LAYOUT) == given.records


def test_a_field_that_came_later_is_absent_in_old_bytes_and_one_that_went_is_ignored() -> None:
    payload = msgspec.msgpack.encode(["update", 1, {"symbol": ["AAPL"], "date": ["2026-01-13"], "gone": [5]}, {}])
    found = Records.decode(INFO, payload, LAYOUT)
    assert found.columns["price"] == [UNSET]
    assert "gone" not in found.columns
    with pytest.raises(TickhubError, match="newer tickhub"):
        Records.decode(INFO, payload, LAYOUT + 1)


# several of one key


def rows(*sent: dict[str, Any]) -> list[Row]:
    made = []
    for at, values in enumerate(sent):
        row = Row.of(INFO, {"symbol": "AAPL", "date": "2026-01-13"} | values, {"AAPL": 1})
        row.row_no = row.received_us = at
        made.append(row)
    return made


@pytest.mark.parametrize(
    ("policy", "values", "stored", "duplicates", "later"),
    [
        ("ignore", {"price": 1.0}, 0, 3, 0),
        ("update", {"price": 2.0, "pe_ratio": 5.0}, 2, 1, 0),
        ("keep_newest", {"price": 2.0, "pe_ratio": 5.0}, 2, 1, 0),
        ("error", {"price": 1.0}, 0, 0, 3),
    ],
)
def test_of_several_of_one_key_the_policy_makes_one(
    policy: Policy, values: dict[str, Any], stored: int, duplicates: int, later: int
) -> None:
    folded = fold(
        INFO, policy, rows({"price": 1.0}, {"price": 2.0}, {"pe_ratio": 5.0}, {"price": 2.0, "pe_ratio": 5.0})
    )
    assert [row.values for row in folded.rows] == [values]
    assert (folded.stored, folded.duplicates, len(folded.later)) == (stored, duplicates, later)


# formats that only datasets have


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_dates_truths_and_objects_leave_as_such_and_as_null(form: Format) -> None:
    fields = (Field("date", "date"), Field("object", "json"), Field("truth", "truth"))
    days = ["2026-01-13", None, "1899-12-31"]
    table = Table(fields, [list(days), ['{"a": "b,c"}', None, "{}"], [True, None, False]])
    encoder = make_encoder(form, fields, list_name="rows", extra={})
    data = encoder.head() + encoder.rows(table) + encoder.tail(None)
    if form == "json":
        found = [list(row.values()) for row in json.loads(data)["rows"]]
    elif form == "ndjson":
        found = [list(json.loads(line).values()) for line in data.splitlines()]
    elif form == "csv":
        assert data.decode().splitlines()[1:] == ['2026-01-13,"{""a"": ""b,c""}",true', ",,", "1899-12-31,{},false"]
        return
    else:
        stream = io.BytesIO(data)
        rows = (pa.ipc.open_stream(stream).read_all() if form == "arrow" else pq.read_table(stream)).to_pylist()
        assert [row["date"] for row in rows] == [datetime(2026, 1, 13).date(), None, datetime(1899, 12, 31).date()]
        found = [
            [day, None if row["object"] is None else json.loads(row["object"]), row["truth"]]
            for day, row in zip(days, rows, strict=True)
        ]
    assert found == [["2026-01-13", {"a": "b,c"}, True], [None, None, None], ["1899-12-31", {}, False]]
