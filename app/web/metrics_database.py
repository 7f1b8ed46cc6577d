"""What the database says of itself as Prometheus metrics; and jobs and the archive, which are in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.storage.database_figures import DatabaseFigures, Job, Ranges, Session, Statement, TableSize

HOT_BYTES_A_TICK = 172.0
"""What a tick takes in the database, measured; where it holds too few to be measured there."""

LEAST_MEASURED = 100_000

_COUNTED = (
    ("xact_commit", "tickhub_database_commits", "Committed transactions."),
    ("xact_rollback", "tickhub_database_rollbacks", "Transactions rolled back."),
    ("blks_hit", "tickhub_database_blocks_hit", "Blocks that were in the database's own cache."),
    ("blks_read", "tickhub_database_blocks_read", "Blocks that were not: from the system's cache, or disk."),
    ("tup_returned", "tickhub_database_rows_scanned", "Rows that scans went through."),
    ("tup_inserted", "tickhub_database_rows_inserted", "Rows inserted."),
    ("tup_updated", "tickhub_database_rows_updated", "Rows updated."),
    ("tup_deleted", "tickhub_database_rows_deleted", "Rows deleted."),
    ("temp_bytes", "tickhub_database_temp_bytes", "Written to temporary files."),
    ("deadlocks", "tickhub_database_deadlocks", "Deadlocks."),
)
# Shown as 0 too: a line that ends where nothing is held looks like a server that is gone.
_LOCK_MODES = (
    "AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock",
    "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock",
)  # fmt: skip
_SESSION_STATES = ("active", "idle", "idle in transaction")
_JOB_STATES = ("waiting", "running", "ok", "failed", "cut_off")


def database_families(found: DatabaseFigures | None, age_s: float, scheduled: Collection[str] = ()) -> Iterator[Metric]:
    """Yield what is known, and how old it is; age_s: that, or for how long nothing has been known.

    scheduled: names of the jobs that this server is to run.
    """
    # Where nothing is known, too: alerts about jobs and connections are silent then, and this one must not be.
    yield GaugeMetricFamily("tickhub_database_figures_age_seconds", "Age of what the database says of itself.", age_s)
    if found is None:
        return
    for key, name, text in _COUNTED:
        yield CounterMetricFamily(name, text, value=found.counted[key])
    hit, read = found.counted["blks_hit"], found.counted["blks_read"]
    if hit + read:
        yield GaugeMetricFamily(
            "tickhub_database_cache_hit_ratio",
            "Share of blocks found in the database's cache, since its books were begun.",
            value=hit / (hit + read),
        )
    for name, text, value in (
        ("tickhub_database_size_bytes", "Size of the database.", found.size_bytes),
        ("tickhub_database_max_connections", "Connections that the server allows.", found.max_connections),
        ("tickhub_database_started_timestamp_seconds", "When the server began.", found.started_s),
        (
            "tickhub_database_oldest_transaction_age",
            "Transactions since the oldest row that is not frozen; at 2 billion the server stops.",
            found.oldest_transaction_age,
        ),
        ("tickhub_database_locks_waiting", "Locks that somebody waits for.", found.locks_waiting),
        ("tickhub_alert_rules", "Alert rules.", found.alert_rules),
        ("tickhub_alerts_to_post", "Alerts that the webhook has not taken yet.", found.alerts_to_post),
    ):
        yield GaugeMetricFamily(name, text, value=value)
    yield _labelled(
        "tickhub_database_locks",
        "Locks that are held, by mode.",
        "mode",
        dict.fromkeys(_LOCK_MODES, 0) | found.locks,
    )
    yield from _sessions(found.sessions)
    kept = GaugeMetricFamily("tickhub_database_slot_kept_bytes", "WAL kept for a replication slot.", labels=["slot"])
    active = GaugeMetricFamily("tickhub_database_slot_active", "Whether somebody reads from it.", labels=["slot"])
    for slot_name, slot in found.slots.items():
        kept.add_metric([slot_name], slot.kept_bytes)
        active.add_metric([slot_name], slot.active)
    yield from (kept, active)
    yield from _tables(found.tables)
    yield from _statements(found.statements)
    yield from _jobs(found.jobs, scheduled)
    yield from _archive(found.tick_ranges, found.late_ticks, found.tables.get("ticks"))


def _sessions(sessions: Mapping[str, Session]) -> Iterator[Metric]:
    yield _labelled(
        "tickhub_database_connections",
        "Connections of clients, by state.",
        "state",
        dict.fromkeys(_SESSION_STATES, 0) | {state: session.count for state, session in sessions.items()},
    )
    for name, text, key in (
        ("tickhub_database_longest_query_seconds", "How long the longest query has been running.", "longest_query_s"),
        (
            "tickhub_database_longest_transaction_seconds",
            "How long the longest transaction has been open.",
            "longest_transaction_s",
        ),
    ):
        longest = [getattr(session, key) or 0.0 for session in sessions.values()]
        yield GaugeMetricFamily(name, text, value=max(0.0, *longest, 0.0))


def _tables(tables: Mapping[str, TableSize]) -> Iterator[Metric]:
    for key, name, text in (
        ("bytes", "tickhub_database_table_bytes", "Size of a table with its partitions, without indexes."),
        ("index_bytes", "tickhub_database_index_bytes", "Size of its indexes."),
        ("rows", "tickhub_database_table_rows", "Rows of it, estimated."),
        ("dead_rows", "tickhub_database_dead_rows", "Rows of it that wait for vacuum, estimated."),
        ("partitions", "tickhub_database_partitions", "Its partitions; 1: it has none."),
    ):
        yield _labelled(name, text, "table", {table: getattr(size, key) for table, size in tables.items()})


def _statements(statements: list[Statement] | None) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "tickhub_database_statements_known",
        "Whether the database keeps books of statements (pg_stat_statements).",
        value=statements is not None,
    )
    labels = ["query_id", "query"]
    total = CounterMetricFamily("tickhub_database_statement_seconds", "Time that a statement took.", labels=labels)
    calls = CounterMetricFamily("tickhub_database_statement_calls", "How often it ran.", labels=labels)
    longest = GaugeMetricFamily("tickhub_database_statement_longest_seconds", "Its longest run.", labels=labels)
    for one in statements or ():
        total.add_metric([one.query_id, one.query], one.total_s)
        calls.add_metric([one.query_id, one.query], one.calls)
        longest.add_metric([one.query_id, one.query], one.longest_s)
    yield from (total, calls, longest)


def _jobs(jobs: Mapping[str, Job], scheduled: Collection[str]) -> Iterator[Metric]:
    # What was scheduled once stays in the table as it ended: no alert is to go on about it for ever.
    yield _labelled(
        "tickhub_job_scheduled",
        "Whether this server is to run a job by schedule.",
        "name",
        {name: name in scheduled for name in jobs},
    )
    state = GaugeMetricFamily("tickhub_job_state", "1 for the state that a job is in.", labels=["name", "state"])
    runs = CounterMetricFamily("tickhub_job_runs", "Runs that began.", labels=["name"])
    failures = CounterMetricFamily("tickhub_job_failures", "Runs that ended badly.", labels=["name"])
    succeeded = GaugeMetricFamily(
        "tickhub_job_succeeded_timestamp_seconds", "When a job last ended well; 0: never.", labels=["name"]
    )
    took = GaugeMetricFamily("tickhub_job_seconds", "How long its newest run took that has ended.", labels=["name"])
    for name, job in jobs.items():
        for one in _JOB_STATES:
            state.add_metric([name, one], job.state == one)
        runs.add_metric([name], job.runs)
        failures.add_metric([name], job.failures)
        succeeded.add_metric([name], job.succeeded_s or 0.0)
        if job.started_s is not None and job.ended_s is not None and job.ended_s >= job.started_s:
            took.add_metric([name], job.ended_s - job.started_s)
    yield from (state, runs, failures, succeeded, took)


def _archive(ranges: Mapping[str, Ranges], late_ticks: int, ticks: TableSize | None) -> Iterator[Metric]:
    yield _labelled(
        "tickhub_tick_ranges", "Ranges of ticks by state.", "state", {name: one.ranges for name, one in ranges.items()}
    )
    yield GaugeMetricFamily("tickhub_late_ticks", "Ticks of archived times that wait to be merged.", value=late_ticks)
    archived = ranges.get("archived")
    if archived is None or not archived.rows:
        return
    yield GaugeMetricFamily("tickhub_archive_ticks", "Ticks in the archive's files.", value=archived.rows)
    yield GaugeMetricFamily("tickhub_archive_bytes", "Size of those files.", value=archived.bytes)
    hot = HOT_BYTES_A_TICK
    if ticks is not None and ticks.rows >= LEAST_MEASURED:
        hot = (ticks.bytes + ticks.index_bytes) / ticks.rows
    yield GaugeMetricFamily(
        "tickhub_archive_saved_ratio",
        "Share of their size in the database that archived ticks save.",
        value=1 - archived.bytes / (archived.rows * hot),
    )


def _labelled(name: str, text: str, label: str, values: Mapping[str, Any]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
