#!/usr/bin/env python3
"""Watch quotes in a terminal: a small client of tickhub's WebSocket, to use and to copy from.

    pip install websockets
    python scripts/quotes.py                                  # every symbol of this machine's server
    python scripts/quotes.py AAPL TSLA --url ws://SERVER:5000/ws

`websockets` because it is pure Python, has no dependencies, and its blocking client needs no asyncio. An API key is
taken from TICKHUB_API_KEY. When the output is no terminal (`... | tee quotes.log`) each update is a line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

DRAW_S = 0.2
KEY_HINT = "The key is taken from TICKHUB_API_KEY."
GREEN, RED, BOLD, PLAIN = "\033[32m", "\033[31m", "\033[1m", "\033[0m"
HEADING = f"{'symbol':<12}{'bid':>14}{'ask':>14}{'spread':>9}{'change':>10}{'age':>8}"


def line(quote: dict[str, Any], colour: str) -> str:
    change, told = quote["change_percent"], quote["timestamp"]
    age_s = max(0.0, time.time() - datetime.fromisoformat(told).timestamp()) if told else None
    bid, ask, spread = ("-" if quote[name] is None else f"{quote[name]:.10g}" for name in ("bid", "ask", "spread"))
    moved = "-" if change is None else f"{change:+.2f} %"
    text = f"{bid:>14}{ask:>14}{spread:>9}{moved:>10}{'-' if age_s is None else f'{age_s:.0f} s':>8}"
    return f"{quote['symbol']:<12}{colour}{text}{PLAIN if colour else ''}"


def draw(quotes: dict[str, dict[str, Any]], colours: dict[str, str], url: str) -> None:
    height = shutil.get_terminal_size().lines - 2
    rows = [line(quotes[symbol], colours.get(symbol, "")) for symbol in sorted(quotes)[:height]]
    left = f"   ({len(quotes) - height} more)" if len(quotes) > height else ""
    # Home, each line cleared to its end, then what is below: no flicker, unlike clearing the screen.
    screen = [f"{BOLD}{HEADING}{PLAIN}", *rows, f"{url}{left}"]
    print("\033[H" + "".join(f"{text}\033[K\n" for text in screen) + "\033[J", end="", flush=True)


def watch(url: str, symbols: list[str]) -> None:
    key = os.environ.get("TICKHUB_API_KEY")
    quotes: dict[str, dict[str, Any]] = {}
    colours: dict[str, str] = {}
    with connect(url, additional_headers={"X-API-Key": key} if key else None, max_size=None) as socket:
        wanted: Any = symbols or "*"
        socket.send(json.dumps({"action": "subscribe", "symbols": wanted, "conflate_ms": 100, "batch": True}))
        drawn_at = 0.0
        while True:
            frame: Any = []
            with suppress(TimeoutError):  # ages go on when nothing comes; a dead connection websockets finds itself
                frame = json.loads(socket.recv(timeout=DRAW_S))
            for message in frame if isinstance(frame, list) else [frame]:
                if message["type"] == "quote":
                    symbol, bid = message["symbol"], message["bid"]
                    before = quotes.get(symbol, message)["bid"]
                    if before is not None and bid is not None and before != bid:
                        colours[symbol] = GREEN if bid > before else RED
                    quotes[symbol] = message
                    if not sys.stdout.isatty():
                        print(line(message, ""), flush=True)
                for problem in [message] if message["type"] == "error" else message.get("rejected", []):
                    if problem["code"] in ("unauthorized", "forbidden"):
                        sys.exit(f"{problem['message']}\n{KEY_HINT}")
                    print(problem["message"], file=sys.stderr)
            if sys.stdout.isatty() and time.monotonic() - drawn_at > DRAW_S:
                draw(quotes, colours, url)
                drawn_at = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch quotes in a terminal.")
    parser.add_argument("symbols", nargs="*", metavar="SYMBOL", help="names or aliases; none: all")
    parser.add_argument("--url", default="ws://127.0.0.1:5000/ws", help="of the server's /ws (%(default)s)")
    args = parser.parse_args()
    while True:
        try:
            watch(args.url, args.symbols)
        except (OSError, WebSocketException) as error:
            if isinstance(error, InvalidStatus) and error.response.status_code in (401, 403):
                sys.exit(f"{error.response.body.decode()}\n{KEY_HINT}")
            print(f"{error or type(error).__name__}; trying again", file=sys.stderr)
            time.sleep(random.uniform(1.0, 4.0))  # noqa: S311 - not all clients at once; no secret


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
