"""Quotes of option contracts, and views of calls, of puts, and of volumes by day, with the underlying's symbol."""

from alembic import op

revision = "0011"
down_revision = "0010"

TABLE = """
CREATE TABLE option_quotes (
    symbol_id integer NOT NULL,
    expiration_date date NOT NULL,
    strike_price float8 NOT NULL,
    option_type text CHECK (option_type IN ('call', 'put')) NOT NULL,
    time timestamptz NOT NULL,
    bid float8,
    ask float8,
    last_price float8,
    volume float8,
    open_interest float8,
    implied_volatility float8,
    delta float8,
    gamma float8,
    theta float8,
    vega float8,
    rho float8,
    in_the_money boolean,
    contract_symbol text,
    greeks_source text,
    underlying_price float8,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (symbol_id, expiration_date, strike_price, option_type, time)
) PARTITION BY RANGE (time);
CREATE INDEX option_quotes_order ON option_quotes (time, expiration_date, strike_price, option_type, symbol_id);
COMMENT ON TABLE option_quotes IS 'Quotes of option contracts; symbol is the underlying';
COMMENT ON COLUMN option_quotes.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN option_quotes.expiration_date IS 'Last day of the contract, on the exchange''s calendar';
COMMENT ON COLUMN option_quotes.strike_price IS 'What the underlying is bought or sold for (price)';
COMMENT ON COLUMN option_quotes.option_type IS 'Call or put';
COMMENT ON COLUMN option_quotes.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN option_quotes.bid IS 'Bid (price); 0: nobody bids; NULL: not known';
COMMENT ON COLUMN option_quotes.ask IS 'Ask (price); NULL: not known';
COMMENT ON COLUMN option_quotes.last_price IS 'Last trade (price); NULL: not known';
COMMENT ON COLUMN option_quotes.volume IS 'Traded since the day began (contracts); NULL: not known';
COMMENT ON COLUMN option_quotes.open_interest IS 'Open interest (contracts); NULL: not known';
COMMENT ON COLUMN option_quotes.implied_volatility IS
    'Implied volatility, yearly (fraction: 0.25 is 25 %); 0: the sender has none; NULL: not known';
COMMENT ON COLUMN option_quotes.delta IS 'Change of the price for 1 of the underlying (ratio); NULL: not known';
COMMENT ON COLUMN option_quotes.gamma IS 'Change of delta for 1 of the underlying (1/price); NULL: not known';
COMMENT ON COLUMN option_quotes.theta IS 'Change of the price for a calendar day (price/day); NULL: not known';
COMMENT ON COLUMN option_quotes.vega IS 'Change of the price for a point of volatility, 0.01 (price); NULL: not known';
COMMENT ON COLUMN option_quotes.rho IS 'Change of the price for a point of the rate, 0.01 (price); NULL: not known';
COMMENT ON COLUMN option_quotes.in_the_money IS
    'Whether exercise pays; computed when absent and underlying_price is there; NULL: not known';
COMMENT ON COLUMN option_quotes.contract_symbol IS
    'Name of the contract; computed in OCC form (21 characters) when absent; NULL: not known';
COMMENT ON COLUMN option_quotes.greeks_source IS
    'Who computed volatility and greeks that were sent (name); NULL: not known';
COMMENT ON COLUMN option_quotes.underlying_price IS 'Price of the underlying at that time (price); NULL: not known';
COMMENT ON COLUMN option_quotes.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';
-- The newest day of an underlying, and its quotes of a day.
CREATE INDEX option_quotes_time ON option_quotes (symbol_id, time);
"""

OCC_SYMBOL = """
CREATE FUNCTION occ_symbol(p_symbol text, p_expiration date, p_option_type text, p_strike float8) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE
    WHEN p_symbol ~ '^[A-Za-z][A-Za-z0-9]{0,5}$' AND p_strike > 0 AND p_strike < 100000
        AND p_strike::text::numeric * 1000 % 1 = 0
        AND p_expiration BETWEEN DATE '2000-01-01' AND DATE '2099-12-31'
    THEN rpad(upper(p_symbol), 6) || to_char(p_expiration, 'YYMMDD')
        || CASE p_option_type WHEN 'call' THEN 'C' ELSE 'P' END
        || lpad((p_strike::text::numeric * 1000)::bigint::text, 8, '0')
END;
COMMENT ON FUNCTION occ_symbol IS
    'Contract symbol in OCC form: root, padded to 6, YYMMDD, C or P, strike x 1000 in 8 digits; NULL: it has none';
"""

