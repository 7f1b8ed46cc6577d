"""Views with symbol names, and a role that reads and does nothing else."""

from alembic import op

revision = "0005"
down_revision = "0004"

TICKS = """
CREATE VIEW ticks_view AS
SELECT i.symbol, t.time, t.seq, t.bid, t.ask, t.last, t.spread, t.volume, t.buy_volume, t.sell_volume, t.flags,
       t.received_at
FROM ticks t JOIN instruments i USING (symbol_id);
COMMENT ON VIEW ticks_view IS 'Every tick with the name of its symbol; ask for a symbol and a range of time';
"""

SIDES = ("bid", "ask", "mid", "last")
PARTS = ("open", "high", "low", "close")

STORED_BARS = f"""
CREATE VIEW {{name}} AS
SELECT i.symbol, b.time, b.ticks, b.volume, b.buy_volume, b.sell_volume,
       {", ".join(f"b.{side}_{part}" for side in SIDES for part in PARTS)},
       b.spread_min, b.spread_max
FROM bars b JOIN instruments i USING (symbol_id)
WHERE b.resolution = {{resolution}};
COMMENT ON VIEW {{name}} IS 'Bars of {{length}} (UTC) with the name of their symbol, the running one included';
"""  # noqa: S608 - the constants above

FIVE_MINUTES = "date_bin('5 min', b.time, timestamptz '1970-01-01 00:00:00+00')"
# The aggregates share one order, so that the rows are sorted once.
MADE_SIDES = ", ".join(
    f"(array_agg(b.{side}_open ORDER BY b.time) FILTER (WHERE b.{side}_open IS NOT NULL))[1] AS {side}_open,"
    f" max(b.{side}_high) AS {side}_high, min(b.{side}_low) AS {side}_low,"
    f" (array_agg(b.{side}_close ORDER BY b.time) FILTER (WHERE b.{side}_close IS NOT NULL))"
    f"[count(b.{side}_close)] AS {side}_close"
    for side in SIDES
)
# A condition on the view's time is one on the expression: the index turns it into a range of minute bars, and its
# statistics tell how many. Its columns are never updated, so updates of bars stay heap-only. `+ 0` keeps it from every
# other query: before the first ANALYZE the planner takes it for as good as the primary key, and reads all of a symbol.
MADE_BARS = f"""
CREATE INDEX bars_5m_key ON bars ((symbol_id + 0), resolution, {FIVE_MINUTES.replace("b.", "")});
CREATE VIEW bars_5m AS
SELECT i.symbol, {FIVE_MINUTES} AS time, sum(b.ticks)::bigint AS ticks, sum(b.volume) AS volume,
       sum(b.buy_volume) AS buy_volume, sum(b.sell_volume) AS sell_volume, {MADE_SIDES},
       min(b.spread_min) AS spread_min, max(b.spread_max) AS spread_max
FROM bars b JOIN instruments i ON i.symbol_id = b.symbol_id + 0
WHERE b.resolution = 60
GROUP BY i.symbol, {FIVE_MINUTES};
COMMENT ON VIEW bars_5m IS
    'Bars of five minutes (UTC), made of those of a minute; ask for a symbol and a range of time';
"""  # noqa: S608 - the constants above

COMMENTS = """
COMMENT ON COLUMN ticks.buy_volume IS
    'Volume of a trade by a buyer (flags & 8 and & 32; instrument''s units), else 0';
COMMENT ON COLUMN ticks.sell_volume IS
    'Volume of a trade by a seller (flags & 8 and & 64; instrument''s units), else 0';
COMMENT ON COLUMN current.buy_volume IS
    'Volume of the newest tick if it is a trade by a buyer (instrument''s units), else 0';
COMMENT ON COLUMN current.sell_volume IS
    'Volume of the newest tick if it is a trade by a seller (instrument''s units), else 0';
DO $$
DECLARE
    v_column record;
BEGIN
    FOR v_column IN
        SELECT c.oid::regclass AS view, a.attname AS name,
               CASE WHEN c.relname IN ('bars_1m', 'bars_5m', 'bars_1h', 'bars_1d') THEN 'public.bars'::regclass
                    ELSE 'public.ticks'::regclass END AS origin
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'v' AND a.attnum > 0 AND CASE n.nspname
            WHEN 'public' THEN c.relname IN ('ticks_view', 'bars_1m', 'bars_5m', 'bars_1h', 'bars_1d')
            WHEN 'history' THEN a.attname IN ('buy_volume', 'sell_volume') END
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', v_column.view, v_column.name,
            CASE v_column.name WHEN 'symbol' THEN 'instruments.symbol' ELSE
                (SELECT col_description(attrelid, attnum) FROM pg_attribute
                 WHERE attrelid = v_column.origin AND attname = v_column.name)
            END);
    END LOOP;
END $$;
"""

# Roles are the whole server's: another database may have made it, or somebody else, who has set it up then.
ROLE = """
DO $$
DECLARE
    v_name text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tickhub_read') THEN
        BEGIN
            CREATE ROLE tickhub_read NOLOGIN;
            ALTER ROLE tickhub_read SET default_transaction_read_only = on;
            ALTER ROLE tickhub_read SET statement_timeout = '60s';
            ALTER ROLE tickhub_read SET idle_in_transaction_session_timeout = '60s';
            ALTER ROLE tickhub_read SET search_path = "$user", public, history;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- made by another database's migration at this moment
            WHEN insufficient_privilege THEN
                RAISE WARNING 'no role tickhub_read, for this role may not make one: docs/sql.md has the statements';
                RETURN;
        END;
    END IF;
    GRANT USAGE ON SCHEMA public, history TO tickhub_read;
    -- Only what is ours: the tables of others in public are theirs to share.
    FOR v_name IN
        SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('public', 'history') AND c.relkind IN ('r', 'p', 'v')
          AND c.relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO tickhub_read', v_name);
    END LOOP;
    -- And what the owner makes later: tables of migrations, partitions of ticks, views of new symbols.
    ALTER DEFAULT PRIVILEGES IN SCHEMA public, history GRANT SELECT ON TABLES TO tickhub_read;
END $$;
"""


def upgrade() -> None:
    op.execute(TICKS)
    for name, resolution, length in (
        ("bars_1m", 60, "a minute"),
        ("bars_1h", 3600, "an hour"),
        ("bars_1d", 86400, "a day"),
    ):
        op.execute(STORED_BARS.format(name=name, resolution=resolution, length=length))
    op.execute(MADE_BARS)
    op.execute(COMMENTS)
    op.execute(ROLE)
