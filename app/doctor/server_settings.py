"""The database server's settings: whether it keeps what it is told, and as well as it can."""

from __future__ import annotations

from collections.abc import Iterator

from app.doctor.case import Case
from app.doctor.findings import Check, Finding, fail, ok, warn
from app.setting_sources import SPARE_CONNECTIONS

INCREMENTAL_FROM = 17_00_00
"""From this version on backups may be incremental."""

_SETTINGS = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"


def durability(case: Case) -> Iterator[Finding]:
    """What was committed survives a crash of the machine."""
    found = _settings(case, "fsync", "full_page_writes", "synchronous_commit", "data_checksums", "autovacuum")
    off = [name for name in ("fsync", "full_page_writes") if found[name] != "on"]
    remedy = "ALTER SYSTEM SET {} = on; SELECT pg_reload_conf();"
    if off:
        yield fail(
            "durability",
            f"{' and '.join(off)} is off: a crash of the machine loses or damages data",
            " ".join(remedy.format(name) for name in off),
        )
    elif found["autovacuum"] != "on":
        found_off = "autovacuum is off: tables grow, and at last no row is taken"
        yield fail("durability", found_off, remedy.format("autovacuum"))
    elif found["synchronous_commit"] == "off":
        yield warn(
            "durability",
            "synchronous_commit is off: tickhub sets it for its own transactions, others' may be lost",
            remedy.format("synchronous_commit"),
        )
    elif found["data_checksums"] != "on":
        yield warn(
            "durability",
            "no data checksums: a bad disk is not noticed",
            "stop it and run pg_checksums --enable, when there is an hour for it",
        )
    else:
        yield ok("durability", "fsync, full_page_writes, synchronous_commit, data_checksums, autovacuum")


def connections(case: Case) -> Iterator[Finding]:
    """There are as many connections as the workers may open."""
    settings = case.settings
    told = _settings(case, "max_connections", "superuser_reserved_connections", "reserved_connections")
    most = int(told["max_connections"])
    free = most - int(told["superuser_reserved_connections"]) - int(told.get("reserved_connections", 0))
    planned = settings.workers * settings.db_pool_size
    found = f"{most} allowed; {settings.workers} workers open up to {planned}"
    if settings.direct_database_url and settings.database_url:
        yield ok("connections", f"{found}, of a pooler")
    elif planned > free:
        yield fail(
            "connections",
            found,
            f"raise max_connections to {planned + SPARE_CONNECTIONS}, set a smaller --db-pool-size, or put a pooler"
            " before it: docs/pooler.md",
        )
    else:
        yield ok("connections", found)


def wal(case: Case) -> Iterator[Finding]:
    """Backups can be taken, incremental ones too, and no receiver lets the WAL pile up."""
    names = ("wal_level", "summarize_wal", "max_wal_senders", "max_replication_slots", "server_version_num")
    told = _settings(case, *names)
    if told["wal_level"] == "minimal" or "0" in (told["max_wal_senders"], told["max_replication_slots"]):
        yield warn(
            "wal",
            f"wal_level {told['wal_level']}, max_wal_senders {told['max_wal_senders']}, max_replication_slots"
            f" {told['max_replication_slots']}: no physical backup can be taken",
            "ALTER SYSTEM SET wal_level = replica; the other two to 10; restart PostgreSQL. Until then: backup dump",
        )
        return
    lost = case.rows("SELECT slot_name FROM pg_replication_slots WHERE wal_status = 'lost'")
    if lost:
        slots = ", ".join(name for (name,) in lost)
        yield warn(
            "wal",
            f"the receiver of {slots} was away for so long that WAL was thrown away",
            "start python -m app backup wal, then take a full backup",
        )
    elif int(told["server_version_num"]) < INCREMENTAL_FROM:
        yield ok("wal", f"wal_level {told['wal_level']}; before PostgreSQL 17 each backup is a full one")
    elif told.get("summarize_wal") != "on":
        yield warn(
            "wal",
            "summarize_wal is off: each backup is a full one",
            "ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf();",
        )
    else:
        yield ok("wal", f"wal_level {told['wal_level']}, summarize_wal on")


def extensions(case: Case) -> Iterator[Finding]:
    """Statements are counted; what else is installed is not used."""
    there = dict(case.rows("SELECT extname, extversion FROM pg_extension"))
    # The list of libraries is not for everybody to see; this is there when the library is loaded, and only then.
    loaded = bool(_settings(case, "pg_stat_statements.max"))
    others = sorted(there.keys() & {"timescaledb", "citus"})
    if others:
        yield warn(
            "extensions",
            f"{', '.join(others)}: tickhub's tables are plain ones, partitioned by itself",
            "leave them so: do not make hypertables or distributed tables of them",
        )
    elif not loaded and "pg_stat_statements" not in there:
        yield warn(
            "extensions",
            "no pg_stat_statements: /metrics cannot tell which statements take long",
            "put it into shared_preload_libraries, with pg_stat_statements.track_utility = off, restart PostgreSQL,"
            " CREATE EXTENSION pg_stat_statements;",
        )
    elif not loaded or "pg_stat_statements" not in there:
        yield warn(
            "extensions",
            "pg_stat_statements is half there: " + ("no extension" if loaded else "its library is not loaded"),
            "CREATE EXTENSION pg_stat_statements;" if loaded else "put it into shared_preload_libraries and restart",
        )
    else:
        yield ok("extensions", f"pg_stat_statements {there['pg_stat_statements']}")


CHECKS: tuple[Check, ...] = ()
OF_DATABASE: tuple[Check, ...] = (durability, connections, wal, extensions)


def _settings(case: Case, *names: str) -> dict[str, str]:
    return dict(case.rows(_SETTINGS, (list(names),)))
