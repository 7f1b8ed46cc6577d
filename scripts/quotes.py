#!/usr/bin/env python3
"""Watch quotes in a terminal: a small client of tickhub's WebSocket, to use and to copy from.

    pip install websockets
    python scripts/quotes.py                                  # every symbol of this machine's server
    python scripts/quotes.py AAPL TSLA --url ws://SERVER:5000/ws

`websockets` is pure Python and can block. A key is taken from TICKHUB_API_KEY; into a file or pipe an update is a line.
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

from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import connect

DRAW_S = 0.2
GREEN, RED, BOLD, PLAIN = "\033[32m", "\033[31m", "\033[1m", "\033[0m"
HEADING = f"{'symbol':<12}{'bid':>14}{'ask':>14}{'spread':>9}{'change':>10}{'age':>8}"
ENDS = (67, 59, 49, 40, 26)  # of its columns: half a price on a narrow terminal would be a wrong one


def line(quote: dict[str, Any], room: int = 0) -> str:
    change, told = quote["change_percent"], quote["timestamp"]
    age_s = max(0.0, time.time() - datetime.fromisoformat(told).timestamp()) if told else None
    bid, ask, spread = ("-" if quote[n] is None else f"{quote[n]:.10g}" for n in ("bid", "ask", "spread"))
    per, unit = (1, "s") if not age_s or age_s < 86_400 else (86_400, "d")
    moved, age = "-" if change is None else f"{change:+.2f} %", "-" if age_s is None else f"{age_s / per:.0f} {unit}"
    name, text = quote["symbol"], f"{bid:>14}{ask:>14}{spread:>9}{moved:>10}{age:>8}"
    return f"{name[:11]:<12}{quote['colour']}{text[: room - 12]}{PLAIN}" if room else f"{name:<12}{text}"


def draw(quotes: dict[str, dict[str, Any]], below: str) -> None:
    columns, lines = shutil.get_terminal_size()
    room = next((end for end in ENDS if end <= columns), ENDS[-1])
    rows = [line(quotes[symbol], room) for symbol in sorted(quotes)[: max(1, lines - 3)]]
    left = f"({len(quotes) - len(rows)} more) " if len(quotes) > len(rows) else ""
    screen = "\033[K\n".join([BOLD + HEADING[:room] + PLAIN, *rows, (left + below)[:columns]])
    print(f"\033[H{screen}\033[K\n\033[J", end="", flush=True)  # no flicker, unlike clearing the screen first


def watch(url: str, symbols: list[str]) -> None:
    key, drawing, below = os.environ.get("TICKHUB_API_KEY"), sys.stdout.isatty(), url
    quotes: dict[str, dict[str, Any]] = {}
    with connect(url, additional_headers={"X-API-Key": key} if key else None, max_size=None, close_timeout=1) as socket:
        socket.send(json.dumps({"action": "subscribe", "symbols": symbols or "*", "conflate_ms": 100, "batch": True}))
        while True:
            frame: Any = []
            with suppress(TimeoutError):  # ages go on when nothing comes; a dead connection websockets finds itself
                frame = json.loads(socket.recv(timeout=DRAW_S))
            for message in frame if isinstance(frame, list) else [frame]:
                if message["type"] == "quote":
                    before = quotes.get(message["symbol"], message)
                    was, now = before["bid"] or 0, message["bid"] or 0
                    message["colour"] = before.get("colour", "") if was == now else GREEN if now > was else RED
                    quotes[message["symbol"]] = message
                    if not drawing:
                        print(line(message), flush=True)
                for problem in [message] if message["type"] == "error" else message.get("rejected", []):
                    if problem["code"] in ("unauthorized", "forbidden"):
                        sys.exit(f"{problem['message']}\nThe key is taken from TICKHUB_API_KEY.")
                    below = f"{problem['message']}  {below}"[:500]
                    print(problem["message"], file=sys.stderr)  # on a terminal the table is drawn over it
            if drawing:  # ten times a second at most: that is how often frames come
                draw(quotes, below)


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch quotes in a terminal; the key is taken from TICKHUB_API_KEY.")
    parser.add_argument("symbols", nargs="*", metavar="SYMBOL", help="names or aliases; none: all")
    parser.add_argument("--url", default="ws://127.0.0.1:5000/ws", help="of the server's /ws (%(default)s)")
    args = parser.parse_args()
    while True:
        try:
            watch(args.url, args.symbols)
        except BrokenPipeError:  # `... | head` has read enough
            os._exit(0)
        except (OSError, WebSocketException) as error:
            if isinstance(error, InvalidURI):
                sys.exit(str(error))
            if isinstance(error, InvalidStatus) and error.response.status_code in (401, 403):
                sys.exit(f"{(error.response.body or b'').decode()}\nThe key is taken from TICKHUB_API_KEY.")
            print(f"{error or type(error).__name__}; trying again", file=sys.stderr)
            time.sleep(random.uniform(1.0, 4.0))  # noqa: S311 - not all clients at once; no secret


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
