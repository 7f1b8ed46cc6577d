"""Weekly partitions on demand, and a history view a symbol.

Both run as their owner (SECURITY DEFINER), because a role that only stores ticks owns no table.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

PARTITIONS = """
CREATE FUNCTION ensure_tick_partition(p_time timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET lock_timeout = '5s'
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
COMMENT ON FUNCTION ensure_tick_partition(timestamptz) IS
    'Makes the weekly partition of ticks for this time; true if there was none. Commit soon: it holds a lock';
"""

HISTORY = """
CREATE SCHEMA history;
COMMENT ON SCHEMA history IS 'One view a symbol: <symbol>_history';
GRANT USAGE ON SCHEMA history TO PUBLIC;

CREATE FUNCTION history_view_name(p_symbol text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
RETURN left(regexp_replace(lower(p_symbol), '[^a-z0-9]', '_', 'g'), 55) || '_history';
COMMENT ON FUNCTION history_view_name(text) IS
    'Name of a symbol''s history view: lower case, other characters to _, at most 63 bytes';

CREATE FUNCTION instruments_history_view() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        v_name := public.history_view_name(OLD.symbol);
        -- The name may be another symbol's view: then this one never had any.
        IF EXISTS (SELECT FROM pg_views WHERE schemaname = 'history' AND viewname = v_name
                   AND definition ~ format('\\(symbol_id = %s\\)', OLD.symbol_id)) THEN
            EXECUTE format('DROP VIEW history.%I', v_name);
        END IF;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN NULL;
    END IF;
    v_name := public.history_view_name(NEW.symbol);
    IF EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relname = v_name AND (n.nspname IN ('pg_catalog', 'public', 'history')
                     OR n.nspname IN (SELECT rolname FROM pg_roles))) THEN
        RAISE WARNING 'no history view for %: the name % is taken', NEW.symbol, v_name;
        RETURN NULL;
    END IF;
    BEGIN
        EXECUTE format('CREATE VIEW history.%I AS SELECT time, bid, ask, spread, volume, buy_volume,'
                       ' sell_volume, flags FROM public.ticks WHERE symbol_id = %s', v_name, NEW.symbol_id);
        EXECUTE format('COMMENT ON VIEW history.%I IS %L', v_name, 'Every tick of ' || NEW.symbol);
        EXECUTE (SELECT string_agg(format('COMMENT ON COLUMN history.%I.%I IS %L', v_name, attname,
                                          col_description(attrelid, attnum)), ';')
                 FROM pg_attribute WHERE attrelid = 'public.ticks'::regclass AND attname IN
                 ('time', 'bid', 'ask', 'spread', 'volume', 'buy_volume', 'sell_volume', 'flags'));
    EXCEPTION WHEN duplicate_table OR duplicate_object OR unique_violation THEN
        -- Two symbols of one view name, added at the same moment: the instrument matters more than its view.
        RAISE WARNING 'no history view for %: the name % is taken', NEW.symbol, v_name;
    END;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION instruments_history_view() IS 'Keeps the history views in step with instruments';

CREATE TRIGGER history_view AFTER INSERT OR DELETE OR UPDATE OF symbol ON instruments
    FOR EACH ROW EXECUTE FUNCTION instruments_history_view();

DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = "$user", public, history', current_database());
END $$;
"""


def upgrade() -> None:
    op.execute(PARTITIONS)
    op.execute(HISTORY)
