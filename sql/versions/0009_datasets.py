"""Tables of the first datasets beside ticks, and of records that cannot be stored."""

from alembic import op

revision = "0009"
down_revision = "0008"

TABLES = """
CREATE TABLE foreign_snapshots (
    symbol_id integer NOT NULL,
    time timestamptz NOT NULL,
    f_buy_vol float8,
    f_sell_vol float8,
    f_net_vol float8,
    buy_speed_per_min float8,
    sell_speed_per_min float8,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (symbol_id, time)
);
CREATE INDEX foreign_snapshots_order ON foreign_snapshots (time, symbol_id);
COMMENT ON TABLE foreign_snapshots IS 'Foreign trading of a symbol, as snapshots of running totals';
COMMENT ON COLUMN foreign_snapshots.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN foreign_snapshots.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN foreign_snapshots.f_buy_vol IS
    'Bought by foreigners since the session began (shares); NULL: not known';
COMMENT ON COLUMN foreign_snapshots.f_sell_vol IS
    'Sold by foreigners since the session began (shares); NULL: not known';
COMMENT ON COLUMN foreign_snapshots.f_net_vol IS
    'Bought less sold (shares); computed when absent and both are there; NULL: not known';
COMMENT ON COLUMN foreign_snapshots.buy_speed_per_min IS
    'Growth of f_buy_vol since the day''s snapshot before (shares/min); computed when absent; NULL: not known';
COMMENT ON COLUMN foreign_snapshots.sell_speed_per_min IS
    'Growth of f_sell_vol since the day''s snapshot before (shares/min); computed when absent; NULL: not known';
COMMENT ON COLUMN foreign_snapshots.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE financial_info (
    symbol_id integer NOT NULL,
    "date" date NOT NULL,
    price float8,
    market_cap float8,
    pe_ratio float8,
    pb_ratio float8,
    dividend_yield float8,
    iv_30d float8,
    iv_rank float8,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (symbol_id, "date")
);
CREATE INDEX financial_info_order ON financial_info ("date", symbol_id);
COMMENT ON TABLE financial_info IS 'Ratios of a company, a row a symbol and day';
COMMENT ON COLUMN financial_info.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN financial_info."date" IS 'Day that it is of, on the exchange''s calendar';
COMMENT ON COLUMN financial_info.price IS 'Price of a share (the symbol''s currency); NULL: not known';
COMMENT ON COLUMN financial_info.market_cap IS 'Market capitalisation (the symbol''s currency); NULL: not known';
COMMENT ON COLUMN financial_info.pe_ratio IS 'Price to earnings (ratio); NULL: not known';
COMMENT ON COLUMN financial_info.pb_ratio IS 'Price to book value (ratio); NULL: not known';
COMMENT ON COLUMN financial_info.dividend_yield IS 'Yearly dividends to price (fraction: 0.01 is 1 %); NULL: not known';
COMMENT ON COLUMN financial_info.iv_30d IS 'Implied volatility of 30 days, yearly (fraction); NULL: not known';
COMMENT ON COLUMN financial_info.iv_rank IS
    'Rank of iv_30d within the year (number, as the sender counts it); NULL: not known';
COMMENT ON COLUMN financial_info.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE news (
    symbol_id integer NOT NULL,
    time timestamptz NOT NULL,
    url text NOT NULL,
    headline text,
    summary text,
    source text,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (symbol_id, time, url)
);
CREATE INDEX news_order ON news (time, url, symbol_id);
COMMENT ON TABLE news IS 'News by symbol; one address may be about several symbols';
COMMENT ON COLUMN news.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN news.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN news.url IS 'Where it can be read (URL)';
COMMENT ON COLUMN news.headline IS 'Headline (text); NULL: not known';
COMMENT ON COLUMN news.summary IS 'What it says, in short (text); NULL: not known';
COMMENT ON COLUMN news.source IS 'Who wrote it (text); NULL: not known';
COMMENT ON COLUMN news.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE corporate_actions (
    symbol_id integer NOT NULL,
    ex_date date NOT NULL,
    action_type text NOT NULL,
    amount float8,
    ratio float8,
    currency text,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (symbol_id, ex_date, action_type)
);
CREATE INDEX corporate_actions_order ON corporate_actions (ex_date, action_type, symbol_id);
COMMENT ON TABLE corporate_actions IS 'Corporate actions, by the day from which they count';
COMMENT ON COLUMN corporate_actions.symbol_id IS 'instruments.symbol_id';
COMMENT ON COLUMN corporate_actions.ex_date IS
    'First day on which a buyer has no part in it, on the exchange''s calendar';
COMMENT ON COLUMN corporate_actions.action_type IS 'What it is: dividend, split, rights, ... (word)';
COMMENT ON COLUMN corporate_actions.amount IS 'Money paid for a share (currency); NULL: not known';
COMMENT ON COLUMN corporate_actions.ratio IS
    'New shares for an old one (ratio: 4 for a 4-for-1 split); NULL: not known';
COMMENT ON COLUMN corporate_actions.currency IS 'Currency of amount (ISO 4217); absent: the symbol''s; NULL: not known';
COMMENT ON COLUMN corporate_actions.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';

CREATE TABLE basis_history (
    futures_symbol text NOT NULL,
    time timestamptz NOT NULL,
    futures_price float8,
    spot_value float8,
    basis float8,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (futures_symbol, time)
);
CREATE INDEX basis_history_order ON basis_history (time, futures_symbol);
COMMENT ON TABLE basis_history IS 'Futures against their spot';
COMMENT ON COLUMN basis_history.futures_symbol IS 'The future, as its exchange calls it (name)';
COMMENT ON COLUMN basis_history.time IS 'When it was (UTC, microseconds)';
COMMENT ON COLUMN basis_history.futures_price IS 'Price of the future (price); NULL: not known';
COMMENT ON COLUMN basis_history.spot_value IS 'Value of the spot or index (price); NULL: not known';
COMMENT ON COLUMN basis_history.basis IS
    'Futures_price - spot_value (price); computed when absent and both are there; NULL: not known';
COMMENT ON COLUMN basis_history.received_at IS 'When the newest row of this key was accepted (UTC, microseconds)';
"""

REJECTED = """
CREATE TABLE rejected_records (
    journal_no integer NOT NULL,
    row_no bigint NOT NULL,
    dataset text NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    payload jsonb NOT NULL,
    received_at timestamptz NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (journal_no, row_no)
);
COMMENT ON TABLE rejected_records IS 'Accepted records of datasets that could not be stored, each once with its reason';
COMMENT ON COLUMN rejected_records.journal_no IS 'ingest_log.journal_no: where it came from';
COMMENT ON COLUMN rejected_records.row_no IS 'Its row number in that journal';
COMMENT ON COLUMN rejected_records.dataset IS 'Dataset that it was sent for';
COMMENT ON COLUMN rejected_records.code IS 'Why, for programs: conflict, or refused (by the database)';
COMMENT ON COLUMN rejected_records.message IS 'Why, for people';
COMMENT ON COLUMN rejected_records.payload IS 'The record as it was accepted: fields that were sent, times in UTC';
COMMENT ON COLUMN rejected_records.received_at IS 'When it was accepted (UTC, microseconds)';
COMMENT ON COLUMN rejected_records.set_aside_at IS 'When it was set aside (UTC)';
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(REJECTED)
