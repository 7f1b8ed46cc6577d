"""Who may do what in the database: roles that log in for one purpose each. Lane side.

The owner is whoever migrates: of what it makes the others are given what they need, and nothing besides. This runs
behind every migration, so a table that is added is decided on here; one that is not named can only be read. Roles are
the whole server's, and passwords their owner's: `ALTER ROLE tickhub_write LOGIN PASSWORD '...'`.
"""

from __future__ import annotations

from collections.abc import Mapping

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from app.datasets.registry import DATASETS
from app.datasets.rollup import rollup_table
from app.storage.role_names import BACKUP, READ, WRITE

_STORES, _CHANGES, _REMOVES = "SELECT, INSERT", "SELECT, INSERT, UPDATE", "SELECT, INSERT, UPDATE, DELETE"

_OTHERS: Mapping[str, str] = {
    "ticks": _STORES,
    "rejected_ticks": _STORES,
    "rejected_records": _STORES,
    "bars": _CHANGES,
    "current": _CHANGES,
    "instruments": _CHANGES,
    "symbol_aliases": _CHANGES,
    "ingest_log": _CHANGES,
    "leases": _CHANGES,
    "collected": _CHANGES,
    "alert_rules": _REMOVES,
    "alert_progress": _REMOVES,
    "alert_outbox": _REMOVES,
    "late_ticks": _STORES,
    "resent_ticks": _CHANGES,
    "jobs": _CHANGES,
    # Looked at FOR SHARE, for which the right to change one column is asked: the one that says nothing.
    "tick_ranges": "SELECT, UPDATE (changed_at)",
    # Who deletes, drops and archives is the owner, and what that was the server does not touch.
    "kept_from": "SELECT",
    "audit_log": "SELECT",
    "alembic_version": "SELECT",
}
_SECRETS = ("keys_in_force", "keys_made")
"""What of schema secret the role that writes may read."""

_MAKE = f"""
DO $$
DECLARE
    v_role record;
BEGIN
    FOR v_role IN SELECT * FROM (VALUES ('{WRITE}', ''), ('{BACKUP}', 'REPLICATION')) AS r (name, attributes) LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = v_role.name);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN %s', v_role.name, v_role.attributes);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- made by another database's migration at this moment
            WHEN insufficient_privilege THEN
                BEGIN
                    EXECUTE format('CREATE ROLE %I NOLOGIN', v_role.name);
                    IF v_role.attributes <> '' THEN
                        RAISE WARNING 'role % is made without %, which this role may not give: docs/roles.md says how',
                            v_role.name, v_role.attributes;
                    END IF;
                EXCEPTION
                    WHEN duplicate_object OR unique_violation THEN
                        NULL;
                    WHEN insufficient_privilege THEN
                        RAISE WARNING 'no role %, for this role may not make one: docs/roles.md says how', v_role.name;
                END;
        END;
    END LOOP;
END $$;
"""  # noqa: S608 - the constants above

_THERE = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"

# Only what is ours: the tables of others in public are theirs to share.
_TABLES = """
    SELECT n.nspname, c.relname, c.relkind::text, c.relispartition
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('public', 'history', 'secret') AND c.relkind IN ('r', 'p', 'v', 'S')
      AND c.relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)
    ORDER BY 1, 2
"""
_OWNS_DATABASE = """
    SELECT current_database() FROM pg_database
    WHERE datname = current_database() AND pg_has_role(current_user, datdba, 'USAGE')
"""
# Both are everybody's unless somebody has taken them away, as the embedded server does that lets people in to read.
_LOCKS = "GRANT EXECUTE ON FUNCTION pg_advisory_xact_lock(bigint), pg_advisory_xact_lock(integer, integer) TO {}"
_IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"


def writers_rights() -> dict[str, str]:
    """Return what the role that writes may do, by table of schema public."""
    datasets = {dataset.table: _CHANGES for dataset in DATASETS.values()}
    rollups = {rollup_table(dataset): _CHANGES for dataset in DATASETS.values() if dataset.rollup}
    return {**_OTHERS, **datasets, **rollups}


def grant(cur: Cursor) -> None:
    """Make the roles that are missing, and give each what it needs of what the present role owns. Idempotent.

    A role that may make none, nor grant on the database, leaves that to others; the server says so in a warning.
    """
    cur.execute(_MAKE)
    cur.execute(_THERE, ([READ, WRITE, BACKUP],))
    there = {name for (name,) in cur.fetchall()}
    cur.execute(_TABLES)
    found = cur.fetchall()
    if WRITE in there:
        _let_write(cur, found)
    if BACKUP in there:
        _let_copy(cur, found)
    if READ in there:
        cur.execute(_of(READ, "REVOKE ALL ON ALL TABLES IN SCHEMA secret FROM {}; REVOKE ALL ON SCHEMA secret FROM {}"))
        cur.execute(_of(READ, "ALTER DEFAULT PRIVILEGES IN SCHEMA public, history GRANT SELECT ON TABLES TO {}"))


def _let_write(cur: Cursor, found: list[tuple[str, str, str, bool]]) -> None:
    rights = writers_rights()
    cur.execute(_of(WRITE, "GRANT USAGE ON SCHEMA public, history, secret TO {}"))
    for schema, name, kind, is_partition in found:
        if kind == "S" or is_partition:
            continue  # sequences are all of identities: whoever inserts needs no right on them; rows go by the parent
        if schema == "secret":
            _give(cur, WRITE, "SELECT" if name in _SECRETS else "", schema, name, kind)
        else:
            _give(cur, WRITE, rights.get(name, "SELECT") if schema == "public" else "SELECT", schema, name, kind)
    # Not for schema secret: what is added there is decided on here.
    cur.execute(_of(WRITE, "ALTER DEFAULT PRIVILEGES IN SCHEMA public, history GRANT SELECT ON TABLES TO {}"))
    cur.execute(_OWNS_DATABASE)
    if database := cur.fetchone():
        cur.execute(
            sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}").format(
                sql.Identifier(database[0]), sql.Identifier(WRITE)
            )
        )
    cur.execute(_IS_SUPERUSER)
    if cur.fetchone() == (True,):
        cur.execute(_of(WRITE, _LOCKS))


def _let_copy(cur: Cursor, found: list[tuple[str, str, str, bool]]) -> None:
    cur.execute(_of(BACKUP, "GRANT USAGE ON SCHEMA public, history, secret TO {}"))
    for schema, name, kind, _ in found:
        _give(cur, BACKUP, "SELECT", schema, name, kind)
    for kind in ("TABLES", "SEQUENCES"):
        cur.execute(
            _of(BACKUP, f"ALTER DEFAULT PRIVILEGES IN SCHEMA public, history, secret GRANT SELECT ON {kind} TO {{}}")
        )


def _give(cur: Cursor, role: str, right: str, schema: str, name: str, kind: str) -> None:
    """Let the role have this right on a table, view or sequence, and no other; "": none."""
    on = sql.SQL("ON {} {} ").format(sql.SQL("SEQUENCE" if kind == "S" else "TABLE"), sql.Identifier(schema, name))
    to = sql.Identifier(role)
    cur.execute(sql.SQL("REVOKE ALL {}FROM {}").format(on, to))
    if right:
        cur.execute(sql.SQL("GRANT {} {}TO {}").format(sql.SQL(right), on, to))


def _of(role: str, statement: str) -> sql.Composed:
    parts = statement.count("{}")
    return sql.SQL(statement).format(*[sql.Identifier(role)] * parts)
