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

CREATE FUNCTION factored(p_close float8, p_time timestamptz, p_ex_dates date[], p_products float8[])
RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_products IS NULL OR abs(p_close) < 1e-9 THEN p_close
        ELSE p_close * p_products[width_bucket((p_time AT TIME ZONE 'UTC')::date, p_ex_dates) + 1] END
$$;
COMMENT ON FUNCTION factored IS 'A close of this time, adjusted for the corporate actions after it (bar_factors)';
"""

# A day's row: the vendor's, of several vendors that of the first by name, so a series is one vendor's as long as he has
# it; else the bar of the ticks.
DAYS = """
    SELECT v.time, v.open, v.high, v.low, v.close, v.adj_close, v.volume, v.daily_return, v.trading_value, v.source
    FROM (
        SELECT DISTINCT ON (p.time) p.time, p.open, p.high, p.low, p.close, p.adj_close, p.volume, p.daily_return,
            p.trading_value, p.source
        FROM public.price_history p WHERE p.symbol_id = {symbol_id} AND p."interval" = '1d' ORDER BY p.time, p.source
    ) v
    UNION ALL
    SELECT b.time,
        CASE WHEN b.last_close IS NOT NULL THEN b.last_open ELSE b.bid_open END,
        CASE WHEN b.last_close IS NOT NULL THEN b.last_high ELSE b.bid_high END,
        CASE WHEN b.last_close IS NOT NULL THEN b.last_low ELSE b.bid_low END,
        coalesce(b.last_close, b.bid_close), NULL, b.volume::float8, NULL, NULL, NULL
    FROM public.bars b
    WHERE b.symbol_id = {symbol_id} AND b.resolution = 86400 AND coalesce(b.last_close, b.bid_close) IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM public.price_history p
            WHERE p.symbol_id = {symbol_id} AND p."interval" = '1d' AND p.time = b.time)
"""

# The newest day before a moment, as DAYS has it, without looking at the others.
DAY_BEFORE = """
        (SELECT p.time, p.close, p.adj_close, 1 AS rank FROM public.price_history p
         WHERE p.symbol_id = {symbol_id} AND p."interval" = '1d' AND p.time < {moment}
         ORDER BY p.time DESC, p.source LIMIT 1)
        UNION ALL
        (SELECT o.time, coalesce(o.last_close, o.bid_close), NULL, 2 FROM public.bars o
         WHERE o.symbol_id = {symbol_id} AND o.resolution = 86400 AND o.time < {moment}
             AND coalesce(o.last_close, o.bid_close) IS NOT NULL
         ORDER BY o.time DESC LIMIT 1)
        ORDER BY time DESC, rank LIMIT 1
"""
BAR_BEFORE = """
        SELECT p.time, p.close, p.adj_close FROM public.price_history p
        WHERE p.symbol_id = {symbol_id} AND p."interval" = p_interval AND p.source = p_source AND p.time < {moment}
        ORDER BY p.time DESC LIMIT 1
"""

# Once for a series: row by row, twenty years of dividends took minutes.
FACTORS = """
CREATE FUNCTION bar_factors(p_symbol_id integer, p_interval text, p_source text)
RETURNS TABLE (ex_dates date[], products float8[])
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1 COST 1000 AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.corporate_actions a WHERE a.symbol_id = p_symbol_id) THEN
        RETURN;
    ELSIF p_source IS NULL THEN
        RETURN QUERY @days@;
    ELSE
        RETURN QUERY @bars@;
    END IF;
END $$;
COMMENT ON FUNCTION bar_factors IS
    'Days of the corporate actions that bars of a source (NULL: the days of price_history_daily) have reached, and for '
    'each what closes before it are multiplied by, 1 at the end; no row: there are none';
