"""Trades that were sent, fills, strategies and their backtests."""

from alembic import op

revision = "0014"
down_revision = "0013"

STATEMENTS = """
CREATE TABLE fills (
    trade_id text NOT NULL,
    time timestamptz NOT NULL,
    symbol_id integer NOT NULL,
    side text CHECK (side IN ('buy', 'sell')) NOT NULL,
    quantity float8 NOT NULL,
    price float8 NOT NULL,
    latency_ms float8,
    slippage_bps float8,
    strategy text,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (trade_id)
);
CREATE INDEX fills_order ON fills (time, trade_id);
CREATE INDEX fills_symbol_id_time ON fills (symbol_id, time);
COMMENT ON TABLE fills IS 'Executions of orders';
COMMENT ON COLUMN fills.trade_id IS 'What the broker calls it (name)';
COMMENT ON COLUMN fills.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN fills.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN fills.side IS 'Buy or sell';
COMMENT ON COLUMN fills.quantity IS 'How much (instrument''s units)';
COMMENT ON COLUMN fills.price IS 'At what price (price)';
COMMENT ON COLUMN fills.latency_ms IS 'Time from order to fill (ms); NULL: not known';
COMMENT ON COLUMN fills.slippage_bps IS 'Price paid beyond the expected one (hundredths of a percent); NULL: not known';
COMMENT ON COLUMN fills.strategy IS 'Strategy whose order it was (name); NULL: not known';
COMMENT ON COLUMN fills.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE strategies (
    strategy_name text NOT NULL,
    "parameters" jsonb,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (strategy_name)
);
COMMENT ON TABLE strategies IS 'Strategies, as they are set';
COMMENT ON COLUMN strategies.strategy_name IS 'The strategy (name)';
COMMENT ON COLUMN strategies."parameters" IS 'What it is set to (object); NULL: not known';
COMMENT ON COLUMN strategies.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE backtests (
    backtest_id text NOT NULL,
    strategy_name text,
    symbol_id integer,
    "start" timestamptz,
    "end" timestamptz,
    "parameters" jsonb,
    initial_equity float8,
    final_equity float8,
    "return" float8,
    sharpe float8,
    max_drawdown float8,
    win_rate float8,
    trades bigint,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (backtest_id)
);
COMMENT ON TABLE backtests IS 'Backtests and their results';
COMMENT ON COLUMN backtests.backtest_id IS 'The backtest (name)';
COMMENT ON COLUMN backtests.strategy_name IS 'The strategy that was tried (name); NULL: not known';
COMMENT ON COLUMN backtests.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN backtests."start" IS 'First time of the data; NULL: not known';
COMMENT ON COLUMN backtests."end" IS 'Time before which the data ends; NULL: not known';
COMMENT ON COLUMN backtests."parameters" IS 'What the strategy was set to (object); NULL: not known';
COMMENT ON COLUMN backtests.initial_equity IS 'Money at the start (account''s currency); NULL: not known';
COMMENT ON COLUMN backtests.final_equity IS 'Money at the end (account''s currency); NULL: not known';
COMMENT ON COLUMN backtests."return" IS 'Final to initial equity, less 1 (fraction); NULL: not known';
COMMENT ON COLUMN backtests.sharpe IS 'Sharpe ratio, yearly (ratio); NULL: not known';
COMMENT ON COLUMN backtests.max_drawdown IS 'Deepest fall from a height (fraction); NULL: not known';
COMMENT ON COLUMN backtests.win_rate IS 'Trades that won (fraction); NULL: not known';
COMMENT ON COLUMN backtests.trades IS 'Trades (count); NULL: not known';
COMMENT ON COLUMN backtests.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

ALTER TABLE instruments ADD COLUMN received_at timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN instruments.received_at IS 'When what is known of it was accepted, the newest (UTC, microseconds)';
"""



