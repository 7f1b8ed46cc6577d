"""JSON bodies to rows: what is taken, what is refused, and that slicing changes neither."""

from __future__ import annotations

import json
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import BadJson, TooLarge
from app.market import decode
from app.market.accept import Limits, accept
from app.market.clock import BrokerClock
from app.market.decode import Rejected, Rows, decode_batch, decode_tick
from app.market.symbols import SEED, SymbolMap

GOOD = {
    "symbol": "AAPL",
    "bid": 190.1,
    "ask": 190.2,
    "spread": 10,
    "volume": 0,
    "flags": 6,
    "timestamp": 1768327200000,
}
MAX_ROWS = 100_000


def row(**changes: str) -> str:
    """A good row with some fields as raw JSON text; a field that is "" is left out."""
    texts = {name: json.dumps(value) for name, value in GOOD.items()} | changes
    return "{" + ",".join(f'"{name}":{text}' for name, text in texts.items() if text) + "}"


def body(*rows: str) -> bytes:
    return ('{"ticks":[' + ",".join(rows) + "]}").encode()


def refused(rows: Rows) -> list[tuple[int, str, str]]:
    return [(found.index, found.code, found.message) for found in rows.rejected]


def decode_all(*rows: str) -> Rows:
    return decode_batch(body(*rows), MAX_ROWS)


def test_good_rows_come_with_their_index():
    rows = decode_all(row(), row(bid="null", ask="null", spread="null"), row(last="3", seq="7", fold="1"))
    assert (rows.total, rows.index, rows.rejected) == (3, [0, 1, 2], [])
    assert (rows.rows[0].symbol, rows.rows[0].bid, rows.rows[0].last, rows.rows[0].seq) == (
        "AAPL",
        190.1,
        None,
        None,
    )
    assert (rows.rows[1].bid, rows.rows[1].ask, rows.rows[1].spread) == (None, None, None)
    assert (rows.rows[2].last, rows.rows[2].seq, rows.rows[2].fold) == (3.0, 7, 1)


def test_an_empty_list_holds_nothing():
    assert decode_batch(b'{"ticks":[]}', MAX_ROWS) == Rows()
    assert decode_batch(b' {\n"ticks" : [ ] } ', MAX_ROWS) == Rows()


@pytest.mark.parametrize(
    "absent", [["bid", "ask"], ["symbol"], ["volume"], ["flags", "timestamp"], list(GOOD)], ids=",".join
)
def test_missing_fields_are_named_in_order(absent):
    rows = decode_all(row(), row(**dict.fromkeys(absent, "")))
    assert refused(rows) == [(1, "missing_field", f"Missing required fields: {', '.join(absent)}")]
    assert rows.index == [0]


def test_time_msc_stands_for_timestamp():
    rows = decode_all(row(timestamp="", time_msc="1768327200000"))
    assert (rows.rejected, rows.rows[0].time_msc) == ([], 1768327200000)


def test_a_null_time_msc_stands_for_nothing():
    rows = decode_all(row(timestamp="", time_msc="null", bid="NaN"))
    assert refused(rows) == [(0, "missing_field", "Missing required fields: timestamp")]


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("bid", "NaN", "bid must be a finite number"),
        ("ask", "-Infinity", "ask must be a finite number"),
        ("volume", "1e400", "volume must be a finite number"),
        ("last", "1" + "0" * 400, "last must be a finite number"),
        ("spread", "1" + "0" * 5000, "spread must be a finite number"),
        ("flags", "1" + "0" * 5000, "flags must be an integer"),
        ("bid", "true", "bid must be a number or null"),
        ("bid", '"1"', "bid must be a number or null"),
        ("ask", "[]", "ask must be a number or null"),
        ("volume", "null", "volume must be a number"),
        ("flags", "null", "flags must be an integer"),
        ("flags", "true", "flags must be an integer"),
        ("flags", "1.5", "flags must be an integer"),
        ("seq", "1.5", "seq must be an integer"),
        ("seq", '"1"', "seq must be an integer"),
        ("fold", "{}", "fold must be an integer"),
        ("symbol", "5", "symbol must be a string"),
        ("symbol", "null", "symbol must be a string"),
        ("timestamp", "true", "timestamp must be a string or a number (milliseconds)"),
        ("timestamp", "[]", "timestamp must be a string or a number (milliseconds)"),
        ("time_msc", '"1"', "time_msc must be a number (milliseconds)"),
        ("time_msc", "true", "time_msc must be a number (milliseconds)"),
    ],
    ids=lambda value: value[:24],
)
@pytest.mark.parametrize("beside", ["good rows", "a row with NaN"])
def test_a_value_that_cannot_be_is_named_and_costs_its_row_only(field, text, message, beside):
    other = row(bid="NaN") if beside == "a row with NaN" else row()
    rows = decode_all(row(), row(**{field: text}), other, row())
    assert (1, "bad_field", message) in refused(rows)
    assert rows.index == ([0, 3] if "NaN" in other else [0, 2, 3])
    assert rows.total == 4


