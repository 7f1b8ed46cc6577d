"""Rules of alerts: listed, added, removed, and the alerts that they gave. Greenlet side.

Rules count within a second, whoever is elected.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta, Struct

from app.alert_source import AlertSource
from app.alerts.rules import NewRule, Rule
from app.errors import (
    BadField,
    BadJson,
    BadParameter,
    Conflict,
    DatabaseNeeded,
    MissingField,
    NotFound,
    NotReady,
    QueryTimeout,
    TooLarge,
    UnknownSymbol,
    UnsupportedEncoding,
)
from app.reads import PAGE
from app.storage.alert_reader import ALERTS, AlertFilter
from app.storage.alert_rules import add_rule, list_rules, remove_rule
from app.web.answers import list_type, row_type
from app.web.api import FORMATS, Endpoint, endpoint
from app.web.body import body_of
from app.web.client import client_of
from app.web.errors import answer
from app.web.market import READ_ERRORS
from app.web.params import RangeParams, body_problem
from app.web.rows import answer_rows, range_of, rows_request
from app.web.server import runtime

blueprint = Blueprint("alerts", __name__)

MAX_ID = 2**31 - 1


class UnknownSymbolSent(UnknownSymbol):
    """The symbol in the body is none."""

    status = 400


class AlertRules(Struct):
    """All rules of alerts."""

    alert_rules: list[Rule]


class AlertParams(RangeParams, kw_only=True):
    """Parameters of /api/history/alerts."""

    symbol: Annotated[
        str | None, Meta(description="the symbol's name or any of its aliases, in any case; without it: all")
    ] = None
    alert_type: Annotated[str | None, Meta(description="only alerts of this type")] = None
    severity: Annotated[str | None, Meta(description="only alerts of this severity")] = None


ToldAlert = row_type("ToldAlert", ALERTS, nullable=("rule_id",))
AlertHistory = list_type("AlertHistory", [("symbol", str | None)], "alerts", ToldAlert)


class RemoveParams(Struct, kw_only=True):
    """Parameters of DELETE /api/alert_rules."""

    rule_id: Annotated[int, Meta(ge=1, le=MAX_ID, description="number of the rule; its alerts stay")]


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/alert_rules",
        "All rules of alerts",
        "alerts",
        answer=AlertRules,
        errors=(QueryTimeout, DatabaseNeeded, NotReady),
    ),
)
def alert_rules() -> Response:
    """Return the rules in the order in which they were made."""
    return answer(AlertRules(runtime().reads.run(PAGE, list_rules, client=client_of(request.environ))))


@endpoint(
    blueprint,
    Endpoint(
        "POST",
        "/api/alert_rules",
        "Add a rule of alerts",
        "alerts",
        scope="admin",
        description="A rule alerts once a crossing: again when its value went back by `hysteresis` and crossed anew, "
        "and not within `cooldown_s`. Alerts go to the `alerts` channel of `/ws`, the table `alerts` and the webhook.",
        body=NewRule,
        answer=Rule,
        status=201,
        errors=(
            BadJson,
            BadField,
            MissingField,
            UnknownSymbolSent,
            Conflict,
            TooLarge,
            UnsupportedEncoding,
            QueryTimeout,
            DatabaseNeeded,
        ),
    ),
)
def add_alert_rule() -> Response:
    """Add one rule; a price counts from what it is now."""
    run = runtime()
    with body_of(request, run.settings.max_body_mb << 20, run.in_flight) as body:
        try:
            new = msgspec.json.decode(body, type=NewRule)
        except msgspec.ValidationError as error:
            text = body_problem(error, NewRule)
            raise (MissingField if "missing required field" in str(error) else BadField)(text) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadJson(f"the body is not JSON: {error}") from error
    try:
        return answer(run.desk.write(lambda cur: add_rule(cur, new)), 201)
    except UnknownSymbol as error:
        raise UnknownSymbolSent(str(error)) from error


@endpoint(
    blueprint,
    Endpoint(
        "DELETE",
        "/api/alert_rules",
        "Remove a rule of alerts",
        "alerts",
        scope="admin",
        params=RemoveParams,
        answer=Rule,
        errors=(BadParameter, NotFound, QueryTimeout, DatabaseNeeded),
    ),
)
def remove_alert_rule(params: RemoveParams) -> Response:
    """Remove one rule, and return it."""
    return answer(runtime().desk.write(lambda cur: remove_rule(cur, params.rule_id)))


@endpoint(
    blueprint,
    Endpoint(
        "GET",
        "/api/history/alerts",
        "Stored alerts, in order",
        "alerts",
        params=AlertParams,
        answer=AlertHistory,
        formats=FORMATS,
        errors=READ_ERRORS,
    ),
)
def alert_history(params: AlertParams) -> Response:
    """Return alerts of a range, or the newest ones."""
    for name in ("alert_type", "severity"):
        if "\0" in (getattr(params, name) or ""):
            raise BadParameter(f"{name}: a text cannot hold a NUL")
    asked = AlertFilter(*range_of(params.start, params.end), params.alert_type, params.severity)
    wanted = rows_request(params.symbol, AlertSource(asked), params)
    return answer_rows(runtime(), wanted, closed=False, cacheable=False)
