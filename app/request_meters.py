"""What is counted of requests by route, and of senders of ticks by their name. Greenlet side.

Nobody outside makes up time series: routes are those that are declared, and of senders' names so many are told apart.
"""

from __future__ import annotations

import re
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MOST_SENDERS = 20
"""Told apart by each worker; all further ones together are `other`."""

OTHER = "other"

_PRODUCT = re.compile(r"[\w.-]{1,40}", re.ASCII)

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
_LAG_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3600.0)


class RequestMeters:
    """A worker's counters of its requests, and of who sends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._responses = Counter(
            "tickhub_http_responses",
            "Answers by route, method and status; 101: a WebSocket that has ended.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tickhub_http_request_seconds",
            "From a request's arrival to the first bytes of its answer, WebSockets apart.",
            ["route"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._lag = Histogram(
            "tickhub_source_lag_seconds",
            "From the time of a batch's newest tick to its acknowledgement, by sender; 0 for times ahead.",
            ["source"],
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self._heard = Gauge(
            "tickhub_source_heard_timestamp_seconds",
            "When a sender's newest batch was acknowledged.",
            ["source"],
            multiprocess_mode="max",
            registry=registry,
        )
        self._newest = Gauge(
            "tickhub_source_newest_tick_timestamp_seconds",
            "Time of the newest tick in a sender's newest batch.",
            ["source"],
            multiprocess_mode="mostrecent",
            registry=registry,
        )
        self._by_answer: dict[tuple[str, str, int], Counter] = {}
        self._by_route: dict[str, Histogram] = {}
        self._by_source: dict[str, tuple[Histogram, Gauge, Gauge]] = {}

    def answered(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """A request was answered, `seconds` after it began."""
        counter = self._by_answer.get((route, method, status))
        if counter is None:
            counter = self._by_answer[route, method, status] = self._responses.labels(route, method, str(status))
        counter.inc()
        if seconds is None:
            return
        histogram = self._by_route.get(route)
        if histogram is None:
            histogram = self._by_route[route] = self._seconds.labels(route)
        histogram.observe(seconds)

    def sent(self, source: str, newest_us: int) -> None:
        """A batch was acknowledged whose newest tick is of that time (UTC microseconds). source: of `source_of`."""
        meters = self._by_source.get(source)
        if meters is None:
            if len(self._by_source) >= MOST_SENDERS and source != OTHER:
                self.sent(OTHER, newest_us)
                return
            meters = (self._lag.labels(source), self._heard.labels(source), self._newest.labels(source))
            self._by_source[source] = meters
        now_s = time.time()
        lag, heard, newest = meters
        lag.observe(max(0.0, now_s - newest_us / 1e6))
        heard.set(now_s)
        newest.set(newest_us / 1e6)


def source_of(named: str, user_agent: str) -> str:
    """Return what a sender is called: the name it gives itself (X-Source), else its program's, of its User-Agent."""
    for text in (named, user_agent.partition("/")[0].partition(" ")[0]):
        if _PRODUCT.fullmatch(text):
            return text
    return OTHER