@pytest.mark.parametrize("text", ["6", "6.0", "0.6e1"])
def test_an_integer_may_be_written_as_a_float(text):
    for beside in (row(), row(bid="NaN")):
        rows = decode_all(beside, row(flags=text, seq=text))
        assert (rows.rows[-1].flags, rows.rows[-1].seq) == (6, 6)
        assert isinstance(rows.rows[-1].flags, int)


@pytest.mark.parametrize("text", ["null", "5", '"x"', "[]", "[[]]", "NaN"])
def test_a_row_that_is_no_object_is_refused_alone(text):
    assert refused(decode_all(row(), text, row())) == [(1, "bad_field", "a tick must be an object")]


def test_unknown_keys_are_ignored_whatever_they_hold():
    odd = [
        r'"\ud800"',
        '"},{"',
        "[{},{}]",
        "[" * 500 + "]" * 500,
        "1e400",
        "1" + "0" * 400,
        '{"ticks":[1]}',
        "null",
    ]
    rows = decode_all(*(row(extra=text) for text in odd))
    assert (rows.index, rows.rejected) == (list(range(len(odd))), [])


@pytest.mark.parametrize("beside", [row(), row(bid="NaN")], ids=["a good row", "a row with NaN"])
def test_bytes_that_are_no_text_can_be_no_symbol_and_cost_nothing_else(beside):
    data = body(row(), row(symbol='"AAPL?"'), beside, row(extra='"?"')).replace(b"?", b"\xff")
    names = [taken.symbol for taken in decode_batch(data, MAX_ROWS).rows]
    assert names[:2] + names[-1:] == ["AAPL", "AAPL\ufffd", "AAPL"]


def test_the_last_of_two_equal_keys_counts():
    assert decode_all(row(bid='1,"bid":2')).rows[0].bid == 2
    assert decode_all(row(bid='"x","bid":2')).rows[0].bid == 2
    assert decode_batch(b'{"ticks":[1,2,3],"ticks":[]}', MAX_ROWS) == Rows()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"ticks":null}',
        b'{"ticks":{}}',
        b'{"ticks":[',
        b'{"ticks":[]',
        b'{"ticks":[]}x',
        b'{"ticks":[]}{}',
        b'{"ticks":[,]}',
        b'{"ticks":[{}],}',
        b'\x0b{"ticks":[]}',
        b'{"ticks":[]\x0c}',
        b"\xff\xfe\xff",
        b"\0" * 9,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        body(row(), row())[:-20],
        body(row() + ",", row()),
        body(row(), row().replace("AAPL", "AA\0PL")),
        b'{"a":1,' + body(row(), row())[1:-2],
    ],
    ids=lambda data: data[:20],
)
def test_what_is_no_batch_is_refused_whole(data):
    with pytest.raises(BadJson):
        decode_batch(data, MAX_ROWS)


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_unicode_encodings_are_read_too(coding):
    text = body(row(), row(bid="NaN"), row(bid="1" + "0" * 5000)).decode()
    rows = decode_batch(text.encode(coding), MAX_ROWS)
    assert (rows.index, len(rows.rejected)) == ([0], 2)


