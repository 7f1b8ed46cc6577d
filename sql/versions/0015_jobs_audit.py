"""What runs by schedule and how that ended; what people changed by hand."""

from alembic import op

revision = "0015"
down_revision = "0014"

STATEMENTS = """
CREATE TABLE jobs (
    name text PRIMARY KEY CHECK (name <> ''),
    state text NOT NULL CHECK (state IN ('waiting', 'running', 'ok', 'failed', 'cut_off')),
    due_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    succeeded_at timestamptz,
    exit_status integer,
    message text,
    runs bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    holder text,
    term bigint
);
COMMENT ON TABLE jobs IS 'What the elected process runs by schedule, and how that ended';
COMMENT ON COLUMN jobs.name IS 'The job';
COMMENT ON COLUMN jobs.state IS 'waiting: never ran; running; ok; failed; cut_off: ended from outside, to be run again';
COMMENT ON COLUMN jobs.due_at IS 'The moment that asked for its newest run; the next is asked for later (UTC)';
COMMENT ON COLUMN jobs.started_at IS 'When its newest run began (UTC); NULL: never';
COMMENT ON COLUMN jobs.ended_at IS 'When its newest run ended (UTC); NULL: it runs, or never ran';
COMMENT ON COLUMN jobs.succeeded_at IS 'When a run ended well last (UTC); NULL: never';
COMMENT ON COLUMN jobs.exit_status IS 'Exit status of its newest run, negative: the signal; NULL: not known';
COMMENT ON COLUMN jobs.message IS 'The last lines that its newest run printed; NULL: none';
COMMENT ON COLUMN jobs.runs IS 'Runs that began (count)';
COMMENT ON COLUMN jobs.failures IS 'Runs that ended badly (count); those that were cut off are not among them';
COMMENT ON COLUMN jobs.holder IS 'The process that ran it last (host, pid); NULL: none';
COMMENT ON COLUMN jobs.term IS 'leases.term in which it did';

CREATE TABLE audit_log (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL CHECK (actor <> ''),
    action text NOT NULL CHECK (action <> ''),
    symbol text,
    range tstzrange,
    rows bigint NOT NULL,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_at ON audit_log (at);
COMMENT ON TABLE audit_log IS 'What was changed by hand or dropped for its age: never changed itself';
COMMENT ON COLUMN audit_log.audit_id IS 'Number of the change, in order';
COMMENT ON COLUMN audit_log.at IS 'When its transaction began (UTC)';
COMMENT ON COLUMN audit_log.actor IS 'Who it was: user at host, as the operating system says';
COMMENT ON COLUMN audit_log.action IS 'What was done: delete, retention, ...';
COMMENT ON COLUMN audit_log.symbol IS 'Of which instrument (name then); NULL: of all, or of none';
COMMENT ON COLUMN audit_log.range IS 'Of which times (UTC); NULL: not of a range';
COMMENT ON COLUMN audit_log.rows IS 'Rows that it removed or changed (count)';
COMMENT ON COLUMN audit_log.details IS 'More about it, as the action has it';
"""


def upgrade() -> None:
    """Make the tables of jobs and of changes."""
    op.execute(STATEMENTS)
