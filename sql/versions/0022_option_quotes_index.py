"""Quotes of option chains are found by contract also while nobody has counted them yet.

Until a new month is analyzed, its indexes look alike to the planner, and by (symbol_id, time) each contract of a chain
that came again was looked for among the whole chain.
"""

from alembic import op

revision = "0022"
down_revision = "0021"

INDEX = """
DROP INDEX option_quotes_time;
CREATE INDEX option_quotes_time ON option_quotes (symbol_id, time, expiration_date, strike_price, option_type);
"""


def upgrade() -> None:
    """Make the index anew, of all months."""
    op.execute(INDEX)
