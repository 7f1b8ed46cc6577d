"""UDF's quotes: what is not known is said to be, and prices are the numbers that people see."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.errors import DatabaseAway
from app.market.quotes import Key, Point, QuoteRow
from app.market.symbols import SEED, SymbolMap
from app.quote_board import QuoteBoard
from app.settings import load
from app.storage.quote_reader import QuoteReader
from tests.batches import Tick, ticks

NOW_US = time.time_ns() // 1000


def row(symbol: str, price: float, before: float) -> QuoteRow:
    """A quote of the database."""
    key = Key(NOW_US, 1)
    return QuoteRow(
        symbol, bid=Point(key, price), key=key, flags=6, before=Point(Key(NOW_US - 86_400_000_000, 1), before)
    )


class _Reads:
    """A database that has these quotes; None: it is away."""

    def __init__(self, rows: list[QuoteRow] | None) -> None:
        self._rows = rows

    def run(self, *_: Any, client: Any = None) -> list[QuoteRow]:
        if self._rows is None:
            raise DatabaseAway("nobody there")
        return self._rows


def client_of(rows: list[QuoteRow] | None) -> tuple[FlaskClient, QuoteBoard]:
    """Return who asks, and the worker's board."""
    app, symbols = create_app(), SymbolMap(SEED)
    board = QuoteBoard(lambda: symbols, 60.0)
    app.extensions["tickhub"] = SimpleNamespace(
        reads=_Reads(rows),
        quote_reader=QuoteReader(),
        quotes=board,
        upstream=None,
        symbols=SimpleNamespace(map=symbols, know_better=lambda: rows is not None),
        meters=SimpleNamespace(answered=lambda *_: None),
        settings=load({}, env_file=None),
        keys=SimpleNamespace(required=False),
    )
    return app.test_client(), board


def test_a_quote_that_was_never_read_is_an_error_while_the_database_is_away() -> None:
    client, board = client_of(None)
    assert client.get("/udf/quotes?symbols=aapl.us,NOPE").json == {
        "s": "ok",
        "d": [{"s": "error", "n": "aapl.us", "v": {}}, {"s": "error", "n": "NOPE", "v": {}}],
    }
    board.accepted(ticks([Tick("AAPL", NOW_US, 0, bid=190.1, flags=6)]), NOW_US)
    (found, other) = client.get("/udf/quotes?symbols=aapl.us,TSLA").json["d"]
    assert (found["s"], found["v"]["bid"], "ch" in found["v"]) == ("ok", 190.1, False)
    assert other["s"] == "error"


def test_a_quote_without_ticks_that_was_read_is_none_of_an_error() -> None:
    client, _ = client_of([QuoteRow("AAPL")])
    (found,) = client.get("/udf/quotes?symbols=AAPL").json["d"]
    assert found == {"s": "ok", "n": "AAPL", "v": {"short_name": "AAPL", "description": "AAPL"}}


@pytest.mark.parametrize(
    ("price", "before"), [(190.3, 190.1), (1.1, 0.8), (0.3, 0.1), (4.35, 1e-5), (-37.63, 0.01), (1e15, 0.1)]
)
def test_the_close_before_is_the_price_that_was_stored(price: float, before: float) -> None:
    client, _ = client_of([row("AAPL", price, before)])
    (found,) = client.get("/udf/quotes?symbols=AAPL").json["d"]
    assert found["v"]["lp"] == price
    assert repr(found["v"]["prev_close_price"]) == repr(before)