"""
FACTORS_OF = """SELECT array_agg(x.ex_date ORDER BY x.number DESC),
            array_agg(x.product ORDER BY x.number DESC) || 1::float8
        FROM (
            SELECT f.ex_date, row_number() OVER later AS number,
                CASE WHEN bool_and(coalesce(f.factor > 0, false)) OVER later
                    THEN public.float8_product(f.factor) OVER later END AS product
            FROM (
                SELECT a.ex_date, a.action_type,
                    public.action_factor(a.action_type, a.amount, a.ratio, b.close) AS factor
                FROM public.corporate_actions a
                LEFT JOIN LATERAL ({before}        ) b ON true
                WHERE a.symbol_id = p_symbol_id
                    AND a.ex_date <= (SELECT (x.time AT TIME ZONE 'UTC')::date FROM ({last}        ) x)
            ) f
            WINDOW later AS (ORDER BY f.ex_date DESC, f.action_type DESC ROWS UNBOUNDED PRECEDING)
        ) x
        HAVING count(*) > 0"""

# Of a range the days that it needs: the twenty before it, too.
CHANGES = """
CREATE FUNCTION day_changes(p_symbol_id integer, p_source text, p_first timestamptz, p_last timestamptz)
RETURNS TABLE ("time" timestamptz, daily_return float8, volatility float8)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
#variable_conflict use_column
DECLARE
    ex_dates date[] := (SELECT array_agg(a.ex_date ORDER BY a.ex_date) FROM public.corporate_actions a
        WHERE a.symbol_id = p_symbol_id);
BEGIN
    RETURN QUERY
    WITH days AS (
        (SELECT p.time, p.close, p.adj_close, p.daily_return FROM public.price_history p
         WHERE p.symbol_id = p_symbol_id AND p."interval" = '1d' AND p.source = p_source AND p.time < p_first
         ORDER BY p.time DESC LIMIT 20)
        UNION ALL
        SELECT p.time, p.close, p.adj_close, p.daily_return FROM public.price_history p
        WHERE p.symbol_id = p_symbol_id AND p."interval" = '1d' AND p.source = p_source
            AND p.time BETWEEN p_first AND p_last
    ), pairs AS (
        SELECT d.*, lag(d.time) OVER w AS time_before, lag(d.close) OVER w AS before,
            lag(d.adj_close) OVER w AS adj_before
        FROM days d WINDOW w AS (ORDER BY d.time)
    ), changes AS (
        SELECT p.time, coalesce(p.daily_return, CASE
            WHEN p.adj_close IS NOT NULL AND p.adj_before IS NOT NULL THEN
                CASE WHEN p.adj_close >= 1e-9 AND p.adj_before >= 1e-9 THEN p.adj_close / p.adj_before - 1 END
            WHEN p.close >= 1e-9 AND p.before >= 1e-9 THEN
                p.close / (p.before * CASE
                    WHEN ex_dates IS NULL OR width_bucket((p.time_before AT TIME ZONE 'UTC')::date, ex_dates)
                        = width_bucket((p.time AT TIME ZONE 'UTC')::date, ex_dates) THEN 1
                    ELSE public.actions_factor(p_symbol_id, p.time_before, p.time, p.before) END) - 1
            END) AS change
        FROM pairs p
    ), made AS (
        SELECT c.time, c.change, CASE WHEN count(c.change) OVER w = 20
            THEN stddev_samp(c.change) OVER w * sqrt(252) END AS deviation
        FROM changes c WINDOW w AS (ORDER BY c.time ROWS 19 PRECEDING)
    )
    SELECT m.time, m.change, m.deviation FROM made m WHERE m.time >= p_first;
END $$;
COMMENT ON FUNCTION day_changes IS
    'Of a source''s days in a range: change of the adjusted close since its day before (fraction), and the deviation '
    'of the last 20, yearly (times the root of 252); NULL: fewer are there';
"""

DAILY = f"""
CREATE VIEW price_history_daily AS
SELECT i.symbol, d.time, d.open, d.high, d.low, d.close,
    coalesce(d.adj_close, factored(d.close, d.time, f.ex_dates, f.products)) AS adj_close, d.volume, d.trading_value,
    coalesce(d.source, 'ticks') AS source
FROM instruments i
LEFT JOIN LATERAL bar_factors(i.symbol_id, '1d', NULL) f ON true
CROSS JOIN LATERAL ({DAYS.format(symbol_id="i.symbol_id")}) d;
COMMENT ON VIEW price_history_daily IS
    'Days (UTC) by symbol: the vendor''s bar, else one of the ticks'' trades, or bids where nothing was traded';
"""  # noqa: S608 - the constants above

OHLC = """
CREATE VIEW daily_ohlc AS
SELECT i.symbol, (p.time AT TIME ZONE 'UTC')::date AS date, p.open, p.high, p.low, p.close, p.adj_close, p.volume,
    p.daily_return, p.volatility, p.trading_value, p.source, p.time
FROM price_history p JOIN instruments i USING (symbol_id)
WHERE p."interval" = '1d';
COMMENT ON VIEW daily_ohlc IS 'Daily bars with the name of the symbol, of every vendor, as they were sent';
"""

LONGER = """
CREATE VIEW price_history_{name} AS
SELECT i.symbol, d.start AS time, d.open, d.high, d.low, d.close,
    coalesce(d.adj_close, factored(d.close, d.time, f.ex_dates, f.products)) AS adj_close, d.volume, d.trading_value,
    d.days