TRADES_SENT = """
CREATE TABLE trades_sent (
    symbol_id integer NOT NULL,
    time timestamptz NOT NULL,
    seq bigint NOT NULL,
    price float8 NOT NULL,
    volume float8,
    value float8,
    trade_type text CHECK (trade_type IN ('buy', 'sell', 'neutral')),
    bid_price float8,
    ask_price float8,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (symbol_id, time, seq)
);
CREATE INDEX trades_sent_order ON trades_sent (time, seq, symbol_id);
COMMENT ON TABLE trades_sent IS
    'Trades: sent ones, and those of trade ticks (flags & 8); a sent one stands for the tick of its key';
COMMENT ON COLUMN trades_sent.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN trades_sent.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN trades_sent.seq IS
    'Ordinal at that time if >= 0 (the sender''s), else derived from the content, as for ticks';
COMMENT ON COLUMN trades_sent.price IS 'What was paid (price)';
COMMENT ON COLUMN trades_sent.volume IS 'How much (instrument''s units); NULL: not known';
COMMENT ON COLUMN trades_sent.value IS 'Price x volume (the price''s currency); computed when absent; NULL: not known';
COMMENT ON COLUMN trades_sent.trade_type IS
    'Who crossed the spread; when absent by the quote: above its middle buy, below it sell; NULL: not known';
COMMENT ON COLUMN trades_sent.bid_price IS
    'Bid at that moment (price); the newest one of the ticks when absent; NULL: not known';
COMMENT ON COLUMN trades_sent.ask_price IS
    'Ask at that moment (price); the newest one of the ticks when absent; NULL: not known';
COMMENT ON COLUMN trades_sent.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';
"""

# A side of the quote at a trade. Its own, or that of the newest tick before it in the ticks' order (docs/receive.md)
# that has one: in its minute, if the minute's bar has one by then; else of the bars that fill the time before it with
# the fewest of them. So a trade costs a few rows, also where there are no quotes, or none for hours.
SIDE = """
        coalesce({own}, (
            SELECT q.{side} FROM ticks q
            WHERE q.symbol_id = t.symbol_id AND q.time <= t.time AND q.time >= date_trunc('minute', t.time, 'UTC')
                AND q.time >= p_start AND q.time < p_end
                AND (q.{side} > 0 OR (q.{side} <= 0 AND i.allow_nonpositive))
                AND (q.time < t.time OR (q.seq < 0, greatest(q.seq, 0), q.received_at, q.journal_no)
                    < (t.seq < 0, greatest(t.seq, 0), t.received_at, {journal_no}))
                AND (SELECT b.{side}_open_key < int8send((extract(epoch FROM t.time) * 1000000)::bigint + 1) FROM bars b
                     WHERE b.symbol_id = t.symbol_id AND b.resolution = 60
                         AND b.time = date_trunc('minute', t.time, 'UTC'))
            ORDER BY q.time DESC, (q.seq < 0) DESC, greatest(q.seq, 0) DESC, q.received_at DESC, q.journal_no DESC
            LIMIT 1
        ), (
            SELECT before.price FROM (
                (SELECT b.{side}_close AS price FROM bars b
                 WHERE b.symbol_id = t.symbol_id AND b.resolution = 60 AND b.{side}_close IS NOT NULL
                     AND b.time >= date_trunc('hour', t.time, 'UTC') AND b.time < date_trunc('minute', t.time, 'UTC')
                 ORDER BY b.time DESC LIMIT 1)
                UNION ALL
                (SELECT b.{side}_close FROM bars b
                 WHERE b.symbol_id = t.symbol_id AND b.resolution = 3600 AND b.{side}_close IS NOT NULL
                     AND b.time >= date_trunc('day', t.time, 'UTC') AND b.time < date_trunc('hour', t.time, 'UTC')
                 ORDER BY b.time DESC LIMIT 1)
                UNION ALL
                (SELECT b.{side}_close FROM bars b
                 WHERE b.symbol_id = t.symbol_id AND b.resolution = 86400 AND b.{side}_close IS NOT NULL
                     AND b.time >= date_trunc('day', t.time, 'UTC') - interval '168 hours'
                     AND b.time < date_trunc('day', t.time, 'UTC')
                 ORDER BY b.time DESC LIMIT 1)
                LIMIT 1
            ) before
        )) AS {side}"""
SENT_SIDES = ",".join(SIDE.format(side=side, own=f"t.{side}_price", journal_no="0") for side in ("bid", "ask"))
TICK_SIDES = ",".join(
    SIDE.format(
        side=side,
        own=f"CASE WHEN t.{side} > 0 OR (t.{side} <= 0 AND i.allow_nonpositive) THEN t.{side} END",
        journal_no="t.journal_no",
    )
    for side in ("bid", "ask")
)

