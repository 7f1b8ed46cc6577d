"""The archive of ticks: which files hold a range, and the ticks that came for it later."""

from alembic import op

revision = "0016"
down_revision = "0015"

RANGES = """
ALTER TABLE tick_ranges
    ADD COLUMN manifest text,
    ADD COLUMN manifest_sha256 text,
    ADD COLUMN rows bigint,
    ADD COLUMN derived_rows bigint,
    ADD COLUMN bytes bigint,
    ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now(),
    ADD CONSTRAINT tick_ranges_archived CHECK (state <> 'archived' OR
        (manifest, manifest_sha256, rows, derived_rows, bytes) IS NOT NULL);
COMMENT ON COLUMN tick_ranges.manifest IS
    'Path of the file that says which files hold the ticks, from archive_dir; NULL: not archived';
COMMENT ON COLUMN tick_ranges.manifest_sha256 IS 'SHA-256 of that file (hex); NULL: not archived';
COMMENT ON COLUMN tick_ranges.rows IS 'Ticks in those files; NULL: not archived';
COMMENT ON COLUMN tick_ranges.derived_rows IS 'Those of them that were sent without seq; NULL: not archived';
COMMENT ON COLUMN tick_ranges.bytes IS 'Size of those files (bytes); NULL: not archived';
COMMENT ON COLUMN tick_ranges.changed_at IS 'When the row last changed (UTC)';

CREATE TABLE late_ticks (
    symbol_id integer NOT NULL,
    time timestamptz NOT NULL,
    seq bigint NOT NULL,
    bid float8,
    ask float8,
    last float8,
    spread float8,
    volume float8 NOT NULL,
    buy_volume float8 NOT NULL,
    sell_volume float8 NOT NULL,
    flags integer NOT NULL,
    journal_no integer NOT NULL,
    received_at timestamptz NOT NULL,
    row_no bigint NOT NULL,
    PRIMARY KEY (symbol_id, time, seq)
);
CREATE INDEX late_ticks_time ON late_ticks (time);
COMMENT ON TABLE late_ticks IS
    'Ticks of archived times, accepted and not merged into the archive yet: not in ticks, nor in bars or current';
COMMENT ON COLUMN late_ticks.row_no IS 'Its row number in that journal';
DO $$
DECLARE
    v_column record;
BEGIN
    FOR v_column IN
        SELECT attname, col_description(attrelid, attnum) AS words FROM pg_attribute
        WHERE attrelid = 'ticks'::regclass AND attnum > 0 AND NOT attisdropped
    LOOP
        EXECUTE format('COMMENT ON COLUMN late_ticks.%I IS %L', v_column.attname, v_column.words);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    op.execute(RANGES)
