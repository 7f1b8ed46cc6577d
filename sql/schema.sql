-- The schema that the migrations make. Written by python -m tests.integration.write_schema; a test compares.

CREATE SCHEMA history;

COMMENT ON SCHEMA history IS 'One view a symbol: <symbol>_history';

CREATE SCHEMA secret;

COMMENT ON SCHEMA secret IS 'What only the owner writes, and only the server and backups read';

CREATE FUNCTION public.action_factor(p_type text, p_amount double precision, p_ratio double precision, p_close double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION public.action_factor(p_type text, p_amount double precision, p_ratio double precision, p_close double precision) IS 'By what a corporate action multiplies the prices before it, p_close being the last; NULL: it lacks its number';

CREATE FUNCTION public.actions_factor(p_symbol_id integer, p_after timestamp with time zone, p_until timestamp with time zone, p_close double precision) RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN bool_and(coalesce(f.factor > 0, false)) IS DISTINCT FROM false
        THEN public.float8_product(f.factor) END
    FROM (
        SELECT public.action_factor(a.action_type, a.amount, a.ratio, p_close) AS factor
        FROM public.corporate_actions a
        WHERE a.symbol_id = p_symbol_id AND a.ex_date > (p_after AT TIME ZONE 'UTC')::date
            AND a.ex_date <= (p_until AT TIME ZONE 'UTC')::date
    ) f
$$;

COMMENT ON FUNCTION public.actions_factor(p_symbol_id integer, p_after timestamp with time zone, p_until timestamp with time zone, p_close double precision) IS 'Product of the factors of the corporate actions after one trading day and up to the next';

CREATE FUNCTION public.bar_factors(p_symbol_id integer, p_interval text, p_source text) RETURNS TABLE(ex_dates date[], products double precision[])
    LANGUAGE plpgsql STABLE COST 1000 ROWS 1 PARALLEL SAFE
    AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.corporate_actions a WHERE a.symbol_id = p_symbol_id) THEN
        RETURN;
    ELSIF p_source IS NULL THEN
        RETURN QUERY SELECT array_agg(x.ex_date ORDER BY x.number DESC),
            array_agg(x.product ORDER BY x.number DESC) || 1::float8
        FROM (
            SELECT f.ex_date, row_number() OVER later AS number,
                CASE WHEN bool_and(coalesce(f.factor > 0, false)) OVER later
                    THEN public.float8_product(f.factor) OVER later END AS product
            FROM (
                SELECT a.ex_date, a.action_type,
                    public.action_factor(a.action_type, a.amount, a.ratio, b.close) AS factor
                FROM public.corporate_actions a
                LEFT JOIN LATERAL (
        (SELECT p.time, p.close, p.adj_close, 1 AS rank FROM public.price_history p
         WHERE p.symbol_id = p_symbol_id AND p."interval" = '1d' AND p.time < a.ex_date::timestamp AT TIME ZONE 'UTC'
         ORDER BY p.time DESC, p.source LIMIT 1)
        UNION ALL
        (SELECT o.time, coalesce(o.last_close, o.bid_close), NULL, 2 FROM public.bars o
         WHERE o.symbol_id = p_symbol_id AND o.resolution = 86400 AND o.time < a.ex_date::timestamp AT TIME ZONE 'UTC'
             AND coalesce(o.last_close, o.bid_close) IS NOT NULL
         ORDER BY o.time DESC LIMIT 1)
        ORDER BY time DESC, rank LIMIT 1
        ) b ON true
                WHERE a.symbol_id = p_symbol_id
                    AND a.ex_date <= (SELECT (x.time AT TIME ZONE 'UTC')::date FROM (
        (SELECT p.time, p.close, p.adj_close, 1 AS rank FROM public.price_history p
         WHERE p.symbol_id = p_symbol_id AND p."interval" = '1d' AND p.time < 'infinity'
         ORDER BY p.time DESC, p.source LIMIT 1)
        UNION ALL
        (SELECT o.time, coalesce(o.last_close, o.bid_close), NULL, 2 FROM public.bars o
         WHERE o.symbol_id = p_symbol_id AND o.resolution = 86400 AND o.time < 'infinity'
             AND coalesce(o.last_close, o.bid_close) IS NOT NULL
         ORDER BY o.time DESC LIMIT 1)
        ORDER BY time DESC, rank LIMIT 1
        ) x)
            ) f
            WINDOW later AS (ORDER BY f.ex_date DESC, f.action_type DESC ROWS UNBOUNDED PRECEDING)
        ) x
        HAVING count(*) > 0;
    ELSE
        RETURN QUERY SELECT array_agg(x.ex_date ORDER BY x.number DESC),
            array_agg(x.product ORDER BY x.number DESC) || 1::float8
        FROM (
            SELECT f.ex_date, row_number() OVER later AS number,
                CASE WHEN bool_and(coalesce(f.factor > 0, false)) OVER later
                    THEN public.float8_product(f.factor) OVER later END AS product
            FROM (
                SELECT a.ex_date, a.action_type,
                    public.action_factor(a.action_type, a.amount, a.ratio, b.close) AS factor
                FROM public.corporate_actions a
                LEFT JOIN LATERAL (
        SELECT p.time, p.close, p.adj_close FROM public.price_history p
        WHERE p.symbol_id = p_symbol_id AND p."interval" = p_interval AND p.source = p_source AND p.time < a.ex_date::timestamp AT TIME ZONE 'UTC'
        ORDER BY p.time DESC LIMIT 1
        ) b ON true
                WHERE a.symbol_id = p_symbol_id
                    AND a.ex_date <= (SELECT (x.time AT TIME ZONE 'UTC')::date FROM (
        SELECT p.time, p.close, p.adj_close FROM public.price_history p
        WHERE p.symbol_id = p_symbol_id AND p."interval" = p_interval AND p.source = p_source AND p.time < 'infinity'
        ORDER BY p.time DESC LIMIT 1
        ) x)
            ) f
            WINDOW later AS (ORDER BY f.ex_date DESC, f.action_type DESC ROWS UNBOUNDED PRECEDING)
        ) x
        HAVING count(*) > 0;
    END IF;
END $$;

COMMENT ON FUNCTION public.bar_factors(p_symbol_id integer, p_interval text, p_source text) IS 'Days of the corporate actions that bars of a source (NULL: the days of price_history_daily) have reached, and for each what closes before it are multiplied by, 1 at the end; no row: there are none';

CREATE FUNCTION public.day_changes(p_symbol_id integer, p_source text, p_first timestamp with time zone, p_last timestamp with time zone) RETURNS TABLE("time" timestamp with time zone, daily_return double precision, volatility double precision)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
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

COMMENT ON FUNCTION public.day_changes(p_symbol_id integer, p_source text, p_first timestamp with time zone, p_last timestamp with time zone) IS 'Of a source''s days in a range: change of the adjusted close since its day before (fraction), and the deviation of the last 20, yearly (times the root of 252); NULL: fewer are there';

