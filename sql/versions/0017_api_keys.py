"""API keys, hashed, in a schema where nobody looks by chance."""

from alembic import op

revision = "0017"
down_revision = "0016"

# A schema of its own: what is granted on all tables of public, now or by default, is not granted here.
TABLE = """
CREATE SCHEMA secret;
COMMENT ON SCHEMA secret IS 'What only the owner writes, and only the server and backups read';
CREATE TABLE secret.api_keys (
    key_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prefix text NOT NULL UNIQUE CHECK (prefix ~ '^[a-z0-9]{8}$'),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['ingest', 'read', 'admin']),
    rate_per_s float8 CHECK (rate_per_s > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
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
"""


def upgrade() -> None:
    op.execute(TABLE)
