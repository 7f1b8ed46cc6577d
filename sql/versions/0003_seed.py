"""The symbols that a fresh database knows."""

from alembic import op

revision = "0003"
down_revision = "0002"

# Frozen: what a database got when it ran this, whatever the program's own list says later.
SEED: list[tuple[str, list[str]]] = [
    ("TSLA", ["TSLA.US"]),
    ("NVDA", ["NVDA.US"]),
    ("AAPL", ["AAPL.US"]),
    ("MSFT", ["MSFT.US"]),
    ("ORCL", ["ORCL.US"]),
    ("PLTR", ["PLTR.US"]),
    ("AMD", ["AMD.US"]),
    ("AVGO", ["AVGO.US"]),
    ("META", ["META.US"]),
    ("AMZN", ["AMZN.US"]),
    ("CSCO", ["CSCO.US"]),
    ("GOOG", ["GOOG.US"]),
    ("INTC", ["INTC.US"]),
    ("VIX", []),
    ("NAS100", []),
    ("NatGas", ["NATGAS"]),
    ("SpotCrude", ["CRUDEOIL"]),
]


def upgrade() -> None:
    names = ", ".join(f"('{symbol}')" for symbol, _ in SEED)
    pairs = ", ".join(f"('{symbol}', '{alias}')" for symbol, aliases in SEED for alias in aliases)
    op.execute(f"INSERT INTO instruments (symbol) VALUES {names}")  # noqa: S608 - the constants above
    op.execute(
        "INSERT INTO symbol_aliases (alias, symbol_id)"  # noqa: S608 - the constants above
        " SELECT seed.alias, instruments.symbol_id"
        f" FROM (VALUES {pairs}) AS seed (symbol, alias) JOIN instruments USING (symbol)"
    )
