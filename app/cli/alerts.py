"""`python -m app alerts list|add|remove`: rules of alerts, beside a running server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

import msgspec

from app.alerts.rules import DEFAULT_COOLDOWN_S, METRICS, AlertType, Direction, NewRule, Rule, Severity
from app.cli import COMMON, add_setting_flags, database
from app.cli.url import database_url
from app.settings import BY_NAME, Settings
from app.storage.alert_rules import add_rule, list_rules, remove_rule
from app.storage.connection import Connection

_STATEMENT_TIMEOUT_S = 60.0
_COLUMNS = Rule.__struct_fields__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, and with which rule."""
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="show all rules")
    listing.add_argument("--json", action="store_true", help="as JSON")
    add = actions.add_parser("add", help="add a rule")
    add.add_argument("alert_type", choices=get_args(AlertType), metavar="TYPE", help=", ".join(get_args(AlertType)))
    add.add_argument(
        "threshold", type=float, help="price; points of spread; seconds without a tick; multiple of the mean volume"
    )
    add.add_argument("--symbol", help="the instrument, by any of its names")
    add.add_argument("--direction", choices=get_args(Direction), help="which way it crosses")
    add.add_argument("--field", help="price (default), bid, ask or last; of metric_beyond a field of the dataset")
    add.add_argument("--dataset", choices=tuple(METRICS), help="of metric_beyond")
    add.add_argument("--subject", help="futures symbol, strategy or host that it is about")
    add.add_argument("--hysteresis", type=float, help="how far back before it alerts again")
    add.add_argument(
        "--cooldown", dest="cooldown_s", type=float, default=DEFAULT_COOLDOWN_S, help="least time between alerts (s)"
    )
    add.add_argument("--severity", choices=get_args(Severity), default="warning")
    add.add_argument("--name", help="name for people")
    remove = actions.add_parser("remove", help="remove a rule; its alerts stay")
    remove.add_argument("rule_id", type=int, metavar="NUMBER", help="number of the rule")
    for action in (listing, add, remove):  # so that they may stand behind the action too
        add_setting_flags(action, [BY_NAME[common] for common in COMMON])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it; a running server knows within a second.

    Starts the embedded database when it is down, and leaves it running. Raises BadField, MissingField, UnknownSymbol,
    NotFound, Conflict, DatabaseAway.
    """
    database.run(argparse.Namespace(action="up"), settings)
    connection = Connection(
        lambda: database_url(settings), settings.db_connect_timeout_s, _STATEMENT_TIMEOUT_S, "alerts"
    )
    try:
        with connection.transaction() as cur:
            if args.action == "list":
                _show(list_rules(cur), as_json=args.json)
            elif args.action == "add":
                new = NewRule(**{name: getattr(args, name) for name in NewRule.__struct_fields__})
                print(_line(add_rule(cur, new)))
            else:
                print(f"removed: {_line(remove_rule(cur, args.rule_id))}")
    finally:
        connection.close()
    return 0


def _line(rule: Rule) -> str:
    values = msgspec.structs.asdict(rule)
    return " ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _show(rules: Sequence[Rule], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode({"alert_rules": rules})).decode() + "\n")
        return
    rows = [[*_COLUMNS], *(["" if v is None else str(v) for v in msgspec.structs.astuple(rule)] for rule in rules)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
