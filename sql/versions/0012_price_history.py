"""Bars of vendors, what follows from daily closes, and the views of days, weeks, months, hours and sectors."""

from alembic import op

revision = "0012"
down_revision = "0011"

TABLE = """
CREATE TABLE price_history (
    symbol_id integer NOT NULL,
    "interval" text CHECK ("interval" IN
        ('1s', '5s', '15s', '30s', '1m', '3m', '5m', '15m', '30m', '1h', '4h', '1d', '1w', '1M')) NOT NULL,
    time timestamptz NOT NULL,
    source text NOT NULL,
    open float8 NOT NULL,
    high float8 NOT NULL,
    low float8 NOT NULL,
    close float8 NOT NULL,
    adj_close float8,
    volume float8,
    daily_return float8,
    volatility float8,
    trading_value float8,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (symbol_id, "interval", time, source)
);
CREATE INDEX price_history_order ON price_history (time, "interval", source, symbol_id);
COMMENT ON TABLE price_history IS 'Bars by symbol, interval, time and who made them';
COMMENT ON COLUMN price_history.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN price_history."interval" IS 'Length of the bar';
COMMENT ON COLUMN price_history.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN price_history.source IS 'Who made the bar (word)';
COMMENT ON COLUMN price_history.open IS 'First price (the symbol''s currency)';
COMMENT ON COLUMN price_history.high IS 'Highest price (the symbol''s currency)';
COMMENT ON COLUMN price_history.low IS 'Lowest price (the symbol''s currency)';
COMMENT ON COLUMN price_history.close IS 'Last price, unadjusted (the symbol''s currency)';
COMMENT ON COLUMN price_history.adj_close IS
    'Close, adjusted for corporate actions since (the symbol''s currency); computed when absent; NULL: not known';
COMMENT ON COLUMN price_history.volume IS 'Volume (the symbol''s units); NULL: not known';
COMMENT ON COLUMN price_history.daily_return IS
    'Change of adj_close since the day before (fraction: 0.01 is 1 %); computed when absent; NULL: not known';
COMMENT ON COLUMN price_history.volatility IS
    'Deviation of the last 20 daily returns, yearly (fraction); computed when absent; NULL: not known';
COMMENT ON COLUMN price_history.trading_value IS 'Price times volume (the symbol''s currency); NULL: not known';
COMMENT ON COLUMN price_history.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';
"""