# A product that is less than any float is an error in PostgreSQL; so is half of the least one.
VALUE = (
    "CASE WHEN abs({price}) < float8 '1e-150' OR t.volume < float8 '1e-150' THEN t.volume * 0 "
    "ELSE {price} * t.volume END"
)

# Inlined wherever it is called, so that conditions reach the tables, and bounds that are constants spare the planner
# all other partitions. OFFSET 0: the quote is looked for once, not for each column that needs it.
TRADES_BETWEEN = f"""
CREATE FUNCTION trades_between(p_start timestamptz, p_end timestamptz) RETURNS TABLE (
    symbol text, symbol_id integer, "time" timestamptz, seq bigint, price float8, volume float8, value float8,
    trade_type text, bid_price float8, ask_price float8, received_at timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT i.symbol, t.symbol_id, t.time, t.seq, t.price, t.volume, coalesce(t.value, {VALUE.format(price='t.price')}),
        coalesce(t.trade_type, CASE WHEN t.price * 2 > quote.bid + quote.ask THEN 'buy'
            WHEN t.price * 2 < quote.bid + quote.ask THEN 'sell' ELSE 'neutral' END),
        quote.bid, quote.ask, t.received_at
    FROM trades_sent t JOIN instruments i USING (symbol_id) CROSS JOIN LATERAL (SELECT {SENT_SIDES}
        OFFSET 0) quote
    WHERE t.time >= p_start AND t.time < p_end
    UNION ALL
    SELECT i.symbol, t.symbol_id, t.time, t.seq, t.last, t.volume, {VALUE.format(price='t.last')},
        CASE WHEN (t.flags & 96) = 32 THEN 'buy' WHEN (t.flags & 96) = 64 THEN 'sell'
            WHEN (t.flags & 96) = 96 THEN 'neutral'
            WHEN t.last * 2 > quote.bid + quote.ask THEN 'buy'
            WHEN t.last * 2 < quote.bid + quote.ask THEN 'sell' ELSE 'neutral' END,
        quote.bid, quote.ask, t.received_at
    FROM ticks t JOIN instruments i USING (symbol_id) CROSS JOIN LATERAL (SELECT {TICK_SIDES}
        OFFSET 0) quote
    WHERE t.time >= p_start AND t.time < p_end AND (t.flags & 8) <> 0
        AND (t.last > 0 OR (t.last <= 0 AND i.allow_nonpositive))
        AND NOT EXISTS (
            SELECT FROM trades_sent s WHERE s.symbol_id = t.symbol_id AND s.time = t.time AND s.seq = t.seq);
END;
COMMENT ON FUNCTION trades_between IS
    'Trades of [p_start, p_end): sent ones and those of ticks; p_start is the start of a minute (UTC)';
"""  # noqa: S608 - the constants above

TRADES = """
CREATE VIEW trades AS SELECT * FROM trades_between('-infinity', 'infinity');
COMMENT ON VIEW trades IS
    'Every trade, sent or of a trade tick, with the quote at it and its side; ask for a symbol and a range of time';
COMMENT ON COLUMN trades.symbol IS 'instruments.symbol';
COMMENT ON COLUMN trades.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN trades.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN trades.seq IS 'Ordinal at that time if >= 0 (the sender''s), else derived from the content';
COMMENT ON COLUMN trades.price IS 'What was paid (price)';
COMMENT ON COLUMN trades.volume IS 'How much (instrument''s units); NULL: not known';
COMMENT ON COLUMN trades.value IS 'As sent, else price x volume (the price''s currency); NULL: not known';
COMMENT ON COLUMN trades.trade_type IS
    'Who crossed the spread: as sent, else by the tick''s flags, else by the quote: above its middle buy, below sell';
COMMENT ON COLUMN trades.bid_price IS
    'Bid (price): as sent, else the tick''s, else the newest one before it, of the last 7 days; NULL: there was none';
COMMENT ON COLUMN trades.ask_price IS
    'Ask (price): as sent, else the tick''s, else the newest one before it, of the last 7 days; NULL: there was none';
COMMENT ON COLUMN trades.received_at IS 'When it was accepted (UTC, microseconds)';
"""


def upgrade() -> None:
    """Make the tables."""
    for statements in (STATEMENTS, TRADES_SENT, TRADES_BETWEEN, TRADES):
        op.execute(statements)
