"""Rules of alerts: listed, added, removed. They count within a second, whoever is elected. Greenlet side."""

from __future__ import annotations

from typing import Annotated

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta, Struct

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
from app.storage.alert_rules import add_rule, list_rules, remove_rule
from app.web.api import Endpoint, endpoint
from app.web.body import body_of
from app.web.client import client_of
from app.web.errors import answer
from app.web.server import runtime

blueprint = Blueprint("alerts", __name__)

MAX_ID = 2**31 - 1


class UnknownSymbolSent(UnknownSymbol):
    """The symbol in the body is none."""

    status = 400


class AlertRules(Struct):
    """All rules of alerts."""

    alert_rules: list[Rule]


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
            text = str(error).replace("`", "")
            raise (MissingField if "missing required" in text else BadField)(text) from error
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
