"""From when on records are kept; no partitions for what was dropped."""

from alembic import op

revision = "0018"
down_revision = "0017"

TABLE = """
CREATE TABLE kept_from (
    dataset text PRIMARY KEY CHECK (dataset <> ''),
    time timestamptz NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE kept_from IS 'Records before this were dropped for their age, and are refused (ticks: tick_ranges)';
COMMENT ON COLUMN kept_from.dataset IS 'The dataset (table)';
COMMENT ON COLUMN kept_from.time IS 'The first time that is kept (UTC)';
COMMENT ON COLUMN kept_from.changed_at IS 'When that was decided (UTC)';
"""

TICKS = r"""
CREATE OR REPLACE FUNCTION public.ensure_tick_partition(p_time timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO, YMD'
    SET lock_timeout TO '5s'
    AS $$
DECLARE
    v_monday timestamptz;
    v_name text;
    v_attached boolean;
BEGIN
    IF p_time IS NULL OR NOT isfinite(p_time) OR p_time < '1900-01-01' OR p_time >= '2200-01-01' THEN
        RAISE EXCEPTION 'no partition for ticks at %', p_time USING ERRCODE = 'datetime_field_overflow';
    END IF;
    -- Functions are for everyone by default, and only who may store ticks has a use for a new partition.
    IF NOT has_table_privilege(session_user, 'public.ticks', 'INSERT') THEN
        RAISE EXCEPTION 'role % may not store ticks', session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
    v_monday := date_trunc('week', p_time);
    -- Whoever writes is told that these ticks are too old, and needs no table for that.
    IF EXISTS (SELECT FROM public.tick_ranges WHERE state = 'dropped'
               AND range @> tstzrange(v_monday, v_monday + interval '7 days')) THEN
        RETURN false;
    END IF;
    v_name := 'ticks_' || to_char(v_monday, 'YYYYMMDD');
    FOR v_try IN 1..2 LOOP
        -- Asked of the table, because to_regclass may remember that there was none.
        SELECT relispartition INTO v_attached
        FROM pg_class WHERE relname = v_name AND relnamespace = 'public'::regnamespace;
        IF FOUND AND NOT v_attached THEN
            RAISE EXCEPTION 'table % is in the way: it is no partition of ticks', v_name
                USING ERRCODE = 'object_not_in_prerequisite_state';
        ELSIF FOUND THEN
            RETURN false;
        END IF;
        -- Who comes second waits here, and finds the table when it looks again.
        PERFORM pg_advisory_xact_lock(x'7469636B68756202'::bigint);
    END LOOP;
    -- CREATE ... PARTITION OF would lock out every reader of ticks, and wait for them; ATTACH does not.
    -- The new table is empty, so ATTACH has nothing to check and needs no CHECK constraint to be quick.
    EXECUTE format('CREATE TABLE public.%I (LIKE public.ticks INCLUDING ALL EXCLUDING COMMENTS)', v_name);
    EXECUTE format('ALTER TABLE public.ticks ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                   v_name, v_monday, v_monday + interval '7 days');
    RETURN true;
EXCEPTION WHEN duplicate_table THEN
    RETURN false; -- made by another while this transaction, REPEATABLE READ, kept looking at the past
END $$;
"""

MONTHS = r"""
CREATE OR REPLACE FUNCTION public.ensure_month_partition(p_table text, p_time timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO, YMD'
    SET lock_timeout TO '5s'
    AS $$
DECLARE
    v_month timestamptz;
    v_name text;
    v_attached boolean;
BEGIN
    IF p_time IS NULL OR NOT isfinite(p_time) OR p_time < '1900-01-01' OR p_time >= '2200-01-01' THEN
        RAISE EXCEPTION 'no partition for % at %', p_table, p_time USING ERRCODE = 'datetime_field_overflow';
    END IF;
    -- Only tables of the schema's owner that are parted by their time alone.
    IF NOT EXISTS (
        SELECT FROM pg_class c JOIN pg_partitioned_table p ON p.partrelid = c.oid
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0] AND a.attname = 'time'
        WHERE c.relname = p_table AND c.relnamespace = 'public'::regnamespace AND p.partstrat = 'r' AND p.partnatts = 1
            AND c.relname <> 'ticks' AND c.relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)
    ) THEN
        RAISE EXCEPTION 'table % has no partitions by month', p_table USING ERRCODE = 'wrong_object_type';
    END IF;
    -- Functions are for everyone by default, and only who may store records has a use for a new partition.
    IF NOT has_table_privilege(session_user, format('public.%I', p_table), 'INSERT') THEN
        RAISE EXCEPTION 'role % may not store %', session_user, p_table USING ERRCODE = 'insufficient_privilege';
    END IF;
    v_month := date_trunc('month', p_time);
    -- Whoever writes is told that these records are too old, and needs no table for that.
    IF EXISTS (SELECT FROM public.kept_from k WHERE k.dataset = p_table AND k.time >= v_month + interval '1 month') THEN
        RETURN false;
    END IF;
    v_name := p_table || '_' || to_char(v_month, 'YYYYMM');
    FOR v_try IN 1..2 LOOP
        -- Asked of the table, because to_regclass may remember that there was none.
        SELECT relispartition INTO v_attached
        FROM pg_class WHERE relname = v_name AND relnamespace = 'public'::regnamespace;
        IF FOUND AND NOT v_attached THEN
            RAISE EXCEPTION 'table % is in the way: it is no partition of %', v_name, p_table
                USING ERRCODE = 'object_not_in_prerequisite_state';
        ELSIF FOUND THEN
            RETURN false;
        END IF;
        -- Who comes second waits here, and finds the table when it looks again.
        PERFORM pg_advisory_xact_lock(x'7469636B68756202'::bigint);
    END LOOP;
    -- As for ticks: CREATE ... PARTITION OF would lock out every reader, ATTACH does not.
    EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL EXCLUDING COMMENTS)', v_name, p_table);
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                   p_table, v_name, v_month, v_month + interval '1 month');
    RETURN true;
EXCEPTION WHEN duplicate_table THEN
    RETURN false; -- made by another while this transaction, REPEATABLE READ, kept looking at the past
END $$;
"""


def upgrade() -> None:
    """Make the table and the functions anew."""
    for statements in (TABLE, TICKS, MONTHS):
        op.execute(statements)
