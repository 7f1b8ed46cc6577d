"""Chains as they are read: the newest quote of each contract of a day, filtered, completed, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pytest
from psycopg2.extensions import connection
from psycopg2.extras import execute_values

from app.errors import BadParameter, UnknownSymbol
from app.market.option_symbols import OptionType, contract_symbol
from app.market.options import Market
from app.option_chains import chain_answer
from app.storage.instruments import find
from app.storage.option_reader import ChainQuery, read_chain
from tests.option_files import CHAINS, ROW_FIELDS, real_chain
from tests.real_market import real_data

DAY = date(2026, 1, 13)
MARKET = Market(0.04, 0.0)


def put(conn: connection, rows: Sequence[dict[str, Any]], symbol: str = "AAPL") -> None:
    with conn.cursor() as cur:
        cur.execute("SELECT symbol_id FROM instruments WHERE symbol = %s", (symbol,))
        (symbol_id,) = cur.fetchone() or (None,)
        for month in {row["timestamp"][:7] for row in rows}:
            cur.execute("SELECT ensure_month_partition('option_quotes', %s)", (f"{month}-15T00:00:00Z",))
        names = ", ".join(name if name != "timestamp" else "time" for name in ROW_FIELDS)
        execute_values(
            cur,
            f"INSERT INTO option_quotes (symbol_id, {names}, received_at) VALUES %s",
            [(symbol_id, *(row.get(name) for name in ROW_FIELDS), "2026-01-14T00:00:00Z") for row in rows],
            page_size=1000,
        )
    conn.commit()


def bars(conn: connection, *closes: tuple[int, str, float | None, float | None]) -> None:
    """Bars of AAPL: resolution, time, close of bid and of last."""
    with conn.cursor() as cur:
        execute_values(
            cur,
            "INSERT INTO bars (symbol_id, resolution, time, bid_close, last_close, ticks, volume, buy_volume,"
            " sell_volume)"
            " SELECT symbol_id, v.resolution, v.time::timestamptz, v.bid::float8, v.last::float8, 1, 0, 0, 0"
            " FROM instruments, (VALUES %s) AS v (resolution, time, bid, last) WHERE symbol = 'AAPL'",
            closes,
        )
    conn.commit()


def quote(strike: float = 100.0, kind: str = "call", at: str = "2026-01-13T15:00:00Z", **other: Any) -> dict[str, Any]:
    return {"expiration_date": "2026-02-20", "strike_price": strike, "option_type": kind, "timestamp": at} | other


def answer(conn: connection, ticker: str = "AAPL", **query: Any) -> dict[str, Any]:
    with conn.cursor() as cur:
        found = json.loads(chain_answer(cur, ticker, ChainQuery(**query), MARKET))
    conn.rollback()
    return found


def contracts(found: dict[str, Any]) -> list[tuple[str, float, str]]:
    return [(row["expiration_date"], row["strike_price"], row["option_type"]) for row in found["options"]]


def test_an_instrument_without_options_has_an_empty_chain(conn: connection) -> None:
    assert answer(conn) == {"ticker": "AAPL", "date": None, "options": []}
    assert answer(conn, day=DAY) == {"ticker": "AAPL", "date": "2026-01-13", "options": []}
    assert answer(conn, day=DAY, strike_range_percent=5)["options"] == []


def test_names_are_taken_in_any_case_and_unknown_ones_refused(conn: connection) -> None:
    assert answer(conn, "aapl.us")["ticker"] == "AAPL"
    with pytest.raises(UnknownSymbol, match="Unknown symbol: FOO"):
        answer(conn, "FOO")


def test_of_each_contract_the_newest_quote_of_the_day_is_told(conn: connection) -> None:
    put(
        conn,
        [
            quote(bid=1.0, at="2026-01-13T15:00:00Z"),
            quote(bid=2.0, at="2026-01-13T15:00:01Z"),
            quote(bid=9.0, at="2026-01-12T23:59:59.999999Z"),
            quote(90, bid=3.0, at="2026-01-13T00:00:00Z"),
            quote(kind="put", bid=4.0, at="2026-01-13T23:59:59.999999Z"),
        ],
    )
    put(conn, [quote(bid=7.0, at="2026-01-14T00:00:00Z")], symbol="TSLA")
    found = answer(conn)
    assert (found["ticker"], found["date"]) == ("AAPL", "2026-01-13")
    assert [(row["strike_price"], row["option_type"], row["bid"]) for row in found["options"]] == [
        (90, "call", 3.0),
        (100, "call", 2.0),
        (100, "put", 4.0),
    ]
    assert [row["timestamp"] for row in found["options"]] == [
        "2026-01-13T00:00:00.000000Z",
        "2026-01-13T15:00:01.000000Z",
        "2026-01-13T23:59:59.999999Z",
    ]
    assert [row["bid"] for row in answer(conn, day=date(2026, 1, 12))["options"]] == [9.0]
    assert answer(conn, day=date(2026, 1, 11))["options"] == []


def test_a_quote_is_told_as_it_was_sent(conn: connection) -> None:
    sent = quote(
        bid=1.5,
        ask=1.75,
        last_price=1.6,
        volume=10.0,
        open_interest=200.0,
        implied_volatility=0.31,
        delta=0.4,
        gamma=0.01,
        theta=-0.02,
        vega=0.1,
        rho=0.03,
        in_the_money=True,
        contract_symbol="mine",
        greeks_source="orats",
        underlying_price=99.5,
    )
    put(conn, [sent])
    (row,) = answer(conn)["options"]
    assert row == sent | {"timestamp": "2026-01-13T15:00:00.000000Z"}


def test_the_type_chooses(conn: connection) -> None:
    put(conn, [quote(kind="put"), quote(kind="call")])
    assert [row["option_type"] for row in answer(conn)["options"]] == ["call", "put"]
    assert [row["option_type"] for row in answer(conn, option_type="all")["options"]] == ["call", "put"]
    assert [row["option_type"] for row in answer(conn, option_type="call")["options"]] == ["call"]
    assert [row["option_type"] for row in answer(conn, option_type="put")["options"]] == ["put"]


@pytest.mark.parametrize(
    ("days", "expected"), [(0, [13]), (1, [13, 14]), (None, [12, 13, 14, 15]), (100_000, [13, 14, 15])]
)
def test_days_to_expiry_are_counted_from_the_day_of_the_quotes(
    conn: connection, days: int | None, expected: list[int]
) -> None:
    put(conn, [quote(expiration_date=f"2026-01-{day}") for day in (12, 13, 14, 15)])
    found = answer(conn, max_days_to_expiry=days)
    assert [int(row["expiration_date"][-2:]) for row in found["options"]] == expected


def test_strikes_are_chosen_around_the_price_that_was_sent_last(conn: connection) -> None:
    strikes = [79.9, 80.0, 100.0, 120.0, 120.1]
    put(conn, [quote(strike, underlying_price=50.0, at="2026-01-13T10:00:00Z") for strike in strikes])
    put(conn, [quote(100, kind="put", underlying_price=100.0, at="2026-01-13T11:00:00Z")])
    found = answer(conn, strike_range_percent=20)
    assert [row["strike_price"] for row in found["options"]] == [80.0, 100.0, 100.0, 120.0]
    assert [row["strike_price"] for row in answer(conn, strike_range_percent=0.01)["options"]] == [100.0, 100.0]
    assert len(answer(conn, strike_range_percent=1_000_000)["options"]) == 6


def test_a_range_around_a_price_that_nobody_knows_is_refused_in_words(conn: connection) -> None:
    put(conn, [quote()])
    with pytest.raises(BadParameter, match="strike_range_percent: what AAPL cost on 2026-01-13 is not known"):
        answer(conn, strike_range_percent=5)
    assert len(answer(conn)["options"]) == 1


def test_the_underlying_costs_what_its_bars_say(conn: connection) -> None:
    bars(
        conn,
        (86400, "2026-01-09", 90.0, None),
        (60, "2026-01-13T14:30:00Z", 100.0, None),
        (60, "2026-01-13T14:31:00Z", None, None),
        (60, "2026-01-13T20:00:00Z", 110.0, None),
    )
    at = {90: "10:00:00", 91: "14:30:00", 92: "14:59:00", 93: "20:00:30"}
    put(conn, [quote(strike, at=f"2026-01-13T{clock}Z") for strike, clock in at.items()])
    put(conn, [quote(94, at="2026-01-13T20:00:30Z", underlying_price=105.0)])
    found = answer(conn)
    assert [row["underlying_price"] for row in found["options"]] == [90.0, 100.0, 100.0, 110.0, 105.0]
    assert [row["in_the_money"] for row in found["options"]] == [False, True, True, True, True]
    assert [row["strike_price"] for row in answer(conn, strike_range_percent=14)["options"]] == [91, 92, 93, 94]


def test_of_an_instrument_that_has_trades_their_price_counts(conn: connection) -> None:
    bars(conn, (86400, "2026-01-12", 90.0, 91.0), (60, "2026-01-13T14:30:00Z", 100.0, None))
    put(conn, [quote()])
    assert answer(conn)["options"][0]["underlying_price"] == 100.0
    with conn.cursor() as cur:
        cur.execute("INSERT INTO current (symbol, last) VALUES ('AAPL', 91)")
    conn.commit()
    assert answer(conn)["options"][0]["underlying_price"] == 91.0


def test_a_price_of_long_ago_is_none(conn: connection) -> None:
    bars(conn, (86400, "2026-01-05", 90.0, None))
    put(conn, [quote(bid=1, ask=2)])
    (row,) = answer(conn)["options"]
    assert (row["underlying_price"], row["in_the_money"], row["implied_volatility"]) == (None, None, None)


def test_absent_volatility_and_greeks_are_computed_and_marked(conn: connection) -> None:
    put(
        conn,
        [
            quote(100, bid=4.0, ask=4.2, underlying_price=100.0),
            quote(101, bid=0.0, ask=0.01, underlying_price=100.0),
            quote(102, implied_volatility=0.3, underlying_price=100.0),
        ],
    )
    computed, none, mixed = answer(conn)["options"]
    assert 0.2 < computed["implied_volatility"] < 0.4
    assert 0.5 < computed["delta"] < 0.6
    assert computed["theta"] < 0 < computed["vega"]
    assert computed["contract_symbol"] == "AAPL  260220C00100000"
    assert [row["greeks_source"] for row in (computed, none, mixed)] == ["computed", None, "mixed"]
    assert [none[name] for name in ("implied_volatility", "delta", "gamma", "theta", "vega", "rho")] == [None] * 6
    assert mixed["implied_volatility"] == 0.3


def test_a_time_zone_moves_the_end_of_a_contract(conn: connection) -> None:
    put(conn, [quote(bid=1.0, ask=1.1, underlying_price=100.0, expiration_date="2026-01-13")])
    assert answer(conn)["options"][0]["implied_volatility"] is not None
    with conn.cursor() as cur:
        cur.execute("UPDATE instruments SET timezone = 'Asia/Tokyo' WHERE symbol = 'AAPL'")  # over at 07:00 UTC
    conn.commit()
    assert answer(conn)["options"][0]["implied_volatility"] is None


@pytest.mark.parametrize("day", [date(1, 1, 1), date(9999, 12, 31), date(1970, 1, 1)])
def test_any_day_may_be_asked_for(conn: connection, day: date) -> None:
    put(conn, [quote()])
    found = answer(conn, day=day, max_days_to_expiry=100_000, strike_range_percent=5)
    assert found == {"ticker": "AAPL", "date": str(day), "options": []}


def test_a_long_chain_is_whole(conn: connection) -> None:
    rows = [quote(strike / 10, kind) for strike in range(1, 2501) for kind in ("call", "put")]
    put(conn, rows)
    found = answer(conn)
    assert contracts(found) == [("2026-02-20", row["strike_price"], row["option_type"]) for row in rows]


def test_views_show_calls_and_puts_with_the_symbol(conn: connection) -> None:
    put(
        conn,
        [
            quote(bid=1.0, underlying_price=101.0),
            quote(kind="put", bid=2.0, implied_volatility=0.0, underlying_price=101.0),
            quote(kind="put", strike=102.0, contract_symbol="mine", in_the_money=False, underlying_price=101.0),
            quote(strike=102.0),
        ],
    )
    expected = {
        "options_calls": [
            ("AAPL", 100.0, 1.0, None, True, "AAPL  260220C00100000"),
            ("AAPL", 102.0, None, None, None, "AAPL  260220C00102000"),
        ],
        "options_puts": [
            ("AAPL", 100.0, 2.0, 0.0, False, "AAPL  260220P00100000"),
            ("AAPL", 102.0, None, None, False, "mine"),
        ],
    }
    with conn.cursor() as cur:
        for view, rows in expected.items():
            cur.execute(
                "SELECT symbol, strike_price, bid, implied_volatility, in_the_money, contract_symbol"
                f" FROM {view} ORDER BY strike_price"
            )
            assert cur.fetchall() == rows


def test_a_days_volume_is_that_of_each_contracts_last_quote(conn: connection) -> None:
    early, late = "2026-01-13T00:00:00Z", "2026-01-13T23:59:59.999999Z"
    put(
        conn,
        [
            quote(volume=5.0, open_interest=7.0, at=early),
            quote(volume=9.0, at=late),
            quote(101, volume=1.0, at=late),
            quote(kind="put", volume=4.0, open_interest=2.0, at=early),
            quote(kind="put", at=late),
            quote(expiration_date="2026-03-20", kind="put", volume=1.0, at=early),
            quote(kind="put", volume=3.0, at="2026-01-14T00:00:00Z"),
            quote(at="2026-01-15T00:00:00Z"),
        ],
    )
    put(conn, [quote(volume=1.0, at=early)], symbol="TSLA")
    with conn.cursor() as cur:
        cur.execute("SELECT * FROM options_volume_daily ORDER BY symbol, date")
        assert cur.fetchall() == [
            ("AAPL", DAY, 15.0, 10.0, 5.0, 0.5, 9.0, 7.0, 2.0, 4, 6),
            ("AAPL", date(2026, 1, 14), 3.0, None, 3.0, None, None, None, None, 1, 1),
            ("AAPL", date(2026, 1, 15), None, None, None, None, None, None, None, 1, 1),
            ("TSLA", DAY, 1.0, 1.0, None, None, None, None, None, 1, 1),
        ]


@pytest.mark.parametrize("symbol", ["AAPL", "nvda", "F", "GOOGL1", "TOOLONG", "BRK.B", "7UP", "", "A B"])
@pytest.mark.parametrize("kind", ["call", "put"])
def test_the_database_writes_contract_symbols_as_the_server_does(
    conn: connection, symbol: str, kind: OptionType
) -> None:
    strikes = [0.5, 72.86, 72.8571, 100.0, 0.001, 0.0001, 99999.999, 100000.0, 1e15, 0.1 + 0.2, 12345.678, -5.0]
    days = [date(1999, 12, 31), date(2000, 1, 1), date(2014, 7, 19), date(2099, 12, 31), date(2100, 1, 1)]
    with conn.cursor() as cur:
        for day in days:
            for strike in strikes:
                cur.execute("SELECT occ_symbol(%s, %s, %s, %s)", (symbol, day, kind, strike))
                assert cur.fetchone() == (contract_symbol(symbol, day, kind, strike),), (day, strike)


@real_data
@pytest.mark.parametrize("day", CHAINS)
def test_a_real_chain_is_read_back(conn: connection, day: date) -> None:
    close, records = real_chain(day)
    assert len(records) == CHAINS[day]
    put(conn, records)
    with conn.cursor() as cur:
        cur.execute("SELECT date, volume, put_open_interest, contracts FROM options_volume_daily WHERE symbol = 'AAPL'")
        puts = [record for record in records if record["option_type"] == "put"]
        volume = sum(record.get("volume", 0) for record in records)
        assert cur.fetchall() == [(day, volume, sum(one.get("open_interest", 0) for one in puts), len(records))]
        instrument = find(cur, "AAPL")
        assert instrument is not None
        told, chain = read_chain(cur, instrument, ChainQuery())
    assert told == day
    kinds = np.where(chain.calls, "call", "put").tolist()
    read = {
        (str(expiration), strike, kind): place
        for place, (expiration, strike, kind) in enumerate(
            zip(chain.expirations, chain.strikes.tolist(), kinds, strict=True)
        )
    }
    assert len(read) == len(records)
    for record in records:
        place = read[record["expiration_date"], record["strike_price"], record["option_type"]]
        for name in ("last_price", "volume", "open_interest", "implied_volatility", "delta", "theta"):
            value = getattr(chain, name)[place]
            assert value == record[name] if name in record else np.isnan(value), (record, name)
    near = answer(conn, strike_range_percent=10, max_days_to_expiry=60, option_type="call")["options"]
    expected = [
        record
        for record in records
        if record["option_type"] == "call"
        and abs(record["strike_price"] / close - 1) <= 0.1
        and (date.fromisoformat(record["expiration_date"]) - day).days <= 60
    ]
    assert len(near) == len(expected) > 100


@real_data
@pytest.mark.parametrize("day", CHAINS)
def test_a_real_chain_is_completed_within_reason(conn: connection, day: date) -> None:
    close, records = real_chain(day, with_greeks=False)
    put(conn, records)
    rows = answer(conn, strike_range_percent=5)["options"]
    at_the_money = [
        row
        for row in rows
        if row["volume"] > 0 and 20 <= (date.fromisoformat(row["expiration_date"]) - day).days <= 400
    ]
    assert len(at_the_money) > 50
    solved = [row for row in at_the_money if row["greeks_source"] == "computed"]
    assert len(solved) > 0.95 * len(at_the_money)
    assert 0.1 < np.median([row["implied_volatility"] for row in solved]) < 0.5
    assert all(0 < row["delta"] < 1 if row["option_type"] == "call" else -1 < row["delta"] < 0 for row in solved)
    assert all(len(row["contract_symbol"]) == 21 for row in rows)
    assert all(row["in_the_money"] is (row["strike_price"] < close) for row in rows if row["option_type"] == "call")


@real_data
def test_greeks_of_a_volatility_are_those_of_a_vendor(conn: connection) -> None:
    """The file's volatilities are of its own model, of American options; at each of them its greeks are near ours."""
    day = date(2014, 6, 3)
    close, records = real_chain(day)
    given = {
        (record["expiration_date"], record["strike_price"], record["option_type"]): record
        for record in records
        if record["implied_volatility"] > 0 and abs(record["strike_price"] / close - 1) < 0.1
    }
    put(conn, [{name: value for name, value in row.items() if name not in ("delta", "vega")} for row in given.values()])
    with conn.cursor() as cur:
        found = json.loads(chain_answer(cur, "AAPL", ChainQuery(), Market(0.002, 0.018)))["options"]
    assert len(found) == len(given) > 100
    for name in ("delta", "vega"):
        ratios = [
            row[name] / given[row["expiration_date"], row["strike_price"], row["option_type"]][name]
            for row in found
            if row["option_type"] == "call"
        ]
        assert np.median(ratios) == pytest.approx(1, abs=0.06), name