CREATE FUNCTION public.ensure_month_partition(p_table text, p_time timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO, YMD'
    SET lock_timeout TO '5s'
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
    -- Whoever writes is told that these records are too old, and needs no table for that.
    IF EXISTS (SELECT FROM public.kept_from k WHERE k.dataset = p_table AND k.time >= v_month + interval '1 month') THEN
        RETURN false;
    END IF;
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

COMMENT ON FUNCTION public.ensure_month_partition(p_table text, p_time timestamp with time zone) IS 'Makes the monthly partition of a table for this time; true if there was none. Commit soon: it holds a lock';

CREATE FUNCTION public.ensure_tick_partition(p_time timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO, YMD'
    SET lock_timeout TO '5s'
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
    -- Whoever writes is told that these ticks are too old, and needs no table for that.
    IF EXISTS (SELECT FROM public.tick_ranges WHERE state = 'dropped'
               AND range @> tstzrange(v_monday, v_monday + interval '7 days')) THEN
        RETURN false;
    END IF;
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

COMMENT ON FUNCTION public.ensure_tick_partition(p_time timestamp with time zone) IS 'Makes the weekly partition of ticks for this time; true if there was none. Commit soon: it holds a lock';

CREATE FUNCTION public.factored(p_close double precision, p_time timestamp with time zone, p_ex_dates date[], p_products double precision[]) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT CASE WHEN p_products IS NULL OR abs(p_close) < 1e-9 THEN p_close
        ELSE p_close * p_products[width_bucket((p_time AT TIME ZONE 'UTC')::date, p_ex_dates) + 1] END
$$;

COMMENT ON FUNCTION public.factored(p_close double precision, p_time timestamp with time zone, p_ex_dates date[], p_products double precision[]) IS 'A close of this time, adjusted for the corporate actions after it (bar_factors)';

CREATE FUNCTION public.history_view_name(p_symbol text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN ("left"(regexp_replace(lower(p_symbol), '[^a-z0-9]'::text, '_'::text, 'g'::text), 55) || '_history'::text);

COMMENT ON FUNCTION public.history_view_name(p_symbol text) IS 'Name of a symbol''s history view: lower case, other characters to _, at most 63 bytes';

CREATE FUNCTION public.instruments_history_view() RETURNS trigger
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

COMMENT ON FUNCTION public.instruments_history_view() IS 'Keeps the history views in step with instruments';

CREATE FUNCTION public.newest_quotes(p_symbols text[], p_cut_days timestamp with time zone[], p_cut_hours timestamp with time zone[], p_cuts timestamp with time zone[], p_ends timestamp with time zone[], p_close_days timestamp with time zone[], p_close_hours timestamp with time zone[], p_closes timestamp with time zone[]) RETURNS TABLE(symbol text, digits smallint, exchange text, timezone text, bid double precision, bid_key bytea, ask double precision, ask_key bytea, last double precision, last_key bytea, tick_key bytea, spread double precision, volume double precision, buy_volume double precision, sell_volume double precision, flags integer, before double precision, before_key bytea, open double precision, open_key bytea, closing double precision, closing_key bytea)
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
BEGIN
    IF p_closes IS NULL THEN
    RETURN QUERY
    SELECT i.symbol, i.digits, i.exchange, i.timezone, c.bid, c.bid_key, c.ask, c.ask_key, c.last, c.last_key,
        c.tick_key, c.spread, c.volume, c.buy_volume, c.sell_volume, c.flags, b.price, b.key, o.price, o.key,
        NULL::float8, NULL::bytea
    FROM unnest(p_symbols, p_cut_days, p_cut_hours, p_cuts, p_ends)
        WITH ORDINALITY AS s (symbol, cut_day, cut_hour, cut, end_, number)
    JOIN public.instruments i ON i.symbol = s.symbol
    LEFT JOIN public.current c ON c.symbol = i.symbol
    LEFT JOIN LATERAL (
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END AS price,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END AS key
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 60 AND time >= s.cut_hour AND time < s.cut
             AND s.cut_hour < s.cut AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 3600 AND time >= s.cut_day AND time < s.cut_hour
             AND s.cut_day < s.cut_hour AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 86400 AND time < s.cut_day
             AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        LIMIT 1
    ) b ON true
    LEFT JOIN LATERAL (
        SELECT CASE WHEN c.last IS NOT NULL THEN last_open ELSE bid_open END AS price,
               CASE WHEN c.last IS NOT NULL THEN last_open_key ELSE bid_open_key END AS key
        FROM public.bars WHERE b.price IS NULL AND symbol_id = i.symbol_id AND resolution = 60
            AND time >= s.cut AND time < s.end_
            AND CASE WHEN c.last IS NOT NULL THEN last_open ELSE bid_open END IS NOT NULL
        ORDER BY time LIMIT 1
    ) o ON true
    ORDER BY s.number;
    ELSE
    RETURN QUERY
    SELECT i.symbol, i.digits, i.exchange, i.timezone, c.bid, c.bid_key, c.ask, c.ask_key, c.last, c.last_key,
        c.tick_key, c.spread, c.volume, c.buy_volume, c.sell_volume, c.flags, b.price, b.key, o.price, o.key,
        e.price, e.key
    FROM unnest(p_symbols, p_cut_days, p_cut_hours, p_cuts, p_ends, p_close_days, p_close_hours, p_closes)
        WITH ORDINALITY AS s (symbol, cut_day, cut_hour, cut, end_, close_day, close_hour, close, number)
    JOIN public.instruments i ON i.symbol = s.symbol
    LEFT JOIN public.current c ON c.symbol = i.symbol
    LEFT JOIN LATERAL (
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END AS price,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END AS key
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 60 AND time >= s.cut_hour AND time < s.cut
             AND s.cut_hour < s.cut AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 3600 AND time >= s.cut_day AND time < s.cut_hour
             AND s.cut_day < s.cut_hour AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 86400 AND time < s.cut_day
             AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        LIMIT 1
    ) b ON true
    LEFT JOIN LATERAL (
        SELECT CASE WHEN c.last IS NOT NULL THEN last_open ELSE bid_open END AS price,
               CASE WHEN c.last IS NOT NULL THEN last_open_key ELSE bid_open_key END AS key
        FROM public.bars WHERE b.price IS NULL AND symbol_id = i.symbol_id AND resolution = 60
            AND time >= s.cut AND time < s.end_
            AND CASE WHEN c.last IS NOT NULL THEN last_open ELSE bid_open END IS NOT NULL
        ORDER BY time LIMIT 1
    ) o ON true
    LEFT JOIN LATERAL (
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END AS price,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END AS key
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 60 AND time >= s.close_hour AND time < s.close
             AND s.close_hour < s.close AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 3600 AND time >= s.close_day AND time < s.close_hour
             AND s.close_day < s.close_hour AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END,
                CASE WHEN c.last IS NOT NULL THEN last_close_key ELSE bid_close_key END
         FROM public.bars WHERE symbol_id = i.symbol_id AND resolution = 86400 AND time < s.close_day
             AND CASE WHEN c.last IS NOT NULL THEN last_close ELSE bid_close END IS NOT NULL
         ORDER BY time DESC LIMIT 1)
        LIMIT 1
    ) e ON true
    ORDER BY s.number;
    END IF;
END $$;

COMMENT ON FUNCTION public.newest_quotes(p_symbols text[], p_cut_days timestamp with time zone[], p_cut_hours timestamp with time zone[], p_cuts timestamp with time zone[], p_ends timestamp with time zone[], p_close_days timestamp with time zone[], p_close_hours timestamp with time zone[], p_closes timestamp with time zone[]) IS 'Newest prices of instruments; the last price before each one''s session, or else the first one since; its close';

CREATE FUNCTION public.occ_symbol(p_symbol text, p_expiration date, p_option_type text, p_strike double precision) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN ((p_symbol ~ '^[A-Za-z][A-Za-z0-9]{0,5}$'::text) AND (p_strike > (0)::double precision) AND (p_strike < (100000)::double precision) AND (((((p_strike)::text)::numeric * (1000)::numeric) % (1)::numeric) = (0)::numeric) AND ((p_expiration >= '2000-01-01'::date) AND (p_expiration <= '2099-12-31'::date))) THEN (((rpad(upper(p_symbol), 6) || to_char((p_expiration)::timestamp with time zone, 'YYMMDD'::text)) || CASE p_option_type WHEN 'call'::text THEN 'C'::text ELSE 'P'::text END) || lpad((((((p_strike)::text)::numeric * (1000)::numeric))::bigint)::text, 8, '0'::text)) ELSE NULL::text END;

COMMENT ON FUNCTION public.occ_symbol(p_symbol text, p_expiration date, p_option_type text, p_strike double precision) IS 'Contract symbol in OCC form: root, padded to 6, YYMMDD, C or P, strike x 1000 in 8 digits; NULL: it has none';

CREATE TABLE public.bars (
    symbol_id integer NOT NULL,
    resolution integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    ticks bigint NOT NULL,
    volume numeric(38,8) NOT NULL,
    buy_volume numeric(38,8) NOT NULL,
    sell_volume numeric(38,8) NOT NULL,
    bid_open double precision,
    bid_high double precision,
    bid_low double precision,
    bid_close double precision,
    bid_open_key bytea,
    bid_close_key bytea,
    ask_open double precision,
    ask_high double precision,
    ask_low double precision,
    ask_close double precision,
    ask_open_key bytea,
    ask_close_key bytea,
    mid_open double precision,
    mid_high double precision,
    mid_low double precision,
    mid_close double precision,
    mid_open_key bytea,
    mid_close_key bytea,
    last_open double precision,
    last_high double precision,
    last_low double precision,
    last_close double precision,
    last_open_key bytea,
    last_close_key bytea,
    spread_min double precision,
    spread_max double precision,
    version bigint DEFAULT 0 NOT NULL,
    CONSTRAINT bars_resolution_check CHECK ((resolution = ANY (ARRAY[60, 3600, 86400])))
)
WITH (fillfactor='70');

COMMENT ON TABLE public.bars IS 'Bars, an exact function of the stored ticks at every commit';

COMMENT ON COLUMN public.bars.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.bars.resolution IS 'Length (seconds): 60, 3600 or 86400';

COMMENT ON COLUMN public.bars."time" IS 'Start (UTC)';

COMMENT ON COLUMN public.bars.ticks IS 'Number of ticks, quotes and trades';

COMMENT ON COLUMN public.bars.volume IS 'Volume of the trades (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars.buy_volume IS 'Volume of the trades by buyers (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars.sell_volume IS 'Volume of the trades by sellers (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars.bid_open IS 'Open of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars.bid_high IS 'High of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars.bid_low IS 'Low of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars.bid_close IS 'Close of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars.bid_open_key IS 'Order key (20 bytes) of the tick that made bid_open';

COMMENT ON COLUMN public.bars.bid_close_key IS 'Order key (20 bytes) of the tick that made bid_close';

COMMENT ON COLUMN public.bars.ask_open IS 'Open of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars.ask_high IS 'High of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars.ask_low IS 'Low of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars.ask_close IS 'Close of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars.ask_open_key IS 'Order key (20 bytes) of the tick that made ask_open';

COMMENT ON COLUMN public.bars.ask_close_key IS 'Order key (20 bytes) of the tick that made ask_close';

COMMENT ON COLUMN public.bars.mid_open IS 'Open of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars.mid_high IS 'High of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars.mid_low IS 'Low of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars.mid_close IS 'Close of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars.mid_open_key IS 'Order key (20 bytes) of the tick that made mid_open';

COMMENT ON COLUMN public.bars.mid_close_key IS 'Order key (20 bytes) of the tick that made mid_close';

COMMENT ON COLUMN public.bars.last_open IS 'Open of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars.last_high IS 'High of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars.last_low IS 'Low of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars.last_close IS 'Close of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars.last_open_key IS 'Order key (20 bytes) of the tick that made last_open';

COMMENT ON COLUMN public.bars.last_close_key IS 'Order key (20 bytes) of the tick that made last_close';

COMMENT ON COLUMN public.bars.spread_min IS 'Smallest ask - bid (price); NULL: no tick had both';

COMMENT ON COLUMN public.bars.spread_max IS 'Largest ask - bid (price); NULL: no tick had both';

COMMENT ON COLUMN public.bars.version IS 'Random number of the last write of this bar; 0: not written since there are versions';

CREATE TABLE public.instruments (
    symbol_id integer NOT NULL,
    symbol text NOT NULL,
    name text,
    exchange text,
    currency text,
    timezone text,
    digits smallint,
    allow_nonpositive boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    sector text,
    industry text,
    market_cap double precision,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT instruments_digits_check CHECK (((digits >= 0) AND (digits <= 15))),
    CONSTRAINT instruments_market_cap_check CHECK (((market_cap >= (0)::double precision) AND (market_cap < 'Infinity'::double precision))),
    CONSTRAINT instruments_symbol_text CHECK ((((char_length(symbol) >= 1) AND (char_length(symbol) <= 64)) AND (symbol !~ '[\u0001-\u001f\u007f-\u009f]'::text)))
);

COMMENT ON TABLE public.instruments IS 'What is traded: one row a symbol';

COMMENT ON COLUMN public.instruments.symbol_id IS 'Number that stands for the symbol in the other tables';

COMMENT ON COLUMN public.instruments.symbol IS 'Canonical name; unique in any case';

COMMENT ON COLUMN public.instruments.name IS 'Name for people; NULL: not known';

COMMENT ON COLUMN public.instruments.exchange IS 'Where it is traded, a MIC or a usual name: its calendar gives sessions and market hours; NULL: not known';

COMMENT ON COLUMN public.instruments.currency IS 'Currency of its prices (ISO 4217); NULL: not known';

COMMENT ON COLUMN public.instruments.timezone IS 'Time zone of its exchange (IANA name); NULL: not known';

COMMENT ON COLUMN public.instruments.digits IS 'Decimals of a price: one point is 10^-digits; NULL: not known';

COMMENT ON COLUMN public.instruments.allow_nonpositive IS 'Whether a price may be zero or less';

COMMENT ON COLUMN public.instruments.created_at IS 'When the row was made (UTC)';

COMMENT ON COLUMN public.instruments.sector IS 'Sector of the economy, as Technology; NULL: not known';

COMMENT ON COLUMN public.instruments.industry IS 'Industry within the sector; NULL: not known';

COMMENT ON COLUMN public.instruments.market_cap IS 'Market capitalisation (its currency); NULL: not known';

COMMENT ON COLUMN public.instruments.received_at IS 'When what is known of it was accepted, the newest (UTC, microseconds)';

CREATE TABLE public.ticks (
    symbol_id integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    seq bigint NOT NULL,
    bid double precision,
    ask double precision,
    last double precision,
    spread double precision,
    volume double precision NOT NULL,
    buy_volume double precision NOT NULL,
    sell_volume double precision NOT NULL,
    flags integer NOT NULL,
    journal_no integer NOT NULL,
    received_at timestamp with time zone NOT NULL
)
PARTITION BY RANGE ("time");

COMMENT ON TABLE public.ticks IS 'Every tick, once; weekly partitions ticks_YYYYMMDD, named by their Monday (UTC)';

COMMENT ON COLUMN public.ticks.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.ticks."time" IS 'When it happened (UTC, microseconds)';

COMMENT ON COLUMN public.ticks.seq IS 'Ordinal at that time if >= 0 (the sender''s), else derived from the content';

COMMENT ON COLUMN public.ticks.bid IS 'Bid (price); NULL: none was sent';

COMMENT ON COLUMN public.ticks.ask IS 'Ask (price); NULL: none was sent';

COMMENT ON COLUMN public.ticks.last IS 'Last trade (price); a stale repeat unless flags & 8; NULL: none was sent';

COMMENT ON COLUMN public.ticks.spread IS 'ask - bid (points: 10^-digits of a price unit); NULL: not known';

COMMENT ON COLUMN public.ticks.volume IS 'Volume as sent (instrument''s units); a stale repeat unless flags & 8';

COMMENT ON COLUMN public.ticks.buy_volume IS 'Volume of a trade by a buyer (flags & 8 and & 32; instrument''s units), else 0';

COMMENT ON COLUMN public.ticks.sell_volume IS 'Volume of a trade by a seller (flags & 8 and & 64; instrument''s units), else 0';

COMMENT ON COLUMN public.ticks.flags IS 'Bits: bid 2, ask 4, last 8, volume 16, buy 32, sell 64; others kept';

COMMENT ON COLUMN public.ticks.journal_no IS 'ingest_log.journal_no: where it came from';

COMMENT ON COLUMN public.ticks.received_at IS 'When it was accepted (UTC, microseconds); rises within a journal';

CREATE TABLE public.trades_sent (
    symbol_id integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    seq bigint NOT NULL,
    price double precision NOT NULL,
    volume double precision,
    value double precision,
    trade_type text,
    bid_price double precision,
    ask_price double precision,
    received_at timestamp with time zone NOT NULL,
    CONSTRAINT trades_sent_trade_type_check CHECK ((trade_type = ANY (ARRAY['buy'::text, 'sell'::text, 'neutral'::text])))
);

COMMENT ON TABLE public.trades_sent IS 'Trades: sent ones, and those of trade ticks (flags & 8); a sent one stands for the tick of its key';

COMMENT ON COLUMN public.trades_sent.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.trades_sent."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.trades_sent.seq IS 'Ordinal at that time if >= 0 (the sender''s), else derived from the content, as for ticks';

COMMENT ON COLUMN public.trades_sent.price IS 'What was paid (price)';

COMMENT ON COLUMN public.trades_sent.volume IS 'How much (instrument''s units); NULL: not known';

COMMENT ON COLUMN public.trades_sent.value IS 'Price x volume (the price''s currency); computed when absent; NULL: not known';

COMMENT ON COLUMN public.trades_sent.trade_type IS 'Who crossed the spread; when absent by the quote: above its middle buy, below it sell; NULL: not known';

COMMENT ON COLUMN public.trades_sent.bid_price IS 'Bid at that moment (price); the newest one of the ticks when absent; NULL: not known';

COMMENT ON COLUMN public.trades_sent.ask_price IS 'Ask at that moment (price); the newest one of the ticks when absent; NULL: not known';

COMMENT ON COLUMN public.trades_sent.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE FUNCTION public.trades_between(p_start timestamp with time zone, p_end timestamp with time zone) RETURNS TABLE(symbol text, symbol_id integer, "time" timestamp with time zone, seq bigint, price double precision, volume double precision, value double precision, trade_type text, bid_price double precision, ask_price double precision, received_at timestamp with time zone)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT i.symbol,
     t.symbol_id,
     t."time",
     t.seq,
     t.price,
     t.volume,
     COALESCE(t.value,
         CASE
             WHEN ((abs(t.price) < '1e-150'::double precision) OR (t.volume < '1e-150'::double precision)) THEN (t.volume * (0)::double precision)
             ELSE (t.price * t.volume)
         END) AS "coalesce",
     COALESCE(t.trade_type,
         CASE
             WHEN ((t.price * (2)::double precision) > (quote.bid + quote.ask)) THEN 'buy'::text
             WHEN ((t.price * (2)::double precision) < (quote.bid + quote.ask)) THEN 'sell'::text
             ELSE 'neutral'::text
         END) AS "coalesce",
     quote.bid,
     quote.ask,
     t.received_at
    FROM ((public.trades_sent t
      JOIN public.instruments i USING (symbol_id))
      CROSS JOIN LATERAL ( SELECT COALESCE(t.bid_price, ( SELECT q.bid
                    FROM public.ticks q
                   WHERE ((q.symbol_id = t.symbol_id) AND (q."time" <= t."time") AND (q."time" >= date_trunc('minute'::text, t."time", 'UTC'::text)) AND (q."time" >= trades_between.p_start) AND (q."time" < trades_between.p_end) AND ((q.bid > (0)::double precision) OR ((q.bid <= (0)::double precision) AND i.allow_nonpositive)) AND ((q."time" < t."time") OR (ROW((q.seq < 0), GREATEST(q.seq, (0)::bigint), q.received_at, q.journal_no) < ROW((t.seq < 0), GREATEST(t.seq, (0)::bigint), t.received_at, 0))) AND ( SELECT (b.bid_open_key < int8send((((EXTRACT(epoch FROM t."time") * (1000000)::numeric))::bigint + 1)))
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 60) AND (b."time" = date_trunc('minute'::text, t."time", 'UTC'::text)))))
                   ORDER BY q."time" DESC, (q.seq < 0) DESC, GREATEST(q.seq, (0)::bigint) DESC, q.received_at DESC, q.journal_no DESC
                  LIMIT 1), ( SELECT before.price
                    FROM (( SELECT b.bid_close AS price
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 60) AND (b.bid_close IS NOT NULL) AND (b."time" >= date_trunc('hour'::text, t."time", 'UTC'::text)) AND (b."time" < date_trunc('minute'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                         UNION ALL
                         ( SELECT b.bid_close
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 3600) AND (b.bid_close IS NOT NULL) AND (b."time" >= date_trunc('day'::text, t."time", 'UTC'::text)) AND (b."time" < date_trunc('hour'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                         UNION ALL
                         ( SELECT b.bid_close
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 86400) AND (b.bid_close IS NOT NULL) AND (b."time" >= (date_trunc('day'::text, t."time", 'UTC'::text) - '168:00:00'::interval)) AND (b."time" < date_trunc('day'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                  LIMIT 1) before)) AS bid,
             COALESCE(t.ask_price, ( SELECT q.ask
                    FROM public.ticks q
                   WHERE ((q.symbol_id = t.symbol_id) AND (q."time" <= t."time") AND (q."time" >= date_trunc('minute'::text, t."time", 'UTC'::text)) AND (q."time" >= trades_between.p_start) AND (q."time" < trades_between.p_end) AND ((q.ask > (0)::double precision) OR ((q.ask <= (0)::double precision) AND i.allow_nonpositive)) AND ((q."time" < t."time") OR (ROW((q.seq < 0), GREATEST(q.seq, (0)::bigint), q.received_at, q.journal_no) < ROW((t.seq < 0), GREATEST(t.seq, (0)::bigint), t.received_at, 0))) AND ( SELECT (b.ask_open_key < int8send((((EXTRACT(epoch FROM t."time") * (1000000)::numeric))::bigint + 1)))
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 60) AND (b."time" = date_trunc('minute'::text, t."time", 'UTC'::text)))))
                   ORDER BY q."time" DESC, (q.seq < 0) DESC, GREATEST(q.seq, (0)::bigint) DESC, q.received_at DESC, q.journal_no DESC
                  LIMIT 1), ( SELECT before.price
                    FROM (( SELECT b.ask_close AS price
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 60) AND (b.ask_close IS NOT NULL) AND (b."time" >= date_trunc('hour'::text, t."time", 'UTC'::text)) AND (b."time" < date_trunc('minute'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                         UNION ALL
                         ( SELECT b.ask_close
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 3600) AND (b.ask_close IS NOT NULL) AND (b."time" >= date_trunc('day'::text, t."time", 'UTC'::text)) AND (b."time" < date_trunc('hour'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                         UNION ALL
                         ( SELECT b.ask_close
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 86400) AND (b.ask_close IS NOT NULL) AND (b."time" >= (date_trunc('day'::text, t."time", 'UTC'::text) - '168:00:00'::interval)) AND (b."time" < date_trunc('day'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                  LIMIT 1) before)) AS ask
          OFFSET 0) quote)
   WHERE ((t."time" >= trades_between.p_start) AND (t."time" < trades_between.p_end))
 UNION ALL
  SELECT i.symbol,
     t.symbol_id,
     t."time",
     t.seq,
     t.last,
     t.volume,
         CASE
             WHEN ((abs(t.last) < '1e-150'::double precision) OR (t.volume < '1e-150'::double precision)) THEN (t.volume * (0)::double precision)
             ELSE (t.last * t.volume)
         END AS "case",
         CASE
             WHEN ((t.flags & 96) = 32) THEN 'buy'::text
             WHEN ((t.flags & 96) = 64) THEN 'sell'::text
             WHEN ((t.flags & 96) = 96) THEN 'neutral'::text
             WHEN ((t.last * (2)::double precision) > (quote.bid + quote.ask)) THEN 'buy'::text
             WHEN ((t.last * (2)::double precision) < (quote.bid + quote.ask)) THEN 'sell'::text
             ELSE 'neutral'::text
         END AS "case",
     quote.bid,
     quote.ask,
     t.received_at
    FROM ((public.ticks t
      JOIN public.instruments i USING (symbol_id))
      CROSS JOIN LATERAL ( SELECT COALESCE(
                 CASE
                     WHEN ((t.bid > (0)::double precision) OR ((t.bid <= (0)::double precision) AND i.allow_nonpositive)) THEN t.bid
                     ELSE NULL::double precision
                 END, ( SELECT q.bid
                    FROM public.ticks q
                   WHERE ((q.symbol_id = t.symbol_id) AND (q."time" <= t."time") AND (q."time" >= date_trunc('minute'::text, t."time", 'UTC'::text)) AND (q."time" >= trades_between.p_start) AND (q."time" < trades_between.p_end) AND ((q.bid > (0)::double precision) OR ((q.bid <= (0)::double precision) AND i.allow_nonpositive)) AND ((q."time" < t."time") OR (ROW((q.seq < 0), GREATEST(q.seq, (0)::bigint), q.received_at, q.journal_no) < ROW((t.seq < 0), GREATEST(t.seq, (0)::bigint), t.received_at, t.journal_no))) AND ( SELECT (b.bid_open_key < int8send((((EXTRACT(epoch FROM t."time") * (1000000)::numeric))::bigint + 1)))
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 60) AND (b."time" = date_trunc('minute'::text, t."time", 'UTC'::text)))))
                   ORDER BY q."time" DESC, (q.seq < 0) DESC, GREATEST(q.seq, (0)::bigint) DESC, q.received_at DESC, q.journal_no DESC
                  LIMIT 1), ( SELECT before.price
                    FROM (( SELECT b.bid_close AS price
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 60) AND (b.bid_close IS NOT NULL) AND (b."time" >= date_trunc('hour'::text, t."time", 'UTC'::text)) AND (b."time" < date_trunc('minute'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                         UNION ALL
                         ( SELECT b.bid_close
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 3600) AND (b.bid_close IS NOT NULL) AND (b."time" >= date_trunc('day'::text, t."time", 'UTC'::text)) AND (b."time" < date_trunc('hour'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                         UNION ALL
                         ( SELECT b.bid_close
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 86400) AND (b.bid_close IS NOT NULL) AND (b."time" >= (date_trunc('day'::text, t."time", 'UTC'::text) - '168:00:00'::interval)) AND (b."time" < date_trunc('day'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                  LIMIT 1) before)) AS bid,
             COALESCE(
                 CASE
                     WHEN ((t.ask > (0)::double precision) OR ((t.ask <= (0)::double precision) AND i.allow_nonpositive)) THEN t.ask
                     ELSE NULL::double precision
                 END, ( SELECT q.ask
                    FROM public.ticks q
                   WHERE ((q.symbol_id = t.symbol_id) AND (q."time" <= t."time") AND (q."time" >= date_trunc('minute'::text, t."time", 'UTC'::text)) AND (q."time" >= trades_between.p_start) AND (q."time" < trades_between.p_end) AND ((q.ask > (0)::double precision) OR ((q.ask <= (0)::double precision) AND i.allow_nonpositive)) AND ((q."time" < t."time") OR (ROW((q.seq < 0), GREATEST(q.seq, (0)::bigint), q.received_at, q.journal_no) < ROW((t.seq < 0), GREATEST(t.seq, (0)::bigint), t.received_at, t.journal_no))) AND ( SELECT (b.ask_open_key < int8send((((EXTRACT(epoch FROM t."time") * (1000000)::numeric))::bigint + 1)))
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 60) AND (b."time" = date_trunc('minute'::text, t."time", 'UTC'::text)))))
                   ORDER BY q."time" DESC, (q.seq < 0) DESC, GREATEST(q.seq, (0)::bigint) DESC, q.received_at DESC, q.journal_no DESC
                  LIMIT 1), ( SELECT before.price
                    FROM (( SELECT b.ask_close AS price
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 60) AND (b.ask_close IS NOT NULL) AND (b."time" >= date_trunc('hour'::text, t."time", 'UTC'::text)) AND (b."time" < date_trunc('minute'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                         UNION ALL
                         ( SELECT b.ask_close
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 3600) AND (b.ask_close IS NOT NULL) AND (b."time" >= date_trunc('day'::text, t."time", 'UTC'::text)) AND (b."time" < date_trunc('hour'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                         UNION ALL
                         ( SELECT b.ask_close
                            FROM public.bars b
                           WHERE ((b.symbol_id = t.symbol_id) AND (b.resolution = 86400) AND (b.ask_close IS NOT NULL) AND (b."time" >= (date_trunc('day'::text, t."time", 'UTC'::text) - '168:00:00'::interval)) AND (b."time" < date_trunc('day'::text, t."time", 'UTC'::text)))
                           ORDER BY b."time" DESC
                          LIMIT 1)
                  LIMIT 1) before)) AS ask
          OFFSET 0) quote)
   WHERE ((t."time" >= trades_between.p_start) AND (t."time" < trades_between.p_end) AND ((t.flags & 8) <> 0) AND ((t.last > (0)::double precision) OR ((t.last <= (0)::double precision) AND i.allow_nonpositive)) AND (NOT (EXISTS ( SELECT
            FROM public.trades_sent s
           WHERE ((s.symbol_id = t.symbol_id) AND (s."time" = t."time") AND (s.seq = t.seq))))));
END;

COMMENT ON FUNCTION public.trades_between(p_start timestamp with time zone, p_end timestamp with time zone) IS 'Trades of [p_start, p_end): sent ones and those of ticks; p_start is the start of a minute (UTC)';

CREATE AGGREGATE public.float8_product(double precision) (
    SFUNC = float8mul,
    STYPE = double precision,
    INITCOND = '1',
    PARALLEL = safe
);

COMMENT ON AGGREGATE public.float8_product(double precision) IS 'Product of numbers; 1 of none';

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);

COMMENT ON TABLE public.alembic_version IS 'The newest migration that this database has';

COMMENT ON COLUMN public.alembic_version.version_num IS 'Its id';

CREATE TABLE public.alert_outbox (
    alert_id bigint NOT NULL,
    is_pushed boolean DEFAULT false NOT NULL,
    is_posted boolean NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    next_try timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE public.alert_outbox IS 'Alerts that are not told everywhere yet; rows go when they are';

COMMENT ON COLUMN public.alert_outbox.alert_id IS 'alerts.alert_id';

COMMENT ON COLUMN public.alert_outbox.is_pushed IS 'Whether live readers were told';

COMMENT ON COLUMN public.alert_outbox.is_posted IS 'Whether the webhook has it, or there is none';

COMMENT ON COLUMN public.alert_outbox.tries IS 'Times that the webhook was tried in vain';

COMMENT ON COLUMN public.alert_outbox.next_try IS 'Before that the webhook is not tried again (UTC)';

CREATE TABLE public.alert_progress (
    name text NOT NULL,
    positions jsonb NOT NULL,
    term bigint NOT NULL,
    updated_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE public.alert_progress IS 'Up to where the stored ticks were looked at for alerts';

COMMENT ON COLUMN public.alert_progress.name IS 'Whose progress';

COMMENT ON COLUMN public.alert_progress.positions IS 'ticks.received_at (UTC microseconds) by journal';

COMMENT ON COLUMN public.alert_progress.term IS 'leases.term of who wrote it';

COMMENT ON COLUMN public.alert_progress.updated_at IS 'When it was written (UTC)';

CREATE TABLE public.alert_rules (
    rule_id integer NOT NULL,
    name text,
    alert_type text NOT NULL,
    symbol_id integer,
    dataset text,
    field text,
    subject text,
    direction text NOT NULL,
    threshold double precision NOT NULL,
    hysteresis double precision NOT NULL,
    cooldown_s double precision NOT NULL,
    severity text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    state jsonb,
    CONSTRAINT alert_rules_alert_type_check CHECK ((alert_type = ANY (ARRAY['price_crosses'::text, 'spread_above'::text, 'no_tick'::text, 'volume_spike'::text, 'basis_beyond'::text, 'metric_beyond'::text]))),
    CONSTRAINT alert_rules_cooldown_s_check CHECK ((cooldown_s >= (0)::double precision)),
    CONSTRAINT alert_rules_direction_check CHECK ((direction = ANY (ARRAY['above'::text, 'below'::text, 'both'::text]))),
    CONSTRAINT alert_rules_hysteresis_check CHECK ((hysteresis >= (0)::double precision)),
    CONSTRAINT alert_rules_severity_check CHECK ((severity = ANY (ARRAY['info'::text, 'warning'::text, 'critical'::text])))
)
WITH (fillfactor='50');

COMMENT ON TABLE public.alert_rules IS 'What somebody wants to be told';

COMMENT ON COLUMN public.alert_rules.rule_id IS 'Number of the rule';

COMMENT ON COLUMN public.alert_rules.name IS 'Name for people; NULL: none';

COMMENT ON COLUMN public.alert_rules.alert_type IS 'What it looks at; the alerts have it too';

COMMENT ON COLUMN public.alert_rules.symbol_id IS 'instruments.symbol_id; NULL: it is about no symbol';

COMMENT ON COLUMN public.alert_rules.dataset IS 'Dataset of the value (metric_beyond), else NULL';

COMMENT ON COLUMN public.alert_rules.field IS 'Which value: price, bid, ask or last; a field of the dataset; else NULL';

COMMENT ON COLUMN public.alert_rules.subject IS 'Futures symbol, strategy or host that it is about; NULL: none';

COMMENT ON COLUMN public.alert_rules.direction IS 'above, below, or both ways';

COMMENT ON COLUMN public.alert_rules.threshold IS 'In the unit of the value: price, points, seconds, multiple of the mean';

COMMENT ON COLUMN public.alert_rules.hysteresis IS 'How far back the value must go before it may alert again (its unit)';

COMMENT ON COLUMN public.alert_rules.cooldown_s IS 'Least time between two alerts of one direction (s)';

COMMENT ON COLUMN public.alert_rules.severity IS 'info, warning or critical';

COMMENT ON COLUMN public.alert_rules.created_at IS 'When it was made (UTC): ticks received before do not count';

COMMENT ON COLUMN public.alert_rules.state IS 'What it has seen, of the elected process; NULL: nothing yet';

ALTER TABLE public.alert_rules ALTER COLUMN rule_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.alert_rules_rule_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.alerts (
    alert_id bigint NOT NULL,
    symbol_id integer,
    "time" timestamp with time zone NOT NULL,
    alert_type text NOT NULL,
    message text NOT NULL,
    severity text,
    rule_id integer,
    value double precision,
    received_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE public.alerts IS 'What was told, once';

COMMENT ON COLUMN public.alerts.alert_id IS 'Number of the alert; rises';

COMMENT ON COLUMN public.alerts.symbol_id IS 'instruments.symbol_id; NULL: it is about no symbol';

COMMENT ON COLUMN public.alerts."time" IS 'When it came about (UTC): the time of the tick, or of the look';

COMMENT ON COLUMN public.alerts.alert_type IS 'Kind of alert: that of the rule, or the sender''s';

COMMENT ON COLUMN public.alerts.message IS 'What is told, for people';

COMMENT ON COLUMN public.alerts.severity IS 'info, warning, critical, or the sender''s; NULL: not known';

COMMENT ON COLUMN public.alerts.rule_id IS 'alert_rules.rule_id, which may be gone; NULL: it was sent from outside';

COMMENT ON COLUMN public.alerts.value IS 'The value that gave the alert (unit of the rule); NULL: not known';

COMMENT ON COLUMN public.alerts.received_at IS 'When it was stored, or accepted from outside (UTC, microseconds)';

ALTER TABLE public.alerts ALTER COLUMN alert_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.alerts_alert_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.audit_log (
    audit_id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    symbol text,
    range tstzrange,
    rows bigint NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT audit_log_action_check CHECK ((action <> ''::text)),
    CONSTRAINT audit_log_actor_check CHECK ((actor <> ''::text))
);

COMMENT ON TABLE public.audit_log IS 'What was changed by hand or dropped for its age: never changed itself';

COMMENT ON COLUMN public.audit_log.audit_id IS 'Number of the change, in order';

COMMENT ON COLUMN public.audit_log.at IS 'When its transaction began (UTC)';

COMMENT ON COLUMN public.audit_log.actor IS 'Who it was: user at host, as the operating system says';

COMMENT ON COLUMN public.audit_log.action IS 'What was done: delete, retention, ...';

COMMENT ON COLUMN public.audit_log.symbol IS 'Of which instrument (name then); NULL: of all, or of none';

COMMENT ON COLUMN public.audit_log.range IS 'Of which times (UTC); NULL: not of a range';

COMMENT ON COLUMN public.audit_log.rows IS 'Rows that it removed or changed (count)';

COMMENT ON COLUMN public.audit_log.details IS 'More about it, as the action has it';

ALTER TABLE public.audit_log ALTER COLUMN audit_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audit_log_audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.backtests (
    backtest_id text NOT NULL,
    strategy_name text,
    symbol_id integer,
    start timestamp with time zone,
    "end" timestamp with time zone,
    parameters jsonb,
    initial_equity double precision,
    final_equity double precision,
    return double precision,
    sharpe double precision,
    max_drawdown double precision,
    win_rate double precision,
    trades bigint,
    received_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.backtests IS 'Backtests and their results';

COMMENT ON COLUMN public.backtests.backtest_id IS 'The backtest (name)';

COMMENT ON COLUMN public.backtests.strategy_name IS 'The strategy that was tried (name); NULL: not known';

COMMENT ON COLUMN public.backtests.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.backtests.start IS 'First time of the data; NULL: not known';

COMMENT ON COLUMN public.backtests."end" IS 'Time before which the data ends; NULL: not known';

COMMENT ON COLUMN public.backtests.parameters IS 'What the strategy was set to (object); NULL: not known';

COMMENT ON COLUMN public.backtests.initial_equity IS 'Money at the start (account''s currency); NULL: not known';

COMMENT ON COLUMN public.backtests.final_equity IS 'Money at the end (account''s currency); NULL: not known';

COMMENT ON COLUMN public.backtests.return IS 'Final to initial equity, less 1 (fraction); NULL: not known';

COMMENT ON COLUMN public.backtests.sharpe IS 'Sharpe ratio, yearly (ratio); NULL: not known';

COMMENT ON COLUMN public.backtests.max_drawdown IS 'Deepest fall from a height (fraction); NULL: not known';

COMMENT ON COLUMN public.backtests.win_rate IS 'Trades that won (fraction); NULL: not known';

COMMENT ON COLUMN public.backtests.trades IS 'Trades (count); NULL: not known';

COMMENT ON COLUMN public.backtests.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE VIEW public.bars_1d AS
 SELECT i.symbol,
    b."time",
    b.ticks,
    b.volume,
    b.buy_volume,
    b.sell_volume,
    b.bid_open,
    b.bid_high,
    b.bid_low,
    b.bid_close,
    b.ask_open,
    b.ask_high,
    b.ask_low,
    b.ask_close,
    b.mid_open,
    b.mid_high,
    b.mid_low,
    b.mid_close,
    b.last_open,
    b.last_high,
    b.last_low,
    b.last_close,
    b.spread_min,
    b.spread_max
   FROM (public.bars b
     JOIN public.instruments i USING (symbol_id))
  WHERE (b.resolution = 86400);

COMMENT ON VIEW public.bars_1d IS 'Bars of a day (UTC) with the name of their symbol, the running one included';

COMMENT ON COLUMN public.bars_1d.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.bars_1d."time" IS 'Start (UTC)';

COMMENT ON COLUMN public.bars_1d.ticks IS 'Number of ticks, quotes and trades';

COMMENT ON COLUMN public.bars_1d.volume IS 'Volume of the trades (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_1d.buy_volume IS 'Volume of the trades by buyers (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_1d.sell_volume IS 'Volume of the trades by sellers (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_1d.bid_open IS 'Open of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.bid_high IS 'High of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.bid_low IS 'Low of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.bid_close IS 'Close of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.ask_open IS 'Open of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.ask_high IS 'High of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.ask_low IS 'Low of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.ask_close IS 'Close of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.mid_open IS 'Open of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.mid_high IS 'High of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.mid_low IS 'Low of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.mid_close IS 'Close of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1d.last_open IS 'Open of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1d.last_high IS 'High of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1d.last_low IS 'Low of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1d.last_close IS 'Close of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1d.spread_min IS 'Smallest ask - bid (price); NULL: no tick had both';

COMMENT ON COLUMN public.bars_1d.spread_max IS 'Largest ask - bid (price); NULL: no tick had both';

CREATE VIEW public.bars_1h AS
 SELECT i.symbol,
    b."time",
    b.ticks,
    b.volume,
    b.buy_volume,
    b.sell_volume,
    b.bid_open,
    b.bid_high,
    b.bid_low,
    b.bid_close,
    b.ask_open,
    b.ask_high,
    b.ask_low,
    b.ask_close,
    b.mid_open,
    b.mid_high,
    b.mid_low,
    b.mid_close,
    b.last_open,
    b.last_high,
    b.last_low,
    b.last_close,
    b.spread_min,
    b.spread_max
   FROM (public.bars b
     JOIN public.instruments i USING (symbol_id))
  WHERE (b.resolution = 3600);

COMMENT ON VIEW public.bars_1h IS 'Bars of an hour (UTC) with the name of their symbol, the running one included';

COMMENT ON COLUMN public.bars_1h.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.bars_1h."time" IS 'Start (UTC)';

COMMENT ON COLUMN public.bars_1h.ticks IS 'Number of ticks, quotes and trades';

COMMENT ON COLUMN public.bars_1h.volume IS 'Volume of the trades (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_1h.buy_volume IS 'Volume of the trades by buyers (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_1h.sell_volume IS 'Volume of the trades by sellers (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_1h.bid_open IS 'Open of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.bid_high IS 'High of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.bid_low IS 'Low of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.bid_close IS 'Close of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.ask_open IS 'Open of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.ask_high IS 'High of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.ask_low IS 'Low of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.ask_close IS 'Close of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.mid_open IS 'Open of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.mid_high IS 'High of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.mid_low IS 'Low of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.mid_close IS 'Close of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1h.last_open IS 'Open of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1h.last_high IS 'High of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1h.last_low IS 'Low of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1h.last_close IS 'Close of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1h.spread_min IS 'Smallest ask - bid (price); NULL: no tick had both';

COMMENT ON COLUMN public.bars_1h.spread_max IS 'Largest ask - bid (price); NULL: no tick had both';

CREATE VIEW public.bars_1m AS
 SELECT i.symbol,
    b."time",
    b.ticks,
    b.volume,
    b.buy_volume,
    b.sell_volume,
    b.bid_open,
    b.bid_high,
    b.bid_low,
    b.bid_close,
    b.ask_open,
    b.ask_high,
    b.ask_low,
    b.ask_close,
    b.mid_open,
    b.mid_high,
    b.mid_low,
    b.mid_close,
    b.last_open,
    b.last_high,
    b.last_low,
    b.last_close,
    b.spread_min,
    b.spread_max
   FROM (public.bars b
     JOIN public.instruments i USING (symbol_id))
  WHERE (b.resolution = 60);

COMMENT ON VIEW public.bars_1m IS 'Bars of a minute (UTC) with the name of their symbol, the running one included';

COMMENT ON COLUMN public.bars_1m.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.bars_1m."time" IS 'Start (UTC)';

COMMENT ON COLUMN public.bars_1m.ticks IS 'Number of ticks, quotes and trades';

COMMENT ON COLUMN public.bars_1m.volume IS 'Volume of the trades (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_1m.buy_volume IS 'Volume of the trades by buyers (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_1m.sell_volume IS 'Volume of the trades by sellers (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_1m.bid_open IS 'Open of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.bid_high IS 'High of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.bid_low IS 'Low of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.bid_close IS 'Close of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.ask_open IS 'Open of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.ask_high IS 'High of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.ask_low IS 'Low of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.ask_close IS 'Close of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.mid_open IS 'Open of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.mid_high IS 'High of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.mid_low IS 'Low of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.mid_close IS 'Close of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_1m.last_open IS 'Open of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1m.last_high IS 'High of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1m.last_low IS 'Low of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1m.last_close IS 'Close of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_1m.spread_min IS 'Smallest ask - bid (price); NULL: no tick had both';

COMMENT ON COLUMN public.bars_1m.spread_max IS 'Largest ask - bid (price); NULL: no tick had both';

CREATE VIEW public.bars_5m AS
 SELECT i.symbol,
    date_bin('00:05:00'::interval, b."time", '1970-01-01 00:00:00+00'::timestamp with time zone) AS "time",
    (sum(b.ticks))::bigint AS ticks,
    sum(b.volume) AS volume,
    sum(b.buy_volume) AS buy_volume,
    sum(b.sell_volume) AS sell_volume,
    (array_agg(b.bid_open ORDER BY b."time") FILTER (WHERE (b.bid_open IS NOT NULL)))[1] AS bid_open,
    max(b.bid_high) AS bid_high,
    min(b.bid_low) AS bid_low,
    (array_agg(b.bid_close ORDER BY b."time") FILTER (WHERE (b.bid_close IS NOT NULL)))[count(b.bid_close)] AS bid_close,
    (array_agg(b.ask_open ORDER BY b."time") FILTER (WHERE (b.ask_open IS NOT NULL)))[1] AS ask_open,
    max(b.ask_high) AS ask_high,
    min(b.ask_low) AS ask_low,
    (array_agg(b.ask_close ORDER BY b."time") FILTER (WHERE (b.ask_close IS NOT NULL)))[count(b.ask_close)] AS ask_close,
    (array_agg(b.mid_open ORDER BY b."time") FILTER (WHERE (b.mid_open IS NOT NULL)))[1] AS mid_open,
    max(b.mid_high) AS mid_high,
    min(b.mid_low) AS mid_low,
    (array_agg(b.mid_close ORDER BY b."time") FILTER (WHERE (b.mid_close IS NOT NULL)))[count(b.mid_close)] AS mid_close,
    (array_agg(b.last_open ORDER BY b."time") FILTER (WHERE (b.last_open IS NOT NULL)))[1] AS last_open,
    max(b.last_high) AS last_high,
    min(b.last_low) AS last_low,
    (array_agg(b.last_close ORDER BY b."time") FILTER (WHERE (b.last_close IS NOT NULL)))[count(b.last_close)] AS last_close,
    min(b.spread_min) AS spread_min,
    max(b.spread_max) AS spread_max
   FROM (public.bars b
     JOIN public.instruments i ON ((i.symbol_id = (b.symbol_id + 0))))
  WHERE (b.resolution = 60)
  GROUP BY i.symbol, (date_bin('00:05:00'::interval, b."time", '1970-01-01 00:00:00+00'::timestamp with time zone));

COMMENT ON VIEW public.bars_5m IS 'Bars of five minutes (UTC), made of those of a minute; ask for a symbol and a range of time';

COMMENT ON COLUMN public.bars_5m.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.bars_5m."time" IS 'Start (UTC)';

COMMENT ON COLUMN public.bars_5m.ticks IS 'Number of ticks, quotes and trades';

COMMENT ON COLUMN public.bars_5m.volume IS 'Volume of the trades (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_5m.buy_volume IS 'Volume of the trades by buyers (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_5m.sell_volume IS 'Volume of the trades by sellers (instrument''s units), an exact sum';

COMMENT ON COLUMN public.bars_5m.bid_open IS 'Open of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.bid_high IS 'High of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.bid_low IS 'Low of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.bid_close IS 'Close of bid (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.ask_open IS 'Open of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.ask_high IS 'High of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.ask_low IS 'Low of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.ask_close IS 'Close of ask (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.mid_open IS 'Open of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.mid_high IS 'High of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.mid_low IS 'Low of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.mid_close IS 'Close of (bid + ask) / 2 (price); NULL: there was none';

COMMENT ON COLUMN public.bars_5m.last_open IS 'Open of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_5m.last_high IS 'High of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_5m.last_low IS 'Low of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_5m.last_close IS 'Close of last (price), trades only; NULL: there was none';

COMMENT ON COLUMN public.bars_5m.spread_min IS 'Smallest ask - bid (price); NULL: no tick had both';

COMMENT ON COLUMN public.bars_5m.spread_max IS 'Largest ask - bid (price); NULL: no tick had both';

CREATE TABLE public.basis_history (
    futures_symbol text NOT NULL,
    "time" timestamp with time zone NOT NULL,
    futures_price double precision,
    spot_value double precision,
    basis double precision,
    received_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.basis_history IS 'Futures against their spot';

COMMENT ON COLUMN public.basis_history.futures_symbol IS 'The future, as its exchange calls it (name)';

COMMENT ON COLUMN public.basis_history."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.basis_history.futures_price IS 'Price of the future (price); NULL: not known';

COMMENT ON COLUMN public.basis_history.spot_value IS 'Value of the spot or index (price); NULL: not known';

COMMENT ON COLUMN public.basis_history.basis IS 'Futures_price - spot_value (price); computed when absent and both are there; NULL: not known';

COMMENT ON COLUMN public.basis_history.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.collected (
    name text NOT NULL,
    positions jsonb NOT NULL,
    moment_us bigint NOT NULL,
    sample jsonb NOT NULL,
    term bigint NOT NULL,
    updated_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE public.collected IS 'Up to where the stored ticks were counted for metrics, and the newest sample';

COMMENT ON COLUMN public.collected.name IS 'Dataset of the samples';

COMMENT ON COLUMN public.collected.positions IS 'ticks.received_at (UTC microseconds) by journal';

COMMENT ON COLUMN public.collected.moment_us IS 'Moment of the newest sample (UTC microseconds since 1970)';

COMMENT ON COLUMN public.collected.sample IS 'The newest sample: sent again where nobody is known to have sent it';

COMMENT ON COLUMN public.collected.term IS 'leases.term of who wrote it';

COMMENT ON COLUMN public.collected.updated_at IS 'When it was written (UTC)';

CREATE TABLE public.corporate_actions (
    symbol_id integer NOT NULL,
    ex_date date NOT NULL,
    action_type text NOT NULL,
    amount double precision,
    ratio double precision,
    currency text,
    received_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.corporate_actions IS 'Corporate actions, by the day from which they count';

COMMENT ON COLUMN public.corporate_actions.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.corporate_actions.ex_date IS 'First day on which a buyer has no part in it, on the exchange''s calendar';

COMMENT ON COLUMN public.corporate_actions.action_type IS 'What it is: dividend, split, rights, ... (word)';

COMMENT ON COLUMN public.corporate_actions.amount IS 'Money paid for a share (currency); NULL: not known';

COMMENT ON COLUMN public.corporate_actions.ratio IS 'New shares for an old one (ratio: 4 for a 4-for-1 split); NULL: not known';

COMMENT ON COLUMN public.corporate_actions.currency IS 'Currency of amount (ISO 4217); absent: the symbol''s; NULL: not known';

COMMENT ON COLUMN public.corporate_actions.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.current (
    symbol text NOT NULL,
    bid double precision,
    ask double precision,
    last double precision,
    spread double precision,
    volume double precision,
    buy_volume double precision,
    sell_volume double precision,
    flags integer,
    last_updated timestamp with time zone,
    bid_key bytea,
    ask_key bytea,
    last_key bytea,
    tick_key bytea
)
WITH (fillfactor='50');

COMMENT ON TABLE public.current IS 'Newest values of every symbol that has ticks; never moves backwards';

COMMENT ON COLUMN public.current.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.current.bid IS 'Newest bid (price); NULL: none yet';

COMMENT ON COLUMN public.current.ask IS 'Newest ask (price); NULL: none yet';

COMMENT ON COLUMN public.current.last IS 'Price of the newest trade; NULL: none yet';

COMMENT ON COLUMN public.current.spread IS 'Spread of the newest tick (points); NULL: not known';

COMMENT ON COLUMN public.current.volume IS 'Volume of the newest tick as sent (instrument''s units)';

COMMENT ON COLUMN public.current.buy_volume IS 'Volume of the newest tick if it is a trade by a buyer (instrument''s units), else 0';

COMMENT ON COLUMN public.current.sell_volume IS 'Volume of the newest tick if it is a trade by a seller (instrument''s units), else 0';

COMMENT ON COLUMN public.current.flags IS 'Flags of the newest tick (bits as in ticks.flags)';

COMMENT ON COLUMN public.current.last_updated IS 'Time of the newest tick (UTC, microseconds)';

COMMENT ON COLUMN public.current.bid_key IS 'Order key (20 bytes) of the tick that made bid';

COMMENT ON COLUMN public.current.ask_key IS 'Order key (20 bytes) of the tick that made ask';

COMMENT ON COLUMN public.current.last_key IS 'Order key (20 bytes) of the tick that made last';

COMMENT ON COLUMN public.current.tick_key IS 'Order key (20 bytes) of the newest tick';

CREATE TABLE public.price_history (
    symbol_id integer NOT NULL,
    "interval" text NOT NULL,
    "time" timestamp with time zone NOT NULL,
    source text NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    adj_close double precision,
    volume double precision,
    daily_return double precision,
    volatility double precision,
    trading_value double precision,
    received_at timestamp with time zone NOT NULL,
    CONSTRAINT price_history_interval_check CHECK (("interval" = ANY (ARRAY['1s'::text, '5s'::text, '15s'::text, '30s'::text, '1m'::text, '3m'::text, '5m'::text, '15m'::text, '30m'::text, '1h'::text, '4h'::text, '1d'::text, '1w'::text, '1M'::text])))
);

COMMENT ON TABLE public.price_history IS 'Bars by symbol, interval, time and who made them';

COMMENT ON COLUMN public.price_history.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.price_history."interval" IS 'Length of the bar';

COMMENT ON COLUMN public.price_history."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.price_history.source IS 'Who made the bar (word)';

COMMENT ON COLUMN public.price_history.open IS 'First price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history.high IS 'Highest price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history.low IS 'Lowest price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history.close IS 'Last price, unadjusted (the symbol''s currency)';

COMMENT ON COLUMN public.price_history.adj_close IS 'Close, adjusted for corporate actions since (the symbol''s currency); computed when absent; NULL: not known';

COMMENT ON COLUMN public.price_history.volume IS 'Volume (the symbol''s units); NULL: not known';

COMMENT ON COLUMN public.price_history.daily_return IS 'Change of adj_close since the day before (fraction: 0.01 is 1 %); computed when absent; NULL: not known';

COMMENT ON COLUMN public.price_history.volatility IS 'Deviation of the last 20 daily returns, yearly (fraction); computed when absent; NULL: not known';

COMMENT ON COLUMN public.price_history.trading_value IS 'Price times volume (the symbol''s currency); NULL: not known';

COMMENT ON COLUMN public.price_history.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE VIEW public.daily_ohlc AS
 SELECT i.symbol,
    ((p."time" AT TIME ZONE 'UTC'::text))::date AS date,
    p.open,
    p.high,
    p.low,
    p.close,
    p.adj_close,
    p.volume,
    p.daily_return,
    p.volatility,
    p.trading_value,
    p.source,
    p."time"
   FROM (public.price_history p
     JOIN public.instruments i USING (symbol_id))
  WHERE (p."interval" = '1d'::text);

COMMENT ON VIEW public.daily_ohlc IS 'Daily bars with the name of the symbol, of every vendor, as they were sent';

COMMENT ON COLUMN public.daily_ohlc.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.daily_ohlc.date IS 'Trading date';

COMMENT ON COLUMN public.daily_ohlc.open IS 'First price (the symbol''s currency)';

COMMENT ON COLUMN public.daily_ohlc.high IS 'Highest price (the symbol''s currency)';

COMMENT ON COLUMN public.daily_ohlc.low IS 'Lowest price (the symbol''s currency)';

COMMENT ON COLUMN public.daily_ohlc.close IS 'Last price, unadjusted (the symbol''s currency)';

COMMENT ON COLUMN public.daily_ohlc.adj_close IS 'Close, adjusted for corporate actions since, as sent (the symbol''s currency); NULL: not sent';

COMMENT ON COLUMN public.daily_ohlc.volume IS 'Volume (the symbol''s units); NULL: not known';

COMMENT ON COLUMN public.daily_ohlc.daily_return IS 'Change since the day before, as sent (fraction: 0.01 is 1 %); NULL: not sent';

COMMENT ON COLUMN public.daily_ohlc.volatility IS 'Deviation of the last 20 daily returns, yearly, as sent (fraction); NULL: not sent';

COMMENT ON COLUMN public.daily_ohlc.trading_value IS 'Price times volume (the symbol''s currency); NULL: not known';

COMMENT ON COLUMN public.daily_ohlc.source IS 'Who made the bar';

COMMENT ON COLUMN public.daily_ohlc."time" IS 'The same as midnight UTC: what price_history_pkey has, so choose days by it';

CREATE TABLE public.execution_metrics (
    "time" timestamp with time zone NOT NULL,
    orders_submitted bigint,
    orders_filled bigint,
    orders_cancelled bigint,
    orders_rejected bigint,
    fill_rate double precision,
    avg_latency_ms double precision,
    avg_slippage_bps double precision,
    received_at timestamp with time zone NOT NULL
)
PARTITION BY RANGE ("time");

COMMENT ON TABLE public.execution_metrics IS 'How orders are executed, over all strategies';

COMMENT ON COLUMN public.execution_metrics."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.execution_metrics.orders_submitted IS 'Orders submitted since the last one (count); NULL: not known';

COMMENT ON COLUMN public.execution_metrics.orders_filled IS 'Orders filled since the last one (count); NULL: not known';

COMMENT ON COLUMN public.execution_metrics.orders_cancelled IS 'Orders cancelled since the last one (count); NULL: not known';

COMMENT ON COLUMN public.execution_metrics.orders_rejected IS 'Orders rejected since the last one (count); NULL: not known';

COMMENT ON COLUMN public.execution_metrics.fill_rate IS 'Orders filled of those submitted (fraction); NULL: not known';

COMMENT ON COLUMN public.execution_metrics.avg_latency_ms IS 'Mean time from order to answer (ms); NULL: not known';

COMMENT ON COLUMN public.execution_metrics.avg_slippage_bps IS 'Mean price paid beyond the expected one (hundredths of a percent); NULL: not known';

COMMENT ON COLUMN public.execution_metrics.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.execution_metrics_rollup (
    resolution integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    rows bigint NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
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
    fill_rate_sum double precision,
    fill_rate_min double precision,
    fill_rate_max double precision,
    fill_rate_last double precision,
    avg_latency_ms_count bigint,
    avg_latency_ms_sum double precision,
    avg_latency_ms_min double precision,
    avg_latency_ms_max double precision,
    avg_latency_ms_last double precision,
    avg_slippage_bps_count bigint,
    avg_slippage_bps_sum double precision,
    avg_slippage_bps_min double precision,
    avg_slippage_bps_max double precision,
    avg_slippage_bps_last double precision
)
PARTITION BY LIST (resolution);

COMMENT ON TABLE public.execution_metrics_rollup IS 'How orders are executed, over all strategies: by minute, five minutes and hour';

COMMENT ON COLUMN public.execution_metrics_rollup.resolution IS 'Length of the bucket (seconds): 60, 300 or 3600';

COMMENT ON COLUMN public.execution_metrics_rollup."time" IS 'Start of the bucket (UTC)';

COMMENT ON COLUMN public.execution_metrics_rollup.rows IS 'Records in the bucket (count)';

COMMENT ON COLUMN public.execution_metrics_rollup.first_time IS 'Time of its first record (UTC, microseconds)';

COMMENT ON COLUMN public.execution_metrics_rollup.last_time IS 'Time of its last record (UTC, microseconds)';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_submitted_count IS 'Records that have orders_submitted (count)';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_submitted_sum IS 'Sum of: orders submitted since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_submitted_min IS 'Least of: orders submitted since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_submitted_max IS 'Greatest of: orders submitted since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_submitted_last IS 'Newest of: orders submitted since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_filled_count IS 'Records that have orders_filled (count)';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_filled_sum IS 'Sum of: orders filled since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_filled_min IS 'Least of: orders filled since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_filled_max IS 'Greatest of: orders filled since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_filled_last IS 'Newest of: orders filled since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_cancelled_count IS 'Records that have orders_cancelled (count)';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_cancelled_sum IS 'Sum of: orders cancelled since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_cancelled_min IS 'Least of: orders cancelled since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_cancelled_max IS 'Greatest of: orders cancelled since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_cancelled_last IS 'Newest of: orders cancelled since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_rejected_count IS 'Records that have orders_rejected (count)';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_rejected_sum IS 'Sum of: orders rejected since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_rejected_min IS 'Least of: orders rejected since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_rejected_max IS 'Greatest of: orders rejected since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.orders_rejected_last IS 'Newest of: orders rejected since the last one (count); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.fill_rate_count IS 'Records that have fill_rate (count)';

COMMENT ON COLUMN public.execution_metrics_rollup.fill_rate_sum IS 'Sum of: orders filled of those submitted (fraction); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.fill_rate_min IS 'Least of: orders filled of those submitted (fraction); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.fill_rate_max IS 'Greatest of: orders filled of those submitted (fraction); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.fill_rate_last IS 'Newest of: orders filled of those submitted (fraction); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.avg_latency_ms_count IS 'Records that have avg_latency_ms (count)';

COMMENT ON COLUMN public.execution_metrics_rollup.avg_latency_ms_sum IS 'Sum of: mean time from order to answer (ms); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.avg_latency_ms_min IS 'Least of: mean time from order to answer (ms); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.avg_latency_ms_max IS 'Greatest of: mean time from order to answer (ms); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.avg_latency_ms_last IS 'Newest of: mean time from order to answer (ms); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.avg_slippage_bps_count IS 'Records that have avg_slippage_bps (count)';

COMMENT ON COLUMN public.execution_metrics_rollup.avg_slippage_bps_sum IS 'Sum of: mean price paid beyond the expected one (hundredths of a percent); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.avg_slippage_bps_min IS 'Least of: mean price paid beyond the expected one (hundredths of a percent); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.avg_slippage_bps_max IS 'Greatest of: mean price paid beyond the expected one (hundredths of a percent); NULL: no record has one';

COMMENT ON COLUMN public.execution_metrics_rollup.avg_slippage_bps_last IS 'Newest of: mean price paid beyond the expected one (hundredths of a percent); NULL: no record has one';

CREATE TABLE public.execution_metrics_rollup_300 (
    resolution integer CONSTRAINT execution_metrics_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT execution_metrics_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT execution_metrics_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
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
    fill_rate_sum double precision,
    fill_rate_min double precision,
    fill_rate_max double precision,
    fill_rate_last double precision,
    avg_latency_ms_count bigint,
    avg_latency_ms_sum double precision,
    avg_latency_ms_min double precision,
    avg_latency_ms_max double precision,
    avg_latency_ms_last double precision,
    avg_slippage_bps_count bigint,
    avg_slippage_bps_sum double precision,
    avg_slippage_bps_min double precision,
    avg_slippage_bps_max double precision,
    avg_slippage_bps_last double precision
)
WITH (fillfactor='70');

CREATE TABLE public.execution_metrics_rollup_3600 (
    resolution integer CONSTRAINT execution_metrics_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT execution_metrics_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT execution_metrics_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
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
    fill_rate_sum double precision,
    fill_rate_min double precision,
    fill_rate_max double precision,
    fill_rate_last double precision,
    avg_latency_ms_count bigint,
    avg_latency_ms_sum double precision,
    avg_latency_ms_min double precision,
    avg_latency_ms_max double precision,
    avg_latency_ms_last double precision,
    avg_slippage_bps_count bigint,
    avg_slippage_bps_sum double precision,
    avg_slippage_bps_min double precision,
    avg_slippage_bps_max double precision,
    avg_slippage_bps_last double precision
)
WITH (fillfactor='70');

CREATE TABLE public.execution_metrics_rollup_60 (
    resolution integer CONSTRAINT execution_metrics_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT execution_metrics_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT execution_metrics_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
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
    fill_rate_sum double precision,
    fill_rate_min double precision,
    fill_rate_max double precision,
    fill_rate_last double precision,
    avg_latency_ms_count bigint,
    avg_latency_ms_sum double precision,
    avg_latency_ms_min double precision,
    avg_latency_ms_max double precision,
    avg_latency_ms_last double precision,
    avg_slippage_bps_count bigint,
    avg_slippage_bps_sum double precision,
    avg_slippage_bps_min double precision,
    avg_slippage_bps_max double precision,
    avg_slippage_bps_last double precision
)
WITH (fillfactor='70');

CREATE TABLE public.fills (
    trade_id text NOT NULL,
    "time" timestamp with time zone NOT NULL,
    symbol_id integer NOT NULL,
    side text NOT NULL,
    quantity double precision NOT NULL,
    price double precision NOT NULL,
    latency_ms double precision,
    slippage_bps double precision,
    strategy text,
    received_at timestamp with time zone NOT NULL,
    CONSTRAINT fills_side_check CHECK ((side = ANY (ARRAY['buy'::text, 'sell'::text])))
);

COMMENT ON TABLE public.fills IS 'Executions of orders';

COMMENT ON COLUMN public.fills.trade_id IS 'What the broker calls it (name)';

COMMENT ON COLUMN public.fills."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.fills.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.fills.side IS 'Buy or sell';

COMMENT ON COLUMN public.fills.quantity IS 'How much (instrument''s units)';

COMMENT ON COLUMN public.fills.price IS 'At what price (price)';

COMMENT ON COLUMN public.fills.latency_ms IS 'Time from order to fill (ms); NULL: not known';

COMMENT ON COLUMN public.fills.slippage_bps IS 'Price paid beyond the expected one (hundredths of a percent); NULL: not known';

COMMENT ON COLUMN public.fills.strategy IS 'Strategy whose order it was (name); NULL: not known';

COMMENT ON COLUMN public.fills.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.financial_info (
    symbol_id integer NOT NULL,
    date date NOT NULL,
    price double precision,
    market_cap double precision,
    pe_ratio double precision,
    pb_ratio double precision,
    dividend_yield double precision,
    iv_30d double precision,
    iv_rank double precision,
    received_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.financial_info IS 'Ratios of a company, a row a symbol and day';

COMMENT ON COLUMN public.financial_info.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.financial_info.date IS 'Day that it is of, on the exchange''s calendar';

COMMENT ON COLUMN public.financial_info.price IS 'Price of a share (the symbol''s currency); NULL: not known';

COMMENT ON COLUMN public.financial_info.market_cap IS 'Market capitalisation (the symbol''s currency); NULL: not known';

COMMENT ON COLUMN public.financial_info.pe_ratio IS 'Price to earnings (ratio); NULL: not known';

COMMENT ON COLUMN public.financial_info.pb_ratio IS 'Price to book value (ratio); NULL: not known';

COMMENT ON COLUMN public.financial_info.dividend_yield IS 'Yearly dividends to price (fraction: 0.01 is 1 %); NULL: not known';

COMMENT ON COLUMN public.financial_info.iv_30d IS 'Implied volatility of 30 days, yearly (fraction); NULL: not known';

COMMENT ON COLUMN public.financial_info.iv_rank IS 'Rank of iv_30d within the year (number, as the sender counts it); NULL: not known';

COMMENT ON COLUMN public.financial_info.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.foreign_snapshots (
    symbol_id integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    f_buy_vol double precision,
    f_sell_vol double precision,
    f_net_vol double precision,
    buy_speed_per_min double precision,
    sell_speed_per_min double precision,
    received_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.foreign_snapshots IS 'Foreign trading of a symbol, as snapshots of running totals';

COMMENT ON COLUMN public.foreign_snapshots.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.foreign_snapshots."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.foreign_snapshots.f_buy_vol IS 'Bought by foreigners since the session began (shares); NULL: not known';

COMMENT ON COLUMN public.foreign_snapshots.f_sell_vol IS 'Sold by foreigners since the session began (shares); NULL: not known';

COMMENT ON COLUMN public.foreign_snapshots.f_net_vol IS 'Bought less sold (shares); computed when absent and both are there; NULL: not known';

COMMENT ON COLUMN public.foreign_snapshots.buy_speed_per_min IS 'Growth of f_buy_vol since the day''s snapshot before (shares/min); computed when absent; NULL: not known';

COMMENT ON COLUMN public.foreign_snapshots.sell_speed_per_min IS 'Growth of f_sell_vol since the day''s snapshot before (shares/min); computed when absent; NULL: not known';

COMMENT ON COLUMN public.foreign_snapshots.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.ingest_log (
    journal_id text NOT NULL,
    journal_no integer NOT NULL,
    dataset text DEFAULT 'ticks'::text NOT NULL,
    next_row bigint DEFAULT 0 NOT NULL,
    stored bigint DEFAULT 0 NOT NULL,
    duplicates bigint DEFAULT 0 NOT NULL,
    set_aside bigint DEFAULT 0 NOT NULL,
    skipped bigint DEFAULT 0 NOT NULL,
    lost bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    done_until timestamp with time zone,
    entered_at timestamp with time zone,
    entered_from timestamp with time zone,
    CONSTRAINT ingest_log_adds_up CHECK ((next_row = ((((stored + duplicates) + set_aside) + skipped) + lost)))
)
WITH (fillfactor='50');

COMMENT ON TABLE public.ingest_log IS 'The ledger: what became of every row of every journal';

COMMENT ON COLUMN public.ingest_log.journal_id IS 'Name of the journal, random and never used again';

COMMENT ON COLUMN public.ingest_log.journal_no IS 'Small number of the journal, from 1';

COMMENT ON COLUMN public.ingest_log.dataset IS 'Dataset of its rows';

COMMENT ON COLUMN public.ingest_log.next_row IS 'Number of the first row that is not done (rows)';

COMMENT ON COLUMN public.ingest_log.stored IS 'Rows that were stored';

COMMENT ON COLUMN public.ingest_log.duplicates IS 'Rows that were stored already';

COMMENT ON COLUMN public.ingest_log.set_aside IS 'Rows that the database refused, kept in rejected_ticks';

COMMENT ON COLUMN public.ingest_log.skipped IS 'Row numbers that were never acknowledged';

COMMENT ON COLUMN public.ingest_log.lost IS 'Rows destroyed by damage to the journal';

COMMENT ON COLUMN public.ingest_log.created_at IS 'When the journal was first seen (UTC)';

COMMENT ON COLUMN public.ingest_log.updated_at IS 'When the row last changed (UTC)';

COMMENT ON COLUMN public.ingest_log.done_until IS 'ticks.received_at of the last row that is done, or later (UTC); NULL: none is';

COMMENT ON COLUMN public.ingest_log.entered_at IS 'When it last came among the journals whose trades are shown live (UTC); rises; NULL: never';

COMMENT ON COLUMN public.ingest_log.entered_from IS 'done_until then, or just before its first row (UTC); NULL: no row yet';

ALTER TABLE public.ingest_log ALTER COLUMN journal_no ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.ingest_log_journal_no_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE public.instruments ALTER COLUMN symbol_id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.instruments_symbol_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.jobs (
    name text NOT NULL,
    state text NOT NULL,
    due_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    succeeded_at timestamp with time zone,
    exit_status integer,
    message text,
    runs bigint DEFAULT 0 NOT NULL,
    failures bigint DEFAULT 0 NOT NULL,
    holder text,
    term bigint,
    CONSTRAINT jobs_name_check CHECK ((name <> ''::text)),
    CONSTRAINT jobs_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'running'::text, 'ok'::text, 'failed'::text, 'cut_off'::text])))
);

COMMENT ON TABLE public.jobs IS 'What the elected process runs by schedule, and how that ended';

COMMENT ON COLUMN public.jobs.name IS 'The job';

COMMENT ON COLUMN public.jobs.state IS 'waiting: never ran; running; ok; failed; cut_off: ended from outside, to be run again';

COMMENT ON COLUMN public.jobs.due_at IS 'The moment that asked for its newest run; the next is asked for later (UTC)';

COMMENT ON COLUMN public.jobs.started_at IS 'When its newest run began (UTC); NULL: never';

COMMENT ON COLUMN public.jobs.ended_at IS 'When its newest run ended (UTC); NULL: it runs, or never ran';

COMMENT ON COLUMN public.jobs.succeeded_at IS 'When a run ended well last (UTC); NULL: never';

COMMENT ON COLUMN public.jobs.exit_status IS 'Exit status of its newest run, negative: the signal; NULL: not known';

COMMENT ON COLUMN public.jobs.message IS 'The last lines that its newest run printed; NULL: none';

COMMENT ON COLUMN public.jobs.runs IS 'Runs that began (count)';

COMMENT ON COLUMN public.jobs.failures IS 'Runs that ended badly (count); those that were cut off are not among them';

COMMENT ON COLUMN public.jobs.holder IS 'The process that ran it last (host, pid); NULL: none';

COMMENT ON COLUMN public.jobs.term IS 'leases.term in which it did';

CREATE TABLE public.kept_from (
    dataset text NOT NULL,
    "time" timestamp with time zone NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT kept_from_dataset_check CHECK ((dataset <> ''::text))
);

COMMENT ON TABLE public.kept_from IS 'Records before this were dropped for their age, and are refused (ticks: tick_ranges)';

COMMENT ON COLUMN public.kept_from.dataset IS 'The dataset (table)';

COMMENT ON COLUMN public.kept_from."time" IS 'The first time that is kept (UTC)';

COMMENT ON COLUMN public.kept_from.changed_at IS 'When that was decided (UTC)';

CREATE TABLE public.late_ticks (
    symbol_id integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    seq bigint NOT NULL,
    bid double precision,
    ask double precision,
    last double precision,
    spread double precision,
    volume double precision NOT NULL,
    buy_volume double precision NOT NULL,
    sell_volume double precision NOT NULL,
    flags integer NOT NULL,
    journal_no integer NOT NULL,
    received_at timestamp with time zone NOT NULL,
    row_no bigint NOT NULL
);

COMMENT ON TABLE public.late_ticks IS 'Ticks of archived times, accepted and not merged into the archive yet: not in ticks, nor in bars or current';

COMMENT ON COLUMN public.late_ticks.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.late_ticks."time" IS 'When it happened (UTC, microseconds)';

COMMENT ON COLUMN public.late_ticks.seq IS 'Ordinal at that time if >= 0 (the sender''s), else derived from the content';

COMMENT ON COLUMN public.late_ticks.bid IS 'Bid (price); NULL: none was sent';

COMMENT ON COLUMN public.late_ticks.ask IS 'Ask (price); NULL: none was sent';

COMMENT ON COLUMN public.late_ticks.last IS 'Last trade (price); a stale repeat unless flags & 8; NULL: none was sent';

COMMENT ON COLUMN public.late_ticks.spread IS 'ask - bid (points: 10^-digits of a price unit); NULL: not known';

COMMENT ON COLUMN public.late_ticks.volume IS 'Volume as sent (instrument''s units); a stale repeat unless flags & 8';

COMMENT ON COLUMN public.late_ticks.buy_volume IS 'Volume of a trade by a buyer (flags & 8 and & 32; instrument''s units), else 0';

COMMENT ON COLUMN public.late_ticks.sell_volume IS 'Volume of a trade by a seller (flags & 8 and & 64; instrument''s units), else 0';

COMMENT ON COLUMN public.late_ticks.flags IS 'Bits: bid 2, ask 4, last 8, volume 16, buy 32, sell 64; others kept';

COMMENT ON COLUMN public.late_ticks.journal_no IS 'ingest_log.journal_no: where it came from';

COMMENT ON COLUMN public.late_ticks.received_at IS 'When it was accepted (UTC, microseconds); rises within a journal';

COMMENT ON COLUMN public.late_ticks.row_no IS 'Its row number in that journal';

CREATE TABLE public.leases (
    name text NOT NULL,
    holder text NOT NULL,
    term bigint NOT NULL,
    held_until timestamp with time zone NOT NULL,
    taken_at timestamp with time zone NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE public.leases IS 'Who is elected to do what only one process may do';

COMMENT ON COLUMN public.leases.name IS 'What it is about';

COMMENT ON COLUMN public.leases.holder IS 'The process: host, its number there, and what tells it from all others';

COMMENT ON COLUMN public.leases.term IS 'Counts terms of office: what is written says of which term it is';

COMMENT ON COLUMN public.leases.held_until IS 'When the term ends, unless it is renewed before (UTC, the database''s clock)';

COMMENT ON COLUMN public.leases.taken_at IS 'When the term began (UTC)';

CREATE TABLE public.market_data (
    symbol_id integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    last_price double precision,
    bid double precision,
    ask double precision,
    volume double precision,
    trades bigint,
    spread_bps double precision,
    received_at timestamp with time zone NOT NULL
)
PARTITION BY RANGE ("time");

COMMENT ON TABLE public.market_data IS 'Symbols at moments, collected from the live feed';

COMMENT ON COLUMN public.market_data.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.market_data."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.market_data.last_price IS 'Last price (price); NULL: not known';

COMMENT ON COLUMN public.market_data.bid IS 'Bid (price); NULL: not known';

COMMENT ON COLUMN public.market_data.ask IS 'Ask (price); NULL: not known';

COMMENT ON COLUMN public.market_data.volume IS 'Traded since the moment before (instrument''s units); NULL: not known';

COMMENT ON COLUMN public.market_data.trades IS 'Trades since the moment before (count); NULL: not known';

COMMENT ON COLUMN public.market_data.spread_bps IS 'Ask - bid to their middle (hundredths of a percent); NULL: not known';

COMMENT ON COLUMN public.market_data.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.market_data_rollup (
    symbol_id integer NOT NULL,
    resolution integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    rows bigint NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    last_price_count bigint,
    last_price_sum double precision,
    last_price_min double precision,
    last_price_max double precision,
    last_price_last double precision,
    bid_count bigint,
    bid_sum double precision,
    bid_min double precision,
    bid_max double precision,
    bid_last double precision,
    ask_count bigint,
    ask_sum double precision,
    ask_min double precision,
    ask_max double precision,
    ask_last double precision,
    volume_count bigint,
    volume_sum double precision,
    volume_min double precision,
    volume_max double precision,
    volume_last double precision,
    trades_count bigint,
    trades_sum numeric,
    trades_min bigint,
    trades_max bigint,
    trades_last bigint,
    spread_bps_count bigint,
    spread_bps_sum double precision,
    spread_bps_min double precision,
    spread_bps_max double precision,
    spread_bps_last double precision
)
PARTITION BY LIST (resolution);

COMMENT ON TABLE public.market_data_rollup IS 'Symbols at moments, collected from the live feed: by minute, five minutes and hour';

COMMENT ON COLUMN public.market_data_rollup.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.market_data_rollup.resolution IS 'Length of the bucket (seconds): 60, 300 or 3600';

COMMENT ON COLUMN public.market_data_rollup."time" IS 'Start of the bucket (UTC)';

COMMENT ON COLUMN public.market_data_rollup.rows IS 'Records in the bucket (count)';

COMMENT ON COLUMN public.market_data_rollup.first_time IS 'Time of its first record (UTC, microseconds)';

COMMENT ON COLUMN public.market_data_rollup.last_time IS 'Time of its last record (UTC, microseconds)';

COMMENT ON COLUMN public.market_data_rollup.last_price_count IS 'Records that have last_price (count)';

COMMENT ON COLUMN public.market_data_rollup.last_price_sum IS 'Sum of: last price (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.last_price_min IS 'Least of: last price (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.last_price_max IS 'Greatest of: last price (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.last_price_last IS 'Newest of: last price (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.bid_count IS 'Records that have bid (count)';

COMMENT ON COLUMN public.market_data_rollup.bid_sum IS 'Sum of: bid (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.bid_min IS 'Least of: bid (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.bid_max IS 'Greatest of: bid (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.bid_last IS 'Newest of: bid (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.ask_count IS 'Records that have ask (count)';

COMMENT ON COLUMN public.market_data_rollup.ask_sum IS 'Sum of: ask (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.ask_min IS 'Least of: ask (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.ask_max IS 'Greatest of: ask (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.ask_last IS 'Newest of: ask (price); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.volume_count IS 'Records that have volume (count)';

COMMENT ON COLUMN public.market_data_rollup.volume_sum IS 'Sum of: traded since the moment before (instrument''s units); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.volume_min IS 'Least of: traded since the moment before (instrument''s units); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.volume_max IS 'Greatest of: traded since the moment before (instrument''s units); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.volume_last IS 'Newest of: traded since the moment before (instrument''s units); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.trades_count IS 'Records that have trades (count)';

COMMENT ON COLUMN public.market_data_rollup.trades_sum IS 'Sum of: trades since the moment before (count); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.trades_min IS 'Least of: trades since the moment before (count); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.trades_max IS 'Greatest of: trades since the moment before (count); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.trades_last IS 'Newest of: trades since the moment before (count); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.spread_bps_count IS 'Records that have spread_bps (count)';

COMMENT ON COLUMN public.market_data_rollup.spread_bps_sum IS 'Sum of: ask - bid to their middle (hundredths of a percent); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.spread_bps_min IS 'Least of: ask - bid to their middle (hundredths of a percent); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.spread_bps_max IS 'Greatest of: ask - bid to their middle (hundredths of a percent); NULL: no record has one';

COMMENT ON COLUMN public.market_data_rollup.spread_bps_last IS 'Newest of: ask - bid to their middle (hundredths of a percent); NULL: no record has one';

CREATE TABLE public.market_data_rollup_300 (
    symbol_id integer CONSTRAINT market_data_rollup_symbol_id_not_null NOT NULL,
    resolution integer CONSTRAINT market_data_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT market_data_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT market_data_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    last_price_count bigint,
    last_price_sum double precision,
    last_price_min double precision,
    last_price_max double precision,
    last_price_last double precision,
    bid_count bigint,
    bid_sum double precision,
    bid_min double precision,
    bid_max double precision,
    bid_last double precision,
    ask_count bigint,
    ask_sum double precision,
    ask_min double precision,
    ask_max double precision,
    ask_last double precision,
    volume_count bigint,
    volume_sum double precision,
    volume_min double precision,
    volume_max double precision,
    volume_last double precision,
    trades_count bigint,
    trades_sum numeric,
    trades_min bigint,
    trades_max bigint,
    trades_last bigint,
    spread_bps_count bigint,
    spread_bps_sum double precision,
    spread_bps_min double precision,
    spread_bps_max double precision,
    spread_bps_last double precision
)
WITH (fillfactor='70');

CREATE TABLE public.market_data_rollup_3600 (
    symbol_id integer CONSTRAINT market_data_rollup_symbol_id_not_null NOT NULL,
    resolution integer CONSTRAINT market_data_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT market_data_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT market_data_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    last_price_count bigint,
    last_price_sum double precision,
    last_price_min double precision,
    last_price_max double precision,
    last_price_last double precision,
    bid_count bigint,
    bid_sum double precision,
    bid_min double precision,
    bid_max double precision,
    bid_last double precision,
    ask_count bigint,
    ask_sum double precision,
    ask_min double precision,
    ask_max double precision,
    ask_last double precision,
    volume_count bigint,
    volume_sum double precision,
    volume_min double precision,
    volume_max double precision,
    volume_last double precision,
    trades_count bigint,
    trades_sum numeric,
    trades_min bigint,
    trades_max bigint,
    trades_last bigint,
    spread_bps_count bigint,
    spread_bps_sum double precision,
    spread_bps_min double precision,
    spread_bps_max double precision,
    spread_bps_last double precision
)
WITH (fillfactor='70');

CREATE TABLE public.market_data_rollup_60 (
    symbol_id integer CONSTRAINT market_data_rollup_symbol_id_not_null NOT NULL,
    resolution integer CONSTRAINT market_data_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT market_data_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT market_data_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    last_price_count bigint,
    last_price_sum double precision,
    last_price_min double precision,
    last_price_max double precision,
    last_price_last double precision,
    bid_count bigint,
    bid_sum double precision,
    bid_min double precision,
    bid_max double precision,
    bid_last double precision,
    ask_count bigint,
    ask_sum double precision,
    ask_min double precision,
    ask_max double precision,
    ask_last double precision,
    volume_count bigint,
    volume_sum double precision,
    volume_min double precision,
    volume_max double precision,
    volume_last double precision,
    trades_count bigint,
    trades_sum numeric,
    trades_min bigint,
    trades_max bigint,
    trades_last bigint,
    spread_bps_count bigint,
    spread_bps_sum double precision,
    spread_bps_min double precision,
    spread_bps_max double precision,
    spread_bps_last double precision
)
WITH (fillfactor='70');

CREATE VIEW public.market_volume_hourly AS
 SELECT i.symbol,
    b."time",
    b.volume,
    b.buy_volume,
    b.sell_volume,
    b.ticks
   FROM (public.bars b
     JOIN public.instruments i USING (symbol_id))
  WHERE (b.resolution = 3600);

COMMENT ON VIEW public.market_volume_hourly IS 'Volume of the trades by hour (UTC) and symbol, exact sums (instrument''s units); sum over symbols for the market';

COMMENT ON COLUMN public.market_volume_hourly.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.market_volume_hourly."time" IS 'Start of the hour (UTC)';

COMMENT ON COLUMN public.market_volume_hourly.volume IS 'Volume of the trades (the symbol''s units), an exact sum';

COMMENT ON COLUMN public.market_volume_hourly.buy_volume IS 'Volume of the trades by buyers (the symbol''s units), an exact sum';

COMMENT ON COLUMN public.market_volume_hourly.sell_volume IS 'Volume of the trades by sellers (the symbol''s units), an exact sum';

COMMENT ON COLUMN public.market_volume_hourly.ticks IS 'Number of ticks, quotes and trades';

CREATE TABLE public.news (
    symbol_id integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    url text NOT NULL,
    headline text,
    summary text,
    source text,
    received_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.news IS 'News by symbol; one address may be about several symbols';

COMMENT ON COLUMN public.news.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.news."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.news.url IS 'Where it can be read (URL)';

COMMENT ON COLUMN public.news.headline IS 'Headline (text); NULL: not known';

COMMENT ON COLUMN public.news.summary IS 'What it says, in short (text); NULL: not known';

COMMENT ON COLUMN public.news.source IS 'Who wrote it (text); NULL: not known';

COMMENT ON COLUMN public.news.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.option_quotes (
    symbol_id integer NOT NULL,
    expiration_date date NOT NULL,
    strike_price double precision NOT NULL,
    option_type text NOT NULL,
    "time" timestamp with time zone NOT NULL,
    bid double precision,
    ask double precision,
    last_price double precision,
    volume double precision,
    open_interest double precision,
    implied_volatility double precision,
    delta double precision,
    gamma double precision,
    theta double precision,
    vega double precision,
    rho double precision,
    in_the_money boolean,
    contract_symbol text,
    greeks_source text,
    underlying_price double precision,
    received_at timestamp with time zone NOT NULL,
    CONSTRAINT option_quotes_option_type_check CHECK ((option_type = ANY (ARRAY['call'::text, 'put'::text])))
)
PARTITION BY RANGE ("time");

COMMENT ON TABLE public.option_quotes IS 'Quotes of option contracts; symbol is the underlying';

COMMENT ON COLUMN public.option_quotes.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.option_quotes.expiration_date IS 'Last day of the contract, on the exchange''s calendar';

COMMENT ON COLUMN public.option_quotes.strike_price IS 'What the underlying is bought or sold for (price)';

COMMENT ON COLUMN public.option_quotes.option_type IS 'Call or put';

COMMENT ON COLUMN public.option_quotes."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.option_quotes.bid IS 'Bid (price); 0: nobody bids; NULL: not known';

COMMENT ON COLUMN public.option_quotes.ask IS 'Ask (price); NULL: not known';

COMMENT ON COLUMN public.option_quotes.last_price IS 'Last trade (price); NULL: not known';

COMMENT ON COLUMN public.option_quotes.volume IS 'Traded since the day began (contracts); NULL: not known';

COMMENT ON COLUMN public.option_quotes.open_interest IS 'Open interest (contracts); NULL: not known';

COMMENT ON COLUMN public.option_quotes.implied_volatility IS 'Implied volatility, yearly (fraction: 0.25 is 25 %); 0: the sender has none; NULL: not known';

COMMENT ON COLUMN public.option_quotes.delta IS 'Change of the price for 1 of the underlying (ratio); NULL: not known';

COMMENT ON COLUMN public.option_quotes.gamma IS 'Change of delta for 1 of the underlying (1/price); NULL: not known';

COMMENT ON COLUMN public.option_quotes.theta IS 'Change of the price for a calendar day (price/day); NULL: not known';

COMMENT ON COLUMN public.option_quotes.vega IS 'Change of the price for a point of volatility, 0.01 (price); NULL: not known';

COMMENT ON COLUMN public.option_quotes.rho IS 'Change of the price for a point of the rate, 0.01 (price); NULL: not known';

COMMENT ON COLUMN public.option_quotes.in_the_money IS 'Whether exercise pays; computed when absent and underlying_price is there; NULL: not known';

COMMENT ON COLUMN public.option_quotes.contract_symbol IS 'Name of the contract; computed in OCC form (21 characters) when absent; NULL: not known';

COMMENT ON COLUMN public.option_quotes.greeks_source IS 'Who computed volatility and greeks that were sent (name); NULL: not known';

COMMENT ON COLUMN public.option_quotes.underlying_price IS 'Price of the underlying at that time (price); NULL: not known';

COMMENT ON COLUMN public.option_quotes.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE VIEW public.options_calls AS
 SELECT i.symbol,
    o.expiration_date,
    o.strike_price,
    o."time",
    o.bid,
    o.ask,
    o.last_price,
    o.volume,
    o.open_interest,
    o.implied_volatility,
    o.delta,
    o.gamma,
    o.theta,
    o.vega,
    o.rho,
    COALESCE(o.in_the_money, (o.underlying_price > o.strike_price)) AS in_the_money,
    COALESCE(o.contract_symbol, public.occ_symbol(i.symbol, o.expiration_date, o.option_type, o.strike_price)) AS contract_symbol,
    o.greeks_source,
    o.underlying_price
   FROM (public.option_quotes o
     JOIN public.instruments i USING (symbol_id))
  WHERE (o.option_type = 'call'::text);

COMMENT ON VIEW public.options_calls IS 'Quotes of calls with the symbol of their underlying; volatility and greeks as sent';

COMMENT ON COLUMN public.options_calls.symbol IS 'instruments.symbol, of the underlying';

COMMENT ON COLUMN public.options_calls.expiration_date IS 'Last day of the contract, on the exchange''s calendar';

COMMENT ON COLUMN public.options_calls.strike_price IS 'What the underlying is bought or sold for (price)';

COMMENT ON COLUMN public.options_calls."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.options_calls.bid IS 'Bid (price); 0: nobody bids; NULL: not known';

COMMENT ON COLUMN public.options_calls.ask IS 'Ask (price); NULL: not known';

COMMENT ON COLUMN public.options_calls.last_price IS 'Last trade (price); NULL: not known';

COMMENT ON COLUMN public.options_calls.volume IS 'Traded since the day began (contracts); NULL: not known';

COMMENT ON COLUMN public.options_calls.open_interest IS 'Open interest (contracts); NULL: not known';

COMMENT ON COLUMN public.options_calls.implied_volatility IS 'Implied volatility, yearly (fraction: 0.25 is 25 %); 0: the sender has none; NULL: not known';

COMMENT ON COLUMN public.options_calls.delta IS 'Change of the price for 1 of the underlying (ratio); NULL: not known';

COMMENT ON COLUMN public.options_calls.gamma IS 'Change of delta for 1 of the underlying (1/price); NULL: not known';

COMMENT ON COLUMN public.options_calls.theta IS 'Change of the price for a calendar day (price/day); NULL: not known';

COMMENT ON COLUMN public.options_calls.vega IS 'Change of the price for a point of volatility, 0.01 (price); NULL: not known';

COMMENT ON COLUMN public.options_calls.rho IS 'Change of the price for a point of the rate, 0.01 (price); NULL: not known';

COMMENT ON COLUMN public.options_calls.in_the_money IS 'Whether exercise pays; computed when absent and underlying_price is there; NULL: not known';

COMMENT ON COLUMN public.options_calls.contract_symbol IS 'Name of the contract; computed in OCC form (21 characters) when absent; NULL: not known';

COMMENT ON COLUMN public.options_calls.greeks_source IS 'Who computed volatility and greeks that were sent (name); NULL: not known';

COMMENT ON COLUMN public.options_calls.underlying_price IS 'Price of the underlying at that time (price); NULL: not known';

CREATE VIEW public.options_puts AS
 SELECT i.symbol,
    o.expiration_date,
    o.strike_price,
    o."time",
    o.bid,
    o.ask,
    o.last_price,
    o.volume,
    o.open_interest,
    o.implied_volatility,
    o.delta,
    o.gamma,
    o.theta,
    o.vega,
    o.rho,
    COALESCE(o.in_the_money, (o.underlying_price < o.strike_price)) AS in_the_money,
    COALESCE(o.contract_symbol, public.occ_symbol(i.symbol, o.expiration_date, o.option_type, o.strike_price)) AS contract_symbol,
    o.greeks_source,
    o.underlying_price
   FROM (public.option_quotes o
     JOIN public.instruments i USING (symbol_id))
  WHERE (o.option_type = 'put'::text);

COMMENT ON VIEW public.options_puts IS 'Quotes of puts with the symbol of their underlying; volatility and greeks as sent';

COMMENT ON COLUMN public.options_puts.symbol IS 'instruments.symbol, of the underlying';

COMMENT ON COLUMN public.options_puts.expiration_date IS 'Last day of the contract, on the exchange''s calendar';

COMMENT ON COLUMN public.options_puts.strike_price IS 'What the underlying is bought or sold for (price)';

COMMENT ON COLUMN public.options_puts."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.options_puts.bid IS 'Bid (price); 0: nobody bids; NULL: not known';

COMMENT ON COLUMN public.options_puts.ask IS 'Ask (price); NULL: not known';

COMMENT ON COLUMN public.options_puts.last_price IS 'Last trade (price); NULL: not known';

COMMENT ON COLUMN public.options_puts.volume IS 'Traded since the day began (contracts); NULL: not known';

COMMENT ON COLUMN public.options_puts.open_interest IS 'Open interest (contracts); NULL: not known';

COMMENT ON COLUMN public.options_puts.implied_volatility IS 'Implied volatility, yearly (fraction: 0.25 is 25 %); 0: the sender has none; NULL: not known';

COMMENT ON COLUMN public.options_puts.delta IS 'Change of the price for 1 of the underlying (ratio); NULL: not known';

COMMENT ON COLUMN public.options_puts.gamma IS 'Change of delta for 1 of the underlying (1/price); NULL: not known';

COMMENT ON COLUMN public.options_puts.theta IS 'Change of the price for a calendar day (price/day); NULL: not known';

COMMENT ON COLUMN public.options_puts.vega IS 'Change of the price for a point of volatility, 0.01 (price); NULL: not known';

COMMENT ON COLUMN public.options_puts.rho IS 'Change of the price for a point of the rate, 0.01 (price); NULL: not known';

COMMENT ON COLUMN public.options_puts.in_the_money IS 'Whether exercise pays; computed when absent and underlying_price is there; NULL: not known';

COMMENT ON COLUMN public.options_puts.contract_symbol IS 'Name of the contract; computed in OCC form (21 characters) when absent; NULL: not known';

COMMENT ON COLUMN public.options_puts.greeks_source IS 'Who computed volatility and greeks that were sent (name); NULL: not known';

COMMENT ON COLUMN public.options_puts.underlying_price IS 'Price of the underlying at that time (price); NULL: not known';

CREATE VIEW public.options_volume_daily AS
 SELECT symbol,
    date,
    sum(volume) AS volume,
    sum(volume) FILTER (WHERE (option_type = 'call'::text)) AS call_volume,
    sum(volume) FILTER (WHERE (option_type = 'put'::text)) AS put_volume,
        CASE
            WHEN (sum(volume) FILTER (WHERE (option_type = 'call'::text)) > (0.000000001)::double precision) THEN
            CASE
                WHEN (sum(volume) FILTER (WHERE (option_type = 'put'::text)) < (0.000000001)::double precision) THEN (0)::double precision
                ELSE (sum(volume) FILTER (WHERE (option_type = 'put'::text)) / sum(volume) FILTER (WHERE (option_type = 'call'::text)))
            END
            ELSE NULL::double precision
        END AS put_call_ratio,
    sum(open_interest) AS open_interest,
    sum(open_interest) FILTER (WHERE (option_type = 'call'::text)) AS call_open_interest,
    sum(open_interest) FILTER (WHERE (option_type = 'put'::text)) AS put_open_interest,
    count(*) AS contracts,
    (sum(quotes))::bigint AS quotes
   FROM ( SELECT i.symbol,
            ((o."time" AT TIME ZONE 'UTC'::text))::date AS date,
            o.option_type,
            count(*) AS quotes,
            (array_agg(o.volume ORDER BY o."time" DESC) FILTER (WHERE (o.volume IS NOT NULL)))[1] AS volume,
            (array_agg(o.open_interest ORDER BY o."time" DESC) FILTER (WHERE (o.open_interest IS NOT NULL)))[1] AS open_interest
           FROM (public.option_quotes o
             JOIN public.instruments i USING (symbol_id))
          GROUP BY i.symbol, (((o."time" AT TIME ZONE 'UTC'::text))::date), o.expiration_date, o.strike_price, o.option_type) c
  GROUP BY symbol, date;

COMMENT ON VIEW public.options_volume_daily IS 'Volume and open interest of all options on a symbol by day (UTC), of each contract as quoted last';

COMMENT ON COLUMN public.options_volume_daily.symbol IS 'instruments.symbol, of the underlying';

COMMENT ON COLUMN public.options_volume_daily.date IS 'Day of the quotes (UTC)';

COMMENT ON COLUMN public.options_volume_daily.volume IS 'Traded that day (contracts); NULL: not known';

COMMENT ON COLUMN public.options_volume_daily.call_volume IS 'Calls traded that day (contracts); NULL: not known';

COMMENT ON COLUMN public.options_volume_daily.put_volume IS 'Puts traded that day (contracts); NULL: not known';

COMMENT ON COLUMN public.options_volume_daily.put_call_ratio IS 'put_volume / call_volume (ratio); NULL: no calls';

COMMENT ON COLUMN public.options_volume_daily.open_interest IS 'Open interest (contracts); NULL: not known';

COMMENT ON COLUMN public.options_volume_daily.call_open_interest IS 'Open interest of calls (contracts); NULL: not known';

COMMENT ON COLUMN public.options_volume_daily.put_open_interest IS 'Open interest of puts (contracts); NULL: not known';

COMMENT ON COLUMN public.options_volume_daily.contracts IS 'Contracts that were quoted';

COMMENT ON COLUMN public.options_volume_daily.quotes IS 'Quotes of them';

CREATE VIEW public.price_history_daily AS
 SELECT i.symbol,
    d."time",
    d.open,
    d.high,
    d.low,
    d.close,
    COALESCE(d.adj_close, public.factored(d.close, d."time", f.ex_dates, f.products)) AS adj_close,
    d.volume,
    d.trading_value,
    COALESCE(d.source, 'ticks'::text) AS source
   FROM ((public.instruments i
     LEFT JOIN LATERAL public.bar_factors(i.symbol_id, '1d'::text, NULL::text) f(ex_dates, products) ON (true))
     CROSS JOIN LATERAL ( SELECT v."time",
            v.open,
            v.high,
            v.low,
            v.close,
            v.adj_close,
            v.volume,
            v.daily_return,
            v.trading_value,
            v.source
           FROM ( SELECT DISTINCT ON (p."time") p."time",
                    p.open,
                    p.high,
                    p.low,
                    p.close,
                    p.adj_close,
                    p.volume,
                    p.daily_return,
                    p.trading_value,
                    p.source
                   FROM public.price_history p
                  WHERE ((p.symbol_id = i.symbol_id) AND (p."interval" = '1d'::text))
                  ORDER BY p."time", p.source) v
        UNION ALL
         SELECT b."time",
                CASE
                    WHEN (b.last_close IS NOT NULL) THEN b.last_open
                    ELSE b.bid_open
                END AS bid_open,
                CASE
                    WHEN (b.last_close IS NOT NULL) THEN b.last_high
                    ELSE b.bid_high
                END AS bid_high,
                CASE
                    WHEN (b.last_close IS NOT NULL) THEN b.last_low
                    ELSE b.bid_low
                END AS bid_low,
            COALESCE(b.last_close, b.bid_close) AS "coalesce",
            NULL::double precision,
            (b.volume)::double precision AS volume,
            NULL::double precision,
            NULL::double precision,
            NULL::text
           FROM public.bars b
          WHERE ((b.symbol_id = i.symbol_id) AND (b.resolution = 86400) AND (COALESCE(b.last_close, b.bid_close) IS NOT NULL) AND (NOT (EXISTS ( SELECT
                   FROM public.price_history p
                  WHERE ((p.symbol_id = i.symbol_id) AND (p."interval" = '1d'::text) AND (p."time" = b."time"))))))) d);

COMMENT ON VIEW public.price_history_daily IS 'Days (UTC) by symbol: the vendor''s bar, else one of the ticks'' trades, or bids where nothing was traded';

COMMENT ON COLUMN public.price_history_daily.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.price_history_daily."time" IS 'Start (UTC)';

COMMENT ON COLUMN public.price_history_daily.open IS 'First price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_daily.high IS 'Highest price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_daily.low IS 'Lowest price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_daily.close IS 'Last price, unadjusted (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_daily.adj_close IS 'The vendor''s adjusted close, else by corporate_actions (NULL: one of them lacks its number)';

COMMENT ON COLUMN public.price_history_daily.volume IS 'Volume (the symbol''s units); NULL: not known';

COMMENT ON COLUMN public.price_history_daily.trading_value IS 'Price times volume (the symbol''s currency); NULL: not known';

COMMENT ON COLUMN public.price_history_daily.source IS 'Its price_history.source; ticks: made of the ticks'' bar of the day';

CREATE VIEW public.price_history_monthly AS
 SELECT i.symbol,
    d.start AS "time",
    d.open,
    d.high,
    d.low,
    d.close,
    COALESCE(d.adj_close, public.factored(d.close, d."time", f.ex_dates, f.products)) AS adj_close,
    d.volume,
    d.trading_value,
    d.days
   FROM ((public.instruments i
     LEFT JOIN LATERAL public.bar_factors(i.symbol_id, '1d'::text, NULL::text) f(ex_dates, products) ON (true))
     CROSS JOIN LATERAL ( SELECT date_trunc('month'::text, day."time", 'UTC'::text) AS start,
            (array_agg(day.open ORDER BY day."time"))[1] AS open,
            max(day.high) AS high,
            min(day.low) AS low,
            (array_agg(day.close ORDER BY day."time" DESC))[1] AS close,
            (array_agg(day.adj_close ORDER BY day."time" DESC))[1] AS adj_close,
            max(day."time") AS "time",
            sum(day.volume) AS volume,
            sum(day.trading_value) AS trading_value,
            count(*) AS days
           FROM ( SELECT v."time",
                    v.open,
                    v.high,
                    v.low,
                    v.close,
                    v.adj_close,
                    v.volume,
                    v.daily_return,
                    v.trading_value,
                    v.source
                   FROM ( SELECT DISTINCT ON (p."time") p."time",
                            p.open,
                            p.high,
                            p.low,
                            p.close,
                            p.adj_close,
                            p.volume,
                            p.daily_return,
                            p.trading_value,
                            p.source
                           FROM public.price_history p
                          WHERE ((p.symbol_id = i.symbol_id) AND (p."interval" = '1d'::text))
                          ORDER BY p."time", p.source) v
                UNION ALL
                 SELECT b."time",
                        CASE
                            WHEN (b.last_close IS NOT NULL) THEN b.last_open
                            ELSE b.bid_open
                        END AS bid_open,
                        CASE
                            WHEN (b.last_close IS NOT NULL) THEN b.last_high
                            ELSE b.bid_high
                        END AS bid_high,
                        CASE
                            WHEN (b.last_close IS NOT NULL) THEN b.last_low
                            ELSE b.bid_low
                        END AS bid_low,
                    COALESCE(b.last_close, b.bid_close) AS "coalesce",
                    NULL::double precision,
                    (b.volume)::double precision AS volume,
                    NULL::double precision,
                    NULL::double precision,
                    NULL::text
                   FROM public.bars b
                  WHERE ((b.symbol_id = i.symbol_id) AND (b.resolution = 86400) AND (COALESCE(b.last_close, b.bid_close) IS NOT NULL) AND (NOT (EXISTS ( SELECT
                           FROM public.price_history p
                          WHERE ((p.symbol_id = i.symbol_id) AND (p."interval" = '1d'::text) AND (p."time" = b."time"))))))) day
          GROUP BY (date_trunc('month'::text, day."time", 'UTC'::text))) d);

COMMENT ON VIEW public.price_history_monthly IS 'Months (UTC) of price_history_daily';

COMMENT ON COLUMN public.price_history_monthly.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.price_history_monthly."time" IS 'Start (UTC)';

COMMENT ON COLUMN public.price_history_monthly.open IS 'First price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_monthly.high IS 'Highest price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_monthly.low IS 'Lowest price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_monthly.close IS 'Last price, unadjusted (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_monthly.adj_close IS 'The vendor''s adjusted close, else by corporate_actions (NULL: one of them lacks its number)';

COMMENT ON COLUMN public.price_history_monthly.volume IS 'Volume (the symbol''s units); NULL: not known';

COMMENT ON COLUMN public.price_history_monthly.trading_value IS 'Price times volume (the symbol''s currency); NULL: not known';

COMMENT ON COLUMN public.price_history_monthly.days IS 'Days that it is made of, the running one included';

CREATE VIEW public.price_history_weekly AS
 SELECT i.symbol,
    d.start AS "time",
    d.open,
    d.high,
    d.low,
    d.close,
    COALESCE(d.adj_close, public.factored(d.close, d."time", f.ex_dates, f.products)) AS adj_close,
    d.volume,
    d.trading_value,
    d.days
   FROM ((public.instruments i
     LEFT JOIN LATERAL public.bar_factors(i.symbol_id, '1d'::text, NULL::text) f(ex_dates, products) ON (true))
     CROSS JOIN LATERAL ( SELECT date_trunc('week'::text, day."time", 'UTC'::text) AS start,
            (array_agg(day.open ORDER BY day."time"))[1] AS open,
            max(day.high) AS high,
            min(day.low) AS low,
            (array_agg(day.close ORDER BY day."time" DESC))[1] AS close,
            (array_agg(day.adj_close ORDER BY day."time" DESC))[1] AS adj_close,
            max(day."time") AS "time",
            sum(day.volume) AS volume,
            sum(day.trading_value) AS trading_value,
            count(*) AS days
           FROM ( SELECT v."time",
                    v.open,
                    v.high,
                    v.low,
                    v.close,
                    v.adj_close,
                    v.volume,
                    v.daily_return,
                    v.trading_value,
                    v.source
                   FROM ( SELECT DISTINCT ON (p."time") p."time",
                            p.open,
                            p.high,
                            p.low,
                            p.close,
                            p.adj_close,
                            p.volume,
                            p.daily_return,
                            p.trading_value,
                            p.source
                           FROM public.price_history p
                          WHERE ((p.symbol_id = i.symbol_id) AND (p."interval" = '1d'::text))
                          ORDER BY p."time", p.source) v
                UNION ALL
                 SELECT b."time",
                        CASE
                            WHEN (b.last_close IS NOT NULL) THEN b.last_open
                            ELSE b.bid_open
                        END AS bid_open,
                        CASE
                            WHEN (b.last_close IS NOT NULL) THEN b.last_high
                            ELSE b.bid_high
                        END AS bid_high,
                        CASE
                            WHEN (b.last_close IS NOT NULL) THEN b.last_low
                            ELSE b.bid_low
                        END AS bid_low,
                    COALESCE(b.last_close, b.bid_close) AS "coalesce",
                    NULL::double precision,
                    (b.volume)::double precision AS volume,
                    NULL::double precision,
                    NULL::double precision,
                    NULL::text
                   FROM public.bars b
                  WHERE ((b.symbol_id = i.symbol_id) AND (b.resolution = 86400) AND (COALESCE(b.last_close, b.bid_close) IS NOT NULL) AND (NOT (EXISTS ( SELECT
                           FROM public.price_history p
                          WHERE ((p.symbol_id = i.symbol_id) AND (p."interval" = '1d'::text) AND (p."time" = b."time"))))))) day
          GROUP BY (date_trunc('week'::text, day."time", 'UTC'::text))) d);

COMMENT ON VIEW public.price_history_weekly IS 'Weeks (from Monday, UTC) of price_history_daily';

COMMENT ON COLUMN public.price_history_weekly.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.price_history_weekly."time" IS 'Start (UTC)';

COMMENT ON COLUMN public.price_history_weekly.open IS 'First price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_weekly.high IS 'Highest price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_weekly.low IS 'Lowest price (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_weekly.close IS 'Last price, unadjusted (the symbol''s currency)';

COMMENT ON COLUMN public.price_history_weekly.adj_close IS 'The vendor''s adjusted close, else by corporate_actions (NULL: one of them lacks its number)';

COMMENT ON COLUMN public.price_history_weekly.volume IS 'Volume (the symbol''s units); NULL: not known';

COMMENT ON COLUMN public.price_history_weekly.trading_value IS 'Price times volume (the symbol''s currency); NULL: not known';

COMMENT ON COLUMN public.price_history_weekly.days IS 'Days that it is made of, the running one included';

CREATE TABLE public.rejected_records (
    journal_no integer NOT NULL,
    row_no bigint NOT NULL,
    dataset text NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    payload jsonb NOT NULL,
    received_at timestamp with time zone NOT NULL,
    set_aside_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE public.rejected_records IS 'Accepted records of datasets that could not be stored, each once with its reason';

COMMENT ON COLUMN public.rejected_records.journal_no IS 'ingest_log.journal_no: where it came from';

COMMENT ON COLUMN public.rejected_records.row_no IS 'Its row number in that journal';

COMMENT ON COLUMN public.rejected_records.dataset IS 'Dataset that it was sent for';

COMMENT ON COLUMN public.rejected_records.code IS 'Why, for programs: conflict, or refused (by the database)';

COMMENT ON COLUMN public.rejected_records.message IS 'Why, for people';

COMMENT ON COLUMN public.rejected_records.payload IS 'The record as it was accepted: fields that were sent, times in UTC';

COMMENT ON COLUMN public.rejected_records.received_at IS 'When it was accepted (UTC, microseconds)';

COMMENT ON COLUMN public.rejected_records.set_aside_at IS 'When it was set aside (UTC)';

CREATE TABLE public.rejected_ticks (
    journal_no integer NOT NULL,
    row_no bigint NOT NULL,
    symbol text,
    "time" timestamp with time zone,
    seq bigint,
    bid double precision,
    ask double precision,
    last double precision,
    spread double precision,
    volume double precision,
    flags integer,
    code text NOT NULL,
    message text NOT NULL,
    received_at timestamp with time zone,
    set_aside_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE public.rejected_ticks IS 'Accepted ticks that the database refused, each once with its reason';

COMMENT ON COLUMN public.rejected_ticks.journal_no IS 'ingest_log.journal_no: where it came from';

COMMENT ON COLUMN public.rejected_ticks.row_no IS 'Its row number in that journal';

COMMENT ON COLUMN public.rejected_ticks.symbol IS 'Symbol as it was accepted';

COMMENT ON COLUMN public.rejected_ticks."time" IS 'When it happened (UTC, microseconds)';

COMMENT ON COLUMN public.rejected_ticks.seq IS 'As ticks.seq';

COMMENT ON COLUMN public.rejected_ticks.bid IS 'Bid (price)';

COMMENT ON COLUMN public.rejected_ticks.ask IS 'Ask (price)';

COMMENT ON COLUMN public.rejected_ticks.last IS 'Last (price)';

COMMENT ON COLUMN public.rejected_ticks.spread IS 'Spread (points)';

COMMENT ON COLUMN public.rejected_ticks.volume IS 'Volume as sent (instrument''s units)';

COMMENT ON COLUMN public.rejected_ticks.flags IS 'Bits as in ticks.flags';

COMMENT ON COLUMN public.rejected_ticks.code IS 'Why, for programs: seq_conflict, or the SQLSTATE';

COMMENT ON COLUMN public.rejected_ticks.message IS 'Why, for people';

COMMENT ON COLUMN public.rejected_ticks.received_at IS 'When it was accepted (UTC, microseconds)';

COMMENT ON COLUMN public.rejected_ticks.set_aside_at IS 'When it was set aside (UTC)';

CREATE TABLE public.resent_ticks (
    symbol_id integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    journal_no integer NOT NULL,
    ticks bigint NOT NULL,
    CONSTRAINT resent_ticks_ticks_check CHECK ((ticks > 0))
);

COMMENT ON TABLE public.resent_ticks IS 'How many ticks came again, equal in all, by the quarter of an hour that they are of';

COMMENT ON COLUMN public.resent_ticks.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.resent_ticks."time" IS 'Start of the quarter (UTC)';

COMMENT ON COLUMN public.resent_ticks.journal_no IS 'ingest_log.journal_no: where they came again';

COMMENT ON COLUMN public.resent_ticks.ticks IS 'How many';

CREATE VIEW public.sector_performance AS
 SELECT sector,
    "time",
    count(*) AS symbols,
    count(*) FILTER (WHERE (change > (0)::double precision)) AS rising,
    count(*) FILTER (WHERE (change < (0)::double precision)) AS falling,
    avg(change) AS average_return,
    (sum((change * market_cap)) / NULLIF(sum(market_cap) FILTER (WHERE (change IS NOT NULL)), (0)::double precision)) AS weighted_return,
    sum(volume) AS volume,
    sum(COALESCE(trading_value, (close * volume))) AS trading_value
   FROM ( SELECT i.sector,
            d."time",
            i.market_cap,
            d.close,
            d.volume,
            d.trading_value,
            COALESCE(d.daily_return,
                CASE
                    WHEN ((d.adj_close >= (0.000000001)::double precision) AND (b.adj_close >= (0.000000001)::double precision)) THEN ((d.adj_close / b.adj_close) - (1)::double precision)
                    WHEN ((d.close >= (0.000000001)::double precision) AND (b.close >= (0.000000001)::double precision)) THEN ((d.close / (b.close *
                    CASE
                        WHEN (EXISTS ( SELECT
                           FROM public.corporate_actions a
                          WHERE ((a.symbol_id = i.symbol_id) AND (a.ex_date > ((b."time" AT TIME ZONE 'UTC'::text))::date) AND (a.ex_date <= ((d."time" AT TIME ZONE 'UTC'::text))::date)))) THEN public.actions_factor(i.symbol_id, b."time", d."time", b.close)
                        ELSE (1)::double precision
                    END)) - (1)::double precision)
                    ELSE NULL::double precision
                END) AS change
           FROM ((public.instruments i
             CROSS JOIN LATERAL ( SELECT v."time",
                    v.open,
                    v.high,
                    v.low,
                    v.close,
                    v.adj_close,
                    v.volume,
                    v.daily_return,
                    v.trading_value,
                    v.source
                   FROM ( SELECT DISTINCT ON (p."time") p."time",
                            p.open,
                            p.high,
                            p.low,
                            p.close,
                            p.adj_close,
                            p.volume,
                            p.daily_return,
                            p.trading_value,
                            p.source
                           FROM public.price_history p
                          WHERE ((p.symbol_id = i.symbol_id) AND (p."interval" = '1d'::text))
                          ORDER BY p."time", p.source) v
                UNION ALL
                 SELECT b_1."time",
                        CASE
                            WHEN (b_1.last_close IS NOT NULL) THEN b_1.last_open
                            ELSE b_1.bid_open
                        END AS bid_open,
                        CASE
                            WHEN (b_1.last_close IS NOT NULL) THEN b_1.last_high
                            ELSE b_1.bid_high
                        END AS bid_high,
                        CASE
                            WHEN (b_1.last_close IS NOT NULL) THEN b_1.last_low
                            ELSE b_1.bid_low
                        END AS bid_low,
                    COALESCE(b_1.last_close, b_1.bid_close) AS "coalesce",
                    NULL::double precision,
                    (b_1.volume)::double precision AS volume,
                    NULL::double precision,
                    NULL::double precision,
                    NULL::text
                   FROM public.bars b_1
                  WHERE ((b_1.symbol_id = i.symbol_id) AND (b_1.resolution = 86400) AND (COALESCE(b_1.last_close, b_1.bid_close) IS NOT NULL) AND (NOT (EXISTS ( SELECT
                           FROM public.price_history p
                          WHERE ((p.symbol_id = i.symbol_id) AND (p."interval" = '1d'::text) AND (p."time" = b_1."time"))))))) d)
             LEFT JOIN LATERAL (( SELECT p."time",
                    p.close,
                    p.adj_close,
                    1 AS rank
                   FROM public.price_history p
                  WHERE ((p.symbol_id = i.symbol_id) AND (p."interval" = '1d'::text) AND (p."time" < d."time"))
                  ORDER BY p."time" DESC, p.source
                 LIMIT 1)
                UNION ALL
                ( SELECT o."time",
                    COALESCE(o.last_close, o.bid_close) AS "coalesce",
                    NULL::double precision,
                    2
                   FROM public.bars o
                  WHERE ((o.symbol_id = i.symbol_id) AND (o.resolution = 86400) AND (o."time" < d."time") AND (COALESCE(o.last_close, o.bid_close) IS NOT NULL))
                  ORDER BY o."time" DESC
                 LIMIT 1)
          ORDER BY 1 DESC, 4
         LIMIT 1) b ON (true))
          WHERE (i.sector IS NOT NULL)) s
  GROUP BY sector, "time";

COMMENT ON VIEW public.sector_performance IS 'Sectors by day (UTC): how their symbols changed since the day before each had';

COMMENT ON COLUMN public.sector_performance.sector IS 'instruments.sector';

COMMENT ON COLUMN public.sector_performance."time" IS 'Day (UTC)';

COMMENT ON COLUMN public.sector_performance.symbols IS 'Symbols with a bar of the day';

COMMENT ON COLUMN public.sector_performance.rising IS 'Those whose adjusted close rose';

COMMENT ON COLUMN public.sector_performance.falling IS 'Those whose adjusted close fell';

COMMENT ON COLUMN public.sector_performance.average_return IS 'Mean of the symbols'' daily returns (fraction: 0.01 is 1 %)';

COMMENT ON COLUMN public.sector_performance.weighted_return IS 'The same, weighted by instruments.market_cap; NULL: none is known';

COMMENT ON COLUMN public.sector_performance.volume IS 'Volume (the symbols'' units)';

COMMENT ON COLUMN public.sector_performance.trading_value IS 'Price times volume, the vendors'' or by the close; currencies are added as they are';

CREATE TABLE public.strategies (
    strategy_name text NOT NULL,
    parameters jsonb,
    received_at timestamp with time zone NOT NULL
);

COMMENT ON TABLE public.strategies IS 'Strategies, as they are set';

COMMENT ON COLUMN public.strategies.strategy_name IS 'The strategy (name)';

COMMENT ON COLUMN public.strategies.parameters IS 'What it is set to (object); NULL: not known';

COMMENT ON COLUMN public.strategies.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.strategy_metrics (
    strategy_name text NOT NULL,
    "time" timestamp with time zone NOT NULL,
    pnl double precision,
    daily_pnl double precision,
    positions bigint,
    signals bigint,
    win_rate double precision,
    received_at timestamp with time zone NOT NULL
)
PARTITION BY RANGE ("time");

COMMENT ON TABLE public.strategy_metrics IS 'How strategies do';

COMMENT ON COLUMN public.strategy_metrics.strategy_name IS 'The strategy (name)';

COMMENT ON COLUMN public.strategy_metrics."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.strategy_metrics.pnl IS 'Profit and loss so far (account''s currency); NULL: not known';

COMMENT ON COLUMN public.strategy_metrics.daily_pnl IS 'Profit and loss of the day (account''s currency); NULL: not known';

COMMENT ON COLUMN public.strategy_metrics.positions IS 'Open positions (count); NULL: not known';

COMMENT ON COLUMN public.strategy_metrics.signals IS 'Signals so far (count); NULL: not known';

COMMENT ON COLUMN public.strategy_metrics.win_rate IS 'Trades that won (fraction: 0.5 is half); NULL: not known';

COMMENT ON COLUMN public.strategy_metrics.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.strategy_metrics_rollup (
    strategy_name text NOT NULL,
    resolution integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    rows bigint NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    pnl_count bigint,
    pnl_sum double precision,
    pnl_min double precision,
    pnl_max double precision,
    pnl_last double precision,
    daily_pnl_count bigint,
    daily_pnl_sum double precision,
    daily_pnl_min double precision,
    daily_pnl_max double precision,
    daily_pnl_last double precision,
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
    win_rate_sum double precision,
    win_rate_min double precision,
    win_rate_max double precision,
    win_rate_last double precision
)
PARTITION BY LIST (resolution);

COMMENT ON TABLE public.strategy_metrics_rollup IS 'How strategies do: by minute, five minutes and hour';

COMMENT ON COLUMN public.strategy_metrics_rollup.strategy_name IS 'The strategy (name)';

COMMENT ON COLUMN public.strategy_metrics_rollup.resolution IS 'Length of the bucket (seconds): 60, 300 or 3600';

COMMENT ON COLUMN public.strategy_metrics_rollup."time" IS 'Start of the bucket (UTC)';

COMMENT ON COLUMN public.strategy_metrics_rollup.rows IS 'Records in the bucket (count)';

COMMENT ON COLUMN public.strategy_metrics_rollup.first_time IS 'Time of its first record (UTC, microseconds)';

COMMENT ON COLUMN public.strategy_metrics_rollup.last_time IS 'Time of its last record (UTC, microseconds)';

COMMENT ON COLUMN public.strategy_metrics_rollup.pnl_count IS 'Records that have pnl (count)';

COMMENT ON COLUMN public.strategy_metrics_rollup.pnl_sum IS 'Sum of: profit and loss so far (account''s currency); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.pnl_min IS 'Least of: profit and loss so far (account''s currency); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.pnl_max IS 'Greatest of: profit and loss so far (account''s currency); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.pnl_last IS 'Newest of: profit and loss so far (account''s currency); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.daily_pnl_count IS 'Records that have daily_pnl (count)';

COMMENT ON COLUMN public.strategy_metrics_rollup.daily_pnl_sum IS 'Sum of: profit and loss of the day (account''s currency); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.daily_pnl_min IS 'Least of: profit and loss of the day (account''s currency); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.daily_pnl_max IS 'Greatest of: profit and loss of the day (account''s currency); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.daily_pnl_last IS 'Newest of: profit and loss of the day (account''s currency); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.positions_count IS 'Records that have positions (count)';

COMMENT ON COLUMN public.strategy_metrics_rollup.positions_sum IS 'Sum of: open positions (count); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.positions_min IS 'Least of: open positions (count); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.positions_max IS 'Greatest of: open positions (count); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.positions_last IS 'Newest of: open positions (count); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.signals_count IS 'Records that have signals (count)';

COMMENT ON COLUMN public.strategy_metrics_rollup.signals_sum IS 'Sum of: signals so far (count); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.signals_min IS 'Least of: signals so far (count); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.signals_max IS 'Greatest of: signals so far (count); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.signals_last IS 'Newest of: signals so far (count); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.win_rate_count IS 'Records that have win_rate (count)';

COMMENT ON COLUMN public.strategy_metrics_rollup.win_rate_sum IS 'Sum of: trades that won (fraction: 0.5 is half); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.win_rate_min IS 'Least of: trades that won (fraction: 0.5 is half); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.win_rate_max IS 'Greatest of: trades that won (fraction: 0.5 is half); NULL: no record has one';

COMMENT ON COLUMN public.strategy_metrics_rollup.win_rate_last IS 'Newest of: trades that won (fraction: 0.5 is half); NULL: no record has one';

CREATE TABLE public.strategy_metrics_rollup_300 (
    strategy_name text CONSTRAINT strategy_metrics_rollup_strategy_name_not_null NOT NULL,
    resolution integer CONSTRAINT strategy_metrics_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT strategy_metrics_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT strategy_metrics_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    pnl_count bigint,
    pnl_sum double precision,
    pnl_min double precision,
    pnl_max double precision,
    pnl_last double precision,
    daily_pnl_count bigint,
    daily_pnl_sum double precision,
    daily_pnl_min double precision,
    daily_pnl_max double precision,
    daily_pnl_last double precision,
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
    win_rate_sum double precision,
    win_rate_min double precision,
    win_rate_max double precision,
    win_rate_last double precision
)
WITH (fillfactor='70');

CREATE TABLE public.strategy_metrics_rollup_3600 (
    strategy_name text CONSTRAINT strategy_metrics_rollup_strategy_name_not_null NOT NULL,
    resolution integer CONSTRAINT strategy_metrics_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT strategy_metrics_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT strategy_metrics_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    pnl_count bigint,
    pnl_sum double precision,
    pnl_min double precision,
    pnl_max double precision,
    pnl_last double precision,
    daily_pnl_count bigint,
    daily_pnl_sum double precision,
    daily_pnl_min double precision,
    daily_pnl_max double precision,
    daily_pnl_last double precision,
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
    win_rate_sum double precision,
    win_rate_min double precision,
    win_rate_max double precision,
    win_rate_last double precision
)
WITH (fillfactor='70');

CREATE TABLE public.strategy_metrics_rollup_60 (
    strategy_name text CONSTRAINT strategy_metrics_rollup_strategy_name_not_null NOT NULL,
    resolution integer CONSTRAINT strategy_metrics_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT strategy_metrics_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT strategy_metrics_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    pnl_count bigint,
    pnl_sum double precision,
    pnl_min double precision,
    pnl_max double precision,
    pnl_last double precision,
    daily_pnl_count bigint,
    daily_pnl_sum double precision,
    daily_pnl_min double precision,
    daily_pnl_max double precision,
    daily_pnl_last double precision,
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
    win_rate_sum double precision,
    win_rate_min double precision,
    win_rate_max double precision,
    win_rate_last double precision
)
WITH (fillfactor='70');

CREATE TABLE public.symbol_aliases (
    alias text NOT NULL,
    symbol_id integer NOT NULL,
    CONSTRAINT symbol_aliases_text CHECK ((((char_length(alias) >= 1) AND (char_length(alias) <= 64)) AND (alias !~ '[\u0001-\u001f\u007f-\u009f]'::text)))
);

COMMENT ON TABLE public.symbol_aliases IS 'Other names under which a symbol is sent and asked for';

COMMENT ON COLUMN public.symbol_aliases.alias IS 'The other name; unique in any case';

COMMENT ON COLUMN public.symbol_aliases.symbol_id IS 'instruments.symbol_id';

CREATE TABLE public.system_metrics (
    host text NOT NULL,
    "time" timestamp with time zone NOT NULL,
    cpu_percent double precision,
    memory_percent double precision,
    disk_usage_percent double precision,
    uptime_seconds double precision,
    health_status text,
    active_alerts bigint,
    received_at timestamp with time zone NOT NULL
)
PARTITION BY RANGE ("time");

COMMENT ON TABLE public.system_metrics IS 'Hosts at moments';

COMMENT ON COLUMN public.system_metrics.host IS 'The host (name)';

COMMENT ON COLUMN public.system_metrics."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.system_metrics.cpu_percent IS 'Processors that are busy (%); NULL: not known';

COMMENT ON COLUMN public.system_metrics.memory_percent IS 'Memory in use (%); NULL: not known';

COMMENT ON COLUMN public.system_metrics.disk_usage_percent IS 'Disk of the data directory in use (%); NULL: not known';

COMMENT ON COLUMN public.system_metrics.uptime_seconds IS 'Since the server''s start (s); NULL: not known';

COMMENT ON COLUMN public.system_metrics.health_status IS 'Healthy, unhealthy or what a sender says (word); NULL: not known';

COMMENT ON COLUMN public.system_metrics.active_alerts IS 'Alerts that hold now (count); NULL: not known';

COMMENT ON COLUMN public.system_metrics.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE public.system_metrics_rollup (
    host text NOT NULL,
    resolution integer NOT NULL,
    "time" timestamp with time zone NOT NULL,
    rows bigint NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    cpu_percent_count bigint,
    cpu_percent_sum double precision,
    cpu_percent_min double precision,
    cpu_percent_max double precision,
    cpu_percent_last double precision,
    memory_percent_count bigint,
    memory_percent_sum double precision,
    memory_percent_min double precision,
    memory_percent_max double precision,
    memory_percent_last double precision,
    disk_usage_percent_count bigint,
    disk_usage_percent_sum double precision,
    disk_usage_percent_min double precision,
    disk_usage_percent_max double precision,
    disk_usage_percent_last double precision,
    uptime_seconds_count bigint,
    uptime_seconds_sum double precision,
    uptime_seconds_min double precision,
    uptime_seconds_max double precision,
    uptime_seconds_last double precision,
    health_status_last text,
    active_alerts_count bigint,
    active_alerts_sum numeric,
    active_alerts_min bigint,
    active_alerts_max bigint,
    active_alerts_last bigint
)
PARTITION BY LIST (resolution);

COMMENT ON TABLE public.system_metrics_rollup IS 'Hosts at moments: by minute, five minutes and hour';

COMMENT ON COLUMN public.system_metrics_rollup.host IS 'The host (name)';

COMMENT ON COLUMN public.system_metrics_rollup.resolution IS 'Length of the bucket (seconds): 60, 300 or 3600';

COMMENT ON COLUMN public.system_metrics_rollup."time" IS 'Start of the bucket (UTC)';

COMMENT ON COLUMN public.system_metrics_rollup.rows IS 'Records in the bucket (count)';

COMMENT ON COLUMN public.system_metrics_rollup.first_time IS 'Time of its first record (UTC, microseconds)';

COMMENT ON COLUMN public.system_metrics_rollup.last_time IS 'Time of its last record (UTC, microseconds)';

COMMENT ON COLUMN public.system_metrics_rollup.cpu_percent_count IS 'Records that have cpu_percent (count)';

COMMENT ON COLUMN public.system_metrics_rollup.cpu_percent_sum IS 'Sum of: processors that are busy (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.cpu_percent_min IS 'Least of: processors that are busy (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.cpu_percent_max IS 'Greatest of: processors that are busy (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.cpu_percent_last IS 'Newest of: processors that are busy (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.memory_percent_count IS 'Records that have memory_percent (count)';

COMMENT ON COLUMN public.system_metrics_rollup.memory_percent_sum IS 'Sum of: memory in use (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.memory_percent_min IS 'Least of: memory in use (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.memory_percent_max IS 'Greatest of: memory in use (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.memory_percent_last IS 'Newest of: memory in use (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.disk_usage_percent_count IS 'Records that have disk_usage_percent (count)';

COMMENT ON COLUMN public.system_metrics_rollup.disk_usage_percent_sum IS 'Sum of: disk of the data directory in use (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.disk_usage_percent_min IS 'Least of: disk of the data directory in use (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.disk_usage_percent_max IS 'Greatest of: disk of the data directory in use (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.disk_usage_percent_last IS 'Newest of: disk of the data directory in use (%); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.uptime_seconds_count IS 'Records that have uptime_seconds (count)';

COMMENT ON COLUMN public.system_metrics_rollup.uptime_seconds_sum IS 'Sum of: since the server''s start (s); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.uptime_seconds_min IS 'Least of: since the server''s start (s); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.uptime_seconds_max IS 'Greatest of: since the server''s start (s); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.uptime_seconds_last IS 'Newest of: since the server''s start (s); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.health_status_last IS 'Newest of: healthy, unhealthy or what a sender says (word); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.active_alerts_count IS 'Records that have active_alerts (count)';

COMMENT ON COLUMN public.system_metrics_rollup.active_alerts_sum IS 'Sum of: alerts that hold now (count); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.active_alerts_min IS 'Least of: alerts that hold now (count); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.active_alerts_max IS 'Greatest of: alerts that hold now (count); NULL: no record has one';

COMMENT ON COLUMN public.system_metrics_rollup.active_alerts_last IS 'Newest of: alerts that hold now (count); NULL: no record has one';

CREATE TABLE public.system_metrics_rollup_300 (
    host text CONSTRAINT system_metrics_rollup_host_not_null NOT NULL,
    resolution integer CONSTRAINT system_metrics_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT system_metrics_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT system_metrics_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    cpu_percent_count bigint,
    cpu_percent_sum double precision,
    cpu_percent_min double precision,
    cpu_percent_max double precision,
    cpu_percent_last double precision,
    memory_percent_count bigint,
    memory_percent_sum double precision,
    memory_percent_min double precision,
    memory_percent_max double precision,
    memory_percent_last double precision,
    disk_usage_percent_count bigint,
    disk_usage_percent_sum double precision,
    disk_usage_percent_min double precision,
    disk_usage_percent_max double precision,
    disk_usage_percent_last double precision,
    uptime_seconds_count bigint,
    uptime_seconds_sum double precision,
    uptime_seconds_min double precision,
    uptime_seconds_max double precision,
    uptime_seconds_last double precision,
    health_status_last text,
    active_alerts_count bigint,
    active_alerts_sum numeric,
    active_alerts_min bigint,
    active_alerts_max bigint,
    active_alerts_last bigint
)
WITH (fillfactor='70');

CREATE TABLE public.system_metrics_rollup_3600 (
    host text CONSTRAINT system_metrics_rollup_host_not_null NOT NULL,
    resolution integer CONSTRAINT system_metrics_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT system_metrics_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT system_metrics_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    cpu_percent_count bigint,
    cpu_percent_sum double precision,
    cpu_percent_min double precision,
    cpu_percent_max double precision,
    cpu_percent_last double precision,
    memory_percent_count bigint,
    memory_percent_sum double precision,
    memory_percent_min double precision,
    memory_percent_max double precision,
    memory_percent_last double precision,
    disk_usage_percent_count bigint,
    disk_usage_percent_sum double precision,
    disk_usage_percent_min double precision,
    disk_usage_percent_max double precision,
    disk_usage_percent_last double precision,
    uptime_seconds_count bigint,
    uptime_seconds_sum double precision,
    uptime_seconds_min double precision,
    uptime_seconds_max double precision,
    uptime_seconds_last double precision,
    health_status_last text,
    active_alerts_count bigint,
    active_alerts_sum numeric,
    active_alerts_min bigint,
    active_alerts_max bigint,
    active_alerts_last bigint
)
WITH (fillfactor='70');

CREATE TABLE public.system_metrics_rollup_60 (
    host text CONSTRAINT system_metrics_rollup_host_not_null NOT NULL,
    resolution integer CONSTRAINT system_metrics_rollup_resolution_not_null NOT NULL,
    "time" timestamp with time zone CONSTRAINT system_metrics_rollup_time_not_null NOT NULL,
    rows bigint CONSTRAINT system_metrics_rollup_rows_not_null NOT NULL,
    first_time timestamp with time zone,
    last_time timestamp with time zone,
    cpu_percent_count bigint,
    cpu_percent_sum double precision,
    cpu_percent_min double precision,
    cpu_percent_max double precision,
    cpu_percent_last double precision,
    memory_percent_count bigint,
    memory_percent_sum double precision,
    memory_percent_min double precision,
    memory_percent_max double precision,
    memory_percent_last double precision,
    disk_usage_percent_count bigint,
    disk_usage_percent_sum double precision,
    disk_usage_percent_min double precision,
    disk_usage_percent_max double precision,
    disk_usage_percent_last double precision,
    uptime_seconds_count bigint,
    uptime_seconds_sum double precision,
    uptime_seconds_min double precision,
    uptime_seconds_max double precision,
    uptime_seconds_last double precision,
    health_status_last text,
    active_alerts_count bigint,
    active_alerts_sum numeric,
    active_alerts_min bigint,
    active_alerts_max bigint,
    active_alerts_last bigint
)
WITH (fillfactor='70');

CREATE TABLE public.tick_ranges (
    range tstzrange NOT NULL,
    state text NOT NULL,
    manifest text,
    manifest_sha256 text,
    rows bigint,
    derived_rows bigint,
    bytes bigint,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT tick_ranges_archived CHECK (((state <> 'archived'::text) OR (ROW(manifest, manifest_sha256, rows, derived_rows, bytes) IS NOT NULL))),
    CONSTRAINT tick_ranges_range_check CHECK ((NOT isempty(range))),
    CONSTRAINT tick_ranges_state_check CHECK ((state = ANY (ARRAY['hot'::text, 'archiving'::text, 'archived'::text, 'dropped'::text])))
);

COMMENT ON TABLE public.tick_ranges IS 'Where the ticks of a time range are; a range that is not listed is hot';

COMMENT ON COLUMN public.tick_ranges.range IS 'Time range (UTC)';

COMMENT ON COLUMN public.tick_ranges.state IS 'hot: in ticks; archiving; archived: in files; dropped: nowhere';

COMMENT ON COLUMN public.tick_ranges.manifest IS 'Path of the file that says which files hold the ticks, from archive_dir; NULL: not archived';

COMMENT ON COLUMN public.tick_ranges.manifest_sha256 IS 'SHA-256 of that file (hex); NULL: not archived';

COMMENT ON COLUMN public.tick_ranges.rows IS 'Ticks in those files; NULL: not archived';

COMMENT ON COLUMN public.tick_ranges.derived_rows IS 'Those of them that were sent without seq; NULL: not archived';

COMMENT ON COLUMN public.tick_ranges.bytes IS 'Size of those files (bytes); NULL: not archived';

COMMENT ON COLUMN public.tick_ranges.changed_at IS 'When the row last changed (UTC)';

CREATE VIEW public.ticks_view AS
 SELECT i.symbol,
    t."time",
    t.seq,
    t.bid,
    t.ask,
    t.last,
    t.spread,
    t.volume,
    t.buy_volume,
    t.sell_volume,
    t.flags,
    t.received_at
   FROM (public.ticks t
     JOIN public.instruments i USING (symbol_id));

COMMENT ON VIEW public.ticks_view IS 'Every tick with the name of its symbol; ask for a symbol and a range of time';

COMMENT ON COLUMN public.ticks_view.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.ticks_view."time" IS 'When it happened (UTC, microseconds)';

COMMENT ON COLUMN public.ticks_view.seq IS 'Ordinal at that time if >= 0 (the sender''s), else derived from the content';

COMMENT ON COLUMN public.ticks_view.bid IS 'Bid (price); NULL: none was sent';

COMMENT ON COLUMN public.ticks_view.ask IS 'Ask (price); NULL: none was sent';

COMMENT ON COLUMN public.ticks_view.last IS 'Last trade (price); a stale repeat unless flags & 8; NULL: none was sent';

COMMENT ON COLUMN public.ticks_view.spread IS 'ask - bid (points: 10^-digits of a price unit); NULL: not known';

COMMENT ON COLUMN public.ticks_view.volume IS 'Volume as sent (instrument''s units); a stale repeat unless flags & 8';

COMMENT ON COLUMN public.ticks_view.buy_volume IS 'Volume of a trade by a buyer (flags & 8 and & 32; instrument''s units), else 0';

COMMENT ON COLUMN public.ticks_view.sell_volume IS 'Volume of a trade by a seller (flags & 8 and & 64; instrument''s units), else 0';

COMMENT ON COLUMN public.ticks_view.flags IS 'Bits: bid 2, ask 4, last 8, volume 16, buy 32, sell 64; others kept';

COMMENT ON COLUMN public.ticks_view.received_at IS 'When it was accepted (UTC, microseconds); rises within a journal';

CREATE VIEW public.trades AS
 SELECT symbol,
    symbol_id,
    "time",
    seq,
    price,
    volume,
    value,
    trade_type,
    bid_price,
    ask_price,
    received_at
   FROM public.trades_between('-infinity'::timestamp with time zone, 'infinity'::timestamp with time zone) trades_between(symbol, symbol_id, "time", seq, price, volume, value, trade_type, bid_price, ask_price, received_at);

COMMENT ON VIEW public.trades IS 'Every trade, sent or of a trade tick, with the quote at it and its side; ask for a symbol and a range of time';

COMMENT ON COLUMN public.trades.symbol IS 'instruments.symbol';

COMMENT ON COLUMN public.trades.symbol_id IS 'instruments.symbol_id';

COMMENT ON COLUMN public.trades."time" IS 'When it was (UTC, microseconds)';

COMMENT ON COLUMN public.trades.seq IS 'Ordinal at that time if >= 0 (the sender''s), else derived from the content';

COMMENT ON COLUMN public.trades.price IS 'What was paid (price)';

COMMENT ON COLUMN public.trades.volume IS 'How much (instrument''s units); NULL: not known';

COMMENT ON COLUMN public.trades.value IS 'As sent, else price x volume (the price''s currency); NULL: not known';

COMMENT ON COLUMN public.trades.trade_type IS 'Who crossed the spread: as sent, else by the tick''s flags, else by the quote: above its middle buy, below sell';

COMMENT ON COLUMN public.trades.bid_price IS 'Bid (price): as sent, else the tick''s, else the newest one before it, of the last 7 days; NULL: there was none';

COMMENT ON COLUMN public.trades.ask_price IS 'Ask (price): as sent, else the tick''s, else the newest one before it, of the last 7 days; NULL: there was none';

COMMENT ON COLUMN public.trades.received_at IS 'When it was accepted (UTC, microseconds)';

CREATE TABLE secret.api_keys (
    key_no integer NOT NULL,
    prefix text NOT NULL,
    name text NOT NULL,
    hash bytea NOT NULL,
    scopes text[] NOT NULL,
    rate_per_s double precision,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT api_keys_hash_check CHECK ((octet_length(hash) = 32)),
    CONSTRAINT api_keys_name_check CHECK (((length(name) >= 1) AND (length(name) <= 100))),
    CONSTRAINT api_keys_prefix_check CHECK ((prefix ~ '^[a-z0-9]{8}$'::text)),
    CONSTRAINT api_keys_rate_per_s_check CHECK ((rate_per_s > (0)::double precision)),
    CONSTRAINT api_keys_scopes_check CHECK (((cardinality(scopes) > 0) AND (scopes <@ ARRAY['ingest'::text, 'read'::text, 'admin'::text])))
);

COMMENT ON TABLE secret.api_keys IS 'API keys (python -m app keys); one that was revoked stays, or the door would open';

COMMENT ON COLUMN secret.api_keys.key_no IS 'Number of the key (count)';

COMMENT ON COLUMN secret.api_keys.prefix IS 'Beginning of the key, by which people know it (name)';

COMMENT ON COLUMN secret.api_keys.name IS 'Whose it is or what for (name)';

COMMENT ON COLUMN secret.api_keys.hash IS 'SHA-256 of the whole key (32 bytes)';

COMMENT ON COLUMN secret.api_keys.scopes IS 'What it allows: ingest, read, admin (names)';

COMMENT ON COLUMN secret.api_keys.rate_per_s IS 'Most requests in a second (1/s); NULL: as the settings say';

COMMENT ON COLUMN secret.api_keys.created_at IS 'When it was made (UTC, microseconds)';

COMMENT ON COLUMN secret.api_keys.expires_at IS 'Until when it holds (UTC, microseconds); NULL: for ever';

COMMENT ON COLUMN secret.api_keys.revoked_at IS 'Since when it holds no more (UTC, microseconds); NULL: never revoked';

ALTER TABLE secret.api_keys ALTER COLUMN key_no ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME secret.api_keys_key_no_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW secret.keys_in_force WITH (security_barrier='true') AS
 SELECT key_no,
    prefix,
    name,
    hash,
    scopes,
    rate_per_s,
    (EXTRACT(epoch FROM expires_at))::double precision AS expires_s
   FROM secret.api_keys
  WHERE ((revoked_at IS NULL) AND ((expires_at IS NULL) OR (expires_at > now())));

COMMENT ON VIEW secret.keys_in_force IS 'API keys that hold at this moment; what the server reads of them';

COMMENT ON COLUMN secret.keys_in_force.key_no IS 'Number of the key (count)';

COMMENT ON COLUMN secret.keys_in_force.prefix IS 'Beginning of the key, by which people know it (name)';

COMMENT ON COLUMN secret.keys_in_force.name IS 'Whose it is or what for (name)';

COMMENT ON COLUMN secret.keys_in_force.hash IS 'SHA-256 of the whole key (32 bytes)';

COMMENT ON COLUMN secret.keys_in_force.scopes IS 'What it allows: ingest, read, admin (names)';

COMMENT ON COLUMN secret.keys_in_force.rate_per_s IS 'Most requests in a second (1/s); NULL: as the settings say';

COMMENT ON COLUMN secret.keys_in_force.expires_s IS 'Until when it holds (s since 1970, UTC); NULL: for ever';

CREATE VIEW secret.keys_made AS
 SELECT (EXISTS ( SELECT
           FROM secret.api_keys)) AS keys_made;

COMMENT ON VIEW secret.keys_made IS 'Whether any API key was ever made; from then on every request needs one';

COMMENT ON COLUMN secret.keys_made.keys_made IS 'Whether any was (true or false)';

ALTER TABLE ONLY public.execution_metrics_rollup ATTACH PARTITION public.execution_metrics_rollup_300 FOR VALUES IN (300);

ALTER TABLE ONLY public.execution_metrics_rollup ATTACH PARTITION public.execution_metrics_rollup_3600 FOR VALUES IN (3600);

ALTER TABLE ONLY public.execution_metrics_rollup ATTACH PARTITION public.execution_metrics_rollup_60 FOR VALUES IN (60);

ALTER TABLE ONLY public.market_data_rollup ATTACH PARTITION public.market_data_rollup_300 FOR VALUES IN (300);

ALTER TABLE ONLY public.market_data_rollup ATTACH PARTITION public.market_data_rollup_3600 FOR VALUES IN (3600);

ALTER TABLE ONLY public.market_data_rollup ATTACH PARTITION public.market_data_rollup_60 FOR VALUES IN (60);

ALTER TABLE ONLY public.strategy_metrics_rollup ATTACH PARTITION public.strategy_metrics_rollup_300 FOR VALUES IN (300);

ALTER TABLE ONLY public.strategy_metrics_rollup ATTACH PARTITION public.strategy_metrics_rollup_3600 FOR VALUES IN (3600);

ALTER TABLE ONLY public.strategy_metrics_rollup ATTACH PARTITION public.strategy_metrics_rollup_60 FOR VALUES IN (60);

ALTER TABLE ONLY public.system_metrics_rollup ATTACH PARTITION public.system_metrics_rollup_300 FOR VALUES IN (300);

ALTER TABLE ONLY public.system_metrics_rollup ATTACH PARTITION public.system_metrics_rollup_3600 FOR VALUES IN (3600);

ALTER TABLE ONLY public.system_metrics_rollup ATTACH PARTITION public.system_metrics_rollup_60 FOR VALUES IN (60);

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY public.alert_outbox
    ADD CONSTRAINT alert_outbox_pkey PRIMARY KEY (alert_id);

ALTER TABLE ONLY public.alert_progress
    ADD CONSTRAINT alert_progress_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.alert_rules
    ADD CONSTRAINT alert_rules_pkey PRIMARY KEY (rule_id);

ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_pkey PRIMARY KEY (alert_id);

ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_symbol_id_time_alert_type_message_key UNIQUE NULLS NOT DISTINCT (symbol_id, "time", alert_type, message);

ALTER TABLE ONLY public.audit_log
    ADD CONSTRAINT audit_log_pkey PRIMARY KEY (audit_id);

ALTER TABLE ONLY public.backtests
    ADD CONSTRAINT backtests_pkey PRIMARY KEY (backtest_id);

ALTER TABLE ONLY public.bars
    ADD CONSTRAINT bars_pkey PRIMARY KEY (symbol_id, resolution, "time");

ALTER TABLE ONLY public.basis_history
    ADD CONSTRAINT basis_history_pkey PRIMARY KEY (futures_symbol, "time");

ALTER TABLE ONLY public.collected
    ADD CONSTRAINT collected_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.corporate_actions
    ADD CONSTRAINT corporate_actions_pkey PRIMARY KEY (symbol_id, ex_date, action_type);

ALTER TABLE ONLY public.current
    ADD CONSTRAINT current_pkey PRIMARY KEY (symbol);

ALTER TABLE ONLY public.execution_metrics
    ADD CONSTRAINT execution_metrics_pkey PRIMARY KEY ("time");

ALTER TABLE ONLY public.execution_metrics_rollup
    ADD CONSTRAINT execution_metrics_rollup_pkey PRIMARY KEY (resolution, "time");

ALTER TABLE ONLY public.execution_metrics_rollup_300
    ADD CONSTRAINT execution_metrics_rollup_300_pkey PRIMARY KEY (resolution, "time");

ALTER TABLE ONLY public.execution_metrics_rollup_3600
    ADD CONSTRAINT execution_metrics_rollup_3600_pkey PRIMARY KEY (resolution, "time");

ALTER TABLE ONLY public.execution_metrics_rollup_60
    ADD CONSTRAINT execution_metrics_rollup_60_pkey PRIMARY KEY (resolution, "time");

ALTER TABLE ONLY public.fills
    ADD CONSTRAINT fills_pkey PRIMARY KEY (trade_id);

ALTER TABLE ONLY public.financial_info
    ADD CONSTRAINT financial_info_pkey PRIMARY KEY (symbol_id, date);

ALTER TABLE ONLY public.foreign_snapshots
    ADD CONSTRAINT foreign_snapshots_pkey PRIMARY KEY (symbol_id, "time");

ALTER TABLE ONLY public.ingest_log
    ADD CONSTRAINT ingest_log_journal_no_key UNIQUE (journal_no);

ALTER TABLE ONLY public.ingest_log
    ADD CONSTRAINT ingest_log_pkey PRIMARY KEY (journal_id);

ALTER TABLE ONLY public.instruments
    ADD CONSTRAINT instruments_pkey PRIMARY KEY (symbol_id);

ALTER TABLE ONLY public.instruments
    ADD CONSTRAINT instruments_symbol_key UNIQUE (symbol);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.kept_from
    ADD CONSTRAINT kept_from_pkey PRIMARY KEY (dataset);

ALTER TABLE ONLY public.late_ticks
    ADD CONSTRAINT late_ticks_pkey PRIMARY KEY (symbol_id, "time", seq);

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.market_data
    ADD CONSTRAINT market_data_pkey PRIMARY KEY (symbol_id, "time");

ALTER TABLE ONLY public.market_data_rollup
    ADD CONSTRAINT market_data_rollup_pkey PRIMARY KEY (symbol_id, resolution, "time");

ALTER TABLE ONLY public.market_data_rollup_300
    ADD CONSTRAINT market_data_rollup_300_pkey PRIMARY KEY (symbol_id, resolution, "time");

ALTER TABLE ONLY public.market_data_rollup_3600
    ADD CONSTRAINT market_data_rollup_3600_pkey PRIMARY KEY (symbol_id, resolution, "time");

ALTER TABLE ONLY public.market_data_rollup_60
    ADD CONSTRAINT market_data_rollup_60_pkey PRIMARY KEY (symbol_id, resolution, "time");

ALTER TABLE ONLY public.news
    ADD CONSTRAINT news_pkey PRIMARY KEY (symbol_id, "time", url);

ALTER TABLE ONLY public.option_quotes
    ADD CONSTRAINT option_quotes_pkey PRIMARY KEY (symbol_id, expiration_date, strike_price, option_type, "time");

ALTER TABLE ONLY public.price_history
    ADD CONSTRAINT price_history_pkey PRIMARY KEY (symbol_id, "interval", "time", source);

ALTER TABLE ONLY public.rejected_records
    ADD CONSTRAINT rejected_records_pkey PRIMARY KEY (journal_no, row_no);

ALTER TABLE ONLY public.rejected_ticks
    ADD CONSTRAINT rejected_ticks_pkey PRIMARY KEY (journal_no, row_no);

ALTER TABLE ONLY public.resent_ticks
    ADD CONSTRAINT resent_ticks_pkey PRIMARY KEY (symbol_id, "time", journal_no);

ALTER TABLE ONLY public.strategies
    ADD CONSTRAINT strategies_pkey PRIMARY KEY (strategy_name);

ALTER TABLE ONLY public.strategy_metrics
    ADD CONSTRAINT strategy_metrics_pkey PRIMARY KEY (strategy_name, "time");

ALTER TABLE ONLY public.strategy_metrics_rollup
    ADD CONSTRAINT strategy_metrics_rollup_pkey PRIMARY KEY (strategy_name, resolution, "time");

ALTER TABLE ONLY public.strategy_metrics_rollup_300
    ADD CONSTRAINT strategy_metrics_rollup_300_pkey PRIMARY KEY (strategy_name, resolution, "time");

ALTER TABLE ONLY public.strategy_metrics_rollup_3600
    ADD CONSTRAINT strategy_metrics_rollup_3600_pkey PRIMARY KEY (strategy_name, resolution, "time");

ALTER TABLE ONLY public.strategy_metrics_rollup_60
    ADD CONSTRAINT strategy_metrics_rollup_60_pkey PRIMARY KEY (strategy_name, resolution, "time");

ALTER TABLE ONLY public.symbol_aliases
    ADD CONSTRAINT symbol_aliases_pkey PRIMARY KEY (alias);

ALTER TABLE ONLY public.system_metrics
    ADD CONSTRAINT system_metrics_pkey PRIMARY KEY (host, "time");

ALTER TABLE ONLY public.system_metrics_rollup
    ADD CONSTRAINT system_metrics_rollup_pkey PRIMARY KEY (host, resolution, "time");

ALTER TABLE ONLY public.system_metrics_rollup_300
    ADD CONSTRAINT system_metrics_rollup_300_pkey PRIMARY KEY (host, resolution, "time");

ALTER TABLE ONLY public.system_metrics_rollup_3600
    ADD CONSTRAINT system_metrics_rollup_3600_pkey PRIMARY KEY (host, resolution, "time");

ALTER TABLE ONLY public.system_metrics_rollup_60
    ADD CONSTRAINT system_metrics_rollup_60_pkey PRIMARY KEY (host, resolution, "time");

ALTER TABLE ONLY public.tick_ranges
    ADD CONSTRAINT tick_ranges_apart EXCLUDE USING gist (range WITH &&);

ALTER TABLE ONLY public.ticks
    ADD CONSTRAINT ticks_pkey PRIMARY KEY (symbol_id, "time", seq);

ALTER TABLE ONLY public.trades_sent
    ADD CONSTRAINT trades_sent_pkey PRIMARY KEY (symbol_id, "time", seq);

ALTER TABLE ONLY secret.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (key_no);

ALTER TABLE ONLY secret.api_keys
    ADD CONSTRAINT api_keys_prefix_key UNIQUE (prefix);

CREATE INDEX alert_rules_symbol_id ON public.alert_rules USING btree (symbol_id);

CREATE INDEX alerts_of_rules ON public.alerts USING btree (alert_id) WHERE (rule_id IS NOT NULL);

CREATE INDEX alerts_time ON public.alerts USING btree ("time", alert_id);

CREATE INDEX audit_log_at ON public.audit_log USING btree (at);

CREATE INDEX bars_5m_key ON public.bars USING btree (((symbol_id + 0)), resolution, date_bin('00:05:00'::interval, "time", '1970-01-01 00:00:00+00'::timestamp with time zone));

CREATE INDEX basis_history_order ON public.basis_history USING btree ("time", futures_symbol);

CREATE INDEX corporate_actions_order ON public.corporate_actions USING btree (ex_date, action_type, symbol_id);

CREATE INDEX fills_order ON public.fills USING btree ("time", trade_id);

CREATE INDEX fills_symbol_id_time ON public.fills USING btree (symbol_id, "time");

CREATE INDEX financial_info_order ON public.financial_info USING btree (date, symbol_id);

CREATE INDEX foreign_snapshots_order ON public.foreign_snapshots USING btree ("time", symbol_id);

CREATE UNIQUE INDEX instruments_upper_symbol ON public.instruments USING btree (upper(symbol));

CREATE INDEX late_ticks_time ON public.late_ticks USING btree ("time");

CREATE INDEX market_data_order ON ONLY public.market_data USING btree ("time", symbol_id);

CREATE INDEX market_data_rollup_order ON ONLY public.market_data_rollup USING btree (resolution, "time", symbol_id);

CREATE INDEX market_data_rollup_300_resolution_time_symbol_id_idx ON public.market_data_rollup_300 USING btree (resolution, "time", symbol_id);

CREATE INDEX market_data_rollup_3600_resolution_time_symbol_id_idx ON public.market_data_rollup_3600 USING btree (resolution, "time", symbol_id);

CREATE INDEX market_data_rollup_60_resolution_time_symbol_id_idx ON public.market_data_rollup_60 USING btree (resolution, "time", symbol_id);

CREATE INDEX news_order ON public.news USING btree ("time", url, symbol_id);

CREATE INDEX option_quotes_order ON ONLY public.option_quotes USING btree ("time", expiration_date, strike_price, option_type, symbol_id);

CREATE INDEX option_quotes_time ON ONLY public.option_quotes USING btree (symbol_id, "time", expiration_date, strike_price, option_type);

CREATE INDEX price_history_order ON public.price_history USING btree ("time", "interval", source, symbol_id);

CREATE INDEX rejected_ticks_symbol_time ON public.rejected_ticks USING btree (symbol, "time");

CREATE INDEX strategy_metrics_order ON ONLY public.strategy_metrics USING btree ("time", strategy_name);

CREATE INDEX strategy_metrics_rollup_order ON ONLY public.strategy_metrics_rollup USING btree (resolution, "time", strategy_name);

CREATE INDEX strategy_metrics_rollup_300_resolution_time_strategy_name_idx ON public.strategy_metrics_rollup_300 USING btree (resolution, "time", strategy_name);

CREATE INDEX strategy_metrics_rollup_3600_resolution_time_strategy_name_idx ON public.strategy_metrics_rollup_3600 USING btree (resolution, "time", strategy_name);

CREATE INDEX strategy_metrics_rollup_60_resolution_time_strategy_name_idx ON public.strategy_metrics_rollup_60 USING btree (resolution, "time", strategy_name);

CREATE INDEX symbol_aliases_symbol_id ON public.symbol_aliases USING btree (symbol_id);

CREATE UNIQUE INDEX symbol_aliases_upper_alias ON public.symbol_aliases USING btree (upper(alias));

CREATE INDEX system_metrics_order ON ONLY public.system_metrics USING btree ("time", host);

CREATE INDEX system_metrics_rollup_order ON ONLY public.system_metrics_rollup USING btree (resolution, "time", host);

CREATE INDEX system_metrics_rollup_300_resolution_time_host_idx ON public.system_metrics_rollup_300 USING btree (resolution, "time", host);

CREATE INDEX system_metrics_rollup_3600_resolution_time_host_idx ON public.system_metrics_rollup_3600 USING btree (resolution, "time", host);

CREATE INDEX system_metrics_rollup_60_resolution_time_host_idx ON public.system_metrics_rollup_60 USING btree (resolution, "time", host);

CREATE INDEX ticks_received_at ON ONLY public.ticks USING brin (received_at) WITH (pages_per_range='32', autosummarize='on');

CREATE INDEX trades_sent_order ON public.trades_sent USING btree ("time", seq, symbol_id);

ALTER INDEX public.execution_metrics_rollup_pkey ATTACH PARTITION public.execution_metrics_rollup_300_pkey;

ALTER INDEX public.execution_metrics_rollup_pkey ATTACH PARTITION public.execution_metrics_rollup_3600_pkey;

ALTER INDEX public.execution_metrics_rollup_pkey ATTACH PARTITION public.execution_metrics_rollup_60_pkey;

ALTER INDEX public.market_data_rollup_pkey ATTACH PARTITION public.market_data_rollup_300_pkey;

ALTER INDEX public.market_data_rollup_order ATTACH PARTITION public.market_data_rollup_300_resolution_time_symbol_id_idx;

ALTER INDEX public.market_data_rollup_pkey ATTACH PARTITION public.market_data_rollup_3600_pkey;

ALTER INDEX public.market_data_rollup_order ATTACH PARTITION public.market_data_rollup_3600_resolution_time_symbol_id_idx;

ALTER INDEX public.market_data_rollup_pkey ATTACH PARTITION public.market_data_rollup_60_pkey;

ALTER INDEX public.market_data_rollup_order ATTACH PARTITION public.market_data_rollup_60_resolution_time_symbol_id_idx;

ALTER INDEX public.strategy_metrics_rollup_pkey ATTACH PARTITION public.strategy_metrics_rollup_300_pkey;

ALTER INDEX public.strategy_metrics_rollup_order ATTACH PARTITION public.strategy_metrics_rollup_300_resolution_time_strategy_name_idx;

ALTER INDEX public.strategy_metrics_rollup_pkey ATTACH PARTITION public.strategy_metrics_rollup_3600_pkey;

ALTER INDEX public.strategy_metrics_rollup_order ATTACH PARTITION public.strategy_metrics_rollup_3600_resolution_time_strategy_name_idx;

ALTER INDEX public.strategy_metrics_rollup_pkey ATTACH PARTITION public.strategy_metrics_rollup_60_pkey;

ALTER INDEX public.strategy_metrics_rollup_order ATTACH PARTITION public.strategy_metrics_rollup_60_resolution_time_strategy_name_idx;

ALTER INDEX public.system_metrics_rollup_pkey ATTACH PARTITION public.system_metrics_rollup_300_pkey;

ALTER INDEX public.system_metrics_rollup_order ATTACH PARTITION public.system_metrics_rollup_300_resolution_time_host_idx;

ALTER INDEX public.system_metrics_rollup_pkey ATTACH PARTITION public.system_metrics_rollup_3600_pkey;

ALTER INDEX public.system_metrics_rollup_order ATTACH PARTITION public.system_metrics_rollup_3600_resolution_time_host_idx;

ALTER INDEX public.system_metrics_rollup_pkey ATTACH PARTITION public.system_metrics_rollup_60_pkey;

ALTER INDEX public.system_metrics_rollup_order ATTACH PARTITION public.system_metrics_rollup_60_resolution_time_host_idx;

CREATE TRIGGER history_view AFTER INSERT OR DELETE OR UPDATE OF symbol ON public.instruments FOR EACH ROW EXECUTE FUNCTION public.instruments_history_view();

ALTER TABLE ONLY public.alert_outbox
    ADD CONSTRAINT alert_outbox_alert_id_fkey FOREIGN KEY (alert_id) REFERENCES public.alerts(alert_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.alert_rules
    ADD CONSTRAINT alert_rules_symbol_id_fkey FOREIGN KEY (symbol_id) REFERENCES public.instruments(symbol_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_symbol_id_fkey FOREIGN KEY (symbol_id) REFERENCES public.instruments(symbol_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.symbol_aliases
    ADD CONSTRAINT symbol_aliases_symbol_id_fkey FOREIGN KEY (symbol_id) REFERENCES public.instruments(symbol_id) ON DELETE CASCADE;

GRANT USAGE ON SCHEMA history TO PUBLIC;
GRANT USAGE ON SCHEMA history TO tickhub_read;
GRANT USAGE ON SCHEMA history TO tickhub_write;
GRANT USAGE ON SCHEMA history TO tickhub_backup;

GRANT USAGE ON SCHEMA public TO tickhub_read;
GRANT USAGE ON SCHEMA public TO tickhub_write;
GRANT USAGE ON SCHEMA public TO tickhub_backup;

GRANT USAGE ON SCHEMA secret TO tickhub_write;
GRANT USAGE ON SCHEMA secret TO tickhub_backup;

GRANT ALL ON FUNCTION pg_catalog.pg_advisory_xact_lock(bigint) TO tickhub_write;

GRANT ALL ON FUNCTION pg_catalog.pg_advisory_xact_lock(integer, integer) TO tickhub_write;

REVOKE ALL ON FUNCTION public.instruments_history_view() FROM PUBLIC;

GRANT SELECT ON TABLE public.bars TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.bars TO tickhub_write;
GRANT SELECT ON TABLE public.bars TO tickhub_backup;

GRANT SELECT ON TABLE public.instruments TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.instruments TO tickhub_write;
GRANT SELECT ON TABLE public.instruments TO tickhub_backup;

GRANT SELECT ON TABLE public.ticks TO tickhub_read;
GRANT SELECT,INSERT ON TABLE public.ticks TO tickhub_write;
GRANT SELECT ON TABLE public.ticks TO tickhub_backup;

GRANT SELECT ON TABLE public.trades_sent TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.trades_sent TO tickhub_write;
GRANT SELECT ON TABLE public.trades_sent TO tickhub_backup;

GRANT SELECT ON TABLE public.alembic_version TO tickhub_read;
GRANT SELECT ON TABLE public.alembic_version TO tickhub_write;
GRANT SELECT ON TABLE public.alembic_version TO tickhub_backup;

GRANT SELECT ON TABLE public.alert_outbox TO tickhub_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.alert_outbox TO tickhub_write;
GRANT SELECT ON TABLE public.alert_outbox TO tickhub_backup;

GRANT SELECT ON TABLE public.alert_progress TO tickhub_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.alert_progress TO tickhub_write;
GRANT SELECT ON TABLE public.alert_progress TO tickhub_backup;

GRANT SELECT ON TABLE public.alert_rules TO tickhub_read;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.alert_rules TO tickhub_write;
GRANT SELECT ON TABLE public.alert_rules TO tickhub_backup;

GRANT SELECT ON SEQUENCE public.alert_rules_rule_id_seq TO tickhub_backup;

GRANT SELECT ON TABLE public.alerts TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.alerts TO tickhub_write;
GRANT SELECT ON TABLE public.alerts TO tickhub_backup;

GRANT SELECT ON SEQUENCE public.alerts_alert_id_seq TO tickhub_backup;

GRANT SELECT ON TABLE public.audit_log TO tickhub_read;
GRANT SELECT ON TABLE public.audit_log TO tickhub_write;
GRANT SELECT ON TABLE public.audit_log TO tickhub_backup;

GRANT SELECT ON SEQUENCE public.audit_log_audit_id_seq TO tickhub_backup;

GRANT SELECT ON TABLE public.backtests TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.backtests TO tickhub_write;
GRANT SELECT ON TABLE public.backtests TO tickhub_backup;

GRANT SELECT ON TABLE public.bars_1d TO tickhub_read;
GRANT SELECT ON TABLE public.bars_1d TO tickhub_write;
GRANT SELECT ON TABLE public.bars_1d TO tickhub_backup;

GRANT SELECT ON TABLE public.bars_1h TO tickhub_read;
GRANT SELECT ON TABLE public.bars_1h TO tickhub_write;
GRANT SELECT ON TABLE public.bars_1h TO tickhub_backup;

GRANT SELECT ON TABLE public.bars_1m TO tickhub_read;
GRANT SELECT ON TABLE public.bars_1m TO tickhub_write;
GRANT SELECT ON TABLE public.bars_1m TO tickhub_backup;

GRANT SELECT ON TABLE public.bars_5m TO tickhub_read;
GRANT SELECT ON TABLE public.bars_5m TO tickhub_write;
GRANT SELECT ON TABLE public.bars_5m TO tickhub_backup;

GRANT SELECT ON TABLE public.basis_history TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.basis_history TO tickhub_write;
GRANT SELECT ON TABLE public.basis_history TO tickhub_backup;

GRANT SELECT ON TABLE public.collected TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.collected TO tickhub_write;
GRANT SELECT ON TABLE public.collected TO tickhub_backup;

GRANT SELECT ON TABLE public.corporate_actions TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.corporate_actions TO tickhub_write;
GRANT SELECT ON TABLE public.corporate_actions TO tickhub_backup;

GRANT SELECT ON TABLE public.current TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.current TO tickhub_write;
GRANT SELECT ON TABLE public.current TO tickhub_backup;

GRANT SELECT ON TABLE public.price_history TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.price_history TO tickhub_write;
GRANT SELECT ON TABLE public.price_history TO tickhub_backup;

GRANT SELECT ON TABLE public.daily_ohlc TO tickhub_read;
GRANT SELECT ON TABLE public.daily_ohlc TO tickhub_write;
GRANT SELECT ON TABLE public.daily_ohlc TO tickhub_backup;

GRANT SELECT ON TABLE public.execution_metrics TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.execution_metrics TO tickhub_write;
GRANT SELECT ON TABLE public.execution_metrics TO tickhub_backup;

GRANT SELECT ON TABLE public.execution_metrics_rollup TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.execution_metrics_rollup TO tickhub_write;
GRANT SELECT ON TABLE public.execution_metrics_rollup TO tickhub_backup;

GRANT SELECT ON TABLE public.execution_metrics_rollup_300 TO tickhub_read;
GRANT SELECT ON TABLE public.execution_metrics_rollup_300 TO tickhub_backup;

GRANT SELECT ON TABLE public.execution_metrics_rollup_3600 TO tickhub_read;
GRANT SELECT ON TABLE public.execution_metrics_rollup_3600 TO tickhub_backup;

GRANT SELECT ON TABLE public.execution_metrics_rollup_60 TO tickhub_read;
GRANT SELECT ON TABLE public.execution_metrics_rollup_60 TO tickhub_backup;

GRANT SELECT ON TABLE public.fills TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.fills TO tickhub_write;
GRANT SELECT ON TABLE public.fills TO tickhub_backup;

GRANT SELECT ON TABLE public.financial_info TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.financial_info TO tickhub_write;
GRANT SELECT ON TABLE public.financial_info TO tickhub_backup;

GRANT SELECT ON TABLE public.foreign_snapshots TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.foreign_snapshots TO tickhub_write;
GRANT SELECT ON TABLE public.foreign_snapshots TO tickhub_backup;

GRANT SELECT ON TABLE public.ingest_log TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.ingest_log TO tickhub_write;
GRANT SELECT ON TABLE public.ingest_log TO tickhub_backup;

GRANT SELECT ON SEQUENCE public.ingest_log_journal_no_seq TO tickhub_backup;

GRANT SELECT ON SEQUENCE public.instruments_symbol_id_seq TO tickhub_backup;

GRANT SELECT ON TABLE public.jobs TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.jobs TO tickhub_write;
GRANT SELECT ON TABLE public.jobs TO tickhub_backup;

GRANT SELECT ON TABLE public.kept_from TO tickhub_read;
GRANT SELECT ON TABLE public.kept_from TO tickhub_write;
GRANT SELECT ON TABLE public.kept_from TO tickhub_backup;

GRANT SELECT ON TABLE public.late_ticks TO tickhub_read;
GRANT SELECT,INSERT ON TABLE public.late_ticks TO tickhub_write;
GRANT SELECT ON TABLE public.late_ticks TO tickhub_backup;

GRANT SELECT ON TABLE public.leases TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.leases TO tickhub_write;
GRANT SELECT ON TABLE public.leases TO tickhub_backup;

GRANT SELECT ON TABLE public.market_data TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.market_data TO tickhub_write;
GRANT SELECT ON TABLE public.market_data TO tickhub_backup;

GRANT SELECT ON TABLE public.market_data_rollup TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.market_data_rollup TO tickhub_write;
GRANT SELECT ON TABLE public.market_data_rollup TO tickhub_backup;

GRANT SELECT ON TABLE public.market_data_rollup_300 TO tickhub_read;
GRANT SELECT ON TABLE public.market_data_rollup_300 TO tickhub_backup;

GRANT SELECT ON TABLE public.market_data_rollup_3600 TO tickhub_read;
GRANT SELECT ON TABLE public.market_data_rollup_3600 TO tickhub_backup;

GRANT SELECT ON TABLE public.market_data_rollup_60 TO tickhub_read;
GRANT SELECT ON TABLE public.market_data_rollup_60 TO tickhub_backup;

GRANT SELECT ON TABLE public.market_volume_hourly TO tickhub_read;
GRANT SELECT ON TABLE public.market_volume_hourly TO tickhub_write;
GRANT SELECT ON TABLE public.market_volume_hourly TO tickhub_backup;

GRANT SELECT ON TABLE public.news TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.news TO tickhub_write;
GRANT SELECT ON TABLE public.news TO tickhub_backup;

GRANT SELECT ON TABLE public.option_quotes TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.option_quotes TO tickhub_write;
GRANT SELECT ON TABLE public.option_quotes TO tickhub_backup;

GRANT SELECT ON TABLE public.options_calls TO tickhub_read;
GRANT SELECT ON TABLE public.options_calls TO tickhub_write;
GRANT SELECT ON TABLE public.options_calls TO tickhub_backup;

GRANT SELECT ON TABLE public.options_puts TO tickhub_read;
GRANT SELECT ON TABLE public.options_puts TO tickhub_write;
GRANT SELECT ON TABLE public.options_puts TO tickhub_backup;

GRANT SELECT ON TABLE public.options_volume_daily TO tickhub_read;
GRANT SELECT ON TABLE public.options_volume_daily TO tickhub_write;
GRANT SELECT ON TABLE public.options_volume_daily TO tickhub_backup;

GRANT SELECT ON TABLE public.price_history_daily TO tickhub_read;
GRANT SELECT ON TABLE public.price_history_daily TO tickhub_write;
GRANT SELECT ON TABLE public.price_history_daily TO tickhub_backup;

GRANT SELECT ON TABLE public.price_history_monthly TO tickhub_read;
GRANT SELECT ON TABLE public.price_history_monthly TO tickhub_write;
GRANT SELECT ON TABLE public.price_history_monthly TO tickhub_backup;

GRANT SELECT ON TABLE public.price_history_weekly TO tickhub_read;
GRANT SELECT ON TABLE public.price_history_weekly TO tickhub_write;
GRANT SELECT ON TABLE public.price_history_weekly TO tickhub_backup;

GRANT SELECT ON TABLE public.rejected_records TO tickhub_read;
GRANT SELECT,INSERT ON TABLE public.rejected_records TO tickhub_write;
GRANT SELECT ON TABLE public.rejected_records TO tickhub_backup;

GRANT SELECT ON TABLE public.rejected_ticks TO tickhub_read;
GRANT SELECT,INSERT ON TABLE public.rejected_ticks TO tickhub_write;
GRANT SELECT ON TABLE public.rejected_ticks TO tickhub_backup;

GRANT SELECT ON TABLE public.resent_ticks TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.resent_ticks TO tickhub_write;
GRANT SELECT ON TABLE public.resent_ticks TO tickhub_backup;

GRANT SELECT ON TABLE public.sector_performance TO tickhub_read;
GRANT SELECT ON TABLE public.sector_performance TO tickhub_write;
GRANT SELECT ON TABLE public.sector_performance TO tickhub_backup;

GRANT SELECT ON TABLE public.strategies TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.strategies TO tickhub_write;
GRANT SELECT ON TABLE public.strategies TO tickhub_backup;

GRANT SELECT ON TABLE public.strategy_metrics TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.strategy_metrics TO tickhub_write;
GRANT SELECT ON TABLE public.strategy_metrics TO tickhub_backup;

GRANT SELECT ON TABLE public.strategy_metrics_rollup TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.strategy_metrics_rollup TO tickhub_write;
GRANT SELECT ON TABLE public.strategy_metrics_rollup TO tickhub_backup;

GRANT SELECT ON TABLE public.strategy_metrics_rollup_300 TO tickhub_read;
GRANT SELECT ON TABLE public.strategy_metrics_rollup_300 TO tickhub_backup;

GRANT SELECT ON TABLE public.strategy_metrics_rollup_3600 TO tickhub_read;
GRANT SELECT ON TABLE public.strategy_metrics_rollup_3600 TO tickhub_backup;

GRANT SELECT ON TABLE public.strategy_metrics_rollup_60 TO tickhub_read;
GRANT SELECT ON TABLE public.strategy_metrics_rollup_60 TO tickhub_backup;

GRANT SELECT ON TABLE public.symbol_aliases TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.symbol_aliases TO tickhub_write;
GRANT SELECT ON TABLE public.symbol_aliases TO tickhub_backup;

GRANT SELECT ON TABLE public.system_metrics TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.system_metrics TO tickhub_write;
GRANT SELECT ON TABLE public.system_metrics TO tickhub_backup;

GRANT SELECT ON TABLE public.system_metrics_rollup TO tickhub_read;
GRANT SELECT,INSERT,UPDATE ON TABLE public.system_metrics_rollup TO tickhub_write;
GRANT SELECT ON TABLE public.system_metrics_rollup TO tickhub_backup;

GRANT SELECT ON TABLE public.system_metrics_rollup_300 TO tickhub_read;
GRANT SELECT ON TABLE public.system_metrics_rollup_300 TO tickhub_backup;

GRANT SELECT ON TABLE public.system_metrics_rollup_3600 TO tickhub_read;
GRANT SELECT ON TABLE public.system_metrics_rollup_3600 TO tickhub_backup;

GRANT SELECT ON TABLE public.system_metrics_rollup_60 TO tickhub_read;
GRANT SELECT ON TABLE public.system_metrics_rollup_60 TO tickhub_backup;

GRANT SELECT ON TABLE public.tick_ranges TO tickhub_read;
GRANT SELECT ON TABLE public.tick_ranges TO tickhub_write;
GRANT SELECT ON TABLE public.tick_ranges TO tickhub_backup;

GRANT UPDATE(changed_at) ON TABLE public.tick_ranges TO tickhub_write;

GRANT SELECT ON TABLE public.ticks_view TO tickhub_read;
GRANT SELECT ON TABLE public.ticks_view TO tickhub_write;
GRANT SELECT ON TABLE public.ticks_view TO tickhub_backup;

GRANT SELECT ON TABLE public.trades TO tickhub_read;
GRANT SELECT ON TABLE public.trades TO tickhub_write;
GRANT SELECT ON TABLE public.trades TO tickhub_backup;

GRANT SELECT ON TABLE secret.api_keys TO tickhub_backup;

GRANT SELECT ON SEQUENCE secret.api_keys_key_no_seq TO tickhub_backup;

GRANT SELECT ON TABLE secret.keys_in_force TO tickhub_write;
GRANT SELECT ON TABLE secret.keys_in_force TO tickhub_backup;

GRANT SELECT ON TABLE secret.keys_made TO tickhub_write;
GRANT SELECT ON TABLE secret.keys_made TO tickhub_backup;

ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA history GRANT SELECT ON SEQUENCES TO tickhub_backup;

ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA history GRANT SELECT ON TABLES TO tickhub_read;
ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA history GRANT SELECT ON TABLES TO tickhub_write;
ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA history GRANT SELECT ON TABLES TO tickhub_backup;

ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA public GRANT SELECT ON SEQUENCES TO tickhub_backup;

ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA public GRANT SELECT ON TABLES TO tickhub_read;
ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA public GRANT SELECT ON TABLES TO tickhub_write;
ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA public GRANT SELECT ON TABLES TO tickhub_backup;

ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA secret GRANT SELECT ON SEQUENCES TO tickhub_backup;

ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA secret GRANT SELECT ON TABLES TO tickhub_backup;
