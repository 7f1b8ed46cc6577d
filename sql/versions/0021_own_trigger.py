"""The function behind history views serves the table of instruments, and no other.

It has its owner's rights, and everybody might have set it on a temporary table of their own, whose rows then went into
statements of the owner.
"""

from alembic import op

revision = "0021"
down_revision = "0020"

FUNCTION = r"""
CREATE OR REPLACE FUNCTION public.instruments_history_view() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_name text;
BEGIN
    IF TG_RELID <> 'public.instruments'::regclass THEN
        RAISE EXCEPTION 'history views are of instruments, not of %', TG_RELID::regclass
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF TG_OP <> 'INSERT' THEN
        v_name := public.history_view_name(OLD.symbol);
        -- The name may be another symbol's view: then this one never had any.
        IF EXISTS (SELECT FROM pg_views WHERE schemaname = 'history' AND viewname = v_name
                   AND definition ~ format('\(symbol_id = %s\)', OLD.symbol_id)) THEN
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
                       ' sell_volume, flags FROM public.ticks WHERE symbol_id = %s', v_name, NEW.symbol_id::integer);
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
-- Asked for where a trigger is made, not where it fires.
REVOKE EXECUTE ON FUNCTION public.instruments_history_view() FROM PUBLIC;
"""


def upgrade() -> None:
    """Make the function anew, for the owner's triggers alone."""
    op.execute(FUNCTION)