# What app/market/adjusting.py says, in SQL; a test compares them. A product of factors and no sum of logarithms, which
# would leave a split of 7 at 0.14285714285714288. A factor that cannot be makes the product NULL, not wrong. Numbers
# below 1e-9 are no prices, and PostgreSQL answers what is too large or too small for a float8 with an error.
ADJUSTING = """
CREATE AGGREGATE float8_product(float8) (SFUNC = float8mul, STYPE = float8, INITCOND = '1', PARALLEL = SAFE);
COMMENT ON AGGREGATE float8_product(float8) IS 'Product of numbers; 1 of none';

CREATE FUNCTION action_factor(p_type text, p_amount float8, p_ratio float8, p_close float8) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN p_type IN ('dividend', 'cash_dividend', 'special_dividend') THEN
            CASE WHEN p_close IS NULL THEN 1 WHEN p_close >= 1e-9 THEN 1 - p_amount / p_close END
        WHEN p_type IN ('split', 'stock_split', 'reverse_split') THEN
            CASE WHEN p_ratio BETWEEN 1e-9 AND 1e9 THEN 1 / p_ratio END
        WHEN p_type IN ('stock_dividend', 'bonus', 'bonus_issue') THEN
            CASE WHEN p_ratio BETWEEN 0 AND 1e9 THEN 1 / (1 + p_ratio) END
        ELSE 1
    END
$$;
COMMENT ON FUNCTION action_factor IS
    'By what a corporate action multiplies the prices before it, p_close being the last; NULL: it lacks its number';

CREATE FUNCTION actions_factor(p_symbol_id integer, p_after timestamptz, p_until timestamptz, p_close float8)
RETURNS float8 LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN bool_and(coalesce(f.factor > 0, false)) IS DISTINCT FROM false
        THEN public.float8_product(f.factor) END
    FROM (
        SELECT public.action_factor(a.action_type, a.amount, a.ratio, p_close) AS factor
        FROM public.corporate_actions a
        WHERE a.symbol_id = p_symbol_id AND a.ex_date > (p_after AT TIME ZONE 'UTC')::date
            AND a.ex_date <= (p_until AT TIME ZONE 'UTC')::date
    ) f
$$;
COMMENT ON FUNCTION actions_factor IS
    'Product of the factors of the corporate actions after one trading day and up to the next';

CREATE FUNCTION adjusting_factor(p_symbol_id integer, p_interval text, p_source text, p_time timestamptz)
RETURNS float8 LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN bool_and(coalesce(f.factor > 0, false)) IS DISTINCT FROM false
        THEN public.float8_product(f.factor) END
    FROM (
        SELECT public.action_factor(a.action_type, a.amount, a.ratio, (
            SELECT p.close FROM public.price_history p
            WHERE p.symbol_id = p_symbol_id AND p."interval" = p_interval AND p.source = p_source
                AND p.time < a.ex_date::timestamp AT TIME ZONE 'UTC'
            ORDER BY p.time DESC LIMIT 1)) AS factor
        FROM public.corporate_actions a
        WHERE a.symbol_id = p_symbol_id AND a.ex_date > (p_time AT TIME ZONE 'UTC')::date
            AND EXISTS (
                SELECT FROM public.price_history p
                WHERE p.symbol_id = p_symbol_id AND p."interval" = p_interval AND p.source = p_source
                    AND p.time >= a.ex_date::timestamp AT TIME ZONE 'UTC')
    ) f
$$;
COMMENT ON FUNCTION adjusting_factor IS
    'By what a close of price_history is multiplied for the corporate actions after it that its bars have reached';

CREATE FUNCTION adjusted_close(
    p_symbol_id integer, p_interval text, p_source text, p_time timestamptz, p_close float8
) RETURNS float8 LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN abs(p_close) >= 1e-9
        THEN p_close * public.adjusting_factor(p_symbol_id, p_interval, p_source, p_time) ELSE p_close END
$$;
COMMENT ON FUNCTION adjusted_close IS 'A close of price_history, adjusted for the corporate actions after it';

CREATE FUNCTION daily_return(
    p_symbol_id integer, p_source text, p_time timestamptz, p_close float8, p_adj_close float8
) RETURNS float8 LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN p_adj_close IS NOT NULL AND b.adj_close IS NOT NULL THEN
            CASE WHEN p_adj_close >= 1e-9 AND b.adj_close >= 1e-9 THEN p_adj_close / b.adj_close - 1 END
        WHEN p_close >= 1e-9 AND b.close >= 1e-9 THEN
            p_close / (b.close * public.actions_factor(p_symbol_id, b.time, p_time, b.close)) - 1
    END
    FROM (
        SELECT p.time, p.close, p.adj_close FROM public.price_history p
        WHERE p.symbol_id = p_symbol_id AND p."interval" = '1d' AND p.source = p_source AND p.time < p_time
        ORDER BY p.time DESC LIMIT 1
    ) b
$$;
COMMENT ON FUNCTION daily_return IS
    'Change of the adjusted close since the source''s day before (fraction); NULL: there is none';

CREATE FUNCTION daily_volatility(p_symbol_id integer, p_source text, p_time timestamptz)
RETURNS float8 LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN count(r.change) = 20 THEN stddev_samp(r.change) * sqrt(252) END
    FROM (
        SELECT coalesce(w.daily_return, CASE
            WHEN w.adj_close IS NOT NULL AND w.adj_before IS NOT NULL THEN
                CASE WHEN w.adj_close >= 1e-9 AND w.adj_before >= 1e-9 THEN w.adj_close / w.adj_before - 1 END
            WHEN w.close >= 1e-9 AND w.before >= 1e-9 THEN w.close / (w.before * f.factor) - 1 END) AS change
        FROM (
            SELECT n.time, n.close, n.adj_close, n.daily_return, lead(n.time) OVER newest AS time_before,
                lead(n.close) OVER newest AS before, lead(n.adj_close) OVER newest AS adj_before
            FROM (
                SELECT p.time, p.close, p.adj_close, p.daily_return FROM public.price_history p
                WHERE p.symbol_id = p_symbol_id AND p."interval" = '1d' AND p.source = p_source AND p.time <= p_time
                ORDER BY p.time DESC LIMIT 21
            ) n
            WINDOW newest AS (ORDER BY n.time DESC)
            ORDER BY n.time DESC LIMIT 20
        ) w
        CROSS JOIN LATERAL (
            SELECT CASE WHEN bool_and(coalesce(x.factor > 0, false)) IS DISTINCT FROM false
                THEN public.float8_product(x.factor) END AS factor
            FROM (
                SELECT public.action_factor(a.action_type, a.amount, a.ratio, w.before) AS factor
                FROM public.corporate_actions a
                WHERE a.symbol_id = p_symbol_id AND a.ex_date > (w.time_before AT TIME ZONE 'UTC')::date
                    AND a.ex_date <= (w.time AT TIME ZONE 'UTC')::date
            ) x
        ) f
    ) r
$$;
COMMENT ON FUNCTION daily_volatility IS
    'Deviation of the source''s last 20 daily returns, yearly (fraction: times the root of 252); NULL: fewer are there';
"""

