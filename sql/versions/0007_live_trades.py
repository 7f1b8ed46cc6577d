"""How far each journal's rows are committed, and an index by arrival: what live trades are joined with."""

from alembic import op

revision = "0007"
down_revision = "0006"

# Rows arrive nearly in the order of received_at, so the range of each few pages is narrow. autosummarize, because
# VACUUM comes seldom to a table that is only added to, and what is not summarised is read every time.
ARRIVAL = """
CREATE INDEX ticks_received_at ON ticks USING brin (received_at) WITH (pages_per_range = 32, autosummarize = on);
"""

LEDGER = """
ALTER TABLE ingest_log ADD COLUMN done_until timestamptz, ADD COLUMN entered_at timestamptz,
    ADD COLUMN entered_from timestamptz;
COMMENT ON COLUMN ingest_log.done_until IS
    'ticks.received_at of the last row that is done, or later (UTC); NULL: none is';
COMMENT ON COLUMN ingest_log.entered_at IS
    'When it last came among the journals whose trades are shown live (UTC); rises; NULL: never';
COMMENT ON COLUMN ingest_log.entered_from IS 'done_until then, or just before its first row (UTC); NULL: no row yet';
"""

# What journals of the last days have done: the last stored row is near the last change. Where it is not (a backlog of
# hours), and for older ones, that change itself will do: rows of theirs that are left to flush are shown live, and only
# a replay across this migration may miss them.
POSITIONS = """
UPDATE ingest_log l
SET done_until = coalesce(
    CASE WHEN updated_at > now() - interval '4 days' THEN
        (SELECT max(received_at) FROM ticks t
         WHERE t.journal_no = l.journal_no AND t.received_at BETWEEN l.updated_at - interval '1 hour' AND l.updated_at)
    END, updated_at)
WHERE next_row > 0;
"""


def upgrade() -> None:
    for statements in (ARRIVAL, LEDGER, POSITIONS):
        op.execute(statements)
