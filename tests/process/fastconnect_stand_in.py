"""SSI FastConnect Data as its specification 2.2, its client and recorded answers show it, on 127.0.0.1.

Faults are put into `faults`, one for each question to come: a word of `Fault`, or None for a whole answer.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

CONSUMER_ID, CONSUMER_SECRET = "stand-in-consumer", "stand-in-secret-0123456789"
Fault = Literal["expired", "quota", "quota_body", "500", "403", "cut", "reset", "html", "half_page", "redirect"]
RANGE = "Date time format dd/MM/yyyy and ('from date' <= 'to date') < now , max range 30 days"


class StandIn:
    """The vendor: its rows, what was asked, and what is to go wrong."""

    def __init__(self, style: Literal["live", "spec"] = "live") -> None:
        self.style = style
        self.rows: dict[str, list[dict[str, str]]] = {}
        self.faults: list[Fault | None] = []
        self.token_faults: list[Fault | None] = []
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.tokens: list[str] = []
        self.token_life_s = 8 * 3600.0
        self.largest_page = 1000
        self.elsewhere: list[str] = []
        """What arrived at the address that `redirect` leads to."""
        self.url = ""

    def add(self, symbol: str, day: date, close: float, **changed: str) -> None:
        """Add a day's bar: open and low one below close, high one above."""
        row = {
            "Symbol": symbol,
            "Market": "HOSE",
            "TradingDate": f"{day:%d/%m/%Y}",
            "Time": "",
            "Open": f"{close - 1:g}",
            "High": f"{close + 1:g}",
            "Low": f"{close - 1:g}",
            "Close": f"{close:g}",
            "Volume": "1000",
            "Value": f"{close * 1000:g}",
        }
        self.rows.setdefault(symbol, []).append(row | changed)

    def add_weekdays(self, symbol: str, first: date, count: int, close: float = 100.0) -> list[date]:
        """Add a bar for each of so many days that are no Saturday or Sunday; closes rise by one."""
        days: list[date] = []
        day = first
        while len(days) < count:
            if day.weekday() < 5:
                self.add(symbol, day, close + len(days))
                days.append(day)
            day += timedelta(1)
        return days

    # answers

    def token(self) -> dict[str, Any]:
        claims = {"exp": time.time() + self.token_life_s, "n": len(self.tokens)}
        parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, claims)]
        self.tokens.append(".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + ".c2lnbg")
        return {"message": "Success", "status": 200, "data": {"accessToken": self.tokens[-1]}}

    def daily_ohlc(self, asked: dict[str, str], half: bool) -> dict[str, Any]:
        try:
            first, last = (datetime.strptime(asked[name], "%d/%m/%Y").date() for name in ("fromDate", "toDate"))
            page, size = int(asked["pageIndex"]), int(asked["pageSize"])
        except (KeyError, ValueError):
            return {"data": None, "message": RANGE, "status": "Error"}
        if not (first <= last <= date.today()) or (last - first).days > 30:
            return {"data": None, "message": RANGE, "status": "Error"}
        if size not in (10, 20, 50, 100, 500, 1000) or not 1 <= page <= 10:
            return {"data": None, "message": "Invalid page", "status": "Error"}
        size = min(size, self.largest_page)
        found = [row for row in self.rows.get(asked["symbol"], []) if first <= self._day(row, first) <= last]
        if asked.get("ascending") != "true":
            found.reverse()
        rows = found[(page - 1) * size : page * size]
        rows = rows[: len(rows) // 2] if half else rows
        if self.style == "spec":
            lowered = [{key.lower(): value for key, value in row.items()} for row in rows]
            answer = {"dataList": lowered, "message": "SUCCESS", "status": "SUCCESS", "totalrecord": len(found)}
            return answer | {"dailyohlcresponse": {}}
        if not found:
            return {"data": None, "message": "No data found", "status": "NoDataFound", "totalRecord": 0}
        return {"data": rows, "message": "Success", "status": "Success", "totalRecord": len(found)}

    @staticmethod
    def _day(row: dict[str, str], otherwise: date) -> date:
        try:
            return datetime.strptime(row["TradingDate"], "%d/%m/%Y").date()
        except ValueError:
            return otherwise  # a row whose day is broken comes with whatever is asked


@contextmanager
def stand_in(style: Literal["live", "spec"] = "live") -> Iterator[StandIn]:
    """Yield the vendor, listening at `url`."""
    vendor = StandIn(style)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(vendor))
    vendor.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield vendor
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _handler(vendor: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            self._note()
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/api/v2/Market/AccessToken":
                self._json({"message": "no such path"}, 404)
            elif self._fails(vendor.token_faults.pop(0) if vendor.token_faults else None):
                pass
            elif sent != {"consumerID": CONSUMER_ID, "consumerSecret": CONSUMER_SECRET}:
                # As it says it: the refused id comes back in the message.
                self._json({"message": f"Invalid consumer {sent.get('consumerID')}", "status": 400, "data": None})
            else:
                self._json(vendor.token())

        def do_GET(self) -> None:
            self._note()
            where = urlsplit(self.path)
            if where.path == "/elsewhere":
                vendor.elsewhere.append(str(self.headers.get("Authorization")))
                self._json({})
                return
            if where.path != "/api/v2/Market/DailyOhlc":
                self._json({"message": "no such path"}, 404)
                return
            if not vendor.tokens or self.headers.get("Authorization") != f"Bearer {vendor.tokens[-1]}":
                self._json({"message": "Authorization has been denied for this request."}, 401)
                return
            asked = dict(parse_qsl(where.query))
            fault = vendor.faults.pop(0) if vendor.faults else None
            if not self._fails(fault):
                vendor.asked.append(asked)
                self._json(vendor.daily_ohlc(asked, fault == "half_page"))

        def _note(self) -> None:
            vendor.paths.append(self.path)
            vendor.headers.append(dict(self.headers))

        def _fails(self, fault: Fault | None) -> bool:
            quota = "API calls quota exceeded! maximum admitted 1 per 1s."
            if fault in (None, "half_page"):
                return False
            if fault == "expired":
                vendor.tokens.append("a newer one, taken by somebody else")
                self._json({"message": "Authorization has been denied for this request."}, 401)
            elif fault == "quota":
                self._send(quota.encode(), 429, {"Retry-After": "7"})
            elif fault == "quota_body":
                self._json({"data": None, "message": quota, "status": "429"})
            elif fault == "403":
                self._json({"message": f"no right for {self.headers.get('Authorization')}"}, 403)
            elif fault == "500":
                self._send(b"<html>Server Error</html>", 500)
            elif fault == "html":
                self._send(b"<html>Maintenance</html>", 200)
            elif fault == "redirect":
                self._send(b"", 302, {"Location": f"{vendor.url}/elsewhere"})
            elif fault == "cut":
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(b'{"data": [{"Symbol": "SS')
                self._hang_up()
            else:
                self._hang_up()
            return True

        def _hang_up(self) -> None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def _json(self, answer: dict[str, Any], status: int = 200) -> None:
            self._send(json.dumps(answer).encode(), status)

        def _send(self, body: bytes, status: int, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler
