"""What a client may say on /ws, and what each mistake is answered with."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BadField, BadJson, MissingField, RequestError, UnknownCommand
from app.stream.channels import CHANNELS, Channel
from app.stream.protocol import MAX_SYMBOLS, Auth, Ping, Subscribe, Unsubscribe, read_action


def said(**fields: Any) -> Any:
    return read_action(json.dumps(fields))


def test_a_symbol_alone_means_its_quotes() -> None:
    assert said(action="subscribe", symbol="AAPL") == Subscribe(("AAPL",), ("quotes",))


def test_all_can_be_said_of_a_subscription() -> None:
    found = said(
        action="subscribe",
        symbols=["AAPL", " TSLA ", "AAPL"],
        channels=["bars", "trades"],
        interval="1M",
        conflate_ms=0,
        batch=True,
        since="2026-01-13T17:54:43Z",
    )
    assert found == Subscribe(("AAPL", "TSLA"), ("bars", "trades"), "1M", 0, True, "2026-01-13T17:54:43Z")


@pytest.mark.parametrize("fields", [{"symbols": "*"}, {"symbol": "*"}, {"symbols": ["AAPL", "*"]}])
def test_a_star_is_every_symbol(fields: dict[str, Any]) -> None:
    assert said(action="subscribe", **fields).symbols is None


@pytest.mark.parametrize("action", ["subscribe", "unsubscribe"])
def test_alerts_alone_need_no_symbol_for_some_are_about_none(action: str) -> None:
    found = said(action=action, channels=["alerts"])
    assert (found.symbols, found.channels) == (None, ("alerts",))
    with pytest.raises(MissingField):
        said(action=action, channels=["alerts", "quotes"])


def test_to_unsubscribe_without_channels_means_all_of_them() -> None:
    assert said(action="unsubscribe", symbol="AAPL") == Unsubscribe(("AAPL",), get_args(Channel))
    assert said(action="unsubscribe", symbol="AAPL", channels="bars", interval="5m") == Unsubscribe(
        ("AAPL",), ("bars",), "5m"
    )


@pytest.mark.parametrize("message", ["ping", b"ping", '{"action":"ping"}', b'{"action":"ping","more":1}'])
def test_a_ping_may_be_a_bare_word(message: str | bytes) -> None:
    assert read_action(message) == Ping()


def test_a_key_is_shown_in_a_message() -> None:
    assert said(action="auth", key="0123") == Auth("0123")


@pytest.mark.parametrize("message", ["", "{", "pong", "[]", "1", '"subscribe"', "null", b"\xff", "[" * 50_000])
def test_what_is_no_object_is_bad_json(message: str | bytes) -> None:
    with pytest.raises(BadJson):
        read_action(message)


@pytest.mark.parametrize(
    ("message", "error", "named"),
    [
        ({}, MissingField, "action"),
        ({"action": "subscribe"}, MissingField, "symbol"),
        ({"action": "auth"}, MissingField, "key"),
        ({"action": "buy"}, UnknownCommand, "subscribe"),
        ({"action": ["subscribe"]}, UnknownCommand, "subscribe"),
        ({"action": "auth", "key": 1}, BadField, "key"),
        ({"action": "subscribe", "symbol": 1}, BadField, "symbols"),
        ({"action": "subscribe", "symbols": ["A", None]}, BadField, "symbols"),
        ({"action": "subscribe", "symbols": [f"S{n}" for n in range(MAX_SYMBOLS + 1)]}, BadField, str(MAX_SYMBOLS)),
        ({"action": "subscribe", "symbol": "A", "channels": ["news"]}, BadField, "news"),
        ({"action": "subscribe", "symbol": "A", "channels": []}, BadField, "channels"),
        ({"action": "subscribe", "symbol": "A", "channels": [["quotes"]]}, BadField, "channels"),
        ({"action": "subscribe", "symbol": "A", "interval": "2m"}, BadField, "interval"),
        ({"action": "subscribe", "symbol": "A", "interval": {}}, BadField, "interval"),
        ({"action": "subscribe", "symbol": "A", "conflate_ms": -1}, BadField, "conflate_ms"),
        ({"action": "subscribe", "symbol": "A", "conflate_ms": True}, BadField, "conflate_ms"),
        ({"action": "subscribe", "symbol": "A", "conflate_ms": "100"}, BadField, "conflate_ms"),
        ({"action": "subscribe", "symbol": "A", "batch": 1}, BadField, "batch"),
        ({"action": "subscribe", "symbol": "A", "since": []}, BadField, "since"),
    ],
)
def test_every_mistake_says_what_it_is(message: dict[str, Any], error: type[RequestError], named: str) -> None:
    with pytest.raises(error, match=named):
        read_action(json.dumps(message))


VALUES = st.recursive(
    st.sampled_from([None, True, "*", "1m", "bars"]) | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["symbol", "symbols", "channels", "interval", "conflate_ms", "batch", "since", "key"]


@settings(deadline=None)
@given(
    st.sampled_from(["subscribe", "unsubscribe", "auth", "ping", "x"]),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
)
def test_whatever_is_in_the_fields_it_is_an_action_or_an_error(action: str, fields: dict[str, Any]) -> None:
    with suppress(RequestError):
        found = said(action=action, **fields)
        assert isinstance(found, Subscribe | Unsubscribe | Auth | Ping)
        if isinstance(found, Subscribe):
            assert set(found.channels) <= set(CHANNELS)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_whatever_is_sent_it_is_an_action_or_an_error(message: bytes | str) -> None:
    with suppress(RequestError):
        assert isinstance(read_action(message), Subscribe | Unsubscribe | Auth | Ping)
