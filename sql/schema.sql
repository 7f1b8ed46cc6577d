-- The schema that the migrations make. Written by python -m tests.integration.write_schema; a test compares.

CREATE SCHEMA history;

COMMENT ON SCHEMA history IS 'One view a symbol: <symbol>_history';

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
                       ' sell_volume, flags FROM public.ticks WHERE symbol_id = %s', v_name, NEW.symbol_id);
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

CREATE FUNCTION public.newest_quotes(p_symbols text[], p_days timestamp with time zone[], p_hours timestamp with time zone[], p_starts timestamp with time zone[], p_ends timestamp with time zone[]) RETURNS TABLE(symbol text, digits smallint, timezone text, bid double precision, bid_key bytea, ask double precision, ask_key bytea, last double precision, last_key bytea, tick_key bytea, spread double precision, volume double precision, buy_volume double precision, sell_volume double precision, flags integer, before double precision, before_key bytea, open double precision, open_key bytea)
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_generic_plan'
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

COMMENT ON FUNCTION public.newest_quotes(p_symbols text[], p_days timestamp with time zone[], p_hours timestamp with time zone[], p_starts timestamp with time zone[], p_ends timestamp with time zone[]) IS 'Newest prices of instruments; the last price before each one''s session, or else the first one in it';

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
    CONSTRAINT instruments_digits_check CHECK (((digits >= 0) AND (digits <= 15))),
    CONSTRAINT instruments_symbol_text CHECK ((((char_length(symbol) >= 1) AND (char_length(symbol) <= 64)) AND (symbol !~ '[\u0001-\u001f\u007f-\u009f]'::text)))
);

COMMENT ON TABLE public.instruments IS 'What is traded: one row a symbol';

COMMENT ON COLUMN public.instruments.symbol_id IS 'Number that stands for the symbol in the other tables';

COMMENT ON COLUMN public.instruments.symbol IS 'Canonical name; unique in any case';

COMMENT ON COLUMN public.instruments.name IS 'Name for people; NULL: not known';

COMMENT ON COLUMN public.instruments.exchange IS 'Where it is traded; NULL: not known';

COMMENT ON COLUMN public.instruments.currency IS 'Currency of its prices (ISO 4217); NULL: not known';

COMMENT ON COLUMN public.instruments.timezone IS 'Time zone of its exchange (IANA name); NULL: not known';

COMMENT ON COLUMN public.instruments.digits IS 'Decimals of a price: one point is 10^-digits; NULL: not known';

COMMENT ON COLUMN public.instruments.allow_nonpositive IS 'Whether a price may be zero or less';

COMMENT ON COLUMN public.instruments.created_at IS 'When the row was made (UTC)';

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

CREATE TABLE public.symbol_aliases (
    alias text NOT NULL,
    symbol_id integer NOT NULL,
    CONSTRAINT symbol_aliases_text CHECK ((((char_length(alias) >= 1) AND (char_length(alias) <= 64)) AND (alias !~ '[\u0001-\u001f\u007f-\u009f]'::text)))
);

COMMENT ON TABLE public.symbol_aliases IS 'Other names under which a symbol is sent and asked for';

COMMENT ON COLUMN public.symbol_aliases.alias IS 'The other name; unique in any case';

COMMENT ON COLUMN public.symbol_aliases.symbol_id IS 'instruments.symbol_id';

CREATE TABLE public.tick_ranges (
    range tstzrange NOT NULL,
    state text NOT NULL,
    CONSTRAINT tick_ranges_range_check CHECK ((NOT isempty(range))),
    CONSTRAINT tick_ranges_state_check CHECK ((state = ANY (ARRAY['hot'::text, 'archiving'::text, 'archived'::text, 'dropped'::text])))
);

COMMENT ON TABLE public.tick_ranges IS 'Where the ticks of a time range are; a range that is not listed is hot';

COMMENT ON COLUMN public.tick_ranges.range IS 'Time range (UTC)';

COMMENT ON COLUMN public.tick_ranges.state IS 'hot: in ticks; archiving; archived: in files; dropped: nowhere';

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

