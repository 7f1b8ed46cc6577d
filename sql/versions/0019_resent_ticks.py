"""How many ticks came again; rejected ticks by symbol and time."""

from alembic import op

revision = "0019"
down_revision = "0018"

TABLES = """
CREATE TABLE resent_ticks (
    symbol_id integer NOT NULL,
    time timestamptz NOT NULL,
    journal_no integer NOT NULL,
    ticks bigint NOT NULL CHECK (ticks > 0),
    PRIMARY KEY (symbol_id, time, journal_no)
);
COMMENT ON TABLE resent_ticks IS 'How many ticks came again, equal in all, by the quarter of an hour that they are of';
COMMENT ON COLUMN resent_ticks.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN resent_ticks.time IS 'Start of the quarter (UTC)';
COMMENT ON COLUMN resent_ticks.journal_no IS 'ingest_log.journal_no: where they came again';
COMMENT ON COLUMN resent_ticks.ticks IS 'How many';
CREATE INDEX rejected_ticks_symbol_time ON rejected_ticks (symbol, time);
"""


def upgrade() -> None:
    """Make the table and the index."""
    op.execute(TABLES)
