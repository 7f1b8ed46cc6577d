"""MetaTrader 5's tick flags (TICK_FLAG_*); other bits occur in the wild and are stored as they are."""

BID = 2
ASK = 4
LAST = 8
VOLUME = 16
BUY = 32
SELL = 64
