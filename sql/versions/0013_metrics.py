"""Metrics of the market, of strategies, of orders and of hosts."""

from alembic import op

revision = "0013"
down_revision = "0012"

STATEMENTS = ""


def upgrade() -> None:
    """Make the tables."""
    if STATEMENTS:
        op.execute(STATEMENTS)