ALTER TABLE ONLY public.bars
    ADD CONSTRAINT bars_pkey PRIMARY KEY (symbol_id, resolution, "time");

ALTER TABLE ONLY public.current
    ADD CONSTRAINT current_pkey PRIMARY KEY (symbol);

ALTER TABLE ONLY public.ingest_log
    ADD CONSTRAINT ingest_log_journal_no_key UNIQUE (journal_no);

ALTER TABLE ONLY public.ingest_log
    ADD CONSTRAINT ingest_log_pkey PRIMARY KEY (journal_id);

ALTER TABLE ONLY public.instruments
    ADD CONSTRAINT instruments_pkey PRIMARY KEY (symbol_id);

ALTER TABLE ONLY public.instruments
    ADD CONSTRAINT instruments_symbol_key UNIQUE (symbol);

ALTER TABLE ONLY public.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.rejected_ticks
    ADD CONSTRAINT rejected_ticks_pkey PRIMARY KEY (journal_no, row_no);

ALTER TABLE ONLY public.symbol_aliases
    ADD CONSTRAINT symbol_aliases_pkey PRIMARY KEY (alias);

ALTER TABLE ONLY public.tick_ranges
    ADD CONSTRAINT tick_ranges_apart EXCLUDE USING gist (range WITH &&);

ALTER TABLE ONLY public.ticks
    ADD CONSTRAINT ticks_pkey PRIMARY KEY (symbol_id, "time", seq);

CREATE INDEX alert_rules_symbol_id ON public.alert_rules USING btree (symbol_id);

CREATE INDEX alerts_time ON public.alerts USING btree ("time", alert_id);

CREATE INDEX bars_5m_key ON public.bars USING btree (((symbol_id + 0)), resolution, date_bin('00:05:00'::interval, "time", '1970-01-01 00:00:00+00'::timestamp with time zone));

CREATE UNIQUE INDEX instruments_upper_symbol ON public.instruments USING btree (upper(symbol));

CREATE INDEX symbol_aliases_symbol_id ON public.symbol_aliases USING btree (symbol_id);

CREATE UNIQUE INDEX symbol_aliases_upper_alias ON public.symbol_aliases USING btree (upper(alias));

CREATE INDEX ticks_received_at ON ONLY public.ticks USING brin (received_at) WITH (pages_per_range='32', autosummarize='on');

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

GRANT USAGE ON SCHEMA public TO tickhub_read;

GRANT SELECT ON TABLE public.ticks TO tickhub_read;

GRANT SELECT ON TABLE public.alembic_version TO tickhub_read;

GRANT SELECT ON TABLE public.alert_outbox TO tickhub_read;

GRANT SELECT ON TABLE public.alert_progress TO tickhub_read;

GRANT SELECT ON TABLE public.alert_rules TO tickhub_read;

GRANT SELECT ON TABLE public.alerts TO tickhub_read;

GRANT SELECT ON TABLE public.bars TO tickhub_read;

GRANT SELECT ON TABLE public.instruments TO tickhub_read;

GRANT SELECT ON TABLE public.bars_1d TO tickhub_read;

GRANT SELECT ON TABLE public.bars_1h TO tickhub_read;

GRANT SELECT ON TABLE public.bars_1m TO tickhub_read;

GRANT SELECT ON TABLE public.bars_5m TO tickhub_read;

GRANT SELECT ON TABLE public.current TO tickhub_read;

GRANT SELECT ON TABLE public.ingest_log TO tickhub_read;

GRANT SELECT ON TABLE public.leases TO tickhub_read;

GRANT SELECT ON TABLE public.rejected_ticks TO tickhub_read;

GRANT SELECT ON TABLE public.symbol_aliases TO tickhub_read;

GRANT SELECT ON TABLE public.tick_ranges TO tickhub_read;

GRANT SELECT ON TABLE public.ticks_view TO tickhub_read;

ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA history GRANT SELECT ON TABLES TO tickhub_read;

ALTER DEFAULT PRIVILEGES FOR ROLE tickhub IN SCHEMA public GRANT SELECT ON TABLES TO tickhub_read;
