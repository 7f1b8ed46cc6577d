"""`python -m app roles apply|let-in|shut-out`: the database's roles, and who comes in as them."""

from __future__ import annotations

import argparse
import secrets
import sys
from contextlib import closing

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import encrypt_password

from app.cli import COMMON, add_setting_flags
from app.cli.url import owner_url
from app.errors import DatabaseAway, SettingsError, StorageError
from app.settings import BY_NAME, Settings
from app.storage.connection import first_line
from app.storage.role_names import BACKUP, READ, WRITE
from app.storage.roles import grant

ROLES = {"read": READ, "write": WRITE, "backup": BACKUP}

_HOW_EMBEDDED = {
    "read": "who reads comes into the embedded database by --pg-port and python -m app url --read-only",
    "write": "the server comes into the embedded database by its socket, and needs no password",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, and with which role."""
    actions = parser.add_subparsers(dest="action", required=True)
    apply = actions.add_parser("apply", help="make the roles that are missing and give each what it needs")
    let_in = actions.add_parser("let-in", help="let a role log in, with a new password that is printed once")
    shut_out = actions.add_parser("shut-out", help="let a role log in no more, and end its sessions")
    for action in (let_in, shut_out):
        action.add_argument("role", choices=tuple(ROLES), help=", ".join(f"{k}: {v}" for k, v in ROLES.items()))
    for action in (apply, let_in, shut_out):  # so that they may stand behind the action too
        add_setting_flags(action, [BY_NAME[common] for common in (*COMMON, "direct_database_url")])


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it as the database's owner. A new password is the last line of stdout.

    Raises SettingsError for who has another way into the embedded server, StorageError when this role may not,
    DatabaseAway.
    """
    embedded = not (settings.database_url or settings.direct_database_url)
    if embedded and args.action != "apply" and args.role in _HOW_EMBEDDED:
        raise SettingsError(_HOW_EMBEDDED[args.role])
    url = owner_url(settings)
    password = secrets.token_urlsafe(24)
    try:
        with closing(psycopg2.connect(url, connect_timeout=settings.db_connect_timeout_s)) as conn:
            with conn, conn.cursor() as cur:
                grant(cur)
                if args.action != "apply":
                    role = ROLES[args.role]
                    # Hashed here: a statement may be logged, and then its text is.
                    hashed = encrypt_password(password, role, scope=conn, algorithm="scram-sha-256")
                    option = "LOGIN PASSWORD %s" if args.action == "let-in" else "NOLOGIN PASSWORD NULL"
                    cur.execute(
                        sql.SQL(f"ALTER ROLE {{}} {option}").format(sql.Identifier(role)),
                        (hashed,) if args.action == "let-in" else None,
                    )
            if args.action == "shut-out":
                _end_sessions(conn, role)  # now, that no new one can begin
            warnings = [notice.strip() for notice in conn.notices if notice.startswith("WARNING")]
    except psycopg2.errors.InsufficientPrivilege as why:
        raise StorageError(f"this role may not: {first_line(why)}") from why
    except psycopg2.OperationalError as why:
        raise DatabaseAway(first_line(why)) from why
    except psycopg2.Error as why:
        raise StorageError(first_line(why)) from why
    for line in warnings:
        print(line, file=sys.stderr)
    if args.action == "let-in":
        print(f"{role} may log in; its password is shown once:", file=sys.stderr)
        print(password)
    elif args.action == "shut-out":
        print(f"{role} may log in no more", file=sys.stderr)
    else:
        print("each role may do what it needs and nothing else", file=sys.stderr)
    return 0


def _end_sessions(conn: Connection, role: str) -> None:
    """End the sessions of a role. Raises psycopg2.errors.InsufficientPrivilege."""
    query, parameters = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (role,)
    with conn.cursor() as cur:
        try:
            cur.execute(query, parameters)
        except psycopg2.errors.InsufficientPrivilege:
            # Who may give the role away is not yet of it, and only who is may end its sessions: for this transaction.
            conn.rollback()
            cur.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role)))
            cur.execute(query, parameters)
        finally:
            conn.rollback()