# Of several vendors' bars of a day that of the first by name: so a series is one vendor's as long as he has it.
DAYS = """
    SELECT i.symbol, i.symbol_id, i.sector, i.market_cap, v.time, v.open, v.high, v.low, v.close, v.adj_close,
        v.volume, v.daily_return, v.trading_value, v.source
    FROM (
        SELECT DISTINCT ON (symbol_id, time) symbol_id, time, open, high, low, close, adj_close, volume, daily_return,
            trading_value, source
        FROM price_history WHERE "interval" = '1d' ORDER BY symbol_id, time, source
    ) v JOIN instruments i USING (symbol_id)
    UNION ALL
    SELECT i.symbol, i.symbol_id, i.sector, i.market_cap, b.time,
        CASE WHEN b.last_close IS NOT NULL THEN b.last_open ELSE b.bid_open END,
        CASE WHEN b.last_close IS NOT NULL THEN b.last_high ELSE b.bid_high END,
        CASE WHEN b.last_close IS NOT NULL THEN b.last_low ELSE b.bid_low END,
        coalesce(b.last_close, b.bid_close), NULL, b.volume::float8, NULL, NULL, NULL
    FROM bars b JOIN instruments i USING (symbol_id)
    WHERE b.resolution = 86400 AND coalesce(b.last_close, b.bid_close) IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM price_history p
            WHERE p.symbol_id = b.symbol_id AND p."interval" = '1d' AND p.time = b.time)
"""
ADJUSTED = (
    "coalesce(d.adj_close, CASE WHEN d.source IS NOT NULL "
    "THEN adjusted_close(d.symbol_id, '1d', d.source, d.time, d.close) END)"
)

DAILY = f"""
CREATE VIEW price_history_daily AS
SELECT d.symbol, d.time, d.open, d.high, d.low, d.close, {ADJUSTED} AS adj_close, d.volume, d.trading_value,
    coalesce(d.source, 'ticks') AS source
FROM ({DAYS}) d;
COMMENT ON VIEW price_history_daily IS
    'Days (UTC) by symbol: the vendor''s bar, else one of the ticks'' trades, or bids where nothing was traded';
"""  # noqa: S608 - the constants above

LONGER = """
CREATE VIEW price_history_{name} AS
SELECT d.symbol, d.start AS time, d.open, d.high, d.low, d.close, {adjusted} AS adj_close, d.volume, d.trading_value,
    d.days
FROM (
    SELECT symbol, symbol_id, date_trunc('{unit}', time, 'UTC') AS start,
        (array_agg(open ORDER BY time))[1] AS open, max(high) AS high, min(low) AS low,
        (array_agg(close ORDER BY time DESC))[1] AS close, (array_agg(adj_close ORDER BY time DESC))[1] AS adj_close,
        (array_agg(source ORDER BY time DESC))[1] AS source, max(time) AS time, sum(volume) AS volume,
        sum(trading_value) AS trading_value, count(*) AS days
    FROM ({days}) day GROUP BY symbol, symbol_id, date_trunc('{unit}', time, 'UTC')
) d;
COMMENT ON VIEW price_history_{name} IS '{help}';
"""
WEEKLY = LONGER.format(
    name="weekly", unit="week", adjusted=ADJUSTED, days=DAYS, help="Weeks (from Monday, UTC) of price_history_daily"
)
MONTHLY = LONGER.format(
    name="monthly", unit="month", adjusted=ADJUSTED, days=DAYS, help="Months (UTC) of price_history_daily"
)

HOURLY = """
CREATE VIEW market_volume_hourly AS
SELECT i.symbol, b.time, b.volume, b.buy_volume, b.sell_volume, b.ticks
FROM bars b JOIN instruments i USING (symbol_id)
WHERE b.resolution = 3600;
COMMENT ON VIEW market_volume_hourly IS
    'Volume of the trades by hour (UTC) and symbol, exact sums (instrument''s units); sum over symbols for the market';
"""

