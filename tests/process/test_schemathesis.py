"""Requests generated from the OpenAPI document: no 5xx, no answer that is not in it, no data taken that it forbids."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    status_code_conformance,
)

from app import create_app
from app.web.api import ENDPOINTS
from app.web.openapi import document
from tests.process.harness import Server
from tests.process.wire import CODES, running, tick

pytestmark = pytest.mark.long

SYMBOLS = ("AAPL", "tsla", "vix", "AAPL.us")
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu")
KEYS = {
    "TICKHUB_API_KEY_INGEST": "ingest-0123456789",
    "TICKHUB_API_KEY_READ": "read-0123456789ab",
    "TICKHUB_API_KEY_ADMIN": "admin-0123456789a",
}
RELATIONS = re.compile(
    "|".join(
        (
            "end: is before start",
            "start: is in the future",
            "start: at most 366 days at a time",
            "to: is before from",
            "from: is required without countback",
            "limit: at most 10000 in JSON",
            "page_token: is not from an answer to this request",
            "tz: .* is no time zone",
            "timezone: no time zone is called",
            r"\w+ holds characters that cannot be printed",
            r"\w+: a text cannot hold a NUL",
            "time_range: goes up to now",
            "start: is required where there is an end",
            "aggregates: .* (is no field of|is a text)",
            "Unknown symbol: ",
            "date: give either date, or start and end",
        )
    )
)
"""What makes a request wrong that is right parameter by parameter: no schema can say these."""

ROW_CODES = {"bad_field", "too_old", "unknown_symbol"}
"""What makes a tick or record wrong whose fields are all right: its symbol, its time, a price that its flags forbid."""

CONTENT_CODES = {
    "/tick": ROW_CODES,
    "/ingest/": ROW_CODES,
    "/db_command": ROW_CODES | {"missing_field"},  # what records need depends on the command
    "/api/alert_rules": {"bad_field", "missing_field", "unknown_symbol"},  # and what a rule needs on its type
}
TEXT_CODES = ROW_CODES | {"bad_json", "missing_field"}
"""Of CSV and NDJSON a schema says no more than that they are text."""


def schema(max_examples: int, *, coverage: bool, with_keys: bool) -> Any:
    create_app()  # its modules declare the endpoints
    config = {
        "seed": 1,
        "generation": {"max-examples": max_examples, "deterministic": True, "database": "none"},
        "phases": {"coverage": {"enabled": coverage}},
        "suppress-health-check": ["all"],
    }
    made = document(ENDPOINTS, version="0", with_keys=with_keys)
    return schemathesis.openapi.from_dict(made, config=schemathesis.Config.from_dict(config))


OPEN = schema(20, coverage=True, with_keys=False)
KEYED = schema(4, coverage=False, with_keys=True)


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template) as server:
        rows = [tick(symbol=name, flags=flags, last=1.5) for name in ("AAPL", "TSLA", "VIX") for flags in (6, 24, 88)]
        assert server.post(rows)[0] == 200
        server.wait_drained()
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def keyed(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ=KEYS) as server:
        yield server


@OPEN.parametrize()
def test_whatever_is_asked_the_answer_is_a_documented_one(case: schemathesis.Case, server: Server) -> None:
    ask_for_what_is_there(case)
    answer = case.call(base_url=url(server))
    body = json_of(answer)
    if answer.status_code >= 400 and body.get("status") == "error":
        assert body["code"] in CODES
    excused = []
    if answer.status_code == 400 and (RELATIONS.match(body["message"]) or body["code"] in content_codes(case)):
        excused.append(positive_data_acceptance)
    if body.get("status") == "partial":
        excused.append(negative_data_rejection)  # the bad rows are refused
    case.validate_response(answer, excluded_checks=excused)


@KEYED.parametrize()
def test_no_door_with_a_lock_opens_without_a_key(case: schemathesis.Case, keyed: Server) -> None:
    key = {"X-API-Key": KEYS["TICKHUB_API_KEY_ADMIN"]}
    case.call_and_validate(base_url=url(keyed), headers=key, checks=[ignored_auth, status_code_conformance])


def content_codes(case: schemathesis.Case) -> set[str]:
    """Return what may be wrong with a body that is right by its schema."""
    if case.media_type not in (None, "application/json"):
        return TEXT_CODES
    return next((codes for path, codes in CONTENT_CODES.items() if case.operation.path.startswith(path)), set())


def ask_for_what_is_there(case: schemathesis.Case) -> None:
    """Change most good requests so that they meet data: a random name is no symbol, a random token nobody's."""
    number = zlib.crc32(ascii((case.path_parameters, case.query, case.body)).encode())
    if case.meta is None or not case.meta.generation.mode.is_positive or number % 4 == 0:
        return
    known = {"symbol": SYMBOLS[number % len(SYMBOLS)], "tz": ZONES[number % len(ZONES)]}
    for asked in (case.path_parameters, case.query):
        for name in known.keys() & asked.keys():
            asked[name] = known[name]
        asked.pop("page_token", None)
    if case.operation.path.startswith("/tick") and isinstance(case.body, dict):
        for row in case.body.get("ticks", [case.body]):
            row |= {"symbol": known["symbol"], "timestamp": 1_768_327_200_000 + number % 10**6, "time_msc": None}


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def json_of(answer: schemathesis.Response) -> Mapping[str, Any]:
    """Return the JSON of an answer; nothing where it is of another kind, or a list."""
    is_json = any(kind.startswith("application/json") for kind in answer.headers.get("content-type", ()))
    if not is_json or not answer.content:
        return {}
    found = answer.json()
    return found if isinstance(found, dict) else {}