VIEWS = """
CREATE VIEW options_calls AS
SELECT i.symbol, o.expiration_date, o.strike_price, o.time, o.bid, o.ask, o.last_price, o.volume, o.open_interest,
       o.implied_volatility, o.delta, o.gamma, o.theta, o.vega, o.rho,
       coalesce(o.in_the_money, o.underlying_price > o.strike_price) AS in_the_money,
       coalesce(o.contract_symbol, occ_symbol(i.symbol, o.expiration_date, o.option_type, o.strike_price))
           AS contract_symbol,
       o.greeks_source, o.underlying_price
FROM option_quotes o JOIN instruments i USING (symbol_id)
WHERE o.option_type = 'call';
CREATE VIEW options_puts AS
SELECT i.symbol, o.expiration_date, o.strike_price, o.time, o.bid, o.ask, o.last_price, o.volume, o.open_interest,
       o.implied_volatility, o.delta, o.gamma, o.theta, o.vega, o.rho,
       coalesce(o.in_the_money, o.underlying_price < o.strike_price) AS in_the_money,
       coalesce(o.contract_symbol, occ_symbol(i.symbol, o.expiration_date, o.option_type, o.strike_price))
           AS contract_symbol,
       o.greeks_source, o.underlying_price
FROM option_quotes o JOIN instruments i USING (symbol_id)
WHERE o.option_type = 'put';
COMMENT ON VIEW options_calls IS 'Quotes of calls with the symbol of their underlying; volatility and greeks as sent';
COMMENT ON VIEW options_puts IS 'Quotes of puts with the symbol of their underlying; volatility and greeks as sent';
DO $$
DECLARE
    v_column record;
BEGIN
    FOR v_column IN
        SELECT attrelid::regclass AS view, attname AS name FROM pg_attribute
        WHERE attrelid IN ('options_calls'::regclass, 'options_puts'::regclass) AND attnum > 0
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', v_column.view, v_column.name,
            CASE v_column.name WHEN 'symbol' THEN 'instruments.symbol, of the underlying' ELSE
                (SELECT col_description(attrelid, attnum) FROM pg_attribute
                 WHERE attrelid = 'option_quotes'::regclass AND attname = v_column.name)
            END);
    END LOOP;
END $$;
"""

# Volumes are counts since the day began, so the newest one of a contract is its day's. The name is inside, so that a
# condition on it reaches the index.
VOLUMES = """
CREATE VIEW options_volume_daily AS
SELECT c.symbol, c.date, sum(c.volume) AS volume,
       sum(c.volume) FILTER (WHERE c.option_type = 'call') AS call_volume,
       sum(c.volume) FILTER (WHERE c.option_type = 'put') AS put_volume,
       -- Less than any float, and more, are errors in PostgreSQL.
       CASE WHEN sum(c.volume) FILTER (WHERE c.option_type = 'call') > 1e-9
           THEN CASE WHEN sum(c.volume) FILTER (WHERE c.option_type = 'put') < 1e-9 THEN 0
               ELSE sum(c.volume) FILTER (WHERE c.option_type = 'put')
                   / sum(c.volume) FILTER (WHERE c.option_type = 'call') END END AS put_call_ratio,
       sum(c.open_interest) AS open_interest,
       sum(c.open_interest) FILTER (WHERE c.option_type = 'call') AS call_open_interest,
       sum(c.open_interest) FILTER (WHERE c.option_type = 'put') AS put_open_interest,
       count(*) AS contracts, sum(c.quotes)::bigint AS quotes
FROM (
    SELECT i.symbol, (o.time AT TIME ZONE 'UTC')::date AS date, o.option_type, count(*) AS quotes,
           (array_agg(o.volume ORDER BY o.time DESC) FILTER (WHERE o.volume IS NOT NULL))[1] AS volume,
           (array_agg(o.open_interest ORDER BY o.time DESC) FILTER (WHERE o.open_interest IS NOT NULL))[1]
               AS open_interest
    FROM option_quotes o JOIN instruments i USING (symbol_id)
    GROUP BY i.symbol, (o.time AT TIME ZONE 'UTC')::date, o.expiration_date, o.strike_price, o.option_type
) c
GROUP BY c.symbol, c.date;
COMMENT ON VIEW options_volume_daily IS
    'Volume and open interest of all options on a symbol by day (UTC), of each contract as quoted last';
COMMENT ON COLUMN options_volume_daily.symbol IS 'instruments.symbol, of the underlying';
COMMENT ON COLUMN options_volume_daily.date IS 'Day of the quotes (UTC)';
COMMENT ON COLUMN options_volume_daily.volume IS 'Traded that day (contracts); NULL: not known';
COMMENT ON COLUMN options_volume_daily.call_volume IS 'Calls traded that day (contracts); NULL: not known';
COMMENT ON COLUMN options_volume_daily.put_volume IS 'Puts traded that day (contracts); NULL: not known';
COMMENT ON COLUMN options_volume_daily.put_call_ratio IS 'put_volume / call_volume (ratio); NULL: no calls';
COMMENT ON COLUMN options_volume_daily.open_interest IS 'Open interest (contracts); NULL: not known';
COMMENT ON COLUMN options_volume_daily.call_open_interest IS 'Open interest of calls (contracts); NULL: not known';
COMMENT ON COLUMN options_volume_daily.put_open_interest IS 'Open interest of puts (contracts); NULL: not known';
COMMENT ON COLUMN options_volume_daily.contracts IS 'Contracts that were quoted';
COMMENT ON COLUMN options_volume_daily.quotes IS 'Quotes of them';
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(OCC_SYMBOL)
    op.execute(VIEWS)
    op.execute(VOLUMES)
