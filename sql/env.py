"""What Alembic runs to migrate: one transaction, one migrator at a time, no long wait for a table."""

from alembic import context
from sqlalchemy import text

MIGRATION_LOCK = (
    0x7469636B68756201  # advisory; "tickhub" and a number, so that nothing else takes it by chance
)

connection = context.config.attributes["connection"]
context.configure(connection=connection, on_version_apply=context.config.attributes["on_version_apply"])

with context.begin_transaction():
    # The lock goes with the transaction, so it works through a pooler and a dead migrator leaves none behind.
    connection.execute(text("SET LOCAL lock_timeout = '60s'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    # A statement that waits for a busy table makes every reader and flush queue up behind it.
    connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    connection.execute(text("SET LOCAL search_path = public"))
    context.run_migrations()
    with connection.connection.cursor() as cur:
        context.config.attributes["grant"](cur)
