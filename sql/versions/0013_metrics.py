"""Metrics of the market, of strategies, of orders and of hosts, with their rollups; partitions by month."""

from alembic import op

revision = "0013"
down_revision = "0012"

PARTITIONS = """
CREATE FUNCTION ensure_month_partition(p_table text, p_time timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET lock_timeout = '5s'
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
COMMENT ON FUNCTION ensure_month_partition(text, timestamptz) IS
    'Makes the monthly partition of a table for this time; true if there was none. Commit soon: it holds a lock';
"""

COLLECTED = """
CREATE TABLE collected (
    name text PRIMARY KEY,
    positions jsonb NOT NULL,
    moment_us bigint NOT NULL,
    sample jsonb NOT NULL,
    term bigint NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE collected IS 'Up to where the stored ticks were counted for metrics, and the newest sample';
COMMENT ON COLUMN collected.name IS 'Dataset of the samples';
COMMENT ON COLUMN collected.positions IS 'ticks.received_at (UTC microseconds) by journal';
COMMENT ON COLUMN collected.moment_us IS 'Moment of the newest sample (UTC microseconds since 1970)';
COMMENT ON COLUMN collected.sample IS 'The newest sample: sent again where nobody is known to have sent it';
COMMENT ON COLUMN collected.term IS 'leases.term of who wrote it';
COMMENT ON COLUMN collected.updated_at IS 'When it was written (UTC)';
"""

