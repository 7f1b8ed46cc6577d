"""The newest quotes in one call, planned once a connection: planning was most of what a quote cost."""

from alembic import op

revision = "0006"
down_revision = "0005"

# The last price before a session: from the bars that fill the time before it with the fewest of them, which are some
# of its hour's minutes, then of its day's hours, then days. The LIMITs stop at the first that has a price. Which times
# these are the caller says: whoever writes a time zone that PostgreSQL does not know into `instruments` must not take
# everybody's quotes away.
NEWEST_QUOTES = """
CREATE FUNCTION newest_quotes(
    p_symbols text[], p_days timestamptz[], p_hours timestamptz[], p_starts timestamptz[], p_ends timestamptz[]
) RETURNS TABLE (
    symbol text, digits smallint, timezone text, bid float8, bid_key bytea, ask float8, ask_key bytea,
    last float8, last_key bytea, tick_key bytea, spread float8, volume float8, buy_volume float8, sell_volume float8,
    flags integer, before float8, before_key bytea, open float8, open_key bytea
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT i.symbol, i.digits, i.timezone, c.bid, c.bid_key, c.ask, c.ask_key, c.last, c.last_key,
        c.tick_key, c.spread, c.volume, c.buy_volume, c.sell_volume, c.flags, b.price, b.key, o.price, o.key
    FROM unnest(p_symbols, p_days, p_hours, p_starts, p_ends) WITH ORDINALITY
        AS s (symbol, day, hour, start, end_, number)
    JOIN public.instruments i ON i.symbol = s.symbol
    LEFT JOIN public.current c ON c.symbol = i.symbol
    LEFT JOIN LATERAL (
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END AS price,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END AS key
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 60 AND time >= s.hour AND time < s.start
             AND s.hour < s.start AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 3600 AND time >= s.day AND time < s.hour
             AND s.day < s.hour AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 86400 AND time < s.day
             AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        LIMIT 1
    ) b ON true
    LEFT JOIN LATERAL (
        SELECT CASE WHEN c.last IS NOT NULL THEN last_open ELSE bid_open END AS price,
               CASE WHEN c.last IS NOT NULL THEN last_open_key ELSE bid_open_key END AS key
        FROM public.bars WHERE b.price IS NULL AND symbol_id = i.symbol_id AND resolution = 60
            AND time >= s.start AND time < s.end_
            AND CASE WHEN c.last IS NOT NULL THEN last_open ELSE bid_open END IS NOT NULL
        ORDER BY time LIMIT 1
    ) o ON true
    ORDER BY s.number;
END $$;
COMMENT ON FUNCTION newest_quotes IS
    'Newest prices of instruments; the last price before each one''s session, or else the first one in it';
"""


def upgrade() -> None:
    op.execute(NEWEST_QUOTES)
