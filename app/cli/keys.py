"""`python -m app keys add|list|revoke|rotate`: API keys, beside a running server."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from app.cli import COMMON, add_setting_flags, database
from app.cli.delete import actor
from app.cli.url import owner_url
from app.settings import BY_NAME, Settings
from app.storage.connection import Connection
from app.storage.key_store import SCOPES, StoredKey, add_key, audit, list_keys, revoke_key, rotate_key

_STATEMENT_TIMEOUT_S = 30.0
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COLUMNS = ("prefix", "name", "scopes", "rate", "made", "expires", "state")
_LONGEST = timedelta(days=36_500)

ONCE = "This is shown once, and kept nowhere: whoever is to use the key needs it now."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, and with which key."""
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="make a key and print it, once")
    add.add_argument("name", metavar="NAME", help="whose it is, or what for")
    add.add_argument("--scopes", required=True, help="what it allows, comma separated: " + ", ".join(SCOPES))
    add.add_argument("--expires", type=_span, metavar="TIME", help="how long it holds: 90d, 12h; default for ever")
    add.add_argument(
        "--rate", type=float, metavar="N", help="most requests in a second; default: rate_limit_ingest, rate_limit_read"
    )
    listing = actions.add_parser("list", help="show all keys, not what they are")
    listing.add_argument("--json", action="store_true", help="as JSON")
    revoke = actions.add_parser("revoke", help="end a key, within seconds and for good")
    rotate = actions.add_parser("rotate", help="make another key like this one, which ends a while later")
    for action in (revoke, rotate):
        action.add_argument("key", metavar="PREFIX|NAME", help="the key: the eight characters behind th_, or its name")
    rotate.add_argument(
        "--grace", type=_span, default=timedelta(days=1), metavar="TIME", help="how long the old one holds (1d)"
    )
    for action in (add, listing, revoke, rotate):  # so that they may stand behind the action too
        add_setting_flags(action, [BY_NAME[common] for common in (*COMMON, "direct_database_url")])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it as the database's owner; running servers know within seconds. A new key is the last line of stdout.

    Starts the embedded database when it is down, and leaves it running. Raises BadField, NotFound, Conflict,
    DatabaseAway.
    """
    database.run(argparse.Namespace(action="up"), settings)
    url = owner_url(settings)
    connection = Connection(lambda: url, settings.db_connect_timeout_s, _STATEMENT_TIMEOUT_S, "keys")
    try:
        with connection.transaction() as cur:
            if args.action == "list":
                _show(list_keys(cur), as_json=args.json)
            elif args.action == "revoke":
                old = revoke_key(cur, args.key)
                audit(cur, actor(), "revoke key", old)
                _say(f"revoked: {_line(old)}")
            elif args.action == "rotate":
                key, new, old = rotate_key(cur, args.key, args.grace)
                audit(cur, actor(), "rotate key", new)
                _say(f"added: {_line(new)}", f"ends:  {_line(old)}", ONCE)
            else:
                scopes = [scope.strip() for scope in args.scopes.split(",") if scope.strip()]
                key, new = add_key(cur, args.name, scopes, rate_per_s=args.rate, expires_in=args.expires)
                audit(cur, actor(), "add key", new)
                _say(f"added: {_line(new)}")
                if new.key_no == 1 and not settings.has_api_keys:
                    _say("It is the first: from now on every request needs a key.")
                _say(ONCE)
    finally:
        connection.close()
    if args.action in ("add", "rotate"):
        print(key)  # when it is committed: a key that is shown is one that holds
    return 0


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip().lower())
    span = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
    if span is None or span > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no time such as 90d, 12h or 0s")
    return span


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _cells(key: StoredKey) -> tuple[str, ...]:
    now = datetime.now(UTC)
    ended = key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now)
    state = "revoked" if key.revoked_at is not None else "expired" if ended else "holds"
    rate = "" if key.rate_per_s is None else f"{key.rate_per_s:g}/s"
    expires = "" if key.expires_at is None else _minute(key.expires_at)
    return key.prefix, key.name, ",".join(key.scopes), rate, _minute(key.created_at), expires, state


def _minute(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _line(key: StoredKey) -> str:
    return " ".join(f"{name}={cell!r}" for name, cell in zip(_COLUMNS, _cells(key), strict=True) if cell)


def _show(keys: Sequence[StoredKey], *, as_json: bool) -> None:
    rows = [_cells(key) for key in keys]
    if as_json:
        found = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode({"api_keys": found})).decode() + "\n")
        return
    table = [_COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
