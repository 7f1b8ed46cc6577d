"""The server sees the keys that are in force, and not those that were."""

from alembic import op

revision = "0020"
down_revision = "0019"

# With the rights of their owner: who reads them need not be able to read the table.
VIEWS = """
CREATE VIEW secret.keys_in_force WITH (security_barrier = true) AS
SELECT key_no, prefix, name, hash, scopes, rate_per_s, extract(epoch FROM expires_at)::float8 AS expires_s
FROM secret.api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());
COMMENT ON VIEW secret.keys_in_force IS 'API keys that hold at this moment; what the server reads of them';
COMMENT ON COLUMN secret.keys_in_force.key_no IS 'Number of the key (count)';
COMMENT ON COLUMN secret.keys_in_force.prefix IS 'Beginning of the key, by which people know it (name)';
COMMENT ON COLUMN secret.keys_in_force.name IS 'Whose it is or what for (name)';
COMMENT ON COLUMN secret.keys_in_force.hash IS 'SHA-256 of the whole key (32 bytes)';
COMMENT ON COLUMN secret.keys_in_force.scopes IS 'What it allows: ingest, read, admin (names)';
COMMENT ON COLUMN secret.keys_in_force.rate_per_s IS 'Most requests in a second (1/s); NULL: as the settings say';
COMMENT ON COLUMN secret.keys_in_force.expires_s IS 'Until when it holds (s since 1970, UTC); NULL: for ever';
CREATE VIEW secret.keys_made AS SELECT EXISTS (SELECT FROM secret.api_keys) AS keys_made;
COMMENT ON VIEW secret.keys_made IS 'Whether any API key was ever made; from then on every request needs one';
COMMENT ON COLUMN secret.keys_made.keys_made IS 'Whether any was (true or false)';
"""


def upgrade() -> None:
    """Make the views."""
    op.execute(VIEWS)
