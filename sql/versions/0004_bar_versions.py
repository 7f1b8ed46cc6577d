"""A version in every bar, so that a range of ticks has one."""

from alembic import op

revision = "0004"
down_revision = "0003"

# A constant default is kept in the catalogue: no row is rewritten, however many there are.
VERSION = """
ALTER TABLE bars ADD COLUMN version bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN bars.version IS
    'Random number of the last write of this bar; 0: not written since there are versions';
"""


def upgrade() -> None:
    op.execute(VERSION)