@pytest.mark.parametrize("head", ['{"ticks":[', '{"a":1,"ticks":[', '{"a":NaN,"ticks":['])
@pytest.mark.parametrize("element", ["{}", "0", row(), row(bid="NaN")], ids=lambda text: text[:9])
def test_more_rows_than_allowed_are_refused_before_each_is_looked_at(head, element, monkeypatch):
    data = (head + ",".join([element] * 11) + "]}").encode()
    assert decode_batch(data, 11).total == 11
    monkeypatch.setattr(decode, "_take", lambda *_: pytest.fail("it looked at a row"))
    with pytest.raises(TooLarge, match="more than 10 ticks"):
        decode_batch(data, 10)


def test_one_tick_is_decoded_by_the_same_rules():
    assert decode_tick(row().encode()) == decode_all(row())
    assert decode_tick(row(bid="NaN").encode()) == decode_all(row(bid="NaN"))
    assert refused(decode_tick(b"[]")) == [(0, "bad_field", "a tick must be an object")]
    with pytest.raises(BadJson):
        decode_tick(row().encode()[:-1])


TEXTS = [
    "NaN",
    "1e400",
    "null",
    "true",
    "1.5",
    "-1",
    "[]",
    "9" * 20,
    '"},{"',
    r'"\"},{\""',
    '"]}"',
    "[{},{}]",
    '"\x01"',
]
FIELDS = [*GOOD, "last", "seq", "fold", "time_msc", "extra"]
ROWS = st.one_of(
    st.just(row()),
    st.dictionaries(st.sampled_from(FIELDS), st.sampled_from([*TEXTS, "", "1"]), max_size=3).map(
        lambda d: row(**d)
    ),
    st.sampled_from(["{}", "null", "[]", '"},{"', '[{},{"a":[{},{}]}]', "5", "x", '{"ticks":[{},{}]}']),
)
BETWEEN = st.sampled_from([",", ",", ",", " , ", "\n,\n", "\x0b,", ",\x0c", ",,", ""])
SHELLS = st.sampled_from(
    [('{"ticks":[', "]}"), (' { "ticks" : [ ', " ] } "), ('{"a":{},"ticks":[', "]}"), ("[", "]")]
)


@st.composite
def bodies(draw):
    parts, (head, tail) = draw(st.lists(ROWS, max_size=8)), draw(SHELLS)
    text = head
    for number, part in enumerate(parts):
        text += (draw(BETWEEN) if number else "") + part
    data = bytearray((text + tail).encode())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def outcome(data: bytes, slice_bytes: int) -> object:
    """What becomes of a body in the end: columns and refusals, or the refusal of the whole."""
    with mock.patch.object(decode, "SLICE_BYTES", slice_bytes):
        try:
            rows = decode_batch(data, 100)
        except (BadJson, TooLarge) as error:
            return type(error)
    limits = Limits(0, "1970-01-01", 1 << 60)
    taken = accept(
        rows, SymbolMap(SEED), BrokerClock("UTC"), limits, 0, lambda name: Rejected(0, "unknown", name)
    )
    return taken.ticks.encode(), taken.rejected


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(bodies(), st.sampled_from([1, 60, 150, 400]))
@example(body(row(), row() + "\x0b", row()), 1)
@example(body(row(extra='"},{"'), row()), 1)
@example(body(row(extra="[{},{}]"), row()), 1)
@example(body(row(), row())[:-2] + b',{"a":1}],"x":[{},{}]}', 1)
def test_slices_are_the_body(data, slice_bytes):
    assert outcome(data, slice_bytes) == outcome(data, 1 << 30)


def test_a_large_body_is_really_sliced():
    data = body(*[row()] * 20)
    with mock.patch.object(decode, "SLICE_BYTES", 500):
        assert len(list(decode._slices(data))) == 4
        assert decode_batch(data, MAX_ROWS).index == list(range(20))