# The day before is looked up row by row, and not by a window: so a range of time is one of the index.
SECTORS = f"""
CREATE VIEW sector_performance AS
SELECT s.sector, s.time, count(*) AS symbols, count(*) FILTER (WHERE s.change > 0) AS rising,
    count(*) FILTER (WHERE s.change < 0) AS falling, avg(s.change) AS average_return,
    sum(s.change * s.market_cap) / nullif(sum(s.market_cap) FILTER (WHERE s.change IS NOT NULL), 0) AS weighted_return,
    sum(s.volume) AS volume, sum(coalesce(s.trading_value, s.close * s.volume)) AS trading_value
FROM (
    SELECT d.sector, d.time, d.market_cap, d.close, d.volume, d.trading_value, coalesce(d.daily_return, CASE
        WHEN d.adj_close >= 1e-9 AND b.adj_close >= 1e-9 THEN d.adj_close / b.adj_close - 1
        WHEN d.close >= 1e-9 AND b.close >= 1e-9 THEN
            d.close / (b.close * actions_factor(d.symbol_id, b.time, d.time, b.close)) - 1 END) AS change
    FROM ({DAYS}) d
    LEFT JOIN LATERAL (
        (SELECT p.time, p.close, p.adj_close, 1 AS rank FROM price_history p
         WHERE p.symbol_id = d.symbol_id AND p."interval" = '1d' AND p.time < d.time
             AND (p.source = d.source OR d.source IS NULL)
         ORDER BY p.time DESC LIMIT 1)
        UNION ALL
        (SELECT o.time, coalesce(o.last_close, o.bid_close), NULL, 2 FROM bars o
         WHERE o.symbol_id = d.symbol_id AND o.resolution = 86400 AND o.time < d.time
             AND coalesce(o.last_close, o.bid_close) IS NOT NULL
         ORDER BY o.time DESC LIMIT 1)
        ORDER BY time DESC, rank LIMIT 1
    ) b ON true
    WHERE d.sector IS NOT NULL
) s
GROUP BY s.sector, s.time;
COMMENT ON VIEW sector_performance IS 'Sectors by day (UTC): how their symbols changed since the day before each had';
"""  # noqa: S608 - the constants above


BARS = {
    "symbol": "instruments.symbol",
    "time": "Start (UTC)",
    "open": "First price (the symbol's currency)",
    "high": "Highest price (the symbol's currency)",
    "low": "Lowest price (the symbol's currency)",
    "close": "Last price, unadjusted (the symbol's currency)",
    "adj_close": "The vendor's adjusted close, else computed from corporate_actions; NULL where it is made of ticks",
    "volume": "Volume (the symbol's units); NULL: not known",
    "trading_value": "Price times volume (the symbol's currency); NULL: not known",
}
COLUMNS = {
    "price_history_daily": BARS | {"source": "Its price_history.source; ticks: made of the ticks' bar of the day"},
    "price_history_weekly": BARS | {"days": "Days that it is made of, the running one included"},
    "price_history_monthly": BARS | {"days": "Days that it is made of, the running one included"},
    "market_volume_hourly": {
        "symbol": "instruments.symbol",
        "time": "Start of the hour (UTC)",
        "volume": "Volume of the trades (the symbol's units), an exact sum",
        "buy_volume": "Volume of the trades by buyers (the symbol's units), an exact sum",
        "sell_volume": "Volume of the trades by sellers (the symbol's units), an exact sum",
        "ticks": "Number of ticks, quotes and trades",
    },
    "sector_performance": {
        "sector": "instruments.sector",
        "time": "Day (UTC)",
        "symbols": "Symbols with a bar of the day",
        "rising": "Those whose adjusted close rose",
        "falling": "Those whose adjusted close fell",
        "average_return": "Mean of the symbols' daily returns (fraction: 0.01 is 1 %)",
        "weighted_return": "The same, weighted by instruments.market_cap; NULL: none is known",
        "volume": "Volume (the symbols' units)",
        "trading_value": "Price times volume, the vendors' or by the close; currencies are added as they are",
    },
}


def _comments() -> str:
    return "".join(
        "COMMENT ON COLUMN {}.{} IS '{}';\n".format(view, column, text.replace("'", "''"))
        for view, columns in COLUMNS.items()
        for column, text in columns.items()
    )


def upgrade() -> None:
    for statements in (TABLE, ADJUSTING, DAILY, WEEKLY, MONTHLY, HOURLY, SECTORS, _comments()):
        op.execute(statements)
