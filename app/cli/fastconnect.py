"""SSI FastConnect Data, the daily bars of Vietnam's exchanges over REST. Used by `import-ohlc`.

As its specification 2.2 says: POST Market/AccessToken with the consumer's id and secret, then GET Market/DailyOhlc with
the token, days as DD/MM/YYYY, at most 30 of them at once, pages from 1 to 10. What the documents leave open is taken
either way: keys in any case, `data` or `dataList`, status as a word or a number. Neither id, secret nor token ever
stands in a message.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from email.message import Message
from typing import Any

from app.errors import TickhubError

MAX_DAYS = 30
"""Of one question, both ends included."""

PAGE_ROWS = 100
MAX_PAGES = 10

TRIES = 6
"""A vendor that restarts is waited for: 1 + 2 + 4 + 8 + 16 s, or what it asks for."""

MAX_WAIT_S = 60.0
TIMEOUT_S = 30.0
MAX_BYTES = 16 * 1024 * 1024

RENEW_BEFORE_S = 300.0
"""A token is renewed so long before it ends: a question asked at the last moment may wait in a queue."""

TOKEN_LIFE_S = 3600.0
"""Of a token that does not say when it ends; a refusal renews it sooner."""

_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})
_QUOTA = ("quota", "too many", "rate limit")
_NO_TOKEN = ("token", "unauthorized")


class VendorRefused(TickhubError):
    """The vendor does not accept the question or the credentials; asking again would not help."""


class VendorAway(TickhubError):
    """The vendor cannot be reached, or gives no whole answer."""


@dataclass(slots=True, frozen=True)
class Access:
    """Where FastConnect is, and who asks. requests_per_s: what the vendor allows."""

    url: str
    consumer_id: str
    consumer_secret: str
    requests_per_s: float

    def __repr__(self) -> str:
        return f"Access({self.url!r})"

    def check(self) -> None:
        """Raise VendorRefused where there are no credentials."""
        if not (self.consumer_id and self.consumer_secret):
            raise VendorRefused("FastConnect needs TICKHUB_FASTCONNECT_CONSUMER_ID and _CONSUMER_SECRET")


@dataclass(slots=True, frozen=True)
class Clock:
    """What time it is and how to wait: exchanged in tests."""

    sleep: Callable[[float], object] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    epoch: Callable[[], float] = time.time


class FastConnect:
    """Asks, one question at a time, as fast as allowed; renews its token and tries again by itself."""

    def __init__(self, access: Access, clock: Clock | None = None, tell: Callable[[str], object] | None = None) -> None:
        self._access = access
        self._clock = clock or Clock()
        self._tell = tell or (lambda _: None)
        self._token, self._renew_at = "", 0.0
        self._next_at = 0.0
        # A redirect would carry the token to wherever it leads.
        self._opener = urllib.request.build_opener(_NoRedirect)

    def daily_bars(self, symbol: str, first: date, last: date) -> list[dict[str, object]]:
        """Return the vendor's rows of these days, both included, cells by lower-case name.

        At most MAX_DAYS days. Raises VendorRefused, VendorAway; half an answer is never returned as a whole one.
        """
        assert 0 <= (last - first).days < MAX_DAYS
        missing = ""
        for attempt in range(TRIES):
            if attempt:
                self._wait(attempt - 1, missing)
            rows, promised = self._pages(symbol, first, last)
            if promised is None or len(rows) >= promised:
                return rows
            missing = f"{promised} rows promised for {symbol}, {len(rows)} given"
        raise VendorAway(f"FastConnect gives half an answer: {missing}")

    def _pages(self, symbol: str, first: date, last: date) -> tuple[list[dict[str, object]], int | None]:
        rows: list[dict[str, object]] = []
        promised: int | None = None
        for page in range(1, MAX_PAGES + 1):
            answer = self._ask(
                {
                    "symbol": symbol,
                    "fromDate": f"{first:%d/%m/%Y}",
                    "toDate": f"{last:%d/%m/%Y}",
                    "pageIndex": str(page),
                    "pageSize": str(PAGE_ROWS),
                    "ascending": "true",
                }
            )
            found, total = _rows(answer), _number(answer.get("totalrecord"))
            rows += found
            promised = total if total is not None else promised
            if not found or (promised is None and len(found) < PAGE_ROWS) or (promised or PAGE_ROWS) <= len(rows):
                break
        return rows, promised

    def _ask(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer to one question, asked again where that helps."""
        path = f"Market/DailyOhlc?{urllib.parse.urlencode(parameters)}"
        renewed = False
        why = ""
        for attempt in range(TRIES):
            if attempt and why:
                self._wait(attempt - 1, why)
            token = self._valid_token()
            try:
                answer = self._send(path, None, token)
                verdict = _verdict(answer)
            except _Again as trouble:
                why, self._next_at = str(trouble), max(self._next_at, self._clock.monotonic() + trouble.wait_s)
                continue
            except _Unauthorized:
                verdict = "token"
            if verdict == "ok":
                return answer
            if verdict == "again":
                why = self._said(answer)
            elif verdict == "token" and not renewed:
                # At once, and once: the token may have ended early, or another program may have taken a new one.
                renewed, why, self._token = True, "", ""
            elif verdict == "token":
                raise VendorRefused("FastConnect does not accept its own new token: look at the consumer's rights")
            else:
                raise VendorRefused(f"FastConnect refuses: {self._said(answer)}")
        raise VendorAway(f"FastConnect cannot be asked: {why}")

    def _valid_token(self) -> str:
        if not self._token or self._clock.epoch() >= self._renew_at:
            self._token = self._new_token()
            ends_at = _ends_at(self._token) or self._clock.epoch() + TOKEN_LIFE_S
            # With a clock that goes wrong every token is old: a minute is tried before the next one.
            self._renew_at = max(ends_at - RENEW_BEFORE_S, self._clock.epoch() + 60.0)
        return self._token

    def _new_token(self) -> str:
        self._access.check()
        body = {"consumerID": self._access.consumer_id, "consumerSecret": self._access.consumer_secret}
        why = ""
        for attempt in range(TRIES):
            if attempt:
                self._wait(attempt - 1, why)
            try:
                answer = self._send("Market/AccessToken", json.dumps(body).encode(), "")
            except _Again as trouble:
                why, self._next_at = str(trouble), max(self._next_at, self._clock.monotonic() + trouble.wait_s)
                continue
            except _Unauthorized:
                raise VendorRefused("FastConnect does not accept the consumer id and secret") from None
            token = _lowered(answer.get("data")).get("accesstoken")
            if isinstance(token, str) and token:
                return token
            if _verdict(answer) != "again":
                raise VendorRefused(f"FastConnect gives no token: {self._said(answer)}")
            why = self._said(answer)
        raise VendorAway(f"FastConnect gives no token: {why}")

    def _send(self, path: str, body: bytes | None, token: str) -> dict[str, Any]:
        """Send one request and return the object that came, its keys in lower case."""
        self._keep_pace()
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = f"{self._access.url.rstrip('/')}/api/v2/{path}"
        request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - the setting's scheme is checked
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                text = response.read(MAX_BYTES)
        except urllib.error.HTTPError as refusal:
            raise self._refusal(refusal) from None
        except (OSError, http.client.HTTPException) as error:
            raise _Again(self._clean(str(error) or type(error).__name__)) from None
        try:
            answer = _lowered(json.loads(text))
        except ValueError:
            raise _Again("its answer is cut off, or no JSON") from None
        if not answer:
            raise _Again("its answer is no object")
        return answer

    def _refusal(self, refusal: urllib.error.HTTPError) -> Exception:
        try:
            said = refusal.read(10_000).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            said = ""
        if refusal.code == 401:
            return _Unauthorized()
        what = f"HTTP {refusal.code} {self._clean(said)}".strip()
        if refusal.code in _MAY_PASS:
            return _Again(what, _retry_after(refusal.headers))
        return VendorRefused(f"FastConnect refuses: {what}")

    def _keep_pace(self) -> None:
        now = self._clock.monotonic()
        if now < self._next_at:
            self._clock.sleep(self._next_at - now)
            now = max(self._next_at, self._clock.monotonic())
        self._next_at = now + 1.0 / self._access.requests_per_s

    def _wait(self, attempt: int, why: str) -> None:
        seconds = min(MAX_WAIT_S, 2.0**attempt) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, no secret
        self._tell(f"FastConnect: {why}; trying again")
        self._clock.sleep(seconds)

    def _said(self, answer: Mapping[str, Any]) -> str:
        return self._clean(f"{answer.get('status', '')} {answer.get('message', '')}") or "it does not say why"

    def _clean(self, text: str) -> str:
        for secret in (self._token, self._access.consumer_secret, self._access.consumer_id):
            text = text.replace(secret, "***") if secret else text
        return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:200]


