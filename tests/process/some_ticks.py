"""Ticks for the pages of docs: ten minutes of two shares in January 2025, with a hole: `python -m ... URL`."""

from __future__ import annotations

import json
import sys
import urllib.request
from datetime import UTC, datetime, timedelta

OPEN = datetime(2025, 1, 13, 14, 30, tzinfo=UTC)
SECONDS, HOLE = 600, range(200, 320)


def main(url: str) -> None:
    ticks = []
    for second in range(SECONDS):
        if second in HOLE:
            continue
        for symbol, price in (("AAPL", 233.5), ("MSFT", 415.2)):
            bid = round(price + (second * 7 % 60) / 100, 2)
            time = (OPEN + timedelta(seconds=second)).isoformat()
            tick = {"bid": bid, "ask": round(bid + 0.02, 2), "spread": 2, "volume": 0, "flags": 6}
            ticks.append({"symbol": symbol, "timestamp": time, **tick})
    body = json.dumps({"ticks": ticks}).encode()
    request = urllib.request.Request(f"{url}/tick/batch", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        print(answer.read().decode())


if __name__ == "__main__":
    main(sys.argv[1])