FROM instruments i
LEFT JOIN LATERAL bar_factors(i.symbol_id, '1d', NULL) f ON true
CROSS JOIN LATERAL (
    SELECT date_trunc('{unit}', time, 'UTC') AS start, (array_agg(open ORDER BY time))[1] AS open, max(high) AS high,
        min(low) AS low, (array_agg(close ORDER BY time DESC))[1] AS close,
        (array_agg(adj_close ORDER BY time DESC))[1] AS adj_close, max(time) AS time, sum(volume) AS volume,
        sum(trading_value) AS trading_value, count(*) AS days
    FROM ({days}) day GROUP BY date_trunc('{unit}', time, 'UTC')
) d;
COMMENT ON VIEW price_history_{name} IS '{help}';
"""
WEEKLY = LONGER.format(
    name="weekly",
    unit="week",
    days=DAYS.format(symbol_id="i.symbol_id"),
    help="Weeks (from Monday, UTC) of price_history_daily",
)
MONTHLY = LONGER.format(
    name="monthly",
    unit="month",
    days=DAYS.format(symbol_id="i.symbol_id"),
    help="Months (UTC) of price_history_daily",
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
    SELECT i.sector, d.time, i.market_cap, d.close, d.volume, d.trading_value, coalesce(d.daily_return, CASE
        WHEN d.adj_close >= 1e-9 AND b.adj_close >= 1e-9 THEN d.adj_close / b.adj_close - 1
        WHEN d.close >= 1e-9 AND b.close >= 1e-9 THEN
            d.close / (b.close * CASE WHEN EXISTS (
                SELECT FROM corporate_actions a WHERE a.symbol_id = i.symbol_id
                    AND a.ex_date > (b.time AT TIME ZONE 'UTC')::date
                    AND a.ex_date <= (d.time AT TIME ZONE 'UTC')::date)
                THEN actions_factor(i.symbol_id, b.time, d.time, b.close) ELSE 1 END) - 1
            END) AS change
    FROM instruments i
    CROSS JOIN LATERAL ({DAYS.format(symbol_id="i.symbol_id")}) d
    LEFT JOIN LATERAL ({DAY_BEFORE.format(symbol_id="i.symbol_id", moment="d.time")}    ) b ON true
    WHERE i.sector IS NOT NULL
) s
GROUP BY s.sector, s.time;
COMMENT ON VIEW sector_performance IS 'Sectors by day (UTC): how their symbols changed since the day before each had';
"""  # noqa: S608 - the constants above


def _factors_of(before: str) -> str:
    ex_day = "a.ex_date::timestamp AT TIME ZONE 'UTC'"
    made, last = (before.format(symbol_id="p_symbol_id", moment=moment) for moment in (ex_day, "'infinity'"))
    return FACTORS_OF.format(before=made, last=last)


BARS = {
    "symbol": "instruments.symbol",
    "time": "Start (UTC)",
    "open": "First price (the symbol's currency)",
    "high": "Highest price (the symbol's currency)",
    "low": "Lowest price (the symbol's currency)",
    "close": "Last price, unadjusted (the symbol's currency)",
    "adj_close": "The vendor's adjusted close, else by corporate_actions (NULL: one of them lacks its number)",
    "volume": "Volume (the symbol's units); NULL: not known",
    "trading_value": "Price times volume (the symbol's currency); NULL: not known",
}
COLUMNS = {
    "daily_ohlc": BARS
    | {
        "date": "Trading date",
        "time": "The same as midnight UTC: what price_history_pkey has, so choose days by it",
        "adj_close": "Close, adjusted for corporate actions since, as sent (the symbol's currency); NULL: not sent",
        "daily_return": "Change since the day before, as sent (fraction: 0.01 is 1 %); NULL: not sent",
        "volatility": "Deviation of the last 20 daily returns, yearly, as sent (fraction); NULL: not sent",
        "source": "Who made the bar",
    },
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
    factors = FACTORS.replace("@days@", _factors_of(DAY_BEFORE)).replace("@bars@", _factors_of(BAR_BEFORE))
    for statements in (TABLE, ADJUSTING, factors, CHANGES, OHLC, DAILY, WEEKLY, MONTHLY, HOURLY, SECTORS, _comments()):
        op.execute(statements)