TABLES = """
CREATE TABLE market_data (
    symbol_id integer NOT NULL,
    time timestamptz NOT NULL,
    last_price float8,
    bid float8,
    ask float8,
    volume float8,
    trades bigint,
    spread_bps float8,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (symbol_id, time)
) PARTITION BY RANGE (time);
CREATE INDEX market_data_order ON market_data (time, symbol_id);
COMMENT ON TABLE market_data IS 'Symbols at moments, collected from the live feed';
COMMENT ON COLUMN market_data.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN market_data.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN market_data.last_price IS 'Last price (price); NULL: not known';
COMMENT ON COLUMN market_data.bid IS 'Bid (price); NULL: not known';
COMMENT ON COLUMN market_data.ask IS 'Ask (price); NULL: not known';
COMMENT ON COLUMN market_data.volume IS 'Traded since the moment before (instrument''s units); NULL: not known';
COMMENT ON COLUMN market_data.trades IS 'Trades since the moment before (count); NULL: not known';
COMMENT ON COLUMN market_data.spread_bps IS 'Ask - bid to their middle (hundredths of a percent); NULL: not known';
COMMENT ON COLUMN market_data.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';
CREATE TABLE market_data_rollup (
    symbol_id integer NOT NULL,
    resolution integer NOT NULL,
    time timestamptz NOT NULL,
    rows bigint NOT NULL,
    first_time timestamptz,
    last_time timestamptz,
    last_price_count bigint,
    last_price_sum float8,
    last_price_min float8,
    last_price_max float8,
    last_price_last float8,
    bid_count bigint,
    bid_sum float8,
    bid_min float8,
    bid_max float8,
    bid_last float8,
    ask_count bigint,
    ask_sum float8,
    ask_min float8,
    ask_max float8,
    ask_last float8,
    volume_count bigint,
    volume_sum float8,
    volume_min float8,
    volume_max float8,
    volume_last float8,
    trades_count bigint,
    trades_sum numeric,
    trades_min bigint,
    trades_max bigint,
    trades_last bigint,
    spread_bps_count bigint,
    spread_bps_sum float8,
    spread_bps_min float8,
    spread_bps_max float8,
    spread_bps_last float8,
    PRIMARY KEY (symbol_id, resolution, time)
) PARTITION BY LIST (resolution);
CREATE TABLE market_data_rollup_60
    PARTITION OF market_data_rollup FOR VALUES IN (60) WITH (fillfactor = 70);
CREATE TABLE market_data_rollup_300
    PARTITION OF market_data_rollup FOR VALUES IN (300) WITH (fillfactor = 70);
CREATE TABLE market_data_rollup_3600
    PARTITION OF market_data_rollup FOR VALUES IN (3600) WITH (fillfactor = 70);
CREATE INDEX market_data_rollup_order ON market_data_rollup (resolution, time, symbol_id);
COMMENT ON TABLE market_data_rollup IS
    'Symbols at moments, collected from the live feed: by minute, five minutes and hour';
COMMENT ON COLUMN market_data_rollup.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN market_data_rollup.resolution IS 'Length of the bucket (seconds): 60, 300 or 3600';
COMMENT ON COLUMN market_data_rollup.time IS 'Start of the bucket (UTC)';
COMMENT ON COLUMN market_data_rollup.rows IS 'Records in the bucket (count)';
COMMENT ON COLUMN market_data_rollup.first_time IS 'Time of its first record (UTC, microseconds)';
COMMENT ON COLUMN market_data_rollup.last_time IS 'Time of its last record (UTC, microseconds)';
COMMENT ON COLUMN market_data_rollup.last_price_count IS 'Records that have last_price (count)';
COMMENT ON COLUMN market_data_rollup.last_price_sum IS 'Sum of: last price (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.last_price_min IS 'Least of: last price (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.last_price_max IS 'Greatest of: last price (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.last_price_last IS 'Newest of: last price (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.bid_count IS 'Records that have bid (count)';
COMMENT ON COLUMN market_data_rollup.bid_sum IS 'Sum of: bid (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.bid_min IS 'Least of: bid (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.bid_max IS 'Greatest of: bid (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.bid_last IS 'Newest of: bid (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.ask_count IS 'Records that have ask (count)';
COMMENT ON COLUMN market_data_rollup.ask_sum IS 'Sum of: ask (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.ask_min IS 'Least of: ask (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.ask_max IS 'Greatest of: ask (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.ask_last IS 'Newest of: ask (price); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.volume_count IS 'Records that have volume (count)';
COMMENT ON COLUMN market_data_rollup.volume_sum IS
    'Sum of: traded since the moment before (instrument''s units); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.volume_min IS
    'Least of: traded since the moment before (instrument''s units); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.volume_max IS
    'Greatest of: traded since the moment before (instrument''s units); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.volume_last IS
    'Newest of: traded since the moment before (instrument''s units); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.trades_count IS 'Records that have trades (count)';
COMMENT ON COLUMN market_data_rollup.trades_sum IS
    'Sum of: trades since the moment before (count); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.trades_min IS
    'Least of: trades since the moment before (count); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.trades_max IS
    'Greatest of: trades since the moment before (count); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.trades_last IS
    'Newest of: trades since the moment before (count); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.spread_bps_count IS 'Records that have spread_bps (count)';
COMMENT ON COLUMN market_data_rollup.spread_bps_sum IS
    'Sum of: ask - bid to their middle (hundredths of a percent); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.spread_bps_min IS
    'Least of: ask - bid to their middle (hundredths of a percent); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.spread_bps_max IS
    'Greatest of: ask - bid to their middle (hundredths of a percent); NULL: no record has one';
COMMENT ON COLUMN market_data_rollup.spread_bps_last IS
    'Newest of: ask - bid to their middle (hundredths of a percent); NULL: no record has one';

CREATE TABLE strategy_metrics (
    strategy_name text NOT NULL,
    time timestamptz NOT NULL,
    pnl float8,
    daily_pnl float8,
    positions bigint,
    signals bigint,
    win_rate float8,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (strategy_name, time)
) PARTITION BY RANGE (time);
CREATE INDEX strategy_metrics_order ON strategy_metrics (time, strategy_name);
COMMENT ON TABLE strategy_metrics IS 'How strategies do';
COMMENT ON COLUMN strategy_metrics.strategy_name IS 'The strategy (name)';
COMMENT ON COLUMN strategy_metrics.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN strategy_metrics.pnl IS 'Profit and loss so far (account''s currency); NULL: not known';
COMMENT ON COLUMN strategy_metrics.daily_pnl IS 'Profit and loss of the day (account''s currency); NULL: not known';
COMMENT ON COLUMN strategy_metrics.positions IS 'Open positions (count); NULL: not known';
COMMENT ON COLUMN strategy_metrics.signals IS 'Signals so far (count); NULL: not known';
COMMENT ON COLUMN strategy_metrics.win_rate IS 'Trades that won (fraction: 0.5 is half); NULL: not known';
COMMENT ON COLUMN strategy_metrics.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';
CREATE TABLE strategy_metrics_rollup (
    strategy_name text NOT NULL,
    resolution integer NOT NULL,
    time timestamptz NOT NULL,
    rows bigint NOT NULL,
    first_time timestamptz,
    last_time timestamptz,
    pnl_count bigint,
    pnl_sum float8,
    pnl_min float8,
    pnl_max float8,
    pnl_last float8,
    daily_pnl_count bigint,
    daily_pnl_sum float8,
    daily_pnl_min float8,
    daily_pnl_max float8,
    daily_pnl_last float8,
    positions_count bigint,
    positions_sum numeric,
    positions_min bigint,
    positions_max bigint,
    positions_last bigint,
    signals_count bigint,
    signals_sum numeric,
    signals_min bigint,
    signals_max bigint,
    signals_last bigint,
    win_rate_count bigint,
    win_rate_sum float8,
    win_rate_min float8,
    win_rate_max float8,
    win_rate_last float8,
    PRIMARY KEY (strategy_name, resolution, time)
) PARTITION BY LIST (resolution);
CREATE TABLE strategy_metrics_rollup_60
    PARTITION OF strategy_metrics_rollup FOR VALUES IN (60) WITH (fillfactor = 70);
CREATE TABLE strategy_metrics_rollup_300
    PARTITION OF strategy_metrics_rollup FOR VALUES IN (300) WITH (fillfactor = 70);
CREATE TABLE strategy_metrics_rollup_3600
    PARTITION OF strategy_metrics_rollup FOR VALUES IN (3600) WITH (fillfactor = 70);
CREATE INDEX strategy_metrics_rollup_order ON strategy_metrics_rollup (resolution, time, strategy_name);
COMMENT ON TABLE strategy_metrics_rollup IS 'How strategies do: by minute, five minutes and hour';
COMMENT ON COLUMN strategy_metrics_rollup.strategy_name IS 'The strategy (name)';
COMMENT ON COLUMN strategy_metrics_rollup.resolution IS 'Length of the bucket (seconds): 60, 300 or 3600';
COMMENT ON COLUMN strategy_metrics_rollup.time IS 'Start of the bucket (UTC)';
COMMENT ON COLUMN strategy_metrics_rollup.rows IS 'Records in the bucket (count)';
COMMENT ON COLUMN strategy_metrics_rollup.first_time IS 'Time of its first record (UTC, microseconds)';
COMMENT ON COLUMN strategy_metrics_rollup.last_time IS 'Time of its last record (UTC, microseconds)';
COMMENT ON COLUMN strategy_metrics_rollup.pnl_count IS 'Records that have pnl (count)';
COMMENT ON COLUMN strategy_metrics_rollup.pnl_sum IS
    'Sum of: profit and loss so far (account''s currency); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.pnl_min IS
    'Least of: profit and loss so far (account''s currency); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.pnl_max IS
    'Greatest of: profit and loss so far (account''s currency); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.pnl_last IS
    'Newest of: profit and loss so far (account''s currency); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.daily_pnl_count IS 'Records that have daily_pnl (count)';
COMMENT ON COLUMN strategy_metrics_rollup.daily_pnl_sum IS
    'Sum of: profit and loss of the day (account''s currency); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.daily_pnl_min IS
    'Least of: profit and loss of the day (account''s currency); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.daily_pnl_max IS
    'Greatest of: profit and loss of the day (account''s currency); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.daily_pnl_last IS
    'Newest of: profit and loss of the day (account''s currency); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.positions_count IS 'Records that have positions (count)';
COMMENT ON COLUMN strategy_metrics_rollup.positions_sum IS 'Sum of: open positions (count); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.positions_min IS 'Least of: open positions (count); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.positions_max IS
    'Greatest of: open positions (count); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.positions_last IS
    'Newest of: open positions (count); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.signals_count IS 'Records that have signals (count)';
COMMENT ON COLUMN strategy_metrics_rollup.signals_sum IS 'Sum of: signals so far (count); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.signals_min IS 'Least of: signals so far (count); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.signals_max IS 'Greatest of: signals so far (count); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.signals_last IS 'Newest of: signals so far (count); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.win_rate_count IS 'Records that have win_rate (count)';
COMMENT ON COLUMN strategy_metrics_rollup.win_rate_sum IS
    'Sum of: trades that won (fraction: 0.5 is half); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.win_rate_min IS
    'Least of: trades that won (fraction: 0.5 is half); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.win_rate_max IS
    'Greatest of: trades that won (fraction: 0.5 is half); NULL: no record has one';
COMMENT ON COLUMN strategy_metrics_rollup.win_rate_last IS
    'Newest of: trades that won (fraction: 0.5 is half); NULL: no record has one';

CREATE TABLE execution_metrics (
    time timestamptz NOT NULL,
    orders_submitted bigint,
    orders_filled bigint,
    orders_cancelled bigint,
    orders_rejected bigint,
    fill_rate float8,
    avg_latency_ms float8,
    avg_slippage_bps float8,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (time)
) PARTITION BY RANGE (time);
COMMENT ON TABLE execution_metrics IS 'How orders are executed, over all strategies';
COMMENT ON COLUMN execution_metrics.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN execution_metrics.orders_submitted IS 'Orders submitted since the last one (count); NULL: not known';
COMMENT ON COLUMN execution_metrics.orders_filled IS 'Orders filled since the last one (count); NULL: not known';
COMMENT ON COLUMN execution_metrics.orders_cancelled IS 'Orders cancelled since the last one (count); NULL: not known';
COMMENT ON COLUMN execution_metrics.orders_rejected IS 'Orders rejected since the last one (count); NULL: not known';
COMMENT ON COLUMN execution_metrics.fill_rate IS 'Orders filled of those submitted (fraction); NULL: not known';
COMMENT ON COLUMN execution_metrics.avg_latency_ms IS 'Mean time from order to answer (ms); NULL: not known';
COMMENT ON COLUMN execution_metrics.avg_slippage_bps IS
    'Mean price paid beyond the expected one (hundredths of a percent); NULL: not known';
COMMENT ON COLUMN execution_metrics.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';
CREATE TABLE execution_metrics_rollup (
    resolution integer NOT NULL,
    time timestamptz NOT NULL,
    rows bigint NOT NULL,
    first_time timestamptz,
    last_time timestamptz,
    orders_submitted_count bigint,
    orders_submitted_sum numeric,
    orders_submitted_min bigint,
    orders_submitted_max bigint,
    orders_submitted_last bigint,
    orders_filled_count bigint,
    orders_filled_sum numeric,
    orders_filled_min bigint,
    orders_filled_max bigint,
    orders_filled_last bigint,
    orders_cancelled_count bigint,
    orders_cancelled_sum numeric,
    orders_cancelled_min bigint,
    orders_cancelled_max bigint,
    orders_cancelled_last bigint,
    orders_rejected_count bigint,
    orders_rejected_sum numeric,
    orders_rejected_min bigint,
    orders_rejected_max bigint,
    orders_rejected_last bigint,
    fill_rate_count bigint,
    fill_rate_sum float8,
    fill_rate_min float8,
    fill_rate_max float8,
    fill_rate_last float8,
    avg_latency_ms_count bigint,
    avg_latency_ms_sum float8,
    avg_latency_ms_min float8,
    avg_latency_ms_max float8,
    avg_latency_ms_last float8,
    avg_slippage_bps_count bigint,
    avg_slippage_bps_sum float8,
    avg_slippage_bps_min float8,
    avg_slippage_bps_max float8,
    avg_slippage_bps_last float8,
    PRIMARY KEY (resolution, time)
) PARTITION BY LIST (resolution);
CREATE TABLE execution_metrics_rollup_60
    PARTITION OF execution_metrics_rollup FOR VALUES IN (60) WITH (fillfactor = 70);
CREATE TABLE execution_metrics_rollup_300
    PARTITION OF execution_metrics_rollup FOR VALUES IN (300) WITH (fillfactor = 70);
CREATE TABLE execution_metrics_rollup_3600
    PARTITION OF execution_metrics_rollup FOR VALUES IN (3600) WITH (fillfactor = 70);
COMMENT ON TABLE execution_metrics_rollup IS
    'How orders are executed, over all strategies: by minute, five minutes and hour';
COMMENT ON COLUMN execution_metrics_rollup.resolution IS 'Length of the bucket (seconds): 60, 300 or 3600';
COMMENT ON COLUMN execution_metrics_rollup.time IS 'Start of the bucket (UTC)';
COMMENT ON COLUMN execution_metrics_rollup.rows IS 'Records in the bucket (count)';
COMMENT ON COLUMN execution_metrics_rollup.first_time IS 'Time of its first record (UTC, microseconds)';
COMMENT ON COLUMN execution_metrics_rollup.last_time IS 'Time of its last record (UTC, microseconds)';
COMMENT ON COLUMN execution_metrics_rollup.orders_submitted_count IS 'Records that have orders_submitted (count)';
COMMENT ON COLUMN execution_metrics_rollup.orders_submitted_sum IS
    'Sum of: orders submitted since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_submitted_min IS
    'Least of: orders submitted since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_submitted_max IS
    'Greatest of: orders submitted since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_submitted_last IS
    'Newest of: orders submitted since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_filled_count IS 'Records that have orders_filled (count)';
COMMENT ON COLUMN execution_metrics_rollup.orders_filled_sum IS
    'Sum of: orders filled since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_filled_min IS
    'Least of: orders filled since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_filled_max IS
    'Greatest of: orders filled since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_filled_last IS
    'Newest of: orders filled since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_cancelled_count IS 'Records that have orders_cancelled (count)';
COMMENT ON COLUMN execution_metrics_rollup.orders_cancelled_sum IS
    'Sum of: orders cancelled since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_cancelled_min IS
    'Least of: orders cancelled since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_cancelled_max IS
    'Greatest of: orders cancelled since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_cancelled_last IS
    'Newest of: orders cancelled since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_rejected_count IS 'Records that have orders_rejected (count)';
COMMENT ON COLUMN execution_metrics_rollup.orders_rejected_sum IS
    'Sum of: orders rejected since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_rejected_min IS
    'Least of: orders rejected since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_rejected_max IS
    'Greatest of: orders rejected since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.orders_rejected_last IS
    'Newest of: orders rejected since the last one (count); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.fill_rate_count IS 'Records that have fill_rate (count)';
COMMENT ON COLUMN execution_metrics_rollup.fill_rate_sum IS
    'Sum of: orders filled of those submitted (fraction); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.fill_rate_min IS
    'Least of: orders filled of those submitted (fraction); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.fill_rate_max IS
    'Greatest of: orders filled of those submitted (fraction); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.fill_rate_last IS
    'Newest of: orders filled of those submitted (fraction); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.avg_latency_ms_count IS 'Records that have avg_latency_ms (count)';
COMMENT ON COLUMN execution_metrics_rollup.avg_latency_ms_sum IS
    'Sum of: mean time from order to answer (ms); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.avg_latency_ms_min IS
    'Least of: mean time from order to answer (ms); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.avg_latency_ms_max IS
    'Greatest of: mean time from order to answer (ms); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.avg_latency_ms_last IS
    'Newest of: mean time from order to answer (ms); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.avg_slippage_bps_count IS 'Records that have avg_slippage_bps (count)';
COMMENT ON COLUMN execution_metrics_rollup.avg_slippage_bps_sum IS
    'Sum of: mean price paid beyond the expected one (hundredths of a percent); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.avg_slippage_bps_min IS
    'Least of: mean price paid beyond the expected one (hundredths of a percent); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.avg_slippage_bps_max IS
    'Greatest of: mean price paid beyond the expected one (hundredths of a percent); NULL: no record has one';
COMMENT ON COLUMN execution_metrics_rollup.avg_slippage_bps_last IS
    'Newest of: mean price paid beyond the expected one (hundredths of a percent); NULL: no record has one';

CREATE TABLE system_metrics (
    host text NOT NULL,
    time timestamptz NOT NULL,
    cpu_percent float8,
    memory_percent float8,
    disk_usage_percent float8,
    uptime_seconds float8,
    health_status text,
    active_alerts bigint,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (host, time)
) PARTITION BY RANGE (time);
CREATE INDEX system_metrics_order ON system_metrics (time, host);
COMMENT ON TABLE system_metrics IS 'Hosts at moments';
COMMENT ON COLUMN system_metrics.host IS 'The host (name)';
COMMENT ON COLUMN system_metrics.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN system_metrics.cpu_percent IS 'Processors that are busy (%); NULL: not known';
COMMENT ON COLUMN system_metrics.memory_percent IS 'Memory in use (%); NULL: not known';
COMMENT ON COLUMN system_metrics.disk_usage_percent IS 'Disk of the data directory in use (%); NULL: not known';
COMMENT ON COLUMN system_metrics.uptime_seconds IS 'Since the server''s start (s); NULL: not known';
COMMENT ON COLUMN system_metrics.health_status IS 'Healthy, unhealthy or what a sender says (word); NULL: not known';
COMMENT ON COLUMN system_metrics.active_alerts IS 'Alerts that hold now (count); NULL: not known';
COMMENT ON COLUMN system_metrics.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';
CREATE TABLE system_metrics_rollup (
    host text NOT NULL,
    resolution integer NOT NULL,
    time timestamptz NOT NULL,
    rows bigint NOT NULL,
    first_time timestamptz,
    last_time timestamptz,
    cpu_percent_count bigint,
    cpu_percent_sum float8,
    cpu_percent_min float8,
    cpu_percent_max float8,
    cpu_percent_last float8,
    memory_percent_count bigint,
    memory_percent_sum float8,
    memory_percent_min float8,
    memory_percent_max float8,
    memory_percent_last float8,
    disk_usage_percent_count bigint,
    disk_usage_percent_sum float8,
    disk_usage_percent_min float8,
    disk_usage_percent_max float8,
    disk_usage_percent_last float8,
    uptime_seconds_count bigint,
    uptime_seconds_sum float8,
    uptime_seconds_min float8,
    uptime_seconds_max float8,
    uptime_seconds_last float8,
    health_status_last text,
    active_alerts_count bigint,
    active_alerts_sum numeric,
    active_alerts_min bigint,
    active_alerts_max bigint,
    active_alerts_last bigint,
    PRIMARY KEY (host, resolution, time)
) PARTITION BY LIST (resolution);
CREATE TABLE system_metrics_rollup_60
    PARTITION OF system_metrics_rollup FOR VALUES IN (60) WITH (fillfactor = 70);
CREATE TABLE system_metrics_rollup_300
    PARTITION OF system_metrics_rollup FOR VALUES IN (300) WITH (fillfactor = 70);
CREATE TABLE system_metrics_rollup_3600
    PARTITION OF system_metrics_rollup FOR VALUES IN (3600) WITH (fillfactor = 70);
CREATE INDEX system_metrics_rollup_order ON system_metrics_rollup (resolution, time, host);
COMMENT ON TABLE system_metrics_rollup IS 'Hosts at moments: by minute, five minutes and hour';
COMMENT ON COLUMN system_metrics_rollup.host IS 'The host (name)';
COMMENT ON COLUMN system_metrics_rollup.resolution IS 'Length of the bucket (seconds): 60, 300 or 3600';
COMMENT ON COLUMN system_metrics_rollup.time IS 'Start of the bucket (UTC)';
COMMENT ON COLUMN system_metrics_rollup.rows IS 'Records in the bucket (count)';
COMMENT ON COLUMN system_metrics_rollup.first_time IS 'Time of its first record (UTC, microseconds)';
COMMENT ON COLUMN system_metrics_rollup.last_time IS 'Time of its last record (UTC, microseconds)';
COMMENT ON COLUMN system_metrics_rollup.cpu_percent_count IS 'Records that have cpu_percent (count)';
COMMENT ON COLUMN system_metrics_rollup.cpu_percent_sum IS
    'Sum of: processors that are busy (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.cpu_percent_min IS
    'Least of: processors that are busy (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.cpu_percent_max IS
    'Greatest of: processors that are busy (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.cpu_percent_last IS
    'Newest of: processors that are busy (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.memory_percent_count IS 'Records that have memory_percent (count)';
COMMENT ON COLUMN system_metrics_rollup.memory_percent_sum IS 'Sum of: memory in use (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.memory_percent_min IS 'Least of: memory in use (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.memory_percent_max IS 'Greatest of: memory in use (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.memory_percent_last IS 'Newest of: memory in use (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.disk_usage_percent_count IS 'Records that have disk_usage_percent (count)';
COMMENT ON COLUMN system_metrics_rollup.disk_usage_percent_sum IS
    'Sum of: disk of the data directory in use (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.disk_usage_percent_min IS
    'Least of: disk of the data directory in use (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.disk_usage_percent_max IS
    'Greatest of: disk of the data directory in use (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.disk_usage_percent_last IS
    'Newest of: disk of the data directory in use (%); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.uptime_seconds_count IS 'Records that have uptime_seconds (count)';
COMMENT ON COLUMN system_metrics_rollup.uptime_seconds_sum IS
    'Sum of: since the server''s start (s); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.uptime_seconds_min IS
    'Least of: since the server''s start (s); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.uptime_seconds_max IS
    'Greatest of: since the server''s start (s); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.uptime_seconds_last IS
    'Newest of: since the server''s start (s); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.health_status_last IS
    'Newest of: healthy, unhealthy or what a sender says (word); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.active_alerts_count IS 'Records that have active_alerts (count)';
COMMENT ON COLUMN system_metrics_rollup.active_alerts_sum IS
    'Sum of: alerts that hold now (count); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.active_alerts_min IS
    'Least of: alerts that hold now (count); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.active_alerts_max IS
    'Greatest of: alerts that hold now (count); NULL: no record has one';
COMMENT ON COLUMN system_metrics_rollup.active_alerts_last IS
    'Newest of: alerts that hold now (count); NULL: no record has one';
"""


def upgrade() -> None:
    op.execute(PARTITIONS)
    op.execute(COLLECTED)
    op.execute(TABLES)
