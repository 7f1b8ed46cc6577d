"""What an instrument is: sector, industry, size; quotes by the sessions of its exchange."""

from alembic import op

revision = "0010"
down_revision = "0009"

COLUMNS = """
ALTER TABLE instruments
    ADD COLUMN sector text,
    ADD COLUMN industry text,
    ADD COLUMN market_cap float8 CHECK (market_cap >= 0 AND market_cap < 'Infinity');
COMMENT ON COLUMN instruments.sector IS 'Sector of the economy, as Technology; NULL: not known';
COMMENT ON COLUMN instruments.industry IS 'Industry within the sector; NULL: not known';
COMMENT ON COLUMN instruments.market_cap IS 'Market capitalisation (its currency); NULL: not known';
COMMENT ON COLUMN instruments.exchange IS
    'Where it is traded, a MIC or a usual name: its calendar gives sessions and market hours; NULL: not known';
"""

# The last price before a moment: from the bars that fill the time before it with the fewest of them, which are some of
# its hour's minutes, then of its day's hours, then days. The LIMITs stop at the first that has a price. A moment that
# is NULL has none before it, and no index is looked at.
BEFORE = """
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END AS price,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END AS key
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 60 AND time >= {hour} AND time < {moment}
             AND {hour} < {moment} AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 3600 AND time >= {day} AND time < {hour}
             AND {day} < {hour} AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 86400 AND time < {day}
             AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        LIMIT 1
"""

# Which moments these are the caller says, who knows the calendars. A cut ends what a session is compared with: it is
# the close of the one before, which need not be where the session begins.
QUERY = """
    SELECT i.symbol, i.digits, i.exchange, i.timezone, c.bid, c.bid_key, c.ask, c.ask_key, c.last, c.last_key,
        c.tick_key, c.spread, c.volume, c.buy_volume, c.sell_volume, c.flags, b.price, b.key, o.price, o.key,
        {closing}
    FROM unnest(p_symbols, p_cut_days, p_cut_hours, p_cuts, p_ends{close_arrays})
        WITH ORDINALITY AS s (symbol, cut_day, cut_hour, cut, end_{close_names}, number)
    JOIN public.instruments i ON i.symbol = s.symbol
    LEFT JOIN public.current c ON c.symbol = i.symbol
    LEFT JOIN LATERAL ({before_cut}    ) b ON true
    LEFT JOIN LATERAL (
        SELECT CASE WHEN c.last IS NOT NULL THEN last_open ELSE bid_open END AS price,
               CASE WHEN c.last IS NOT NULL THEN last_open_key ELSE bid_open_key END AS key
        FROM public.bars WHERE b.price IS NULL AND symbol_id = i.symbol_id AND resolution = 60
            AND time >= s.cut AND time < s.end_
            AND CASE WHEN c.last IS NOT NULL THEN last_open ELSE bid_open END IS NOT NULL
        ORDER BY time LIMIT 1
    ) o ON true{before_close}
    ORDER BY s.number;
"""

# Two plans: in market hours no close is asked for, and what is not in a plan need not be started.
NEWEST_QUOTES = """
DROP FUNCTION newest_quotes(text[], timestamptz[], timestamptz[], timestamptz[], timestamptz[]);
CREATE FUNCTION newest_quotes(
    p_symbols text[], p_cut_days timestamptz[], p_cut_hours timestamptz[], p_cuts timestamptz[], p_ends timestamptz[],
    p_close_days timestamptz[], p_close_hours timestamptz[], p_closes timestamptz[]
) RETURNS TABLE (
    symbol text, digits smallint, exchange text, timezone text, bid float8, bid_key bytea, ask float8, ask_key bytea,
    last float8, last_key bytea, tick_key bytea, spread float8, volume float8, buy_volume float8, sell_volume float8,
    flags integer, before float8, before_key bytea, open float8, open_key bytea, closing float8, closing_key bytea
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    IF p_closes IS NULL THEN
    RETURN QUERY@open@
    ELSE
    RETURN QUERY@closed@
    END IF;
END $$;
COMMENT ON FUNCTION newest_quotes IS
    'Newest prices of instruments; the last price before each one''s session, or else the first one since; its close';
"""


def _query(closes: bool) -> str:
    return QUERY.format(
        before_cut=_before("cut"),
        before_close=f"\n    LEFT JOIN LATERAL ({_before('close')}    ) e ON true" if closes else "",
        closing="e.price, e.key" if closes else "NULL::float8, NULL::bytea",
        close_arrays=", p_close_days, p_close_hours, p_closes" if closes else "",
        close_names=", close_day, close_hour, close" if closes else "",
    ).rstrip()


def _before(moment: str) -> str:
    return BEFORE.format(day=f"s.{moment}_day", hour=f"s.{moment}_hour", moment=f"s.{moment}")


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(NEWEST_QUOTES.replace("@open@", _query(False)).replace("@closed@", _query(True)))