class _Again(Exception):
    """Trouble that may pass. wait_s: what the vendor asks for."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _Unauthorized(Exception):
    """The token, or what a token is asked for with, is not accepted."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _lowered(value: object) -> dict[str, Any]:
    return {str(key).lower(): item for key, item in value.items()} if isinstance(value, dict) else {}


def _rows(answer: Mapping[str, Any]) -> list[dict[str, object]]:
    data = answer.get("data") or answer.get("datalist") or []
    return [_lowered(row) for row in data] if isinstance(data, list) else []


def _number(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None


def _verdict(answer: Mapping[str, Any]) -> str:
    """Tell what a parsed answer is: ok (also: no data), again, token or refused."""
    status, message = (str(answer.get(name) or "").strip().lower() for name in ("status", "message"))
    if status in ("success", "200"):
        return "ok"
    both = f"{status} {message}"
    if "nodata" in both.replace(" ", "") or "no data" in both:
        return "ok"
    if status == "429" or any(word in both for word in _QUOTA):
        return "again"
    if status == "401" or any(word in both for word in _NO_TOKEN):
        return "token"
    return "again" if status in ("500", "502", "503", "504") else "refused"


def _ends_at(token: str) -> float | None:
    """Return when a JSON web token ends (epoch seconds); None: it is none, or does not say."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None


def _retry_after(headers: Message) -> float:
    try:
        return min(MAX_WAIT_S, max(0.0, float(headers.get("Retry-After", ""))))
    except ValueError:
        return 0.0
